"""Compare systems like for like: what is not alike is shown as a gap and its reason, never averaged in."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stella_mteb.compare.alike import AGGREGATES, alike, once, task_row
from stella_mteb.compare.item_tests import ByItem, How, differences_by_item, task_differences, tested_by_item
from stella_mteb.compare.records import (
    Comparison,
    Duel,
    Price,
    Score,
    Scores,
    Standing,
    System,
    TaskRow,
)
from stella_mteb.compare.words import listed, many, verdict, winner
from stella_mteb.errors import ConfigError
from stella_mteb.statistics.max_t import max_t, possible_ranks

if TYPE_CHECKING:
    from stella_mteb.outputs.items import Items


def compare(
    scores: Scores,
    *,
    items: Mapping[tuple[str, str], Sequence[Items]] | None = None,
    prices: Sequence[Price] = (),
    gaps: Mapping[System, Mapping[str, str]] | None = None,
    notes: Sequence[str] = (),
    families: Mapping[str, str] | None = None,
    alpha: float = 0.05,
    resamples: int = 9_999,
    seed: int = 0,
) -> Comparison:
    """Compare systems like for like.

    Scores on one task are alike if split and subsets are equal and neither languages nor data revisions contradict
    each other; what a source does not state contradicts nothing. Of a row the scores that most systems share stand,
    the others become gaps; two systems are compared on all tasks that these two have alike.

    Args:
        scores: By system, then by task.
        items: What the scores are made of, by label of the system and task: one entry per subset.
        prices: Shown as they are.
        gaps: Why a system has no score on a task, by system and task, where that is known.
        notes: Shown before those that the comparison itself gives rise to.
        families: By task, the family of tasks on shared data that it belongs to; a task that is not there is alone.
        alpha: Level of the tests; intervals are 1 - alpha.
        resamples: Of the bootstrap and the permutations.
        seed: Of both; the same seed gives the same figures.

    Raises:
        ConfigError: If two systems have one label, or a score is not finite or is in per cent.
    """
    _require_sound(scores)
    rows = tuple(task_row(task, scores, gaps or {}) for task in _tasks(scores))
    common = _common(rows, scores)
    means = {system: _mean([of[task].value for task in common]) if of else None for system, of in scores.items()}
    placed = sorted(scores, key=lambda system: -math.inf if (mean := means[system]) is None else mean, reverse=True)
    how = How(alpha, resamples, seed)
    by_item = differences_by_item(scores, items or {}, how)
    duels, needed = _duels(placed, scores, by_item, families or {}, how)
    duels = tested_by_item(duels, needed, scores, items or {}, how)
    duels = tuple(replace(duel, verdict=verdict(duel, needed, len(duels), alpha)) for duel in duels)
    types = {row.task: row.type for row in rows}
    return Comparison(
        systems=tuple(scores),
        rows=rows,
        common=common,
        standings=tuple(
            Standing(system, means[system], _by_type(scores[system], common, types), *rank, len(scores[system]))
            for system, rank in zip(placed, _ranks(placed, duels, alpha), strict=True)
        ),
        duels=duels,
        needed=needed,
        prices=tuple(prices),
        per_label=_per_label(rows, tuple(scores)),
        notes=(*notes, *_notes(scores, rows, common, by_item, duels, prices)),
        alpha=alpha,
        resamples=resamples,
        seed=seed,
    )


def _require_sound(scores: Scores) -> None:
    labels = [system.label for system in scores]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ConfigError(f"two systems are called {twice!r}; give each a label of its own")
    for system, of_system in scores.items():
        for task, score in of_system.items():
            if not math.isfinite(score.value):
                raise ConfigError(f"{system.label}, {task}: the score is {score.value}; take it out of {score.source}")
            if not -1 <= score.value <= 1:
                raise ConfigError(
                    f"{system.label}, {task}: the score is {score.value:g}; scores are from 0 to 1, not %"
                )


def _tasks(scores: Scores) -> list[str]:
    types = {task: score.type for of in list(scores.values())[::-1] for task, score in of.items()}
    return sorted(types, key=lambda task: (types[task], task.casefold(), task))


def _common(rows: Sequence[TaskRow], scores: Scores) -> tuple[str, ...]:
    # A system without any score takes no task away from the others.
    has_any = [bool(of) for of in scores.values()]
    shared = [
        row.task
        for row in rows
        if all(isinstance(cell, Score) for cell, counts in zip(row.cells, has_any, strict=True) if counts)
    ]
    return once(shared)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _by_type(of_system: Mapping[str, Score], common: Sequence[str], types: Mapping[str, str]) -> dict[str, float]:
    values = defaultdict(list)
    for task in common if of_system else ():
        values[types[task]].append(of_system[task].value)
    return {name: math.fsum(found) / len(found) for name, found in values.items()}


def _per_label(
    rows: Sequence[TaskRow], systems: Sequence[System]
) -> Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]] | None:
    found: dict[str, dict[str, Sequence[Mapping[str, Any]]]] = {
        row.task: {
            system.label: cell.per_label
            for system, cell in zip(systems, row.cells, strict=True)
            if isinstance(cell, Score) and cell.per_label
        }
        for row in rows
    }
    return {task: of_task for task, of_task in found.items() if of_task} or None


# ------------------------------------------------------------------------------------------------------ how sure


def _duels(
    placed: Sequence[System],
    scores: Scores,
    by_item: Mapping[tuple[str, str], Mapping[str, ByItem]],
    families: Mapping[str, str],
    how: How,
) -> tuple[tuple[Duel, ...], int]:
    """Every two systems over the tasks that both have alike, and how many families of tasks a finding takes."""
    tasks, pairs = _tasks(scores), list(itertools.combinations(placed, 2))
    column = {task: i for i, task in enumerate(tasks)}
    differences = np.full((len(pairs), len(tasks)), np.nan)
    both = [
        [task for task, score in scores[one].items() if task in scores[other] and alike(score, scores[other][task])]
        for one, other in pairs
    ]
    for row, (one, other), shared in zip(differences, pairs, both, strict=True):
        for task in once(shared):
            row[column[task]] = scores[one][task].value - scores[other][task].value
    numbers = np.unique([families.get(task, task) for task in tasks], return_inverse=True)[1]
    tested = max_t(differences, numbers, **how._asdict())
    duels = []
    for i, ((one, other), shared) in enumerate(zip(pairs, both, strict=True)):
        row, known = differences[i][np.isfinite(differences[i])], by_item[one.label, other.label]
        bounded = len(row) > 0 and tested.low[i] > -math.inf
        duels.append(
            Duel(
                first=one,
                second=other,
                tasks=len(row),
                families=int(tested.families[i]),
                difference=float(tested.difference[i]) if len(row) else None,
                low=float(tested.low[i]) if bounded else None,
                high=float(tested.high[i]) if bounded else None,
                p=float(tested.p[i]) if len(row) else None,
                p_adjusted=float(tested.p_adjusted[i]) if len(row) else None,
                wins=int((row > 0).sum()),
                ties=int((row == 0).sum()),
                losses=int((row < 0).sum()),
                verdict="",
                by_task=task_differences({task: known[task] for task in tasks if task in shared and task in known}),
            )
        )
    return tuple(duels), tested.needed


def _ranks(placed: Sequence[System], duels: Sequence[Duel], alpha: float) -> list[tuple[int, int]]:
    number = {system.label: i for i, system in enumerate(placed)}
    decided = [
        (number[best.label], number[(duel.second if best is duel.first else duel.first).label])
        for duel in duels
        if (best := winner(duel, alpha))
    ]
    return possible_ranks(len(placed), decided)


def _notes(
    scores: Scores,
    rows: Sequence[TaskRow],
    common: Sequence[str],
    by_item: Mapping[tuple[str, str], Mapping[str, ByItem]],
    duels: Sequence[Duel],
    prices: Sequence[Price],
) -> Iterator[str]:
    compared = [[cell for cell in row.cells if isinstance(cell, Score)] for row in rows]
    compared = [cells for cells in compared if len(cells) > 1]
    for system, of in scores.items():
        if not of:
            yield f"{system.label} has no score on any task"
    if common and len(common) < len(once([row.task for row in rows])):
        yield f"The means are over the {many(len(common), 'task')} that all systems have alike; other tasks have gaps"
    for task in common:
        if any(part in {row.task for row in rows} for part in AGGREGATES.get(task, ())):
            yield f"{task} is a mean of other tasks; those do not count in the means beside it"
    if unstated := sum(any(score.dataset_revision is None for score in cells) for cells in compared):
        yield (
            f"On {unstated} of {many(len(compared), 'compared task')} a source does not state the revision of the "
            "data; the scores are compared all the same"
        )
    metrics = [{score.metric for score in cells if score.metric} for cells in compared]
    if several := [names for names in metrics if len(names) > 1]:
        names = sorted(set.union(*several))
        yield f"On {many(len(several), 'task')} the sources name different main scores ({listed(names)})"
    hands = sorted({system.provenance for system, of in scores.items() if of})
    if len(hands) > 1:
        yield f"The scores are of several hands ({listed(hands)}); a difference can be one of how they were measured"
    versions = sorted({score.mteb_version for cells in compared for score in cells if score.mteb_version})
    if len(versions) > 1:
        yield f"The scores are of several versions of mteb ({listed(versions)}); tasks can change between them"
    yield from _notes_on_prices(prices)
    if any(duel.items for duel in duels):
        yield "So few tasks are tested over their items: ranks and pairs answer for these tasks, not for others"
    untold = {task for of_tasks in by_item.values() for task, one in of_tasks.items() if one.difference is None}
    if untold:
        yield f"No test item by item on {listed(sorted(untold))}: too few items, or constant values"


def _notes_on_prices(prices: Sequence[Price]) -> Iterator[str]:
    if prices:
        yield "Speed is of single runs, whatever else the machine did meanwhile; `stella-mteb bench` measures in turns"
    machines = {price.machine for price in prices if price.machine}
    if len(machines) > 1:
        yield f"Speed and memory were measured on {len(machines)} machines; compare them within one machine only"
