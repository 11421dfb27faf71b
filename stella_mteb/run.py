"""Run MTEB tasks: each finished task is on disk before the next begins, and a second call runs what is missing."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import mteb

from stella_mteb import registry
from stella_mteb.config import did_you_mean
from stella_mteb.encoder import Encoder
from stella_mteb.errors import ConfigError, StellaMtebError
from stella_mteb.results import AtomicResultCache
from stella_mteb.task import TaskFile, bundled_tasks, load_task_file, task_class

# Rows that MTEB's data loader hands over at once; the engine plans its own batches from all of them.
_LOADER_ROWS = 1_024


@dataclass(frozen=True)
class Outcome:
    """What became of one task with one model.

    Attributes:
        model: The spec.
        task: Name of the task.
        status: `done`, `kept` (was on disk), or `failed`.
        score: Main score as MTEB's mean over splits and subsets, or None.
        seconds: Wall time of this run, data loading included.
        bad_rows: Rows of the data that were left out.
        per_label: Scores per label, where the task has labels.
        error: Why it failed.
    """

    model: str
    task: str
    status: str
    score: float | None = None
    seconds: float = 0.0
    bad_rows: int = 0
    per_label: Sequence[dict[str, Any]] = ()
    error: str | None = None


def find_tasks(names: Iterable[str], benchmarks: Iterable[str] = (), max_bad_rows: int | None = None) -> list[Any]:
    """Turn what stands on the command line into MTEB tasks, local data read and checked.

    Args:
        names: A bundled task, `NAME=PATH` for a bundled task on data of one's own, the path of a task's YAML, or
            any task of MTEB.
        benchmarks: Names of MTEB benchmarks, or `stella-video`.
        max_bad_rows: Overrides the tasks' own limit.

    Raises:
        ConfigError: If a name is unknown (with the nearest), a YAML is wrong, or data has too many bad rows.
    """
    registry.register()
    tasks: dict[str, Any] = {}
    for name in benchmarks:
        try:
            benchmark = mteb.get_benchmark(name)
        except KeyError as error:
            known = [known.name for known in mteb.get_benchmarks()]
            raise ConfigError(f"no benchmark is called {name!r}{did_you_mean(name, known)}") from error
        tasks.update({task.metadata.name: task for task in benchmark.tasks})
    for name in names:  # after the benchmarks: NAME=PATH there stands for the task of a benchmark too
        task = _find_task(name, max_bad_rows)
        tasks[task.metadata.name] = task
    if not tasks:
        raise ConfigError("no task: give -t TASK or -b BENCHMARK; `stella-mteb tasks` lists what is bundled")
    for task in tasks.values():
        file: TaskFile | None = getattr(task, "stella_mteb_file", None)
        if file is not None and not (file.spec.hub and not file.data and not file.spec.data):
            _ = file.pairs  # bad rows, and data that is not given, show now, before any model is loaded
    return list(tasks.values())


def _find_task(name: str, max_bad_rows: int | None) -> Any:
    bundled = bundled_tasks()
    head, equals, data = name.partition("=")
    if Path(name).suffix in {".yaml", ".yml"}:
        file = load_task_file(Path(name))
        if registry.is_mteb_task(file.spec.name):
            raise ConfigError(f"{name}: MTEB has a task {file.spec.name} of its own; choose another name")
    elif equals and head in bundled:
        path = Path(data).expanduser()
        if not path.exists():
            raise ConfigError(f"-t {name}: no such file or folder {path}")
        file = replace(bundled[head], data=path)
    elif name in bundled:
        file = bundled[name]
    elif registry.is_mteb_task(name):
        return mteb.get_task(name)
    else:
        raise ConfigError(f"no task is called {name!r}{did_you_mean(name, registry.task_names())}")
    task = task_class(replace(file, max_bad_rows=max_bad_rows))
    registry.add_task(task)
    return task()


def run_task(encoder: Encoder, task: Any, output: Path) -> Outcome:
    """Run one task with one model, or keep the result that is on disk.

    A result of local data that has changed since is computed anew. A task that fails leaves no result and does not
    stop the others: its outcome has the reason.

    Args:
        encoder: The model.
        task: An MTEB task.
        output: The output folder; results go to `<output>/results/...` in MTEB's layout.
    """
    datasets.disable_progress_bars()
    started = time.perf_counter()
    model, name = str(encoder.resolved.spec), task.metadata.name
    cache = AtomicResultCache(output, notes=lambda task: {"prompts": encoder.prompt_notes(task)})
    file: TaskFile | None = getattr(task, "stella_mteb_file", None)
    try:
        known = cache.load_task_result(name, encoder.mteb_model_meta)
        stale = known is not None and file is not None and _revision(file) not in {None, known.dataset_revision}
        calls = encoder.calls
        result = mteb.evaluate(
            encoder,
            task,
            cache=cache,
            overwrite_strategy="always" if stale else "only-missing",
            encode_kwargs={
                "batch_size": encoder.resolved.config.batch_size or _LOADER_ROWS,
                "show_progress_bar": False,
            },
            show_progress_bar=False,
            co2_tracker=False,
        ).task_results[0]
    except StellaMtebError as error:
        return Outcome(model, name, "failed", seconds=time.perf_counter() - started, error=str(error))
    except Exception as error:  # a task of MTEB may fail in any way; the others must still run
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        return Outcome(model, name, "failed", seconds=time.perf_counter() - started, error=text)
    entries = [entry for split in result.scores.values() for entry in split]
    return Outcome(
        model,
        name,
        "done" if encoder.calls > calls else "kept",
        score=float(result.get_score()),
        seconds=time.perf_counter() - started,
        bad_rows=len({bad.place for bad in file.pairs.bad}) if file and encoder.calls > calls else 0,
        per_label=next((entry["per_label"] for entry in entries if "per_label" in entry), ()),
    )


def _revision(file: TaskFile) -> str | None:
    return file.pairs.revision if file.data or file.spec.data else None


def run(
    encoders: Iterable[Encoder], tasks: Sequence[Any], output: Path, on_outcome: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run every task with every model, models one after the other.

    Args:
        encoders: The models; a generator keeps no more than one in memory.
        tasks: MTEB tasks.
        output: The output folder.
        on_outcome: Called after each task.
    """
    outcomes = []
    for encoder in encoders:
        for task in tasks:
            outcome = run_task(encoder, task, output)
            on_outcome(outcome)
            outcomes.append(outcome)
            if task.data_loaded:
                task.unload_data()
    return outcomes
