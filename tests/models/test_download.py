"""Downloading a model from a hub on the loopback: the files, and every failure."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.hub import Fault, Hub, serve

STELLA = "NovaSearch/stella_en_1.5B_v5"
REVISION = "d03be74b361d4eb24f42a2fe5bd2e29917df4604"
RESOLVE = """
import sys, time, errno, huggingface_hub.utils._http as http
from stella_mteb.errors import StellaMtebError
time.sleep = lambda _: None  # the client waits longer after each failure
if sys.argv[1:] == ["kill"]:
    import os, signal
    time.sleep = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # at the first failure
elif sys.argv[1:2] == ["shared"]:  # another process, not held back by the lock, downloads into the same part
    import os, huggingface_hub.file_download as files
    get = files.http_get
    def shared(url, out, **more):
        files.http_get = get
        with open(out.name, "r+b") as other:
            get(url, other, **more)
        get(url, out, **more)
        if sys.argv[2] == "first":
            os.rename(out.name, out.name.removesuffix(".part"))
        elif sys.argv[2] == "gone":
            os.unlink(out.name)
    files.http_get = shared
elif sys.argv[1:]:
    def full(*_, **__):
        raise OSError(int(sys.argv[1]), "injected")
    import huggingface_hub.file_download as files
    files.http_get = full
from stella_mteb.models.resolve import resolve
try:
    print(resolve("stella_en_1.5B_v5").revision)
except StellaMtebError as error:
    print(f"{type(error).__name__}: {error}")
"""
Resolve = Callable[..., str]
WEIGHTS = r"/resolve/\w+/model\.safetensors"
CHUNK = 10 * 2**20
"""The number of bytes that the client writes at once."""


def first_bytes(hub: Hub) -> list[int]:
    """From which byte on the backbone's weights were asked for, request by request."""
    return [start for method, path, start in hub.asked if method == "GET" and re.search(WEIGHTS, path)]


@pytest.fixture
def hub(stella_folder: Path, tmp_path: Path) -> Iterator[Hub]:
    """The tiny Stella at the commit of the real one, with files that must not be downloaded."""
    folder = tmp_path / "repository"
    shutil.copytree(stella_folder, folder)
    for name in ("pytorch_model.bin", "modeling_qwen.py", "model.onnx"):
        (folder / name).write_text("never fetched")
    with serve() as hub:
        hub.add("models", STELLA, REVISION, folder)
        yield hub


@pytest.fixture
def resolve(hub: Hub, tmp_path: Path) -> Resolve:
    """Resolve Stella in a separate process with an empty HF_HOME; return the commit or the error."""

    def run(*arguments: str, home: str = "hub-home", **more: str) -> str:
        rest = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment = {**rest, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / home), **more}
        done = subprocess.run([sys.executable, "-c", RESOLVE, *arguments], check=False, env=environment,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == (-signal.SIGKILL if "kill" in arguments else 0), done.stderr
        return done.stdout.strip()

    return run


@pytest.mark.versions
def test_only_safetensors_json_and_text_are_fetched_and_then_no_socket_is_needed(hub: Hub, resolve: Resolve) -> None:
    assert resolve() == REVISION
    fetched = hub.fetched(STELLA)
    asked = len(hub.asked)

    assert {Path(name).suffix for name in fetched} <= {".safetensors", ".json", ".txt"}
    assert {"model.safetensors", "modules.json", "tokenizer.json", "2_Dense_8192/model.safetensors"} <= fetched
    assert resolve(HF_HUB_OFFLINE="1") == REVISION
    assert len(hub.asked) == asked


@pytest.mark.fault(51, "a cut connection is taken up where it broke")
def test_a_download_that_breaks_off_in_the_weights_resumes_where_it_broke(hub: Hub, resolve: Resolve) -> None:
    hub.faults = [Fault(WEIGHTS, cut=12_000_000, times=1)]

    assert resolve() == REVISION
    assert first_bytes(hub) == [0, CHUNK]


@pytest.mark.versions
@pytest.mark.fault(51, "a connection that stays broken is one sentence, and the next start goes on where it broke")
def test_a_broken_connection_is_one_sentence_and_the_next_start_resumes(
    hub: Hub, resolve: Resolve, tmp_path: Path
) -> None:
    hub.faults = [Fault(WEIGHTS, cut=12_000_000, times=1), Fault(WEIGHTS, cut=1_000)]
    error = resolve()
    (part,) = (tmp_path / "hub-home").rglob("*.part")
    hub.faults, hub.asked = [], []

    assert error.startswith(f"EnvironmentProblem: model {STELLA}: the connection to the hub was interrupted")
    assert error.endswith("what has arrived is kept; run the same command again to resume")
    assert part.stat().st_size == CHUNK
    assert resolve() == REVISION
    assert first_bytes(hub) == [CHUNK]
    assert not part.exists()


@pytest.mark.fault(51, "after `kill -9` the next start goes on where it broke")
def test_a_download_that_is_killed_goes_on_at_the_next_start(hub: Hub, resolve: Resolve, tmp_path: Path) -> None:
    hub.faults = [Fault(WEIGHTS, cut=12_000_000, times=1)]
    resolve("kill")
    hub.faults, hub.asked = [], []

    assert resolve() == REVISION
    assert first_bytes(hub) == [CHUNK]


@pytest.fixture
def blob(hub: Hub, tmp_path: Path) -> Path:
    """Where the backbone's weights lie in the cache."""
    weights = hub.repositories["models", STELLA][1] / "model.safetensors"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    return tmp_path / "hub-home" / "hub" / f"models--{STELLA.replace('/', '--')}" / "blobs" / sha256


@pytest.mark.versions
@pytest.mark.fault(51, "a part with wrong bytes is discarded, and the weights are downloaded anew")
@pytest.mark.parametrize(("size", "asked"), [(1_000, [1_000, 0]), (30_000_000, [0])], ids=["short", "too-long"])
def test_a_part_with_wrong_bytes_never_becomes_weights(
    size: int, asked: list[int], hub: Hub, resolve: Resolve, blob: Path
) -> None:
    blob.parent.mkdir(parents=True)
    blob.with_suffix(".part").write_bytes(b"x" * size)

    assert resolve() == REVISION
    assert first_bytes(hub) == asked
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


@pytest.mark.fault(51, "processes that no lock keeps apart complete the same part without harm")
@pytest.mark.parametrize(("end", "asked"), [("second", [0, 0]), ("first", [0, 0]), ("gone", [0, 0, 0])])
def test_processes_that_share_a_part_without_a_lock_all_get_the_weights(
    end: str, asked: list[int], hub: Hub, resolve: Resolve, blob: Path
) -> None:
    assert resolve("shared", end) == REVISION
    assert first_bytes(hub) == asked
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    assert not blob.with_suffix(".part").exists()


def test_without_symlinks_the_weights_take_their_space_once(hub: Hub, resolve: Resolve, tmp_path: Path) -> None:
    size = (hub.repositories["models", STELLA][1] / "model.safetensors").stat().st_size

    assert resolve(HF_HUB_DISABLE_SYMLINKS="1") == REVISION
    assert [path.name for path in tmp_path.glob("hub-home/**/*") if path.stat().st_size == size] == [
        "model.safetensors"
    ]


def test_a_part_beside_whole_weights_is_removed(resolve: Resolve, blob: Path) -> None:
    resolve()
    blob.with_suffix(".part").write_bytes(b"x")

    assert resolve(HF_HUB_OFFLINE="1") == REVISION
    assert not blob.with_suffix(".part").exists()


def test_a_hub_that_fails_before_the_weights_is_asked_again(hub: Hub, resolve: Resolve) -> None:
    hub.faults = [Fault(WEIGHTS, 503, times=2, after=1)]  # the first request is the client's own

    assert resolve() == REVISION
    assert first_bytes(hub) == [0]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            Fault(".", 403, "GatedRepo"),
            r"is gated: request access at http://.*/NovaSearch/.*`hf auth login` or set HF_TOKEN",
        ),
        (Fault(".", 401), r"no model .* no access \(401\): check the name; .* `hf auth login`"),
        (Fault(".", 403), r"no model .* no access \(403\)"),
        (Fault("resolve.*modules.json", 404, "EntryNotFound"), "lacks a file that the hub lists .*`hf download "),
        (Fault(".", 429), r"too many requests to the hub \(429\): wait some minutes"),
        (Fault(".", 500), r"the hub failed with status 500 .* try again later"),
        (Fault(".", 503), r"the hub failed with status 503 .* try again later"),
    ],
    ids=["gated", "401", "403", "file", "429", "500", "503"],
)
def test_errors_of_the_hub_are_reported_with_the_fix(fault: Fault, expected: str, hub: Hub, resolve: Resolve) -> None:
    hub.faults = [fault]
    error = resolve()

    assert re.match(f"EnvironmentProblem: .*{expected}", error), error
    assert "\n" not in error


def test_a_repository_that_does_not_exist_is_named(hub: Hub, resolve: Resolve) -> None:
    hub.repositories.clear()

    assert "the hub has no model" in resolve()


def test_a_commit_that_does_not_exist_is_named(hub: Hub, resolve: Resolve) -> None:
    _, folder = hub.repositories["models", STELLA]
    hub.add("models", STELLA, "0" * 40, folder)

    assert f"has no commit {REVISION} on the hub; correct `hub.revision`" in resolve()


@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, "no space"), (errno.EROFS, "cannot be saved in")])
def test_a_full_disk_during_a_download_is_named_with_the_cure(
    number: int, expected: str, resolve: Resolve, tmp_path: Path
) -> None:
    error = resolve(str(number))

    assert expected in error
    assert str(tmp_path / "hub-home") in error
    assert "HF_HOME" in error


def test_an_hf_home_that_is_a_file_is_named(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert "cannot be saved in" in resolve(home="file/x")
