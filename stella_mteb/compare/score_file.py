"""Read one result file in MTEB's layout, without mteb: its main score, or the reason why it has none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_mteb.compare.records import Cell, Part, Score
from stella_mteb.compare.selection import EVERYTHING, Selection
from stella_mteb.errors import ConfigError
from stella_mteb.outputs.old_result import current_name, is_old, modern
from stella_mteb.outputs.result_file import Entry, entries_by_split, main_score, read_result

_SHOWN_NAMES = 8
_MAIN_SCORES = {
    "Classification": ("accuracy",),
    "Clustering": ("v_measure",),
    "PairClassification": ("max_ap", "cosine_ap", "ap"),
    "Reranking": ("map_at_1000", "map"),
    "Retrieval": ("ndcg_at_10",),
    "STS": ("cosine_spearman",),
    "Summarization": ("cosine_spearman",),
}
_NO_DATA = {"None", "1"}
"""Placeholders in result files that are not data revisions."""


@dataclass(frozen=True)
class TaskFacts:
    """The facts of a task that are needed to read its result; an unknown task has type `unknown` and no splits."""

    type: str = "unknown"
    splits: tuple[str, ...] = ()
    main_score: str | None = None


def read_score(path: Path, task: TaskFacts, selection: Selection = EVERYTHING) -> tuple[Score | None, list[str]]:
    """Read the score of a result file: the mean over all subsets of the splits that count.

    The splits that count are those that the task defines, or else the only split in the file, or else `test`.

    Args:
        path: The file, named after its task. The format of mteb before 1.11 is also read.
        task: Facts of the task.
        selection: The splits, subsets and languages that count.

    Returns:
        The score, or None if it is in other languages only. Then the splits that were not used, if the task does not
        define its splits and `test` was chosen.

    Raises:
        ConfigError: If the file has no usable score; the text is the reason, without the path.
    """
    content, name = read_result(path), current_name(path.stem)
    if is_old(content):
        content = modern(content, [*filter(None, [task.main_score]), *_MAIN_SCORES.get(task.type, ())])
    if current_name(content.get("task_name", name)) != name:
        raise ConfigError(f"the file is for another task, {content['task_name']}")
    by_split = entries_by_split(content)
    splits, others = _choose_splits(sorted(by_split), task.splits)
    entries = [entry for split in splits for entry in by_split[split].values()]
    revision = _stated(content.get("dataset_revision")) or "None"
    # MTEB does not store the name of the main score, but repeats the score under that name. A file that was completed
    # later has a version per entry.
    named = (name for name in _MAIN_SCORES.get(task.type, ()) if all(e.get(name) == e["main_score"] for e in entries))
    versions = {_stated(entry.get("mteb_version") or content.get("mteb_version")) for entry in entries}
    score = Score(
        task=name,
        type=task.type,
        value=math.nan,
        split="",
        subsets=(),
        dataset_revision=None if revision in _NO_DATA or revision.endswith("is_a_combined_dataset") else revision,
        metric=next(named, None),
        mteb_version=", ".join(sorted(version for version in versions if version)) or None,
        per_label=_per_label(entries),
    )
    faults: dict[Cell, ConfigError] = {}
    parts = []
    for split in splits:
        for subset, entry in by_split[split].items():
            try:
                value = _value(subset, entry)
            except ConfigError as error:  # raised below, if this subset counts
                value, faults[split, subset] = math.nan, error
            stated = entry.get("languages")
            languages = tuple(sorted(set(map(str, stated)))) if isinstance(stated, list) else ()
            parts.append(Part(split, subset, value, languages))
    counted = selection.narrow(score.made_of(parts))
    for cell in faults.keys() & (counted.cells if counted else ()):
        raise faults[cell]
    return counted, others


def _choose_splits(present: list[str], defined: Sequence[str]) -> tuple[list[str], list[str]]:
    scored = [split for split in present if split in defined]
    if scored or len(present) == 1:
        return scored or present, []
    if "test" in present:
        return ["test"], [split for split in present if split != "test"]
    more = [f"and {len(present) - _SHOWN_NAMES} more"] if len(present) > _SHOWN_NAMES else []
    names = ", ".join([*present[:_SHOWN_NAMES], *more])
    raise ConfigError(f"has the splits {names}, and the task does not define which of them counts")


def _value(subset: str, entry: Entry) -> float:
    value = main_score(entry)
    if not -1 <= value <= 1:
        raise ConfigError(f"subset {subset}: main score {str(value)[:8]} is outside -1 to 1 (a percentage?)")
    return value


def _stated(value: object) -> str | None:
    return value if isinstance(value, str) and value and "not available" not in value else None


def _per_label(entries: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    rows = entries[0].get("per_label") if len(entries) == 1 else None
    return tuple(row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
