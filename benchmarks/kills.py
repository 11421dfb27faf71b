"""Kills and resumes runs at random moments; shared by tests/promises/test_kills.py and benchmarks/soak.py.

The parent has imported everything and forks its children: a start costs a fraction of a second and not the half minute
of the imports, so that hundreds of kills are affordable. A child is killed from outside after some time, or kills
itself at some line of a module that writes files; every atomic write happens in two halves, and the line between them
counts.
SIGKILL is what it is: no handler, no `finally`, no `atexit` runs.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import stella_mteb

Say = Callable[..., None]
"""A child's word to its parent, which outlives the child."""
Work = Callable[[Path, Say], None]
"""The work of a child in a folder: all of a job, or the rest of it."""

_PACKAGE = Path(stella_mteb.__file__).parent
_WRITERS = (
    "engine/store",
    "files/atomic",
    "files/locks",
    "harness/cost_capture",
    "harness/item_capture",
    "harness/result_cache",
    "judge/reports",
    "outputs/items",
)
WRITERS = (__file__, *(str(_PACKAGE / f"{name}.py") for name in _WRITERS))
# Lines of these say nothing of a write, and are many.
_READERS = {"unique_keys", "_finite"}
_WORDS = (
    "a",
    "the",
    "red",
    "blue",
    "small",
    "boat",
    "dog",
    "cook",
    "child",
    "rain",
    "leaves",
    "sleeps",
    "argues",
    "over",
)
_SLOWEST = 120.0
_DATED = {"date", "timestamp", "evaluation_time", "evaluation_phases"}


# ---------------------------------------------------------------------------------------------------------- children


@dataclass(frozen=True)
class Child:
    """A forked process with a pipe on which it reports."""

    pid: int
    pipe: int

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs. Do not call again after it is returned."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self) -> int:
        deadline = time.monotonic() + _SLOWEST
        while (code := self.ended()) is None:
            if time.monotonic() > deadline:
                self.kill()
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"a child did not end in {_SLOWEST:.0f} s")
            time.sleep(0.005)
        return code

    def said(self) -> list[dict[str, Any]]:
        """Return its output."""
        with os.fdopen(self.pipe) as pipe:
            return [json.loads(line) for line in pipe]


def fork(work: Callable[[Say], None], log: Path) -> Child:
    """Run work in a child process; output goes to a file, and errors have the exit codes of the command line."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    code = 1
    try:
        os.close(reading)
        _to_file(log)
        # A pool of threads does not survive a fork.
        import torch

        torch.set_num_threads(1)
        work(lambda **said: _write(writing, (json.dumps(said) + "\n").encode()))
        code = 0
    except BaseException as error:
        sys.settrace(None)
        traceback.print_exc()
        sys.stderr.flush()
        code = getattr(error, "exit_code", 1)
    finally:
        os._exit(code)


def _write(descriptor: int, line: bytes) -> None:
    os.write(descriptor, line)  # shorter than PIPE_BUF: whole or not at all


def _to_file(log: Path) -> None:
    file = log.open("a", buffering=1, encoding="utf-8")
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file
    logging.basicConfig(stream=file, level=logging.WARNING, format="%(message)s", force=True)
    logger = logging.getLogger("stella_mteb")
    logger.handlers[:], logger.propagate = [], True


# ----------------------------------------------------------------------------------------------------------- weapons


class _InHalves:
    """A file that splits every write into two, with a flush between them."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __enter__(self) -> _InHalves:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: Any) -> None:
        half = len(content) // 2
        self._file.write(content[:half])
        self._file.flush()
        self._file.write(content[half:])


def write_in_halves() -> None:
    """Install it in this process."""
    original = os.fdopen
    os.fdopen = lambda *args, **kwargs: _InHalves(original(*args, **kwargs))  # type: ignore[assignment]


def count_lines() -> Counter[str]:
    """Count the lines of the modules that write files, as they are executed."""
    counts: Counter[str] = Counter()

    def local(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            counts[frame.f_code.co_filename] += 1
        return local

    sys.settrace(lambda frame, *_: local if _place(frame) in WRITERS else None)
    return counts


def die_at(module: str, line: int) -> None:
    """Kill this process at the n-th executed line of a module."""
    left = line

    def local(_: FrameType, event: str, __: object) -> Any:
        nonlocal left
        left -= event == "line"
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return local

    sys.settrace(lambda frame, *_: local if _place(frame) == module else None)


def _place(frame: FrameType) -> str:
    return "" if frame.f_code.co_name in _READERS else frame.f_code.co_filename


# ------------------------------------------------------------------------------------------------------------- counts


@dataclass
class Tally:
    """The outcome of runs.

    Attributes:
        started: Processes.
        killed: Processes that ended by SIGKILL.
        resumed: Processes that were started where one had been killed.
        finished: Processes that completed.
        tasks: Tasks that were finished, each counted once for its job.
        lost: Number of these that were missing, or had another score, at any later check.
        unreadable: Files that did not parse at any check.
        different: Scores that differ from those of an undisturbed run.
        leftovers: Temporary files that killed writers left behind, all of them removed by a later start.
        places: How many kills happened where.
        faults: Descriptions of `lost`, `unreadable` and `different`.
    """

    started: int = 0
    killed: int = 0
    resumed: int = 0
    finished: int = 0
    tasks: int = 0
    lost: int = 0
    unreadable: int = 0
    different: int = 0
    leftovers: int = 0
    places: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for one in dataclasses.fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


# ------------------------------------------------------------------------------------------------------ files on disk


def unreadable(folder: Path) -> list[str]:
    """List damaged files, except temporary files, which no reader opens."""
    from stella_mteb.engine.store import recover
    from stella_mteb.files.atomic import read_json

    faults = [f"{path}: set aside" for path in folder.rglob("*.damaged*")]
    for path in folder.rglob("*.*"):
        try:
            if path.name.startswith(".") or not path.is_file():
                continue
            if path.suffix == ".json":
                read_json(path)
            elif path.suffix == ".jsonl":
                [json.loads(line) for line in path.read_text().splitlines()]
            elif path.suffix == ".safetensors" and (fault := recover(path)):
                faults.append(f"{path}: {fault}")
        except FileNotFoundError:
            continue  # another process at work
        except ValueError as error:
            faults.append(f"{path}: {error}")
    return faults


def scores(output: Path) -> dict[str, Any]:
    """Return the readable result of every finished task by path: main scores, or means over clips."""
    found: dict[str, Any] = {}
    for path in sorted(output.rglob("*.json")):
        content = json.loads(path.read_text())
        name = str(path.relative_to(output))
        if isinstance(content, dict) and "scores" in content:
            rows = [(split, row) for split, entries in content["scores"].items() for row in entries]
            found[name] = {f"{split}, {row['hf_subset']}": row["main_score"] for split, row in sorted_rows(rows)}
        elif isinstance(content, dict) and "hybrid_stats" in content:
            found[name] = {"hm_cf": content["hybrid_stats"]["hm_cf"]["mean"]}
    return found


def sorted_rows(rows: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return sorted(rows, key=lambda row: (row[0], row[1]["hf_subset"]))


def everything(output: Path) -> dict[str, Any]:
    """Return every file of an output folder without dates, times, costs and locks, which always differ."""
    found: dict[str, Any] = {}
    for path in sorted(output.rglob("*.json*")):
        if path.name == "cost.json" or path.name.startswith("."):
            continue
        text = path.read_text()
        parsed = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        if path.suffix == ".jsonl":
            parsed.sort(key=lambda line: line["task"])
        found[str(path.relative_to(output))] = _undated(parsed)
    return found


def _undated(content: Any) -> Any:
    if isinstance(content, dict):
        undated = {key: _undated(value) for key, value in content.items() if key not in _DATED}
        if "scores" in undated:  # subsets come in the order in which they were finished
            undated["scores"] = {
                split: sorted(entries, key=lambda entry: entry["hf_subset"])
                for split, entries in undated["scores"].items()
            }
        return undated
    if isinstance(content, list):
        rows = [_undated(value) for value in content]
        return sorted(rows, key=lambda row: row["subset"]) if rows and _has_subset(rows[0]) else rows
    # In another batch the last bits of a vector may be others; main scores are compared exactly, elsewhere.
    return round(content, 5) + 0.0 if isinstance(content, float) else content


def _has_subset(row: Any) -> bool:
    return isinstance(row, dict) and "subset" in row


def leftovers(folder: Path) -> list[Path]:
    return sorted(folder.rglob(".*.tmp"))


# ------------------------------------------------------------------------------------------------------------ stories


@dataclass(frozen=True)
class Job:
    """A job for child processes in a folder, with the results of an undisturbed run.

    Attributes:
        name: Name in the counts.
        work: The whole job; it reports `task=...` after each finished task.
        scores: Scores of the undisturbed run.
        files: Files of the undisturbed run.
        seconds: Its duration.
        lines: Lines of each writing module that it executed.
    """

    name: str
    work: Work
    scores: dict[str, Any]
    files: dict[str, Any]
    seconds: float
    lines: dict[str, int]


def prepare(name: str, work: Work, folder: Path) -> Job:
    """Run a job undisturbed three times: in this process for its imports, then to time it, then to count its lines."""
    import torch

    folder.mkdir(parents=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    work(folder / "here", lambda **_: None)
    torch.set_num_threads(threads)
    started = time.monotonic()
    _expect_end(fork(lambda say: work(folder / "timed", say), folder / "log"), folder / "log")
    seconds = time.monotonic() - started

    def counted(say: Say) -> None:
        write_in_halves()
        counts = count_lines()
        work(folder / "counted", lambda **_: None)
        sys.settrace(None)
        say(**counts)

    child = fork(counted, folder / "log")
    _expect_end(child, folder / "log")
    (lines,) = child.said()
    out = folder / "timed" / "out"
    return Job(name, work, scores(out), everything(out), seconds, lines)


def _expect_end(child: Child, log: Path) -> None:
    if (code := child.wait()) != 0:
        raise AssertionError(f"a run ended with {code}:\n{log.read_text()[-3_000:]}")


def story(job: Job, folder: Path, chance: random.Random) -> Tally:
    """Kill a job one to four times, then finish it; check the files after every kill."""
    folder.mkdir(parents=True)
    tally, done, log = Tally(), set[str](), folder.with_suffix(".log")
    kills = chance.randint(1, 4)
    while True:
        tally.started += 1
        tally.resumed += tally.killed > 0
        child, place = _start(job, folder, log, chance, armed=tally.killed < kills)
        code = child.wait()
        done |= {said["task"] for said in child.said()}
        if code == -signal.SIGKILL:
            tally.killed += 1
            tally.places[place] += 1
        elif code != 0:
            raise AssertionError(f"a resumed run ended with {code}:\n{log.read_text()[-3_000:]}")
        look(job, folder, done, tally)
        if code == 0:
            break
    tally.finished += 1
    tally.tasks += len(done)
    compare(job, folder, tally)
    if left := leftovers(folder):
        tally.leftovers += len(left)
        _expect_clean(job, folder, log)
    return tally


def _start(job: Job, folder: Path, log: Path, chance: random.Random, *, armed: bool) -> tuple[Child, str]:
    if not armed:
        return fork(lambda say: job.work(folder, say), log), ""
    if chance.random() < 0.3:
        child = fork(lambda say: job.work(folder, say), log)
        end = time.monotonic() + chance.uniform(0, job.seconds)
        while time.monotonic() < end:
            time.sleep(0.002)
        child.kill()  # a child that has ended is a zombie until it is waited for, and takes no harm
        return child, "after some time"
    module = chance.choice(sorted(job.lines))
    line = chance.randint(1, job.lines[module])

    def doomed(say: Say) -> None:
        write_in_halves()
        die_at(module, line)
        job.work(folder, say)
        sys.settrace(None)

    place = "between two halves of a write" if module == __file__ else f"in {Path(module).name}"
    return fork(doomed, log), place


def look(job: Job, folder: Path, done: set[str], tally: Tally) -> None:
    faults = unreadable(folder)
    tally.unreadable += len(faults)
    tally.faults += faults
    found = scores(folder / "out") if not faults else {}
    for name in job.scores if not faults else ():
        if Path(name).stem in done and name not in found:
            tally.lost += 1
            tally.faults.append(f"{folder}: {name} was finished and is not on disk")
    for name, value in found.items():
        if any(job.scores[name].get(part) != score for part, score in value.items()):
            tally.different += 1
            tally.faults.append(f"{folder}: {name}: {value}, undisturbed {job.scores[name]}")


def compare(job: Job, folder: Path, tally: Tally) -> None:
    if scores(folder / "out").keys() != job.scores.keys():
        tally.lost += 1
        tally.faults.append(f"{folder}: {sorted(job.scores.keys() ^ scores(folder / 'out').keys())}")
    files = everything(folder / "out")
    for name in job.files.keys() | files.keys():
        if job.files.get(name) != files.get(name):
            tally.different += 1
            tally.faults.append(f"{folder}: {name}: {files.get(name)}, undisturbed {job.files.get(name)}")


def _expect_clean(job: Job, folder: Path, log: Path) -> None:
    """Check that the next start, an hour later, removes the files of killed writers."""
    hour_ago = time.time() - 3_700
    for path in leftovers(folder):
        os.utime(path, (hour_ago, hour_ago))
    (folder / "out" / next(iter(job.scores))).unlink()  # or nothing is left to do, and no store is opened
    _expect_end(fork(lambda say: job.work(folder, say), log), log)
    if left := leftovers(folder):
        raise AssertionError(f"left behind: {left}")


# --------------------------------------------------------------------------------------------------------------- jobs


def write_tasks(folder: Path, tasks: int, pairs: tuple[int, int], chance: random.Random) -> list[str]:
    """Write small STS tasks with distinct texts; return the paths of their YAMLs."""
    folder.mkdir(parents=True)
    paths = []
    for task in range(tasks):
        rows = []
        for number in range(chance.randint(*pairs)):
            left = " ".join(chance.choices(_WORDS, k=chance.randint(3, 14)))
            right = " ".join(chance.choices([*_WORDS, *left.split() * 4], k=chance.randint(3, 14)))
            rows.append({"left": left, "right": f"{right} {number}", "rating": round(chance.uniform(0, 5), 2)})
        (folder / f"Small{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = folder / f"Small{task}.yaml"
        path.write_text(
            f"name: Small{task}\ntype: STS\ndata: Small{task}.jsonl\n"
            "columns: {sentence1: left, sentence2: right, score: rating}\n"
        )
        paths.append(str(path))
    return paths


def benchmark_work(spec: str, tasks: Sequence[str], dimensions: Sequence[int], extra: Sequence[Any] = ()) -> Work:
    """Run tasks like `stella-mteb run`, without the command line."""

    def work(folder: Path, say: Say) -> None:
        from stella_mteb.harness.adapter import family
        from stella_mteb.harness.find_tasks import find_tasks
        from stella_mteb.harness.run import run
        from stella_mteb.models.resolve import resolve
        from stella_mteb.outputs.layout import require_writable

        require_writable(folder / "out")
        members = family(resolve(spec), dimensions, device="cpu", cache=folder / "cache")

        def report(outcome: Any) -> None:
            if outcome.status == "failed":
                raise AssertionError(outcome.error)
            if outcome.model == str(members[-1].resolved.spec):  # at every dimension
                say(task=outcome.task, status=outcome.status, score=outcome.score)

        run([members], [*find_tasks(tasks), *(make() for make in extra)], folder / "out", report)

    return work


def judge_work(spec: str, references: Mapping[str, Sequence[str]], candidates: Sequence[Any]) -> Work:
    """Judge like `stella-mteb judge`, without the command line."""

    def work(folder: Path, say: Say) -> None:
        from stella_mteb.cli.judge import judge_with
        from stella_mteb.models.resolve import resolve

        judge_with(resolve(spec), "s2s", references, candidates, folder / "out", device="cpu", cache=folder / "cache")
        for candidate in candidates:
            say(task=candidate.slug)

    return work
