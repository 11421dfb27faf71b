"""MTEB's result cache with atomic writes, so that a killed process loses no finished task.

MTEB writes with a plain `open("w")`. A process that is killed during the write leaves a truncated file, which stops
every later run. `AtomicResultCache` writes atomically and sets unreadable files aside. It also works with plain
`mteb.evaluate(..., cache=AtomicResultCache(folder))`. Several processes may write to one folder, even splits and
subsets of one task: files are read and rewritten under a lock (`stella_mteb.files.locks`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mteb import ResultCache
from mteb.models import ModelMeta
from mteb.results import TaskResult

from stella_mteb.errors import ConfigError, StellaMtebError, StorageProblem
from stella_mteb.files.atomic import atomic_write, set_aside
from stella_mteb.files.locks import writing
from stella_mteb.outputs.layout import require_inside
from stella_mteb.outputs.result_file import main_score

logger = logging.getLogger(__name__)

Notes = Callable[[str], Mapping[str, Any]]
"""Returns extra settings to record for a task name, for example its prompts."""


class AtomicResultCache(ResultCache):  # type: ignore[misc]
    """MTEB's result cache with atomic writes.

    Args:
        cache_path: The output folder; results go to `<cache_path>/results/...` in MTEB's layout. It may be a symlink,
            but paths below it may not lead outside.
        notes: Recorded in `run_settings.jsonl`, MTEB's file for the settings of a run.
    """

    def __init__(self, cache_path: Path | str, notes: Notes | None = None) -> None:
        super().__init__(cache_path)
        self._notes = notes

    def load_task_result(
        self,
        task_name: str,
        model_name: str | ModelMeta,
        model_revision: str | None = None,
        *,
        experiment_name: str | None = None,
        **options: Any,
    ) -> TaskResult | None:
        """Load a result, or None. A file that is damaged or belongs to another task is set aside and counts as absent.

        See `ResultCache.load_task_result`, which gets the other options.

        Raises:
            StorageProblem: If the file cannot be read, or leads outside the folder.
        """
        where = {"model_revision": model_revision, "experiment_name": experiment_name}
        path = self.get_task_result_path(task_name, model_name, **where)
        require_inside(path, self.cache_path)
        if _damage(path):
            with writing(self.cache_path, path.parent):
                _set_aside_if_damaged(path)
        return super().load_task_result(task_name, model_name, **where, **options)

    def save_to_cache(
        self,
        task_result: TaskResult,
        model_name: str | ModelMeta,
        model_revision: str | None = None,
        **settings: Any,
    ) -> None:
        """Save a result with its model's description and its settings; see `ResultCache.save_to_cache`.

        Splits and subsets that another process has written meanwhile are kept if the data's revision is the same.

        Raises:
            StellaMtebError: If a main score is not finite; then nothing is written.
            StorageProblem: If the disk is full or the folder cannot be written; the old files are intact.
        """
        _require_finite(task_result)
        emissions = task_result.kg_co2_emissions
        if emissions is not None and not math.isfinite(emissions):
            task_result.kg_co2_emissions = None  # MTEB sums missing values to NaN, which JSON does not allow
        final = self.get_task_result_path(task_result.task_name, model_name, model_revision)
        require_inside(final, self.cache_path)
        # MTEB writes to a scratch copy of the folder, whose files are then moved over one by one.
        with writing(self.cache_path, final.parent):
            task_result = _with_earlier(final, task_result)
            try:
                final.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory() as scratch:
                    cache = ResultCache(scratch)
                    copy = cache.get_task_result_path(task_result.task_name, model_name, model_revision)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    known = final.parent / "run_settings.jsonl"
                    (copy.parent / known.name).write_text(_whole_lines(known), encoding="utf-8")
                    cache.save_to_cache(task_result, model_name, model_revision, **settings)
                    self._add_notes(copy.parent / known.name, task_result.task_name)
                    # The result comes last: once it exists, everything it needs exists too.
                    for path in sorted(copy.parent.iterdir(), key=lambda path: path.name == final.name):
                        with atomic_write(final.parent / path.name, "wb") as file:
                            file.write(path.read_bytes())
            except OSError as error:
                raise StorageProblem(f"{final}: cannot be written: {error.strerror or error}") from error

    def _add_notes(self, settings: Path, task: str) -> None:
        notes = self._notes(task) if self._notes else {}
        if not notes:
            return
        lines = [json.loads(line) for line in settings.read_text(encoding="utf-8").splitlines() if line.strip()]
        lines = [{**line, **notes} if line.get("task") == task else line for line in lines]
        settings.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_task_result(path: Path) -> TaskResult:
    """Read one result as MTEB does, and check it.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is damaged, belongs to another task, or has a main score that is not a number.
        StorageProblem: If it cannot be read.
    """
    try:
        result = TaskResult.from_disk(path)
        if result.task_name != path.stem:
            raise ValueError(f"it belongs to task {result.task_name}")
        _require_finite(result)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageProblem(f"{path}: cannot be read: {error.strerror or error}") from error
    except (AttributeError, KeyError, TypeError, RecursionError, StellaMtebError) as error:
        raise ValueError(str(error)) from error
    return result


def _damage(path: Path) -> str | None:
    try:
        read_task_result(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        return str(error) or "damaged"
    return None


def _set_aside_if_damaged(path: Path) -> None:
    # Check again under the lock: another process may have set the file aside and rewritten it.
    if damage := _damage(path):
        aside = set_aside(path)
        logger.warning("%s cannot be used (%s); set aside as %s, the task runs again", path, damage, aside.name)


def _with_earlier(path: Path, result: TaskResult) -> TaskResult:
    """Add the splits and subsets on disk that a result lacks."""
    _set_aside_if_damaged(path)
    try:
        known = read_task_result(path)
    except FileNotFoundError:
        return result
    have = {(split, entry["hf_subset"]) for split, entries in result.scores.items() for entry in entries}
    more = {
        split: [entry for entry in entries if (split, entry["hf_subset"]) not in have]
        for split, entries in known.scores.items()
    }
    more = {split: entries for split, entries in more.items() if entries}
    if not more or known.dataset_revision != result.dataset_revision:
        return result
    # MTEB has no place for the time and the phases of two processes; keep those of the writer.
    times = {"evaluation_time": None, "evaluation_phases": None, "kg_co2_emissions": None, "date": None}
    return known.model_copy(update={"scores": more, **times}).merge(result)


def _whole_lines(settings: Path) -> str:
    """Read the settings of earlier tasks, without lines that a crash has left incomplete."""
    lines = settings.read_text(encoding="utf-8", errors="replace").splitlines() if settings.exists() else ()
    whole = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(json.loads(line), dict):
                whole.append(f"{line}\n")
    return "".join(whole)


def _require_finite(result: TaskResult) -> None:
    for split, entries in result.scores.items():
        for entry in entries:
            try:
                main_score(entry)
            except ConfigError as error:
                raise StellaMtebError(
                    f"task {result.task_name} ({split}): {error}: the vectors are constant or damaged, or part of the "
                    "task failed. Nothing was written"
                ) from None
