"""Gives units of work to workers and collects reports. A worker that dies is replaced, and its unit is repeated.

`ray.util.ActorPool` does not tell which unit died and does not replace the worker. Ray Data retries a block that kills
its worker for ever, and each block costs 20 ms. One loop around `ray.wait` suffices, at 0.6 ms a unit (docs/scale.md).
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from stella_mteb.cluster.job import Job, Place, Report, versions
from stella_mteb.cluster.worker import Worker
from stella_mteb.engine.encoder import Progress
from stella_mteb.errors import EnvironmentProblem, StellaMtebError

DEATHS = 3
"""Number of workers that a unit may kill before it is given up."""

# Seconds between two looks at the workers; seconds after which a unit is reported that takes `_SLOWER` times as long as
# others.
_TICK, _LONG, _SLOWER = 1.0, 60.0, 4
# An idle worker answers at once; do not wait longer for one that does not.
_GOODBYE = 30.0
# The variables of the driver's environment that workers inherit: network access and verbosity of libraries.
_FORWARDED = (
    "HF_DATASETS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_OFFLINE",
    "HF_HUB_VERBOSITY",
    "STELLA_MTEB_CACHE",
    "TQDM_DISABLE",
    "TRANSFORMERS_OFFLINE",
    "TRANSFORMERS_VERBOSITY",
)
# Short reasons for the phrases in Ray's long messages about a death.
_DEATHS = {
    "its node has died": "its node is gone",
    "running low on memory": "its node ran low on memory",
    "ray.kill": "it was ended by ray.kill",
    "worker process has died": "its process ended unexpectedly",
}

Say = Callable[[str], None]


class DeadlyUnit(EnvironmentProblem):
    """A unit has killed the maximum number of workers."""


def end_run(error: StellaMtebError) -> None:
    """Raise the error; the default of `Unit.failed`."""
    raise error


@dataclass(eq=False, kw_only=True)
class Unit:
    """One call of a worker.

    Attributes:
        name: Name for messages.
        family: Index of the model in the job; a worker that has it loaded is preferred.
        method: Method of `Worker`.
        arguments: Arguments of the call after the family.
        done: Called with the report.
        failed: Called with the error of the call, or with a `DeadlyUnit` if it has killed too many workers. By default
            it ends the run.
        tokens: Approximate number of tokens; 0 if unknown.
        deaths: Number of workers that it has killed.
    """

    name: str
    family: int
    method: str
    arguments: tuple[Any, ...]
    done: Callable[[Report], None]
    failed: Callable[[StellaMtebError], None] = end_run
    tokens: int = 0
    deaths: int = 0


@dataclass(eq=False)
class Member:
    """A worker as the driver sees it.

    Attributes:
        number: Counted from 1.
        handle: Ray's handle.
        call: The pending call; None for an idle worker.
        place: Description of its process; None until its first answer.
        unit: Its current unit.
        since: Start of the unit, on the monotonic clock and as wall time.
        family: The model it has loaded.
        look: A pending request for its progress.
        seen: Its last progress: tokens done, and tokens left of the unit.
        named_after: Seconds after which it was last reported as still at its unit.
        units: Number of finished units.
        total: Sum of their reports.
        fate: Reason of its end.
    """

    number: int
    handle: Any
    call: Any
    place: Place | None = None
    unit: Unit | None = None
    since: tuple[float, str] = (0.0, "")
    family: int | None = None
    look: Any = None
    seen: tuple[int, int] = (0, 0)
    named_after: float = 0.0
    units: int = 0
    total: Counter[str] = field(default_factory=Counter)
    fate: str | None = None

    def __str__(self) -> str:
        where = f" on {self.place.node} (process {self.place.process})" if self.place else ""
        return f"worker {self.number}{where}"


class Pool:
    """The workers of one run, started when there is work, one for each GPU of the cluster.

    In a cluster without GPUs, or with `--device cpu`, a worker has as many CPUs as the job has threads.

    Args:
        job: The run.
        most: Maximum number of workers, however large the cluster is.
        say: Prints a line.
        progress: Called with the tokens done by all workers and the total.

    Raises:
        EnvironmentProblem: If the cluster has no room for a worker.
    """

    def __init__(self, job: Job, most: int, say: Say, progress: Progress) -> None:
        on_gpus = [node for node in _nodes() if node.get("GPU")] if job.device != "cpu" else []
        if job.device == "cuda" and not on_gpus:
            raise EnvironmentProblem("no node of the Ray cluster has a GPU; use --device cpu or auto")
        # Workers do not choose: all workers of a node would use the same GPU if Ray does not assign one.
        self._job = replace(job, device="cuda" if on_gpus else "cpu")
        self._most, self._say, self._progress = most, say, progress
        self._gpus = 1 if on_gpus else 0
        self._cpus = job.threads
        if on_gpus:
            self._cpus = max(int(min(node.get("CPU", 0) // node["GPU"] for node in on_gpus)), 1)
        self._room, self._counted = self._capacity(), time.monotonic()
        if not self._room:
            raise EnvironmentProblem(
                f"no node of the Ray cluster has {self._cpus} CPUs, one for each thread of this run; the last bits of "
                "a vector depend on the number of threads. Set OMP_NUM_THREADS to a smaller number"
            )
        self._queue: deque[Unit] = deque()
        self._members: list[Member] = []
        self._former: list[Member] = []
        self._failed_starts = 0
        self._warned: set[str] = set()
        self._fatal: StellaMtebError | None = None
        self._seconds: dict[str, list[float]] = {}
        self._ticked = self._complained = time.monotonic()

    @property
    def size(self) -> int:
        """The possible number of workers, at least one."""
        if time.monotonic() - self._counted > _TICK:  # nodes come and go
            self._room, self._counted = self._capacity(), time.monotonic()
        return max(min(self._room, self._most), 1)

    def submit(self, unit: Unit) -> None:
        """Queue a unit, and wait until the queue is short, so that not all units are in memory at once."""
        self._queue.append(unit)
        self.serve()
        while len(self._queue) > 2 * self.size:
            self._step(_TICK)

    def serve(self) -> None:
        """Give out work and collect reports without waiting."""
        while self._step(0):
            pass

    def drain(self) -> None:
        """Wait until all submitted units are done."""
        while self._queue or any(member.unit for member in self._members):
            self._step(_TICK)

    def close(self) -> list[dict[str, Any]]:
        """Let the workers save the cost of encoding, and end them.

        Returns:
            A row for each worker, dead ones included, with what it did.
        """
        for member in self._members:
            if member.place and not member.unit:
                with contextlib.suppress(RayError):  # also raised on a timeout
                    ray.get(member.handle.close.remote(), timeout=_GOODBYE)
        self.kill()
        rows, died = [], any(member.fate for member in self._former if member.place)
        for member in self._former:
            if member.place:
                seconds, tokens = member.total["milliseconds"] / 1000, member.total["tokens"]
                rows.append(
                    {
                        "worker": member.number,
                        "node": member.place.node,
                        "device": member.place.device,
                        "units": member.units,
                        "texts": member.total["texts"],
                        "tokens": tokens,
                        "tokens/s": round(tokens / seconds) if seconds else None,
                    }
                    | ({"ended": member.fate} if died else {})
                )
        return rows

    def kill(self) -> None:
        """End every worker now; their current units are lost."""
        for member in self._members:
            with contextlib.suppress(Exception):  # the cluster may be gone
                ray.kill(member.handle)
        self._former = sorted(self._former + self._members, key=lambda member: member.number)
        self._members = []

    # ---------------------------------------------------------------------------------------------------- the loop

    def _step(self, timeout: float) -> bool:
        """Give out work and process one answer; return whether there was one."""
        if self._fatal is not None:
            raise self._fatal
        try:
            self._assign()
            self._staff()
            calls = {member.call: member for member in self._members if member.call is not None}
            ready = []
            if calls:
                ready, _ = ray.wait(list(calls), num_returns=1, timeout=timeout)
            else:
                time.sleep(timeout)
            for call in ready:
                self._take(calls[call])
        except StellaMtebError as error:
            # Kept, because a rehearsal may be the caller, and it attributes errors to its task.
            self._fatal = error
            raise
        if time.monotonic() - self._ticked >= _TICK:
            self._ticked = time.monotonic()
            self._watch()
            self._name_stragglers()
        return bool(ready)

    def _assign(self) -> None:
        for member in self._members:
            if not member.place or member.unit or not self._queue:
                continue
            # Prefer a unit of the model that the worker has loaded, else of the model that fewest workers have.
            first: dict[int | None, Unit] = {}
            for one in self._queue:
                first.setdefault(one.family, one)
            having = Counter(other.family for other in self._members)
            unit = first.get(member.family) or min(first.values(), key=lambda one: having[one.family])
            self._queue.remove(unit)
            member.unit, member.family, member.named_after = unit, unit.family, 0.0
            member.since = time.monotonic(), time.strftime("%H:%M:%S")
            member.call = getattr(member.handle, unit.method).remote(unit.family, *unit.arguments)

    def _staff(self) -> None:
        """Start workers while there is work and room for them."""
        while self._queue and len(self._members) < self.size:
            forwarded = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
            actor = ray.remote(
                num_cpus=self._cpus,
                num_gpus=self._gpus,
                concurrency_groups={"watch": 1},
                runtime_env={"env_vars": {**forwarded, "OMP_NUM_THREADS": str(self._cpus)}},
            )(Worker)
            handle = actor.remote(self._job)
            number = len(self._members) + len(self._former) + 1
            self._members.append(Member(number, handle, handle.about.remote()))

    def _take(self, member: Member) -> None:
        unit, call = member.unit, member.call
        member.unit = member.call = None
        try:
            found = ray.get(call)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, StellaMtebError):
                (unit.failed if unit else end_run)(cause)
            else:
                # A bug or a lost GPU; the worker's state is unknown, so it is replaced.
                self._bury(member, unit, f"{type(cause).__name__}: {cause}")
        except RayError as error:
            self._bury(member, unit, _reason(error))
        else:
            if unit is None:
                _require_same_versions(found)
                member.place, self._failed_starts = found, 0
                return
            member.units += 1
            member.total.update(found.encoded)
            self._seconds.setdefault(unit.method, []).append(time.monotonic() - member.since[0])
            for warning in found.warnings:
                if warning not in self._warned:  # most warnings occur in every worker
                    self._warned.add(warning)
                    self._say(f"{member}: {warning}")
            unit.done(found)

    def _bury(self, member: Member, unit: Unit | None, reason: str) -> None:
        with contextlib.suppress(Exception):  # a worker that is only disconnected must not go on
            ray.kill(member.handle)
        self._members.remove(member)
        self._former.append(member)
        member.fate = reason
        if unit is not None:
            unit.deaths += 1
            again = unit.deaths < DEATHS
            self._say(f"{member} died: {reason}. Its unit: {unit.name}" + (", which is repeated" if again else ""))
            if again:
                self._queue.appendleft(unit)
            else:
                unit.failed(DeadlyUnit(f"{unit.name} has killed {DEATHS} workers in succession ({reason})"))
            return
        self._failed_starts += 1
        self._say(f"{member} did not start: {reason}")
        if self._failed_starts >= DEATHS:
            raise EnvironmentProblem(
                f"{DEATHS} workers in succession did not start; the last one: {reason}. "
                "Is the same stella-mteb[ray] installed on every node?"
            )

    # ------------------------------------------------------------------------------------------ messages to the user

    def _watch(self) -> None:
        """Report the progress of all workers; for one that does not answer, the last known progress counts."""
        for member in self._members:
            if member.look is not None and ray.wait([member.look], timeout=0)[0]:
                with contextlib.suppress(RayError):
                    member.seen = ray.get(member.look)
                member.look = None
            if member.look is None and member.unit:
                member.look = member.handle.watch.options(concurrency_group="watch").remote()
        done = sum(member.seen[0] for member in self._members + self._former)
        left = sum(member.seen[1] for member in self._members) + sum(unit.tokens for unit in self._queue)
        if done:
            self._progress(done, done + left)

    def _name_stragglers(self) -> None:
        now = time.monotonic()
        for member in self._members:
            if member.unit is None:
                continue
            seconds, others = now - member.since[0], self._seconds.get(member.unit.method, [0.0])
            if seconds >= max(_LONG, _SLOWER * statistics.median(others), 2 * member.named_after):
                member.named_after = seconds
                self._say(f"{member} is still at {member.unit.name}, since {member.since[1]} ({seconds:.0f} s)")
        if self._queue and not any(member.place for member in self._members) and now - self._complained >= _LONG:
            self._complained = now
            self._say(f"no worker is running; {len(self._queue)} units wait for a node")

    def _capacity(self) -> int:
        return sum(
            int(min(node.get("CPU", 0) // self._cpus, node.get("GPU", 0) if self._gpus else float("inf")))
            for node in _nodes()
        )


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _require_same_versions(place: Place) -> None:
    here, there = versions(), place.versions
    other = [f"{name} {there[name]} (here {here[name]})" for name in here if there[name] != here[name]]
    if other:
        raise EnvironmentProblem(
            f"node {place.node} has {', '.join(other)}; different versions could change results. Install the same ones"
        )


def _reason(error: RayError) -> str:
    text = " ".join(str(error).split())
    return next((words for sign, words in _DEATHS.items() if sign in text), text[:300])
