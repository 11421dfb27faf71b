"""A run on a cluster: first the corpora, if that is asked for, then every task with every model."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from stella_mteb.cluster.corpora import Corpora
from stella_mteb.cluster.job import Job, Report
from stella_mteb.cluster.pool import DEATHS, Pool, Say, Unit
from stella_mteb.engine.encoder import Progress
from stella_mteb.errors import EnvironmentProblem
from stella_mteb.files.locks import OWN_FOLDER
from stella_mteb.harness.adapter import Encoder
from stella_mteb.harness.prefill import collect
from stella_mteb.harness.run import Outcome
from stella_mteb.models.resolve import ResolvedModel

_ANSWER_SECONDS = 5.0

OnOutcome = Callable[[Outcome], None]


def run_on_ray(
    job: Job,
    models: Sequence[ResolvedModel],
    tasks: Sequence[Any],
    *,
    address: str | None,
    prefill: bool,
    on_outcome: OnOutcome,
    say: Say,
    progress: Progress,
) -> tuple[list[Outcome], list[dict[str, Any]]]:
    """Run every task with every model on the workers of a Ray cluster.

    Args:
        job: The run.
        models: Its models.
        tasks: Its tasks.
        address: Of the cluster; None for that of $RAY_ADDRESS, or one that is started on this machine and ends with
            the run.
        prefill: Whether the texts of all tasks are encoded first, each corpus by all workers.
        on_outcome: Called after each task.
        say: Takes lines for people.
        progress: Called with the tokens done and to do, of all workers.

    Returns:
        The outcomes in the order of the local engine, and who did what.

    Raises:
        ConfigError: If a model cannot be loaded as its config says.
        EnvironmentProblem: If there is no such cluster, no room in it, a node is not as it must be, or results cannot
            be written. Workers are ended; what is finished is on disk.
    """
    # Ray prints each death of a worker on stdout, where results go; the pool says it already.
    with contextlib.redirect_stdout(io.StringIO()), connected(address), _probes(job) as probes:
        # Of how much use more workers than tasks are, nobody knows before the texts are collected.
        most = sys.maxsize if prefill else len(models) * len(tasks)
        pool = Pool(replace(job, probes=probes), most, say, progress)
        try:
            run = _Run(job, models, tasks, pool, on_outcome, say)
            if prefill:
                run.prefill()
            return run.tasks(), pool.close()
        finally:
            pool.kill()


class _Run:
    """The state of one run."""

    def __init__(
        self,
        job: Job,
        models: Sequence[ResolvedModel],
        tasks: Sequence[Any],
        pool: Pool,
        on_outcome: OnOutcome,
        say: Say,
    ) -> None:
        self._job, self._models, self._all = job, models, tasks
        self._pool, self._on_outcome, self._say = pool, on_outcome, say
        self._outcomes: dict[tuple[int, int], tuple[Outcome, ...]] = {}
        # By store: a model at two dimensions of its own, as two specs, has one.
        self._sent: dict[str, set[bytes]] = {}

    def prefill(self) -> None:
        """Encode the texts of all tasks that have no result yet."""
        begun = []
        for family, look in enumerate(self._looks(range(len(self._models)))):
            sent = self._sent.setdefault(str(look.engine and sorted(look.engine.fingerprint.items())), set())
            corpora = self._corpora(family, look, sent)
            if corpora is not None:
                tasks = [self._all[place] for place in look.missing]
                collect(Encoder(self._models[family], "cpu"), tasks, corpora)
                begun.append((family, corpora, len(look.missing)))
        self._pool.drain()
        for task in self._all:
            if task.data_loaded:
                task.unload_data()
        for family, corpora, count in begun:
            spec, total = self._models[family].spec, corpora.total
            cut = f", {total.at_limit} texts at max_length" if total.at_limit else ""
            self._say(
                f"prefill: {spec}: {corpora.seen} texts of {count} tasks, {total.texts} of them encoded by the workers "
                f"({total.tokens} tokens{cut})"
            )
            for place, task in enumerate(self._all):
                if reason := corpora.poisoned.get(task.metadata.name):
                    self._fail(family, place, reason)

    def tasks(self) -> list[Outcome]:
        """Run every task with every model, but those that have failed already."""
        lost: dict[tuple[int, int], str] = {}
        for family in range(len(self._models)):
            for place in range(len(self._all)):
                if (family, place) not in self._outcomes:
                    self._pool.submit(self._unit(family, place, lost))
        self._pool.drain()
        for (family, place), reason in lost.items():
            self._fail(
                family, place, self._poison(family, place) or f"it has ended {DEATHS} workers in turn ({reason})"
            )
        return [outcome for _, outcomes in sorted(self._outcomes.items()) for outcome in outcomes]

    def _unit(self, family: int, place: int, lost: dict[tuple[int, int], str]) -> Unit:
        def done(report: Report) -> None:
            self._keep(family, place, report.outcomes)

        return Unit(
            name=f"task {self._all[place].metadata.name} with {self._models[family].spec}",
            family=family,
            method="run_task",
            arguments=(place,),
            done=done,
            lost=lambda _, reason: lost.update({(family, place): reason}),
        )

    def _poison(self, family: int, place: int) -> str | None:
        """Look for the text with which a task ends its workers, by encoding all its texts shard by shard."""
        task = self._all[place]
        (look,) = self._looks([family])
        corpora = self._corpora(family, look, set())  # also a text that was sent already, for another task
        if corpora is None:
            return None
        collect(Encoder(self._models[family], "cpu"), [task], corpora)
        self._pool.drain()
        return corpora.poisoned.get(task.metadata.name)

    def _looks(self, families: Sequence[int]) -> list[Report]:
        looks: dict[int, Report] = {}

        def lost(unit: Unit, reason: str) -> None:
            raise EnvironmentProblem(f"{unit.name} has ended {DEATHS} workers in turn ({reason})")

        for family in families:
            self._pool.submit(
                Unit(
                    name=f"loading {self._models[family].spec}",
                    family=family,
                    method="look",
                    arguments=(),
                    done=lambda report, family=family: looks.update({family: report}),  # type: ignore[misc]
                    lost=lost,
                )
            )
        self._pool.drain()
        return [looks[family] for family in families]

    def _corpora(self, family: int, look: Report, sent: set[bytes]) -> Corpora | None:
        """A collection for a model, if it has tasks to run and a store to fill."""
        if look.engine is None or self._job.cache is None:
            return None
        spec = str(self._models[family].spec)
        if not look.engine.keeps:
            self._say(f"{spec}: nothing can be kept in {self._job.cache}; texts are encoded when their task runs")
            return None
        return Corpora(
            self._pool, self._say, family=family, spec=spec, engine=look.engine, cache=self._job.cache, sent=sent
        )

    def _fail(self, family: int, place: int, reason: str) -> None:
        spec, task = self._models[family].spec, self._all[place].metadata.name
        members = [replace(spec, dimension=dimension) for dimension in self._job.dimensions[family]] or [spec]
        self._keep(family, place, tuple(Outcome(str(member), task, "failed", error=reason) for member in members))

    def _keep(self, family: int, place: int, outcomes: tuple[Outcome, ...]) -> None:
        self._outcomes[family, place] = outcomes
        for outcome in outcomes:
            self._on_outcome(outcome)


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Within it, Ray is there; a connection that is there already is used, and stays.

    Args:
        address: `host:port`, `auto`, or None: that of $RAY_ADDRESS, else a cluster of this machine alone.

    Raises:
        EnvironmentProblem: If no cluster answers.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _require_answer(address)
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise EnvironmentProblem(f"no Ray cluster to be had at {address!r}: {error}") from error
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts one of its own there, which would skip our last words
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    # Ray itself tries a wrong address for three minutes, and then ends the process.
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()


@contextlib.contextmanager
def _probes(job: Job) -> Iterator[tuple[Path, ...]]:
    """Files that a worker sees if it sees the same folders as this process."""
    name = f".{uuid.uuid4().hex}.tmp"
    probes = []
    try:
        for folder in (job.output / OWN_FOLDER, *([job.cache] if job.cache else [])):
            with contextlib.suppress(OSError):  # a cache that can only be read
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
                probes.append(folder / name)
        yield tuple(probes)
    finally:
        for probe in probes:
            probe.unlink(missing_ok=True)
