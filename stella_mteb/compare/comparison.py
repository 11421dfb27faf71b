"""Compare systems like for like: what is not alike is shown as a gap and its reason, never averaged in."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stella_mteb.compare.records import Score, Scores, System
from stella_mteb.compare.statistics import (
    Difference,
    Part,
    holm,
    mean_interval,
    paired_differences,
    rank_intervals,
    sign_flip_p,
)
from stella_mteb.compare.words import listed, many, verdict, winner
from stella_mteb.errors import ConfigError

if TYPE_CHECKING:
    from stella_mteb.outputs.items import Items

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
"""MTEB's text tasks that are the mean of other tasks, which would count twice beside them."""


@dataclass(frozen=True)
class Gap:
    """Why a system has no comparable score on a task."""

    reason: str


@dataclass(frozen=True)
class TaskRow:
    """One task over all systems, in the order of `Comparison.systems`.

    Attributes:
        task: Name.
        type: Task type.
        cells: A score, or the gap in its place.
        condition: Split, subsets and data revision that the scores share, as text; empty if there are fewer than two.
    """

    task: str
    type: str
    cells: tuple[Score | Gap, ...]
    condition: str


@dataclass(frozen=True)
class Standing:
    """One system's place.

    Attributes:
        system: The system.
        mean: Mean main score over `Comparison.common`, 0 to 1; None if that is empty.
        by_type: The same by task type.
        best_rank: 1 + the number of systems that are better beyond doubt (Holm-adjusted p < alpha).
        worst_rank: The number of systems - the number that are worse beyond doubt.
        tasks: How many tasks it has a score for, comparable or not.
    """

    system: System
    mean: float | None
    by_type: Mapping[str, float]
    best_rank: int
    worst_rank: int
    tasks: int


@dataclass(frozen=True)
class TaskDifference:
    """Two systems on one task whose items (pairs, queries) are known: first minus second.

    Attributes:
        task: Name.
        difference: Of the main scores, first minus second.
        low: Lower end of the interval.
        high: Upper end.
        p: Of the hypothesis that there is no difference; two-sided.
        p_holm: The same, adjusted for the number of tasks of this duel.
        items: How many pairs or queries.
        unit: `pairs`, `queries` or `texts`.
    """

    task: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    items: int
    unit: str


@dataclass(frozen=True)
class Duel:
    """Two systems over the tasks that both have, alike: first minus second. The first is the better placed one.

    Attributes:
        first: A system.
        second: Another.
        tasks: How many tasks.
        difference: Mean difference of main scores; None without a common task.
        low: Lower end of its interval over tasks; None with fewer than six tasks.
        high: Upper end.
        p: Sign-flip permutation over tasks, two-sided; None with fewer than two tasks.
        p_holm: The same, adjusted for the number of duels.
        wins: Tasks on which the first is better.
        ties: Tasks on which they are equal.
        losses: Tasks on which the second is better.
        verdict: A sentence, for people.
        by_task: Where items are known.
    """

    first: System
    second: System
    tasks: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    wins: int
    ties: int
    losses: int
    verdict: str
    by_task: Sequence[TaskDifference] = ()


@dataclass(frozen=True)
class Price:
    """What a system costs, from our own runs; None where it was not measured.

    Attributes:
        system: The system.
        machine: Processor or GPU, cores; figures of different machines are never put in one column unsaid.
        dtype: Of the backbone.
        tokens_per_second: Encoding only.
        texts_per_second: Encoding only.
        peak_memory_bytes: Of the process (CPU) or of the GPU.
        vector_bytes: Of one vector in float32.
        parameters: Of the backbone and the head.
    """

    system: System
    machine: str | None
    dtype: str | None
    tokens_per_second: float | None
    texts_per_second: float | None
    peak_memory_bytes: int | None
    vector_bytes: int | None
    parameters: int | None


@dataclass(frozen=True)
class Comparison:
    """Everything a report shows.

    Attributes:
        systems: In the order they were asked for.
        rows: Every task that any system has.
        common: Tasks on which all systems that have any score have comparable ones: what the means are over. Parts of
            a task that is itself among them are left out.
        standings: Best first.
        duels: Every two systems.
        prices: Where our own runs measured them.
        per_label: Rows per label by task and system label.
        notes: What a reader must know: gaps, unstated revisions, different machines.
        alpha: Level of the tests; intervals are 1 - alpha.
        resamples: Of the bootstrap and the permutations.
        seed: Of both.
    """

    systems: tuple[System, ...]
    rows: tuple[TaskRow, ...]
    common: tuple[str, ...]
    standings: tuple[Standing, ...]
    duels: tuple[Duel, ...]
    prices: tuple[Price, ...] = ()
    per_label: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]] | None = None
    notes: tuple[str, ...] = ()
    alpha: float = 0.05
    resamples: int = 9_999
    seed: int = 0


def compare(
    scores: Scores,
    *,
    items: Mapping[tuple[str, str], Sequence[Items]] | None = None,
    prices: Sequence[Price] = (),
    gaps: Mapping[System, Mapping[str, str]] | None = None,
    notes: Sequence[str] = (),
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
        alpha: Level of the tests; intervals are 1 - alpha.
        resamples: Of the bootstrap and the permutations.
        seed: Of both; the same seed gives the same figures.

    Raises:
        ConfigError: If two systems have one label, or a score is not finite or is in per cent.
    """
    _require_sound(scores)
    rows = tuple(_row(task, scores, gaps or {}) for task in _tasks(scores))
    common = _common(rows, scores)
    means = {system: _mean([of[task].value for task in common]) if of else None for system, of in scores.items()}
    placed = sorted(scores, key=lambda system: -math.inf if (mean := means[system]) is None else mean, reverse=True)
    how = _How(alpha, resamples, seed)
    by_item = _differences_by_item(scores, items or {}, how)
    duels = _adjusted(
        [_duel(a, b, scores, by_item[a.label, b.label], how) for a, b in itertools.combinations(placed, 2)], alpha
    )
    ranks = _ranks(placed, duels, alpha)
    types = {row.task: row.type for row in rows}
    return Comparison(
        systems=tuple(scores),
        rows=rows,
        common=common,
        standings=tuple(
            Standing(system, means[system], _by_type(scores[system], common, types), *rank, len(scores[system]))
            for system, rank in zip(placed, ranks, strict=True)
        ),
        duels=duels,
        prices=tuple(prices),
        per_label=_per_label(rows, tuple(scores)),
        notes=(*notes, *_notes(scores, rows, common, by_item, prices)),
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


# --------------------------------------------------------------------------------------------------- like for like


class _Condition(NamedTuple):
    split: str
    subsets: tuple[str, ...]
    languages: tuple[str, ...]
    revision: str | None


def _condition(score: Score) -> _Condition:
    return _Condition(score.split, score.subsets, score.languages, score.dataset_revision)


def _alike(one: _Condition, other: _Condition) -> bool:
    return (
        (one.split, one.subsets) == (other.split, other.subsets)
        and (not one.languages or not other.languages or one.languages == other.languages)
        and (one.revision is None or other.revision is None or one.revision == other.revision)
    )


def _both(one: _Condition, other: _Condition) -> _Condition:
    """What two scores that are alike state between them."""
    return one._replace(languages=one.languages or other.languages, revision=one.revision or other.revision)


def _shared(conditions: Iterable[_Condition]) -> _Condition:
    """The condition that most scores share; of several the one of the earliest system."""
    conditions = list(conditions)
    best, most = conditions[0], 0
    for start in conditions:
        # Being alike does not carry over: what states no revision is like two that contradict each other.
        union, count = start, 0
        for condition in conditions:
            if _alike(union, condition):
                union, count = _both(union, condition), count + 1
        if count > most:
            best, most = union, count
    return best


def _row(task: str, scores: Scores, gaps: Mapping[System, Mapping[str, str]]) -> TaskRow:
    found = {system: of[task] for system, of in scores.items() if task in of}
    shared = _shared(map(_condition, found.values()))
    cells = tuple(
        _cell(found[system], shared) if system in found else Gap(gaps.get(system, {}).get(task, "no score"))
        for system in scores
    )
    alone = sum(isinstance(cell, Score) for cell in cells) < 2
    return TaskRow(task, next(iter(found.values())).type, cells, "" if alone else _as_text(shared))


def _cell(score: Score, shared: _Condition) -> Score | Gap:
    own = _condition(score)
    return score if _alike(own, shared) else Gap(_reason(own, shared))


def _reason(own: _Condition, shared: _Condition) -> str:
    reasons = []
    if own.split != shared.split:
        reasons.append(f"evaluated on split {own.split}, not {shared.split}")
    if own.subsets != shared.subsets:
        reasons.append(f"on {_counted('subset', own.subsets)}, not {listed(shared.subsets)}")
    elif own.languages and shared.languages and own.languages != shared.languages:
        reasons.append(f"on {_counted('language', own.languages)}, not {listed(shared.languages)}")
    if own.revision and shared.revision and own.revision != shared.revision:
        reasons.append(f"on revision {own.revision[:8]} of the data, not {shared.revision[:8]}")
    return "; ".join(reasons)


def _as_text(condition: _Condition) -> str:
    revision = f"revision {condition.revision[:8]}" if condition.revision else "revision not stated"
    return f"split {condition.split}, {_counted('subset', condition.subsets)}, {revision}"


def _counted(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {listed(names)}"


def _tasks(scores: Scores) -> list[str]:
    types = {task: score.type for of in list(scores.values())[::-1] for task, score in of.items()}
    return sorted(types, key=lambda task: (types[task], task.casefold(), task))


def _common(rows: Sequence[TaskRow], scores: Scores) -> tuple[str, ...]:
    # A system without any score takes no task away from the others.
    has_any = [bool(of) for of in scores.values()]
    alike = [
        row.task
        for row in rows
        if all(isinstance(cell, Score) for cell, counts in zip(row.cells, has_any, strict=True) if counts)
    ]
    return _once(alike)


def _once(tasks: Sequence[str]) -> tuple[str, ...]:
    """Tasks less the parts of those that are the mean of others."""
    parts = {part for task in tasks for part in AGGREGATES.get(task, ())}
    return tuple(task for task in tasks if task not in parts)


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


class _How(NamedTuple):
    alpha: float
    resamples: int
    seed: int


class _ByItem(NamedTuple):
    difference: Difference | None
    items: int
    unit: str


def _differences_by_item(
    scores: Scores, items: Mapping[tuple[str, str], Sequence[Items]], how: _How
) -> defaultdict[tuple[str, str], dict[str, _ByItem]]:
    """By two labels in either order, then by task: where both systems have the same items."""
    found: defaultdict[tuple[str, str], dict[str, _ByItem]] = defaultdict(dict)
    for task in _tasks(scores):
        same = defaultdict(list)
        for system in scores:
            if own := sorted(items.get((system.label, task), ()), key=lambda one: one.subset):
                same[tuple((one.split, one.subset, one.kind, one.digest) for one in own)].append((system.label, own))
        for group in same.values():
            labels, of_systems = zip(*group, strict=True)
            subsets = list(zip(*of_systems, strict=True))
            parts = [Part(of[0].kind, of[0].gold, np.stack([one.values for one in of])) for of in subsets]
            count, unit = sum(len(of[0].values) for of in subsets), subsets[0][0].unit
            differences = paired_differences(parts, **how._asdict())
            for (i, j), one in differences.items():
                found[labels[i], labels[j]][task] = _ByItem(one, count, unit)
                turned = one and Difference(-one.value, -one.high, -one.low, one.p)
                found[labels[j], labels[i]][task] = _ByItem(turned, count, unit)
    return found


def _duel(first: System, second: System, scores: Scores, by_item: Mapping[str, _ByItem], how: _How) -> Duel:
    one, other = scores[first], scores[second]
    alike = [
        task
        for task in _tasks({first: one, second: other})
        if task in one and task in other and _alike(_condition(one[task]), _condition(other[task]))
    ]
    tasks = _once(alike)
    differences = np.array([one[task].value - other[task].value for task in tasks])
    low, high = mean_interval(differences, **how._asdict()) or (None, None)
    return Duel(
        first=first,
        second=second,
        tasks=len(tasks),
        difference=_mean(differences.tolist()),
        low=low,
        high=high,
        p=sign_flip_p(differences, resamples=how.resamples, seed=how.seed) if len(tasks) > 1 else None,
        p_holm=None,
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        verdict="",
        by_task=_task_differences({task: by_item[task] for task in alike if task in by_item}),
    )


def _task_differences(by_item: Mapping[str, _ByItem]) -> tuple[TaskDifference, ...]:
    known = {task: (one.difference, one) for task, one in by_item.items() if one.difference}
    adjusted = holm([difference.p for difference, _ in known.values()])
    return tuple(
        TaskDifference(task, d.value, d.low, d.high, d.p, p_holm, one.items, one.unit)
        for (task, (d, one)), p_holm in zip(known.items(), adjusted, strict=True)
    )


def _adjusted(duels: Sequence[Duel], alpha: float) -> tuple[Duel, ...]:
    """With Holm's adjustment over all duels, and what then can be said."""
    tested = [duel.p for duel in duels if duel.p is not None]
    adjusted = iter(holm(tested))
    duels = [duel if duel.p is None else replace(duel, p_holm=next(adjusted)) for duel in duels]
    return tuple(replace(duel, verdict=verdict(duel, len(tested), alpha)) for duel in duels)


def _ranks(placed: Sequence[System], duels: Sequence[Duel], alpha: float) -> list[tuple[int, int]]:
    number = {system.label: i for i, system in enumerate(placed)}
    better = np.zeros((len(placed), len(placed)), dtype=bool)
    for duel in duels:
        if best := winner(duel, alpha):
            loser = duel.second if best is duel.first else duel.first
            better[number[best.label], number[loser.label]] = True
    return rank_intervals(better)


def _notes(
    scores: Scores,
    rows: Sequence[TaskRow],
    common: Sequence[str],
    by_item: Mapping[tuple[str, str], Mapping[str, _ByItem]],
    prices: Sequence[Price],
) -> Iterator[str]:
    compared = [[cell for cell in row.cells if isinstance(cell, Score)] for row in rows]
    compared = [cells for cells in compared if len(cells) > 1]
    for system, of in scores.items():
        if not of:
            yield f"{system.label} has no score on any task"
    if common and len(common) < len(_once([row.task for row in rows])):
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
    untold = {task for of_tasks in by_item.values() for task, one in of_tasks.items() if one.difference is None}
    if untold:
        yield f"No test item by item on {listed(sorted(untold))}: too few items, or constant values"


def _notes_on_prices(prices: Sequence[Price]) -> Iterator[str]:
    if prices:
        yield "Speed is of single runs, whatever else the machine did meanwhile; `stella-mteb bench` measures in turns"
    machines = {price.machine for price in prices if price.machine}
    if len(machines) > 1:
        yield f"Speed and memory were measured on {len(machines)} machines; compare them within one machine only"
