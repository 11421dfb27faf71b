"""Simulates a shared cluster: small tasks, two workers on one folder, kills, full and read-only disks.

    python -m benchmarks.soak --minutes 5 --out results/reliability

Rounds follow each other until the time is up. A round is an output folder and a store of vectors, some tasks with
all-MiniLM-L6-v2 and its real weights, and two workers that both run all of them, as two calls of the same command
would. A worker is killed with SIGKILL after some time, at some line of a module that writes files, or in the middle of
a write; a worker that was killed, or ended because the disk was full, is restarted. When both have completed,
every main score must equal that of an undisturbed run. The kinds of rounds:

    plain        nothing but kills
    full disk    results and vectors on a file system of 3 MB that is filled up now and then, and emptied again
    read-only    half of the vectors are there, in a store that cannot be written

The last two need the right to mount; without it they are left out, and the summary says so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import stella_mteb
from benchmarks.kills import (
    WRITERS,
    Child,
    Job,
    Say,
    Tally,
    benchmark_work,
    compare,
    die_at,
    fork,
    leftovers,
    look,
    prepare,
    write_in_halves,
    write_tasks,
)
from stella_mteb.files.atomic import atomic_write, write_json
from stella_mteb.harness.cost_capture import machine

SPEC = "all_minilm_l6_v2"
WORKERS = 2
STOPPED = 3
DISK = 3 * 2**20


@dataclass
class Worker:
    """One of the two workers: its current process, and the time at which that process is killed."""

    child: Child | None = None
    kill_at: float | None = None
    place: str = ""
    finished: bool = False
    interrupted: bool = False


@dataclass
class Round:
    """The outcome of one round.

    Attributes:
        kind: Kind of the round.
        tally: Counts as in the kill tests.
        stopped: Processes that ended with exit code 3, because the disk was full.
        waited: Times that one worker waited for the other's task.
        seconds: Duration of the round.
    """

    kind: str
    tally: Tally = field(default_factory=Tally)
    stopped: int = 0
    waited: int = 0
    seconds: float = 0.0


class Disk:
    """A small separate file system, or a plain folder."""

    def __init__(self, path: Path, *, full_now_and_then: bool) -> None:
        self.path, self._ballast = path, path / "ballast"
        self._sometimes = full_now_and_then
        self._next = time.monotonic() + 0.5

    def act(self, chance: random.Random) -> None:
        """Fill the disk, or free it again, when its time has come."""
        now = time.monotonic()
        if not self._sometimes or now < self._next:
            return
        if self._ballast.exists():
            self._ballast.unlink()
            self._next = now + chance.uniform(1.0, 4.0)
        else:
            free = os.statvfs(self.path).f_bavail
            with contextlib.suppress(OSError), self._ballast.open("wb") as file:
                file.write(bytes(max(0, free - chance.choice((0, 1, 3, 8))) * 4_096))
            self._next = now + chance.uniform(0.3, 1.0)


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", path], check=True, capture_output=True)  # noqa: S603, S607
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)  # noqa: S603, S607


def remount(path: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", path], check=True)  # noqa: S603, S607


def may_mount(folder: Path) -> bool:
    try:
        with small_disk(folder / "probe"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def start(job: Job, folder: Path, log: Path, chance: random.Random, *, armed: bool) -> Worker:
    """Start a worker; an armed one is killed, or kills itself, unless it ends before that."""
    if not armed:
        return Worker(fork(lambda say: job.work(folder, say), log))
    if chance.random() < 0.4:
        seconds = chance.uniform(0, 1.5 * job.seconds)
        return Worker(fork(lambda say: job.work(folder, say), log), time.monotonic() + seconds, "after some time")
    module = chance.choice(sorted(job.lines))
    line = chance.randint(1, job.lines[module])

    def doomed(say: Say) -> None:
        write_in_halves()
        die_at(module, line)
        job.work(folder, say)

    in_half = module == WRITERS[0]
    return Worker(fork(doomed, log), place="in half a write" if in_half else f"in {Path(module).name}")


def soak_round(kind: str, job: Job, folder: Path, disk: Disk, chance: random.Random) -> Round:
    """Run two workers until both have finished; check the files after every end of a process."""
    result, began, log = Round(kind), time.monotonic(), folder.with_name(folder.name + ".log")
    folder.mkdir(parents=True, exist_ok=True)
    tally, done, kills = result.tally, set[str](), chance.randint(3, 12)
    workers = [Worker() for _ in range(WORKERS)]
    while not all(worker.finished for worker in workers):
        disk.act(chance)
        for number, worker in enumerate(workers):
            if worker.finished:
                continue
            if worker.child is None:
                workers[number] = start(job, folder, log, chance, armed=tally.killed < kills)
                tally.started += 1
                tally.resumed += worker.interrupted
                continue
            if worker.kill_at is not None and time.monotonic() > worker.kill_at:
                worker.child.kill()
                worker.kill_at = None
            code = worker.child.ended()
            if code is None:
                continue
            done |= {said["task"] for said in worker.child.said()}
            workers[number] = Worker(finished=code == 0, interrupted=code != 0)
            if code == -signal.SIGKILL:
                tally.killed += 1
                tally.places[worker.place] += 1
            elif code == STOPPED and kind == "full disk":
                result.stopped += 1
            elif code != 0:
                raise SystemExit(f"{kind}: a worker ended with {code}:\n{log.read_text()[-3_000:]}")
            else:
                tally.finished += 1
            look(job, folder, done, tally)
        time.sleep(0.005)
    tally.tasks += len(done)
    tally.leftovers += len(leftovers(folder))
    compare(job, folder, tally)
    result.waited = log.read_text().count(": waiting for ")
    result.seconds = time.monotonic() - began
    return result


def plain(job: Job, folder: Path, chance: random.Random) -> Round:
    return soak_round("plain", job, folder, Disk(folder, full_now_and_then=False), chance)


def full_disk(job: Job, folder: Path, chance: random.Random) -> Round:
    with small_disk(folder):
        return soak_round("full disk", job, folder, Disk(folder, full_now_and_then=True), chance)


def read_only(job: Job, folder: Path, chance: random.Random, half: Callable[[Path, Say], None]) -> Round:
    """A read-only store with the vectors of half of the tasks."""
    with small_disk(folder / "cache"):
        if fork(lambda say: half(folder, say), folder.with_name("half.log")).wait() != 0:
            raise SystemExit(folder.with_name("half.log").read_text())
        (folder / "out").rename(folder / "half")
        before = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*")}
        remount(folder / "cache", "ro")
        result = soak_round("read-only", job, folder, Disk(folder, full_now_and_then=False), chance)
        if before != {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*")}:
            raise SystemExit("something was written to a store that cannot be written")
        remount(folder / "cache", "rw")
        return result


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    tally = Tally()
    for one in rounds:
        tally.add(one.tally)
    return {
        "rounds": len(rounds),
        "seconds": round(sum(one.seconds for one in rounds), 1),
        **{name: getattr(tally, name) for name in ("started", "killed")},
        "stopped_by_full_disk": sum(one.stopped for one in rounds),
        **{name: getattr(tally, name) for name in ("resumed", "finished", "tasks")},
        "waited": sum(one.waited for one in rounds),
        **{name: getattr(tally, name) for name in ("lost", "unreadable", "different", "leftovers")},
        "killed_where": dict(sorted(tally.places.items())),
        "faults": tally.faults,
    }


_WORDS = {
    "rounds": "rounds",
    "started": "processes started",
    "killed": "killed (SIGKILL)",
    "stopped_by_full_disk": "ended with exit code 3 because the disk was full",
    "resumed": "restarted",
    "finished": "completed",
    "tasks": "tasks finished",
    "waited": "waits of more than two seconds for the other worker's task",
    "lost": "**finished tasks lost**",
    "unreadable": "**unreadable files at any check**",
    "different": "**scores or files that differ from an undisturbed run**",
    "leftovers": "temporary files left by killed writers (a start an hour later removes them)",
}


def markdown(content: dict[str, Any]) -> str:
    kinds = list(content["kinds"])
    lines = [
        "# Soak",
        "",
        f"{content['date']}, {content['seconds']:.0f} s, {content['machine']}, Linux; seed {content['seed']}. Command:",
        f"`{content['command']}`. `benchmarks/soak.py` describes the rounds.",
        "",
        f"{content['tasks_a_round']} tasks of 20 to 60 pairs, all-MiniLM-L6-v2 with its real weights, two workers on "
        f"one output folder.{content['note']}",
        "",
        f"| | {' | '.join(kinds)} | all |",
        f"|---|{'---|' * (len(kinds) + 1)}",
    ]
    for key, words in _WORDS.items():
        cells = [content["kinds"][kind][key] for kind in kinds] + [content["all"][key]]
        lines.append(f"| {words} | {' | '.join(map(str, cells))} |")
    where = ", ".join(f"{place} {count}" for place, count in content["all"]["killed_where"].items())
    return "\n".join([*lines, "", f"Places of the kills: {where}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    # The parent computes nothing itself: a pool of threads does not survive a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    chance, rounds = random.Random(options.seed), list[Round]()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        paths = write_tasks(root / "tasks", options.tasks, (20, 60), chance)
        job = prepare("soak", benchmark_work(SPEC, paths, []), root / "undisturbed")
        half = benchmark_work(SPEC, paths[::2], [])
        kinds: list[Callable[[Path], Round]] = [lambda folder: plain(job, folder, chance)]
        mounts = may_mount(root)
        if mounts:
            kinds += [
                lambda folder: full_disk(job, folder, chance),
                lambda folder: read_only(job, folder, chance, half),
            ]
        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            rounds.append(kinds[len(rounds) % len(kinds)](root / f"round{len(rounds)}"))
            one = rounds[-1]
            print(f"{one.kind}: {summary([one])}", flush=True)
    names = dict.fromkeys(one.kind for one in rounds)
    content = {
        "command": f"python -m benchmarks.soak --minutes {options.minutes:g} --seed {options.seed} --out {options.out}",
        "date": datetime.now(tz=UTC).date().isoformat(),
        "machine": machine(torch.device("cpu")),
        "plugin": stella_mteb.__version__,
        "seed": options.seed,
        "seconds": round(sum(one.seconds for one in rounds), 1),
        "tasks_a_round": options.tasks,
        "note": "" if mounts else " No disk could be mounted here: rounds with a full or read-only disk were left out.",
        "kinds": {name: summary([one for one in rounds if one.kind == name]) for name in names},
        "all": summary(rounds),
    }
    print(markdown(content))
    if options.out:
        write_json(options.out / "soak.json", content)
        with atomic_write(options.out / "soak.md") as file:
            file.write(markdown(content))
    total = content["all"]
    if total["lost"] or total["unreadable"] or total["different"]:
        raise SystemExit("something was lost: see faults")


if __name__ == "__main__":
    main()
