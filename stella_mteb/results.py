"""MTEB's results on disk, written so that a kill at any moment loses no finished task.

MTEB writes with a plain `open("w")`: a process killed in the write leaves half a file, and half a file stops
every later run. `AtomicResultCache` is MTEB's own cache with the writes made atomic and unreadable files set
aside; it works with plain `mteb.evaluate(..., cache=AtomicResultCache(folder))` too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mteb import ResultCache
from mteb.models import ModelMeta
from mteb.results import TaskResult

from stella_mteb.errors import StellaMtebError, StorageProblem
from stella_mteb.files import atomic_write

logger = logging.getLogger(__name__)

Notes = Callable[[str], Mapping[str, Any]]
"""What to record beside a task's settings, by task name; for example its prompts."""


class AtomicResultCache(ResultCache):  # type: ignore[misc]
    """MTEB's result cache with atomic writes.

    Args:
        cache_path: The output folder; results go to `<cache_path>/results/...` in MTEB's layout.
        notes: Recorded in `run_settings.jsonl`, MTEB's own place for the settings of a run.
    """

    def __init__(self, cache_path: Path | str, notes: Notes | None = None) -> None:
        super().__init__(cache_path)
        self._notes = notes

    def load_task_result(self, task_name: str, model_name: str | ModelMeta, **kwargs: Any) -> TaskResult | None:
        """Load a result, or None; a file that does not parse is set aside and counts as absent."""
        where = {key: kwargs[key] for key in ("model_revision", "experiment_name") if key in kwargs}
        path = self.get_task_result_path(task_name, model_name, **where)
        if path.exists():
            try:
                _require_finite(TaskResult.from_disk(path))
            except (AttributeError, KeyError, TypeError, ValueError, RecursionError, StellaMtebError) as error:
                _set_aside(path, error)
        return super().load_task_result(task_name, model_name, **kwargs)

    def save_to_cache(
        self,
        task_result: TaskResult,
        model_name: str | ModelMeta,
        model_revision: str | None = None,
        *,
        encode_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Save a result, its model's description and its settings; see `ResultCache.save_to_cache`.

        Raises:
            StellaMtebError: If a main score is not finite; nothing is written then.
            StorageProblem: If the disk is full or the folder cannot be written; the old files are intact.
        """
        _require_finite(task_result)
        emissions = task_result.kg_co2_emissions
        if emissions is not None and not math.isfinite(emissions):
            task_result.kg_co2_emissions = None  # MTEB sums them to NaN where none were measured; not JSON
        final = self.get_task_result_path(task_result.task_name, model_name, model_revision)
        # MTEB writes to a scratch copy of the folder; what it wrote is then moved over file by file.
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.cache_path, prefix=".writing-") as scratch:
                cache = ResultCache(scratch)
                copy = cache.get_task_result_path(task_result.task_name, model_name, model_revision)
                copy.parent.mkdir(parents=True, exist_ok=True)
                settings = final.parent / "run_settings.jsonl"
                (copy.parent / settings.name).write_text(_whole_lines(settings), encoding="utf-8")
                cache.save_to_cache(task_result, model_name, model_revision, encode_kwargs=encode_kwargs)
                self._add_notes(copy.parent / settings.name, task_result.task_name)
                # The result itself last: where it stands, everything it needs stands too.
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


def _whole_lines(settings: Path) -> str:
    # The settings of earlier tasks, less any line that a crash of another program has left half written.
    if not settings.exists():
        return ""
    lines = settings.read_text(encoding="utf-8", errors="replace").splitlines()
    return "".join(f"{line}\n" for line in lines if _is_object(line))


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _set_aside(path: Path, error: Exception) -> None:
    number = next(n for n in itertools.count() if not path.with_suffix(f".json.damaged{n or ''}").exists())
    aside = path.with_suffix(f".json.damaged{number or ''}")
    with contextlib.suppress(FileNotFoundError):  # another process was first
        path.replace(aside)
    logger.warning("%s does not parse (%s); set aside as %s, the task runs again", path, error, aside.name)


def _require_finite(result: TaskResult) -> None:
    for split, entries in result.scores.items():
        for entry in entries:
            score = entry.get("main_score")
            if score is None:  # what MTEB gives an aggregate of which a part failed
                raise StellaMtebError(f"task {result.task_name} ({split}): has no main score; a part of it failed")
            if not math.isfinite(score):
                raise StellaMtebError(
                    f"task {result.task_name} ({split}): the main score is {score}; "
                    "the vectors are constant or damaged. Nothing was written"
                )


def require_writable(folder: Path) -> None:
    """Raise a StorageProblem unless files can be made in a folder; before any model is loaded.

    The folder is made if it is not there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=folder, prefix=".probe-")
        os.close(handle)
        Path(probe).unlink()
    except OSError as error:
        raise StorageProblem(f"{folder}: results cannot be written here: {error.strerror or error}") from error
