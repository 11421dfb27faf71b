"""The process on a node. It finds models and tasks by name like the driver, and writes to the same shared folders.

`pool` makes a Ray actor of this plain class. It never sends vectors; they go into the shared store.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from stella_mteb.cluster.job import Job, LoadedModel, Place, Report, versions
from stella_mteb.errors import EnvironmentProblem

if TYPE_CHECKING:
    from stella_mteb.harness.adapter import Encoder


class Worker:
    """Works with one model and on one unit at a time."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._family: int | None = None
        self._encoders: list[Encoder] = []
        self._cost = contextlib.ExitStack()
        self._earlier, self._left = 0, 0
        self._heard = _Heard()

    def about(self) -> Place:
        """Initialise the process and describe it.

        Raises:
            EnvironmentProblem: If this machine does not see the shared folders, or has no such device.
        """
        job, node = self._job, socket.gethostname()
        lacking = [path.parent for path in job.probes if not path.exists()]
        lacking += [] if job.folder.is_dir() else [job.folder]
        if lacking:
            raise EnvironmentProblem(
                f"node {node} does not see {lacking[0]} as the driver does; --output, --cache and the working folder "
                "must be on a file system that all nodes share"
            )
        os.chdir(job.folder)
        import torch  # noqa: PLC0415 -- takes seconds, for which the error above should not wait

        from stella_mteb.engine.devices import resolve_device  # noqa: PLC0415
        from stella_mteb.harness.cost_capture import machine  # noqa: PLC0415

        torch.set_num_threads(job.threads)
        logger = logging.getLogger("stella_mteb")
        logger.addHandler(self._heard)
        logger.propagate = False
        return Place(node, machine(resolve_device(job.device)), os.getpid(), versions())

    def look(self, family: int) -> Report:
        """List the tasks of a model without results; if there are any, also describe the loaded model."""
        from stella_mteb.harness.run import is_missing  # noqa: PLC0415

        with self._reported(family) as report:
            tasks = enumerate(self._tasks)
            missing = tuple(place for place, task in tasks if is_missing(self._encoders, task, self._job.output))
            if not missing:
                return report()
            engine = self._encoders[0].text_encoder
            model = LoadedModel(
                fingerprint=engine.fingerprint,
                tokenise=engine.tokenise,
                budget=engine.batch_budget(),
                padded=not engine.packed,
                whole_windows=engine.shares_prefix,
                keeps=engine.store is not None and engine.store.keeps,
            )
            return report(missing=missing, model=model)

    def encode(self, family: int, texts: list[str], prompt: str) -> Report:
        """Encode a shard into the store."""
        with self._reported(family) as report:
            self._encoders[0].text_encoder.fill(texts, prompt, progress=self._on_progress)
            return report()

    def run_task(self, family: int, place: int) -> Report:
        """Run one task at every dimension of a model, unless its results are on disk."""
        from stella_mteb.harness.run import run_task  # noqa: PLC0415

        with self._reported(family) as report:
            task = self._tasks[place]
            outcomes = tuple(run_task(encoder, task, self._job.output) for encoder in self._encoders)
            if task.data_loaded:
                task.unload_data()
            if any(outcome.status == "failed" for outcome in outcomes):
                _die_with_the_gpu()
            return report(outcomes=outcomes)

    def watch(self) -> tuple[int, int]:
        """Return the tokens encoded since the start and those left of the unit; answered during other calls."""
        return self._earlier + self._encoded()["tokens"], self._left

    def close(self) -> None:
        """Unload the model, which saves the cost of its encoding."""
        self._cost.close()
        self._earlier += self._encoded()["tokens"]
        self._family, self._encoders = None, []
        gc.collect()

    @contextlib.contextmanager
    def _reported(self, family: int) -> Iterator[Callable[..., Report]]:
        """Load the model and yield a function that reports what was encoded since."""
        self._open(family)
        before = self._encoded()

        def report(**found: Any) -> Report:
            return Report(encoded=self._encoded() - before, warnings=self._heard.take(), **found)

        try:
            yield report
        finally:
            self._left = 0

    def _open(self, family: int) -> None:
        if self._family == family:
            return
        from stella_mteb.harness.adapter import family as members  # noqa: PLC0415
        from stella_mteb.harness.cost_capture import cost_recorded  # noqa: PLC0415
        from stella_mteb.harness.known_models import known_config  # noqa: PLC0415
        from stella_mteb.harness.result_cache import AtomicResultCache  # noqa: PLC0415
        from stella_mteb.models.resolve import resolve  # noqa: PLC0415

        self.close()
        job = self._job
        model = resolve(job.specs[family], registry=known_config)
        if model.revision != job.revisions[family]:
            raise EnvironmentProblem(
                f"node {socket.gethostname()} has {model.spec} at revision {model.revision} in {model.folder}, but the "
                f"driver has {job.revisions[family]}; give all nodes the same files"
            )
        self._encoders = members(model, job.dimensions[family], device=job.device, cache=job.cache)
        for encoder in self._encoders:
            encoder.on_progress = self._on_progress
        self._cost.enter_context(cost_recorded(self._encoders, AtomicResultCache(job.output)))
        self._family = family

    @functools.cached_property
    def _tasks(self) -> list[Any]:
        from stella_mteb.harness.find_tasks import find_tasks  # noqa: PLC0415

        return find_tasks(self._job.tasks, self._job.benchmarks, self._job.max_bad_rows)

    def _encoded(self) -> Counter[str]:
        """Count what the loaded model has encoded, as in a `Report`."""
        encoders = self._encoders  # read once: `watch` is called from another thread
        if not encoders or not encoders[0].loaded:
            return Counter()
        stats = encoders[0].text_encoder.stats
        milliseconds = round(1000 * stats.seconds)
        return Counter(texts=stats.encoded, tokens=stats.tokens, at_limit=stats.at_limit, milliseconds=milliseconds)

    def _on_progress(self, done: int, total: int) -> None:
        self._left = max(total - done, 0)


class _Heard(logging.Handler):
    """Collects log messages for the driver to print."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def take(self) -> tuple[str, ...]:
        lines, self._lines = self._lines, []
        return tuple(lines)


def _die_with_the_gpu() -> None:
    # After an illegal access this process cannot use the GPU any more, and every later task would fail.
    import torch  # noqa: PLC0415

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            os._exit(1)
