"""Units of work ► workers ► reports; a worker that dies is replaced, and its unit is done again.

Not `ray.util.ActorPool`: it does not say which unit died and starts no worker for the one that is gone. Not Ray Data: a
block that kills its worker is tried for ever, and each block costs 20 ms. What is needed fits in one loop around
`ray.wait`, at 0.6 ms a unit (docs/scale.md).
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
"""So many workers a unit may cost before it counts as what kills them."""

# Seconds between two looks at the workers; after how many a unit is named that takes `_SLOWER` times as long as others.
_TICK, _LONG, _SLOWER = 1.0, 60.0, 4
# An idle worker answers at once; one that does not is not worth more waiting.
_GOODBYE = 30.0
# What of the driver's environment a worker begins with: whether the network may be asked, what libraries may say.
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
# What of Ray's paragraphs about a death says which it was.
_DEATHS = {
    "its node has died": "its node is gone",
    "running low on memory": "its node ran low on memory",
    "ray.kill": "it was ended by ray.kill",
    "worker process has died": "its process ended unexpectedly",
}

Say = Callable[[str], None]


class DeadlyUnit(EnvironmentProblem):
    """A unit has ended as many workers as it may."""


def end_run(error: StellaMtebError) -> None:
    """Raise the error, as most units do."""
    raise error


@dataclass(eq=False, kw_only=True)
class Unit:
    """One call of a worker.

    Attributes:
        name: For people.
        family: The model, by its place in the job; a worker that has it loaded is preferred.
        method: Of `Worker`.
        arguments: Of the call, after the family.
        done: Takes the report.
        failed: Takes the error that the call raised, or a `DeadlyUnit` when it has cost as many workers as it may. By
            default that ends the run.
        tokens: About how many; 0 if nobody knows.
        deaths: Workers that it has cost.
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
        handle: Ray's.
        call: What has not come back yet; None for an idle worker.
        place: Where it is; None until it has answered for the first time.
        unit: What it is at.
        since: When that began, by the clock that never goes back and by that on the wall.
        family: The model it has loaded.
        look: A question how far it is, not answered yet.
        seen: The last answer: tokens done, and left of the unit.
        named_after: Seconds after which people were last told that it is still at its unit.
        units: How many it has done.
        total: Their reports added up.
        fate: Why it is no more.
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
    """The workers of one run: started when there is work for them, one for each GPU of the cluster.

    In a cluster without GPUs, or with `--device cpu`, a worker has as many CPUs as the job has threads.

    Args:
        job: The run.
        most: More workers than this are not started, however large the cluster.
        say: Takes lines for people.
        progress: Called with the tokens done and to do, of all workers.

    Raises:
        EnvironmentProblem: If the cluster has no room for a worker.
    """

    def __init__(self, job: Job, most: int, say: Say, progress: Progress) -> None:
        on_gpus = [node for node in _nodes() if node.get("GPU")] if job.device != "cpu" else []
        if job.device == "cuda" and not on_gpus:
            raise EnvironmentProblem("no node of the Ray cluster has a GPU; use --device cpu or auto")
        # Said, not left to the worker: of a GPU that Ray does not hand out, all workers of its node would make use.
        self._job = replace(job, device="cuda" if on_gpus else "cpu")
        self._most, self._say, self._progress = most, say, progress
        self._gpus = 1 if on_gpus else 0
        self._cpus = job.threads
        if on_gpus:
            self._cpus = max(int(min(node.get("CPU", 0) // node["GPU"] for node in on_gpus)), 1)
        self._room, self._counted = self._capacity(), time.monotonic()
        if not self._room:
            raise EnvironmentProblem(
                f"no node of the Ray cluster has {self._cpus} CPUs, as many as this run has threads, on whose number "
                "the last bits of a vector depend; set OMP_NUM_THREADS to fewer"
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
        """How many workers there can be, at least one."""
        if time.monotonic() - self._counted > _TICK:  # nodes come and go
            self._room, self._counted = self._capacity(), time.monotonic()
        return max(min(self._room, self._most), 1)

    def submit(self, unit: Unit) -> None:
        """Queue a unit, and wait until the queue is short: who makes units is not to hold them all in memory."""
        self._queue.append(unit)
        self.serve()
        while len(self._queue) > 2 * self.size:
            self._step(_TICK)

    def serve(self) -> None:
        """Hand out work and take in reports, without waiting for any."""
        while self._step(0):
            pass

    def drain(self) -> None:
        """Wait until all that was submitted is done."""
        while self._queue or any(member.unit for member in self._members):
            self._step(_TICK)

    def close(self) -> list[dict[str, Any]]:
        """Let the workers put down what their encoding cost, and end them.

        Returns:
            Who did what: a row for each worker, those that died too.
        """
        for member in self._members:
            if member.place and not member.unit:
                with contextlib.suppress(RayError):  # a timeout is one
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
        """End every worker now; the units they are at are lost."""
        for member in self._members:
            with contextlib.suppress(Exception):  # the cluster may be gone
                ray.kill(member.handle)
        self._former = sorted(self._former + self._members, key=lambda member: member.number)
        self._members = []

    # ---------------------------------------------------------------------------------------------------- the loop

    def _step(self, timeout: float) -> bool:
        """Hand out work, take in one answer; whether there was one."""
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
            # Kept, because a rehearsal, in the middle of which this may be, takes errors for its task's own.
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
            # The first unit of the model that the worker has; else one of the model that fewest workers have.
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
        """Start workers while there is work, and room for them."""
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
                # A bug, or a GPU that is lost; of the worker's state nothing is known, so it goes.
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
                if warning not in self._warned:  # every worker meets most of them
                    self._warned.add(warning)
                    self._say(f"{member}: {warning}")
            unit.done(found)

    def _bury(self, member: Member, unit: Unit | None, reason: str) -> None:
        with contextlib.suppress(Exception):  # one that is only cut off must not go on
            ray.kill(member.handle)
        self._members.remove(member)
        self._former.append(member)
        member.fate = reason
        if unit is not None:
            unit.deaths += 1
            again = unit.deaths < DEATHS
            self._say(f"{member} died: {reason}. It was at {unit.name}" + (", which is done again" if again else ""))
            if again:
                self._queue.appendleft(unit)
            else:
                unit.failed(DeadlyUnit(f"{unit.name} has ended {DEATHS} workers in turn ({reason})"))
            return
        self._failed_starts += 1
        self._say(f"{member} did not start: {reason}")
        if self._failed_starts >= DEATHS:
            raise EnvironmentProblem(
                f"{DEATHS} workers in turn did not start; the last one: {reason}. "
                "Is the same stella-mteb[ray] installed on every node?"
            )

    # -------------------------------------------------------------------------------------------- what people are told

    def _watch(self) -> None:
        """Add up how far all workers are; one that does not answer counts as of the last time."""
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
            self._say(f"no worker has started yet, or none is left; {len(self._queue)} units wait for a node")

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
            f"node {place.node} has {', '.join(other)}; with other versions its results would be another run's"
        )


def _reason(error: RayError) -> str:
    text = " ".join(str(error).split())
    return next((words for sign, words in _DEATHS.items() if sign in text), text[:300])
