"""SIGKILL at random moments: no finished task is lost, no file is truncated, no score changes."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.kills import (
    WRITERS,
    Job,
    Tally,
    benchmark_work,
    die_at,
    fork,
    judge_work,
    prepare,
    story,
    write_tasks,
)
from benchmarks.kills import write_in_halves as in_halves
from stella_mteb.files.atomic import atomic_write, write_json
from stella_mteb.judge.inputs import Candidate

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

CLIPS = {
    "one": "A man opens a door. He looks around. Nobody is there.",
    "two": "Two cooks argue about salt, and the soup boils over.",
    "three": "A red boat leaves the harbour at dawn. The blue one stays.",
}
REFERENCES = {clip: [text] for clip, text in CLIPS.items()}
CANDIDATES = [
    Candidate(name, {clip: f"{start} {text.lower()}" for clip, text in CLIPS.items()}, (), (), ())
    for name, start in (("longva", "We see this:"), ("nemo", "In the end,"), ("kalm", "Rain falls."))
]


@pytest.fixture(scope="module")
def jobs(stella_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
    from mteb.mocks.mock_tasks import MockMultilingualSTSTask

    folder = tmp_path_factory.mktemp("kills")
    tasks = write_tasks(folder / "tasks", tasks=2, pairs=(12, 12), chance=random.Random(0))
    several = [MockMultilingualSTSTask]  # two subsets, each of which MTEB saves when it is done
    return [
        prepare("run", benchmark_work(str(stella_folder), tasks, [256, 1024], several), folder / "run"),
        prepare(
            "judge",
            judge_work(f"{stella_folder}@256", REFERENCES, CANDIDATES),
            folder / "judge",
        ),
    ]


def tell(jobs: list[Job], kills: int, folder: Path) -> Tally:
    """Kill and resume runs until the given number of kills."""
    tally, number = Tally(), 0
    while tally.killed < kills:
        chance = random.Random(number)
        job = jobs[0] if chance.random() < 0.7 else jobs[1]
        tally.add(story(job, folder / f"{job.name}{number}", chance))
        number += 1
    return tally


def assert_nothing_is_lost(tally: Tally) -> None:
    assert tally.faults == []
    assert (tally.lost, tally.unreadable, tally.different) == (0, 0, 0)
    assert tally.started == tally.killed + tally.finished
    assert tally.resumed > 0


@pytest.mark.fault(1, "the old file or the new one, never a mixture")
@pytest.mark.fault(
    2, "the same command resumes; no finished work is lost, and every score equals that of an undisturbed run"
)
def test_killed_and_resumed_runs_end_with_undisturbed_results(jobs: list[Job], tmp_path: Path) -> None:
    assert_nothing_is_lost(tell(jobs, 10, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.fault(1, "the old file or the new one, never a mixture")
@pytest.mark.fault(
    2, "the same command resumes; no finished work is lost, and every score equals that of an undisturbed run"
)
def test_two_hundred_kills_lose_nothing(jobs: list[Job], tmp_path: Path) -> None:
    tally = tell(jobs, 200, tmp_path)

    assert_nothing_is_lost(tally)
    assert len(tally.places) == len(WRITERS) + 1, "not every kind of write was hit"
    assert tally.leftovers > 0, "no writer was killed in the middle of a write"


def write_page(path: Path) -> None:
    with atomic_write(path, "wb") as file:
        file.write(b"<p>new</p>" * 50_000)


@pytest.mark.parametrize(
    ("write", "old", "new"),
    [
        (write_page, b"<p>old</p>" * 40_000, b"<p>new</p>" * 50_000),
        (lambda path: write_json(path, ["new"] * 9), b'["old"]', None),
    ],
    ids=["a page", "JSON"],
)
@pytest.mark.fault(1, "the old file or the new one, never a mixture")
def test_a_kill_at_any_line_of_an_atomic_write_leaves_the_old_file_or_the_new(
    tmp_path: Path, write: Callable[[Path], None], old: bytes, new: bytes | None
) -> None:
    """Kill at every line, and between the two halves of the write."""
    path = tmp_path / "page.html"
    if new is None:
        write(path)
        new = path.read_bytes()
    left = {old: 0, new: 0}
    modules = [module for module in WRITERS if module.endswith(("atomic.py", "kills.py"))]
    for module in modules:
        for line in range(1, 60):
            path.write_bytes(old)

            def doomed(_: object, module: str = module, line: int = line) -> None:
                in_halves()
                die_at(module, line)
                write(path)

            code = fork(doomed, tmp_path / "log").wait()
            left[path.read_bytes()] += 1  # a KeyError is half a file
            if code == 0:
                break
            assert code == -signal.SIGKILL, (tmp_path / "log").read_text()

    assert left[old] > 10
    assert left[new] > 3
