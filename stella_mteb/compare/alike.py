"""Rules for which scores are comparable: same task and conditions; no task counts beside its own parts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from stella_mteb.compare.records import Cell, Gap, Part, Score, Scores, System, TaskRow
from stella_mteb.files.tables import listed

# fmt: off
_FORUMS = ("Android", "English", "Gaming", "Gis", "Mathematica", "Physics", "Programmers", "Stats", "Tex", "Unix",
           "Webmasters", "Wordpress")
_FEELINGS = ("Anger", "Satisfaction", "Friendship", "Fear", "Jealousy", "Surprise", "Love", "Sadness", "Happiness")
# fmt: on
AGGREGATES: Mapping[str, frozenset[str]] = {
    "CQADupstackRetrieval": frozenset(f"CQADupstack{forum}Retrieval" for forum in _FORUMS),
    "CQADupstackRetrieval-Fa": frozenset(f"CQADupstack{forum}Retrieval-Fa" for forum in _FORUMS),
    "CQADupstackRetrieval-PL": frozenset(f"CQADupstack-{forum}-PL" for forum in _FORUMS),
    "CQADupstack-NL": frozenset(f"CQADupstack{forum}-NL" for forum in _FORUMS),
    "SynPerChatbotConvSAClassification": frozenset(f"SynPerChatbotConvSA{feeling}" for feeling in _FEELINGS),
}
"""MTEB's text tasks that are the mean of other tasks. Beside its parts, such a task would count them twice."""


class Condition(NamedTuple):
    """The conditions that must agree for two scores of a task to be compared. An unstated condition agrees with all."""

    cells: frozenset[Cell]
    languages: tuple[str, ...]
    revision: str | None

    @classmethod
    def of(cls, score: Score, *, any_revision: bool = False) -> Condition:
        """Read the condition of a score.

        Args:
            score: The score.
            any_revision: Whether to ignore the data revision.
        """
        return cls(score.cells, score.languages, None if any_revision else score.dataset_revision)

    def shared(self, other: Condition) -> frozenset[Cell]:
        """Find the splits and subsets over which the two can be compared; empty if they contradict each other."""
        if self.revision and other.revision and self.revision != other.revision:
            return frozenset()
        if self.cells != other.cells:
            return self.cells & other.cells
        contradict = self.languages and other.languages and self.languages != other.languages
        return frozenset() if contradict else self.cells


def with_aggregates(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Add each missing aggregate task whose parts all have scores, as the mean of its parts, like MTEB."""
    made = {}
    for task, parts in AGGREGATES.items():
        own = [scores[part] for part in sorted(parts) if part in scores]
        if task in scores or len(own) < len(parts) or len({part.cells for part in own}) > 1:
            continue
        spoken = tuple(sorted({language for part in own for language in part.languages}))
        mean = math.fsum(part.value for part in own) / len(own)
        made[task] = replace(
            own[0],
            task=task,
            dataset_revision=None,
            mteb_version=", ".join(sorted({part.mteb_version for part in own if part.mteb_version})) or None,
            source=f"mean of its {len(own)} parts",
        ).made_of([Part(own[0].split, ", ".join(own[0].subsets), mean, spoken)])
    return {**scores, **made}


def task_row(
    task: str,
    scores: Scores,
    gaps: Mapping[System, Mapping[str, str]],
    *,
    complete: int | None = None,
    any_revision: bool = False,
) -> TaskRow:
    """Build the row of one task: comparable scores, and a gap for each system without one.

    The condition that most systems share decides which scores are comparable.

    Args:
        task: The task.
        scores: By system, then by task.
        gaps: The known reasons for missing scores, by system and task.
        complete: The number of splits and subsets of a complete score, if known.
        any_revision: Whether to ignore the data revision.
    """
    found = {system: of[task] for system, of in scores.items() if task in of}
    cells = _compared([score.cells for score in found.values()], complete)
    whole = {system: score.over(cells) for system, score in found.items() if cells <= score.cells}
    conditions = {system: Condition.of(score, any_revision=any_revision) for system, score in whole.items()}
    shared = _shared(conditions.values())

    parts = AGGREGATES.get(task, frozenset())

    def cell(system: System) -> Score | Gap:
        if system not in found:
            missing = sorted(parts - scores[system].keys())
            lacking = "no score"
            if len(missing) < len(parts):
                lacking = f"{len(parts) - len(missing)} of its {len(parts)} parts, without {listed(missing)}"
            if parts and not missing:
                lacking = "its parts have different splits or subsets"
            return Gap(gaps.get(system, {}).get(task) or lacking)
        if system not in whole:
            return Gap(_other_cells(found[system], cells))
        if conditions[system].shared(shared):
            return whole[system]
        by_revision = bool(conditions[system]._replace(revision=None).shared(shared))
        return Gap(_contradiction(conditions[system], shared), whole[system].value, by_revision=by_revision)

    row = tuple(map(cell, scores))
    alone = sum(isinstance(one, Score) for one in row) < 2
    return TaskRow(
        task, next((score.type for score in found.values()), "unknown"), row, "" if alone else _as_text(shared)
    )


def _compared(found: Sequence[frozenset[Cell]], complete: int | None) -> frozenset[Cell]:
    """Choose the splits and subsets to compare: those of a complete score, else those that more than half have."""
    for cells in found:
        if len(cells) == complete:
            return cells
    counted = Counter(cell for cells in found for cell in cells)
    most = frozenset(cell for cell, count in counted.items() if 2 * count > len(found))
    if most and any(most <= cells for cells in found):
        return most
    return Counter(found).most_common(1)[0][0] if found else frozenset()


def once(tasks: Sequence[str]) -> tuple[str, ...]:
    """Remove the tasks that are parts of another task in the list."""
    parts = {part for task in tasks for part in AGGREGATES.get(task, ())}
    return tuple(task for task in tasks if task not in parts)


def _shared(conditions: Iterable[Condition]) -> Condition:
    """Find the condition that most scores share. If several tie, take that of the earliest system."""
    conditions = list(conditions)
    best, most = Condition(frozenset(), (), None), 0
    for start in conditions:
        # Compatibility is not transitive: a score without a revision is compatible with two that contradict each other.
        union, count = start, 0
        for one in conditions:
            if union.shared(one):
                union = union._replace(
                    languages=union.languages or one.languages, revision=union.revision or one.revision
                )
                count += 1
        if count > most:
            best, most = union, count
    return best


def _other_cells(score: Score, cells: frozenset[Cell]) -> str:
    splits, subsets = _names(cells)
    own_splits, own_subsets = _names(score.cells)
    reasons = []
    if own_splits != splits:
        reasons.append(f"evaluated on {_counted('split', own_splits)}, not {listed(splits)}")
    if own_subsets != subsets or not reasons:
        reasons.append(f"on {_counted('subset', own_subsets)}, not {listed(subsets)}")
    return "; ".join(reasons)


def _contradiction(own: Condition, shared: Condition) -> str:
    reasons = []
    if own.languages and shared.languages and own.languages != shared.languages:
        reasons.append(f"on {_counted('language', own.languages)}, not {listed(shared.languages)}")
    if own.revision and shared.revision and own.revision != shared.revision:
        reasons.append(f"on revision {own.revision[:8]} of the data, not {shared.revision[:8]}")
    return "; ".join(reasons)


def _as_text(condition: Condition) -> str:
    splits, subsets = _names(condition.cells)
    revision = f"revision {condition.revision[:8]}" if condition.revision else "revision not stated"
    return f"{_counted('split', splits)}, {_counted('subset', subsets)}, {revision}"


def _names(cells: frozenset[Cell]) -> tuple[list[str], list[str]]:
    return sorted({split for split, _ in cells}), sorted({subset for _, subset in cells})


def _counted(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {listed(names)}"
