"""A home folder that is read-only or missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stella_mteb.errors import EnvironmentProblem
from stella_mteb.files.folders import cache_folder, hub_cache_folder, mteb_cache_folder, require_writable_cache

VARIABLES = ("STELLA_MTEB_CACHE", "MTEB_CACHE", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "TMPDIR")


@pytest.fixture
def no_home(tmp_path: Path) -> dict[str, str]:
    """An environment whose home is a file, so that not even root can create files in it."""
    (tmp_path / "home").write_text("")
    (tmp_path / "temporary").mkdir()
    rest = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return {**rest, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}


def stella_mteb(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stella_mteb", *arguments]
    return subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_run_needs_no_home_and_leaves_nothing_outside_its_folders(no_home: dict[str, str], tmp_path: Path) -> None:
    """Replace the default of MTEB's cache."""
    (tmp_path / "work").mkdir()
    run = stella_mteb(
        no_home, tmp_path / "work", "run", "-m", "all_minilm_l6_v2[max_length=8]", "-t", "VideoSummarySTS",
        "--no-cache", "--offline", "--output", "out",
    )  # fmt: skip

    assert (run.returncode, "Traceback" in run.stderr) == (0, False), run.stderr
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["out"]
    assert list((tmp_path / "temporary").glob("stella-mteb*")) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "temporary", "work"]


def test_each_variable_moves_its_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/stella-mteb"
    assert mteb_cache_folder() == tmp_path / ".cache/mteb"
    assert hub_cache_folder() == tmp_path / ".cache/huggingface"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert hub_cache_folder() == tmp_path / "xdg/huggingface"
    for name, folder in (
        ("STELLA_MTEB_CACHE", cache_folder), ("MTEB_CACHE", mteb_cache_folder), ("HF_HOME", hub_cache_folder)
    ):  # fmt: skip
        monkeypatch.setenv(name, str(tmp_path / name))
        assert folder() == tmp_path / name


def test_checking_a_writable_folder_does_not_create_it(tmp_path: Path) -> None:
    require_writable_cache(tmp_path / "a" / "b", "HF_HOME")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("inside", [".", "deep/down"])
def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_variable(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(
        EnvironmentProblem, match=r"file.*: cannot be written \(.*set HOME or HF_HOME to a writable folder"
    ):
        require_writable_cache(tmp_path / "file" / inside, "HF_HOME")


def test_an_unknown_home_folder_is_an_error_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("STELLA_MTEB_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)

    with pytest.raises(EnvironmentProblem, match="no home folder: set HOME or STELLA_MTEB_CACHE"):
        cache_folder()


@pytest.mark.parametrize(
    ("arguments", "more", "variable"),
    [
        (["mteb", "available-tasks"], {}, "MTEB_CACHE"),
        (
            ["run", "-m", "all_minilm_l6_v2", "-t", "VideoSummarySTS", "--no-cache"],
            {"MTEB_CACHE": "home"},
            "MTEB_CACHE",
        ),
        (["run", "-m", "all_minilm_l6_v2[max_length=8]", "-t", "VideoSummarySTS"], {}, "STELLA_MTEB_CACHE"),
    ],
)
def test_a_file_that_cannot_be_saved_is_one_line_with_the_fix(
    no_home: dict[str, str], tmp_path: Path, arguments: list[str], more: dict[str, str], variable: str
) -> None:
    no_home |= {name: str(tmp_path / value) for name, value in more.items()}

    run = stella_mteb(no_home, tmp_path, *arguments)

    assert run.returncode == 3, run.stderr
    assert "Traceback" not in run.stderr
    (error,) = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert variable in error
    assert str(tmp_path / "home") in error


def test_doctor_names_every_cache_that_cannot_be_written(no_home: dict[str, str], tmp_path: Path) -> None:
    run = stella_mteb(no_home, tmp_path, "doctor", "--offline", "--format", "csv")

    (row,) = [line for line in run.stdout.splitlines() if line.startswith("caches,")]
    assert ",lacking," in row
    assert all(name in row for name in ("STELLA_MTEB_CACHE", "MTEB_CACHE", "HF_HOME"))
