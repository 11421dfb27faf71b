"""Conducts a run on a cluster: encodes the corpora if asked, then runs every task with every model."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from stella_mteb.cluster.corpora import Corpora
from stella_mteb.cluster.job import Job, Report
from stella_mteb.cluster.pool import DeadlyUnit, Pool, Say, Unit
from stella_mteb.engine.encoder import Progress
from stella_mteb.errors import EnvironmentProblem, StellaMtebError
from stella_mteb.files.locks import OWN_FOLDER
from stella_mteb.files.tables import many
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
        address: Address of the cluster; None for that of $RAY_ADDRESS, or else for a cluster on this machine that ends
            with the run.
        prefill: Whether to encode the texts of all tasks first, each corpus on all workers.
        on_outcome: Called after each task.
        say: Prints a line.
        progress: Called with the tokens done by all workers and the total.

    Returns:
        The outcomes in the order of the local engine, and a row for each worker with what it did.

    Raises:
        ConfigError: If a model cannot be loaded as configured.
        EnvironmentProblem: If there is no such cluster, it has no room, a node is unsuitable, or results cannot be
            written. The workers are ended; finished results stay on disk.
    """
    # Ray prints each death of a worker on stdout, where results go; the pool says it already.
    with contextlib.redirect_stdout(io.StringIO()), connected(address), _probes(job) as probes:
        # The number of useful workers is not known before the texts are collected.
        most = sys.maxsize if prefill else len(models) * len(tasks)
        pool = Pool(replace(job, probes=probes), most, say, progress)
        try:
            if prefill:
                _prefill(job, models, tasks, pool, say)
            return _run_tasks(job, models, tasks, pool, on_outcome), pool.close()
        finally:
            pool.kill()


def _prefill(job: Job, models: Sequence[ResolvedModel], tasks: Sequence[Any], pool: Pool, say: Say) -> None:
    """Encode the texts of all tasks that have no result yet."""
    looks: dict[int, Report] = {}
    for family, model in enumerate(models):
        done = partial(looks.__setitem__, family)
        pool.submit(Unit(name=f"loading {model.spec}", family=family, method="look", arguments=(), done=done))
    pool.drain()
    # By store: two specs that differ only in dimension share one.
    sent: dict[str, set[bytes]] = {}
    begun: list[tuple[Corpora, str, int]] = []
    for family, model in enumerate(models):
        spec, loaded, missing = str(model.spec), looks[family].model, looks[family].missing
        if loaded is None or job.cache is None:
            continue
        if not loaded.keeps:
            say(f"{spec}: {job.cache} cannot be written; texts are encoded when their task runs")
            continue
        known = sent.setdefault(str(sorted(loaded.fingerprint.items())), set())
        corpora = Corpora(pool, say, family=family, spec=spec, model=loaded, cache=job.cache, sent=known)
        collect(Encoder(model, "cpu"), [tasks[place] for place in missing], corpora)
        begun.append((corpora, spec, len(missing)))
    pool.drain()
    for task in tasks:
        if task.data_loaded:
            task.unload_data()
    for corpora, spec, count in begun:
        encoded = corpora.encoded
        cut = f", {many(encoded['at_limit'], 'text')} at max_length" if encoded["at_limit"] else ""
        say(
            f"prefill: {spec}: {many(corpora.seen, 'text')} of {many(count, 'task')}, {encoded['texts']:,} of them "
            f"encoded by the workers ({many(encoded['tokens'], 'token')}{cut})"
        )


def _run_tasks(
    job: Job, models: Sequence[ResolvedModel], tasks: Sequence[Any], pool: Pool, on_outcome: OnOutcome
) -> list[Outcome]:
    """Run every task with every model; return the outcomes in the order of the local engine."""
    found: dict[tuple[int, int], tuple[Outcome, ...]] = {}

    def keep(family: int, place: int, outcomes: tuple[Outcome, ...]) -> None:
        found[family, place] = outcomes
        for outcome in outcomes:
            on_outcome(outcome)

    def failed(family: int, place: int, error: StellaMtebError) -> None:
        if not isinstance(error, DeadlyUnit):
            raise error
        spec, name = models[family].spec, tasks[place].metadata.name
        members = [replace(spec, dimension=dimension) for dimension in job.dimensions[family]] or [spec]
        keep(family, place, tuple(Outcome(str(member), name, "failed", error=str(error)) for member in members))

    for family, place in itertools.product(range(len(models)), range(len(tasks))):
        pool.submit(
            Unit(
                name=f"task {tasks[place].metadata.name} with {models[family].spec}",
                family=family,
                method="run_task",
                arguments=(place,),
                done=lambda report, family=family, place=place: keep(family, place, report.outcomes),  # type: ignore[misc]
                failed=partial(failed, family, place),
            )
        )
    pool.drain()
    return [outcome for _, outcomes in sorted(found.items()) for outcome in outcomes]


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to Ray within the block; an existing connection is used and kept.

    Args:
        address: `host:port`, `auto`, or None: that of $RAY_ADDRESS, else a cluster on this machine only.

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
        # Ray itself would try a wrong address for three minutes and then end the process.
        host, colon, port = address.rpartition(":")
        if colon and port.isdigit() and "/" not in host:
            socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise EnvironmentProblem(f"no Ray cluster at {address!r}: {error}") from error
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray installs a handler that would skip our cleanup
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _probes(job: Job) -> Iterator[tuple[Path, ...]]:
    """Create files that a worker can see only if it has the same folders as this process."""
    name = f".{uuid.uuid4().hex}.tmp"
    probes = []
    try:
        for folder in (job.output / OWN_FOLDER, *([job.cache] if job.cache else [])):
            with contextlib.suppress(OSError):  # a read-only cache
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
                probes.append(folder / name)
        yield tuple(probes)
    finally:
        for probe in probes:
            probe.unlink(missing_ok=True)
