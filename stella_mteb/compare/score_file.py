"""One result file of MTEB's layout, read without mteb: its main score, or the reason why it has none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_mteb.compare.records import Score
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


@dataclass(frozen=True)
class TaskFacts:
    """The facts of a task that the reader of a result needs; `unknown` and no splits if nobody knows it."""

    type: str = "unknown"
    splits: tuple[str, ...] = ()
    main_score: str | None = None


def read_score(path: Path, task: TaskFacts, subset: str | None = None) -> tuple[Score, list[str]]:
    """The score of a result file.

    One split is scored: the only one, or the one that the task defines, or else `test`.

    Args:
        path: The file; it must be called as its task is. One of mteb before 1.11 is read as one of today.
        task: Facts of the task.
        subset: Score this subset only; None for all that the file has.

    Returns:
        The score, and the other splits if it was not the task that decided between them.

    Raises:
        ConfigError: If the file has no score that could be shown; the text is the reason, without the path.
    """
    content, name = read_result(path), current_name(path.stem)
    if is_old(content):
        content = modern(content, [*filter(None, [task.main_score]), *_MAIN_SCORES.get(task.type, ())])
    if current_name(content.get("task_name", name)) != name:
        raise ConfigError(f"the file says that it is of task {content['task_name']}")
    by_split = entries_by_split(content)
    split, others = _choose_split(sorted(by_split), task.splits)
    entries = by_split[split]
    if subset is not None:
        if subset not in entries:
            raise ConfigError(f"has no subset {subset}, which MTEB(eng, v1) scores (has {_some(entries)})")
        entries = {subset: entries[subset]}
    values = [_score(name, entry) for name, entry in entries.items()]
    score = Score(
        task=name,
        type=task.type,
        value=math.fsum(values) / len(values),
        split=split,
        subsets=tuple(sorted(entries)),
        languages=_languages(entries.values()),
        dataset_revision=_stated(content.get("dataset_revision")),
        metric=_metric(task.type, entries.values()),
        mteb_version=_versions(content, entries.values()),
        per_label=_per_label(list(entries.values())),
    )
    return score, others


def _choose_split(present: list[str], defined: Sequence[str]) -> tuple[str, list[str]]:
    if len(present) == 1:
        return present[0], []
    scored = [split for split in present if split in defined]
    if len(scored) == 1:
        return scored[0], []
    if "test" in (scored or present):
        return "test", [split for split in present if split != "test"]
    raise ConfigError(f"has the splits {_some(present)}, and nothing says which of them counts")


def _score(subset: str, entry: Entry) -> float:
    value = main_score(entry)
    if not -1 <= value <= 1:
        raise ConfigError(f"subset {subset}: main score {str(value)[:8]} is not from -1 to 1 (a percentage?)")
    return value


def _some(names: Iterable[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - _SHOWN_NAMES} more" if len(shown) > _SHOWN_NAMES else ""
    return ", ".join(shown[:_SHOWN_NAMES]) + more


def _languages(entries: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    found: set[str] = set()
    for entry in entries:
        stated = entry.get("languages")
        if not isinstance(stated, list) or not stated:
            return ()  # half a list would hide a language
        found |= set(map(str, stated))
    return tuple(sorted(found))


def _stated(value: object) -> str | None:
    return value if isinstance(value, str) and value and "not available" not in value else None


def _metric(task_type: str, entries: Iterable[Mapping[str, Any]]) -> str | None:
    # MTEB does not write its name down, but the score stands a second time under it.
    entries = list(entries)
    names = _MAIN_SCORES.get(task_type, ())
    return next((name for name in names if all(entry.get(name) == entry["main_score"] for entry in entries)), None)


def _versions(content: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> str | None:
    # A file that was completed later has a version for each entry.
    stated = {_stated(entry.get("mteb_version") or content.get("mteb_version")) for entry in entries}
    return ", ".join(sorted(version for version in stated if version)) or None


def _per_label(entries: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    rows = entries[0].get("per_label") if len(entries) == 1 else None
    return tuple(row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
