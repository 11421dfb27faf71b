"""Full disks, read-only disks and occupied paths are reported early, and nothing is lost.

The disks are real: small file systems in memory, where mounting is allowed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kills import leftovers, scores, unreadable, write_tasks
from stella_mteb.errors import StorageProblem
from stella_mteb.files.atomic import atomic_write
from tests.conftest import Call
from tests.support.results import encoder_of, files, letters, own_cache, task, with_score
from tests.support.results import run as evaluate

_PAGE = 4_096


class Disk:
    """A separate file system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, leave: int = 0) -> None:
        """Fill the disk except for the given number of pages."""
        ballast = self.path / "ballast"
        free = os.statvfs(self.path).f_bavail
        with ballast.open("ab") as file:
            file.write(bytes(max(0, free - leave) * _PAGE))

    def make_room(self) -> None:
        (self.path / "ballast").unlink()

    def remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", self.path], check=True)  # noqa: S607


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", path], check=True, capture_output=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", path], check=True)  # noqa: S607


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if a model is loaded."""
    from stella_mteb.models.resolve import ResolvedModel

    def load(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(ResolvedModel, "load", load)


@pytest.fixture
def run(call: Call, stella_folder: Path, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Call `stella-mteb run` with two small tasks; return the exit code and the messages."""
    tasks = write_tasks(tmp_path / "tasks", tasks=2, pairs=(20, 20), chance=random.Random(3))
    given = [option for path in tasks for option in ("-t", path)]

    def at(output: Path, cache: Path, *more: str) -> tuple[int, str]:
        model = ("-m", f"{stella_folder}@256", "--device", "cpu")
        code, _, said = call("run", *model, *given, "--output", output, "--cache", cache, *more)
        return code, said

    return at


# ----------------------------------------------------------------------------------------------------------- full


@pytest.mark.parametrize("leave", [0, 1, 2, 5])
@pytest.mark.fault(6, "exit code 3; the old file is intact, no temporary file remains, and the same command resumes")
def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(disk: Disk, leave: int) -> None:
    path = disk.path / "page.html"
    path.write_bytes(b"old")
    disk.fill(leave)

    full = pytest.raises(StorageProblem, match=r"page\.html: cannot be written: No space left on device")
    with full as caught, atomic_write(path, "wb") as file:
        file.write(b"new" * 20_000)

    assert caught.value.exit_code == 3
    assert path.read_bytes() == b"old"
    assert sorted(one.name for one in disk.path.iterdir()) == ["ballast", "page.html"]


@pytest.mark.fault(6, "exit code 3; the old file is intact, no temporary file remains, and the same command resumes")
def test_a_disk_that_is_full_at_any_moment_of_a_save_leaves_the_old_result_or_the_new(
    disk: Disk, tmp_path: Path
) -> None:
    result = evaluate(encoder_of(letters), task(tmp_path / "task"))
    meta = encoder_of(letters).mteb_model_meta
    refused = []
    for leave in range(12):
        cache = own_cache(disk.path / str(leave))
        cache.save_to_cache(with_score(result, 0.25), meta)
        new = with_score(result, 0.75)
        new.scores["test"][0]["filler"] = ["x" * 100] * 50  # two pages
        disk.fill(leave)
        try:
            cache.save_to_cache(new, meta)
            refused.append(False)
        except StorageProblem as error:
            assert "No space left on device" in str(error)
            refused.append(True)
        disk.make_room()

        assert cache.load_task_result("TinySTS", meta).get_score() == (0.25 if refused[-1] else 0.75)
        assert leftovers(disk.path) == unreadable(disk.path) == []
        cache.save_to_cache(new, meta)
        assert cache.load_task_result("TinySTS", meta).get_score() == 0.75
    assert (refused[0], refused[-1]) == (True, False)


@pytest.mark.parametrize("full", ["results", "vectors"])
@pytest.mark.fault(6, "exit code 3; the old file is intact, no temporary file remains, and the same command resumes")
def test_a_full_disk_is_exit_code_3_and_the_same_command_resumes(
    disk: Disk, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    output, cache = (disk.path, tmp_path / "cache") if full == "results" else (tmp_path / "out", disk.path)
    assert run(tmp_path / "undisturbed", tmp_path / "other-cache")[0] == 0
    from stella_mteb.harness import run as running

    run_task, seen = running._run_task, []

    def fill_then_run(*given: Any) -> Any:
        if seen:
            disk.fill()
        seen.append(given)
        return run_task(*given)

    monkeypatch.setattr(running, "_run_task", fill_then_run)
    code, said = run(output, cache)
    monkeypatch.undo()
    finished = scores(output)
    disk.make_room()
    again, said_again = run(output, cache)

    expected = scores(tmp_path / "undisturbed")
    assert (code, again) == (3, 0)
    assert "No space left on device" in said
    if full == "vectors":
        assert "--no-cache" in said
    assert [name.rpartition("/")[2] for name in finished] == ["Small0.json"]
    assert "kept: " in said_again
    assert scores(output) == expected
    assert unreadable(output) == unreadable(cache) == leftovers(output) == leftovers(cache) == []


# ------------------------------------------------------------------------------------------------------ read-only


@pytest.mark.usefixtures("no_model")
@pytest.mark.fault(7, "exit code 3 before any model is loaded")
def test_an_unwritable_output_folder_is_reported_before_a_model_is_loaded(disk: Disk, tmp_path: Path, run: Any) -> None:
    disk.remount("ro")

    code, said = run(disk.path, tmp_path / "cache")

    assert code == 3
    assert f"{disk.path}: results cannot be written here: Read-only file system" in said


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("name", ["Small1.json", "run_settings.jsonl"])
@pytest.mark.fault(7, "exit code 3 before any model is loaded")
def test_a_folder_at_the_path_of_a_file_is_reported_before_a_model_is_loaded(
    tmp_path: Path, run: Any, name: str
) -> None:
    path = tmp_path / "out/results/a/b/experiments/c" / name
    path.mkdir(parents=True)

    code, said = run(tmp_path / "out", tmp_path / "cache")

    assert code == 3
    assert f"{path}: is a folder but must be a file" in said


@pytest.mark.fault(7, "a read-only cache provides its vectors; new vectors are not stored, and a warning says so")
def test_a_read_only_cache_serves_its_vectors_and_is_not_changed(disk: Disk, tmp_path: Path, run: Any) -> None:
    assert run(tmp_path / "first", disk.path)[0] == 0
    before = files(disk.path)
    disk.remount("ro")

    code, said = run(tmp_path / "second", disk.path)
    disk.remount("rw")

    assert code == 0
    assert "read-only (Read-only file system); new vectors are not stored" in said
    assert scores(tmp_path / "second") == scores(tmp_path / "first")
    assert files(disk.path) == before


def test_a_damaged_result_in_a_read_only_folder_is_an_environment_problem(disk: Disk, tmp_path: Path) -> None:
    cache, meta = own_cache(disk.path), encoder_of(letters).mteb_model_meta
    evaluate(encoder_of(letters), task(tmp_path), cache)
    path = cache.get_task_result_path("TinySTS", meta)
    path.write_text(json.dumps({"task_name": "TinySTS"}))
    disk.remount("ro")

    with pytest.raises(StorageProblem, match="Read-only file system"):
        cache.load_task_result("TinySTS", meta)
