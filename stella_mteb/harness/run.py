"""Runs MTEB tasks. Each result is saved before the next task begins, and a second call runs only what is missing."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import mteb
from mteb.results import TaskResult

import stella_mteb
from stella_mteb.errors import StellaMtebError, StorageProblem
from stella_mteb.files.locks import locked
from stella_mteb.harness import registry
from stella_mteb.harness.adapter import Encoder
from stella_mteb.harness.cost_capture import cost_recorded
from stella_mteb.harness.item_capture import keep_items
from stella_mteb.harness.lazy_columns import columns_read_once
from stella_mteb.harness.offline_data import cached_configurations
from stella_mteb.harness.result_cache import AtomicResultCache, read_task_result
from stella_mteb.harness.task_yaml import TaskFile
from stella_mteb.outputs.layout import result_path

logger = logging.getLogger(__name__)

# Rows per batch of MTEB's data loader; the engine plans its own batches from all of them.
_LOADER_ROWS = 1_024


@dataclass(frozen=True)
class Outcome:
    """The outcome of one task with one model.

    Attributes:
        model: The spec.
        task: Name of the task.
        status: `done`, `kept` (was on disk), or `failed`.
        score: Main score as MTEB's mean over splits and subsets, or None.
        seconds: Wall time of this run, data loading included.
        encoding: Seconds for computing vectors or reading them from the store.
        loading: Seconds for loading the model and the task's data.
        bad_rows: Rows of the data that were left out.
        at_limit: Texts encoded in this run that reach the model's input limit and may have been cut.
        per_label: Scores per label, if the task has labels.
        error: Reason for a failure.
        lacks_data: Whether the data is missing on this machine.
    """

    model: str
    task: str
    status: str
    score: float | None = None
    seconds: float = 0.0
    encoding: float = 0.0
    loading: float = 0.0
    bad_rows: int = 0
    at_limit: int = 0
    per_label: Sequence[dict[str, Any]] = ()
    error: str | None = None
    lacks_data: bool = False


def run_task(encoder: Encoder, task: Any, output: Path) -> Outcome:
    """Run one task with one model, unless its result is on disk.

    A result of data that has changed since is recomputed. A task that fails does not stop the others: the outcome has
    the reason, and finished subsets stay on disk. If another process runs this task with this model, the call waits.

    Args:
        encoder: The model.
        task: An MTEB task.
        output: The output folder. Results go to `<output>/results/...` in MTEB's layout, and their items to
            `<output>/details/...` (`stella_mteb.harness.item_capture`).

    Raises:
        ConfigError: If the model cannot be loaded as configured.
        EnvironmentProblem: If it cannot be loaded on this machine, or results cannot be written.
    """
    with _turn(encoder, task, output):
        return _run_task(encoder, task, output)


def _turn(encoder: Encoder, task: Any, output: Path, *, wait: bool = True) -> AbstractContextManager[bool]:
    """Lock a task for a model at all its dimensions, which are computed in one pass."""
    meta, run_as = encoder.mteb_model_meta, {**encoder.experiment, "embed_dim": None}
    name = json.dumps(["task", task.metadata.name, meta.name, meta.revision, run_as], default=str, sort_keys=True)
    return locked(output, name, f"task {task.metadata.name} with {encoder.resolved.spec}", wait=wait)


def _run_task(encoder: Encoder, task: Any, output: Path) -> Outcome:
    datasets.disable_progress_bars()
    started, calls, encoding = time.perf_counter(), encoder.calls, encoder.seconds
    # MTEB saves the scores after every subset but these settings only at the end; a killed run would lose them.
    settings = {"encode_kwargs": _encode_kwargs(encoder), "plugin": stella_mteb.__version__}
    cache = AtomicResultCache(output, notes=lambda name: {**settings, "prompts": encoder.prompt_notes(name)})
    known = cache.load_task_result(task.metadata.name, encoder.mteb_model_meta)
    if known is None:
        _ = encoder.text_encoder  # outside the try: a model that cannot be loaded is not a failure of the task
    loading = [time.perf_counter() - started]
    cut = encoder.text_encoder.stats.at_limit if encoder.loaded else 0
    outcome = Outcome(str(encoder.resolved.spec), task.metadata.name, "failed")
    try:
        with keep_items(task, cache, encoder.mteb_model_meta), _loading_timed(task, loading):
            outcome = replace(outcome, **_evaluate(encoder, task, cache, known))
    except StorageProblem:
        raise
    except StellaMtebError as error:
        outcome = replace(outcome, error=str(error))
    except ConnectionError as error:  # raised by `datasets` if offline or without network
        outcome = replace(outcome, error=f"the task's data is not on this machine: {error}", lacks_data=True)
    except Exception as error:  # an MTEB task may fail in any way; the others must still run
        logger.error("%s", traceback.format_exc())
        outcome = replace(outcome, error=f"{type(error).__name__}: {error}")
    else:
        ran = encoder.calls > calls
        at_limit = encoder.text_encoder.stats.at_limit - cut if ran else 0
        outcome = replace(outcome, status="done" if ran else "kept", at_limit=at_limit)
    seconds = time.perf_counter() - started
    return replace(outcome, seconds=seconds, encoding=encoder.seconds - encoding, loading=sum(loading))


@contextmanager
def _loading_timed(task: Any, seconds: list[float]) -> Iterator[None]:
    """Append the seconds that the task takes to load its data within the block."""

    def load_data(*args: Any, **kwargs: Any) -> None:
        started = time.perf_counter()
        try:
            type(task).load_data(task, *args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - started)

    task.load_data = load_data
    try:
        yield
    finally:
        del task.load_data


def plan(encoder: Encoder, task: Any, output: Path) -> tuple[Path, str]:
    """Determine what a run would do about a task, without creating a folder or loading weights.

    Returns:
        The path of its result, and `to run`, `on disk`, or why it runs again.
    """
    meta = encoder.mteb_model_meta
    path = result_path(output, str(meta.name), str(meta.revision), meta.experiment_name, task.metadata.name)
    try:
        known = read_task_result(path)
    except FileNotFoundError:
        return path, "to run"
    except ValueError:
        return path, "to run (file damaged)"
    return path, "to run (data changed)" if _is_stale(known, task) else "on disk"


def is_missing(family: Sequence[Encoder], task: Any, output: Path) -> bool:
    """Check whether any of these encoders still has to run a task."""
    return any(plan(encoder, task, output)[1] != "on disk" for encoder in family)


def _is_stale(known: TaskResult | None, task: Any) -> bool:
    file: TaskFile | None = getattr(task, "stella_mteb_file", None)
    return known is not None and file is not None and file.revision != known.dataset_revision


@columns_read_once()
def _evaluate(encoder: Encoder, task: Any, cache: AtomicResultCache, known: Any) -> dict[str, Any]:
    file: TaskFile | None = getattr(task, "stella_mteb_file", None)
    calls = encoder.calls
    registry.reset_randomness(task)
    with cached_configurations(task):
        result = mteb.evaluate(
            encoder,
            task,
            cache=cache,
            overwrite_strategy="always" if _is_stale(known, task) else "only-missing",
            encode_kwargs=_encode_kwargs(encoder),
            show_progress_bar=False,
            co2_tracker=False,
        )
    if result.exceptions or not result.task_results:
        reasons = "; ".join(f"{error.task_name}: {error.exception}" for error in result.exceptions or ())
        raise StellaMtebError(reasons or "MTEB gave no result")
    ran = encoder.calls > calls
    asked = result.task_results[0]
    if not task.is_aggregate:
        # The file may also hold splits and subsets from another run; this score is only that of this task.
        scores = {
            split: [entry for entry in entries if entry["hf_subset"] in task.hf_subsets]
            for split, entries in asked.scores.items()
            if split in task.eval_splits
        }
        asked = asked.model_copy(update={"scores": scores})
    entries = [entry for split in asked.scores.values() for entry in split]
    return {
        "score": float(asked.get_score()),
        "bad_rows": len({bad.place for bad in file.pairs.bad}) if file and (ran or file.is_local) else 0,
        "per_label": next((entry["per_label"] for entry in entries if "per_label" in entry), ()),
    }


def _encode_kwargs(encoder: Encoder) -> dict[str, Any]:
    return {"batch_size": encoder.resolved.config.batch_size or _LOADER_ROWS, "show_progress_bar": False}


def run(
    families: Iterable[Sequence[Encoder]],
    tasks: Sequence[Any],
    output: Path,
    on_outcome: Callable[[Outcome], None],
    before: Callable[[Encoder, Sequence[Any]], None] | None = None,
) -> list[Outcome]:
    """Run every task with every model, one model after the other, and record what encoding cost (`cost_capture`).

    Several processes may be given the same work. Each takes the tasks that no other process is running, and at the end
    waits for the remaining ones, so that it returns all outcomes.

    Args:
        families: Each model at one or more dimensions (`encoder.family`); with a generator, only one is in memory.
        tasks: MTEB tasks.
        output: The output folder.
        on_outcome: Called after each task.
        before: Called with a model and its tasks without results, before the first one is run.
    """
    outcomes = []
    for family in families:
        with cost_recorded(family, AtomicResultCache(output)):
            if before is not None:
                before(family[0], [task for task in tasks if is_missing(family, task, output)])
            turns = deque((task, False) for task in tasks)
            while turns:
                task, wait = turns.popleft()
                with _turn(family[0], task, output, wait=wait) as mine:
                    if not mine:
                        turns.append((task, True))
                        continue
                    for encoder in family:
                        outcome = _run_task(encoder, task, output)
                        on_outcome(outcome)
                        outcomes.append(outcome)
                if task.data_loaded:
                    task.unload_data()
    return outcomes
