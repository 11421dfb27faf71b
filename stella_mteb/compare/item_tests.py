"""Tests of two systems over items (pairs, queries, texts): per task, and over all tasks if these are few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stella_mteb.compare.records import Duel, Scores, TaskDifference
from stella_mteb.statistics.paired import Difference, Part, holm, paired_differences

if TYPE_CHECKING:
    from stella_mteb.outputs.items import Items

Known = Mapping[tuple[str, str], Sequence["Items"]]
"""Items by system label and task; one entry per subset."""


class How(NamedTuple):
    """The parameters that all tests of a comparison share."""

    alpha: float
    resamples: int
    seed: int


class ByItem(NamedTuple):
    """The difference of two systems on one task; None without a test."""

    difference: Difference | None
    items: int
    unit: str


def differences_by_item(scores: Scores, known: Known, how: How) -> defaultdict[tuple[str, str], dict[str, ByItem]]:
    """Test each pair of systems on each task for which both have the same items.

    Returns:
        The differences by two labels (in either order), then by task.
    """
    found: defaultdict[tuple[str, str], dict[str, ByItem]] = defaultdict(dict)
    for task in sorted({task for of in scores.values() for task in of}):
        for labels, parts, unit in _same_items(scores, known, [task]):
            count = _count(parts)
            for (i, j), one in paired_differences(parts, **how._asdict()).items():
                found[labels[i], labels[j]][task] = ByItem(one, count, unit)
                turned = one and Difference(-one.value, -one.high, -one.low, one.p)
                found[labels[j], labels[i]][task] = ByItem(turned, count, unit)
    return found


def task_differences(by_item: Mapping[str, ByItem]) -> tuple[TaskDifference, ...]:
    """Adjust the p-values of a duel for the number of its tasks (Holm)."""
    known = {task: (one.difference, one) for task, one in by_item.items() if one.difference}
    adjusted = holm([difference.p for difference, _ in known.values()])
    return tuple(
        TaskDifference(task, d.value, d.low, d.high, d.p, p_adjusted, one.items, one.unit)
        for (task, (d, one)), p_adjusted in zip(known.items(), adjusted, strict=True)
    )


def tested_by_item(duels: Sequence[Duel], needed: int, scores: Scores, known: Known, how: How) -> tuple[Duel, ...]:
    """Test duels over items if no duel has enough tasks for a finding.

    A duel is tested over items if these are known on all of its tasks. The difference stays the mean over tasks.
    Interval and p are adjusted for the number of duels (Bonferroni).

    Args:
        duels: The duels, tested over tasks.
        needed: The number of task families that a finding needs.
        scores: The scores of the systems.
        known: The items of the systems.
        how: Level, resamples and seed.
    """
    if any(duel.families >= needed for duel in duels):
        return tuple(duels)
    adjusted = how._replace(alpha=how.alpha / max(1, len(duels)))
    tasks = {system.label: tuple(sorted(of)) for system, of in scores.items()}
    tested: dict[frozenset[str], tuple[str, Difference, int]] = {}
    for of_tasks in set(tasks.values()):
        group = {system: of for system, of in scores.items() if tasks[system.label] == of_tasks}
        for labels, parts, _ in _same_items(group, known, of_tasks):
            for (i, j), one in paired_differences(parts, **adjusted._asdict()).items():
                if one:
                    tested[frozenset((labels[i], labels[j]))] = (labels[i], one, _count(parts))
    found = []
    for duel in duels:
        first, one, count = tested.get(frozenset((duel.first.label, duel.second.label)), ("", None, 0))
        if one is None or duel.tasks < len(tasks[first]):
            found.append(duel)
            continue
        low, high = (one.low, one.high) if first == duel.first.label else (-one.high, -one.low)
        p_adjusted = min(1.0, len(duels) * one.p)
        found.append(replace(duel, items=count, low=low, high=high, p=one.p, p_adjusted=p_adjusted))
    return tuple(found)


def _same_items(
    scores: Scores, known: Known, tasks: Sequence[str]
) -> Iterator[tuple[Sequence[str], Sequence[Part], str]]:
    """Group the systems that have the same items on all these tasks.

    Yields:
        For each group, its labels, its parts, and the unit of the first task's items.
    """
    same = defaultdict(list)
    for system in scores:
        own = [sorted(known.get((system.label, task), ()), key=lambda one: one.subset) for task in tasks]
        if own and all(own):
            key = tuple(tuple((one.split, one.subset, one.kind, one.digest) for one in of_task) for of_task in own)
            same[key].append((system.label, own))
    for group in same.values():
        labels, of_systems = zip(*group, strict=True)
        parts = [
            Part(of[0].kind, of[0].gold, np.stack([one.values for one in of]), 1 / len(of_task[0]))
            for of_task in zip(*of_systems, strict=True)
            for of in zip(*of_task, strict=True)
        ]
        yield labels, parts, of_systems[0][0][0].unit


def _count(parts: Sequence[Part]) -> int:
    return sum(part.values.shape[1] for part in parts)
