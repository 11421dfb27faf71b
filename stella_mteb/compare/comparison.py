"""Compare systems like for like. A score that is not comparable becomes a gap with its reason, outside all means."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stella_mteb.compare.alike import AGGREGATES, once, task_row
from stella_mteb.compare.duels import fight
from stella_mteb.compare.item_tests import ByItem, How, differences_by_item, tested_by_item
from stella_mteb.compare.records import Comparison, Duel, Price, Score, Scores, Standing, System, TaskRow, Unranked
from stella_mteb.compare.selection import EVERYTHING, Selection
from stella_mteb.compare.standings import fill, place, selected_tasks, standings, tasks_of_means
from stella_mteb.compare.words import unread, verdict, winner
from stella_mteb.errors import ConfigError
from stella_mteb.files.tables import listed, many
from stella_mteb.statistics.max_t import possible_ranks

if TYPE_CHECKING:
    from stella_mteb.outputs.items import Items


def compare(
    scores: Scores,
    *,
    selection: Selection = EVERYTHING,
    coverage: float = 0.8,
    any_data_revision: bool = False,
    items: Mapping[tuple[str, str], Sequence[Items]] | None = None,
    prices: Sequence[Price] = (),
    gaps: Mapping[System, Mapping[str, str]] | None = None,
    notes: Sequence[str] = (),
    families: Mapping[str, str] | None = None,
    commit: str | None = None,
    alpha: float = 0.05,
    resamples: int = 9_999,
    seed: int = 0,
) -> Comparison:
    """Compare systems like for like.

    Two scores on one task are comparable over the splits and subsets that both have, unless their languages or data
    revisions differ. A source that does not state one of these is not excluded for it. In each task's row, the
    scores under the condition that most systems share are kept, and the others become gaps. Two systems are compared
    on every task on which their scores are comparable with each other.

    Args:
        scores: By system, then by task.
        selection: The tasks, and the splits and subsets that count in each.
        coverage: The minimum share of the tasks that a ranked system has, from 0.5 (exclusive) to 1.
        any_data_revision: Whether to compare scores on different data revisions.
        items: The items behind the scores, by system label and task; one entry per subset.
        prices: The measured costs, passed through to the report.
        gaps: The known reasons for missing scores, by system and task.
        notes: Notes to show before those of the comparison itself.
        families: For each task, its family of tasks on shared data. A task without an entry is its own family.
        commit: The commit of MTEB's public results, if scores come from there.
        alpha: The level of the tests; intervals have level 1 - alpha.
        resamples: The number of bootstrap and permutation resamples.
        seed: The seed of both; the same seed gives the same figures.

    Raises:
        ConfigError: If two systems have the same label, or a score is not finite or is a percentage.
    """
    _require_sound(scores)
    systems, tasks = tuple(scores), _tasks(scores, selection)
    rows, selected, mean_tasks, standing, unranked = _places(
        scores, tasks, gaps or {}, selection, coverage, any_revision=any_data_revision
    )
    placed = [*(one.system for one in standing), *(one.system for one in unranked)]
    how = How(alpha, resamples, seed)
    by_item = differences_by_item(scores, items or {}, how)
    duels, needed = fight(placed, scores, tasks, by_item, families or {}, how, any_revision=any_data_revision)
    duels = tested_by_item(duels, needed, scores, items or {}, how)
    duels = tuple(replace(duel, verdict=verdict(duel, needed, len(duels), alpha)) for duel in duels)
    ranked = tuple(
        replace(one, best_rank=best, worst_rank=worst)
        for one, (best, worst) in zip(standing, _ranks(placed[: len(standing)], duels, alpha), strict=True)
    )
    return Comparison(
        systems=systems,
        rows=rows,
        selected=selected,
        mean_tasks=mean_tasks,
        standings=ranked,
        duels=duels,
        needed=needed,
        prices=tuple(prices),
        per_label=_per_label(rows, systems),
        notes=(
            *notes,
            *unread(gaps or {}, systems, {row.task for row in rows}),  # the others are gaps of their rows
            *_notes(scores, rows, selected, mean_tasks, ranked, by_item, duels, prices),
        ),
        alpha=alpha,
        resamples=resamples,
        seed=seed,
        unranked=tuple(unranked),
        selection=selection,
        coverage=coverage,
        commit=commit,
    )


def best(
    scores: Scores,
    most: int,
    *,
    kept: Collection[System] = (),
    selection: Selection = EVERYTHING,
    coverage: float = 0.8,
    any_data_revision: bool = False,
) -> Scores:
    """Keep the systems with the highest means.

    Args:
        scores: By system, then by task.
        most: The number of systems to keep, not counting those in `kept`.
        kept: Systems to keep whatever their means.
        selection: As for `compare`.
        coverage: As for `compare`.
        any_data_revision: As for `compare`.
    """
    _require_sound(scores)
    _, _, _, standing, _ = _places(
        scores, _tasks(scores, selection), {}, selection, coverage, any_revision=any_data_revision
    )
    chosen = {*kept, *[one.system for one in standing if one.system not in kept][:most]}
    return {system: of for system, of in scores.items() if system in chosen}


def _places(
    scores: Scores,
    tasks: Sequence[str],
    gaps: Mapping[System, Mapping[str, str]],
    selection: Selection,
    coverage: float,
    *,
    any_revision: bool,
) -> tuple[tuple[TaskRow, ...], tuple[str, ...], tuple[str, ...], list[Standing], list[Unranked]]:
    """Compute the rows, the selected tasks, those of the means, the standings, and the unranked systems."""
    systems = tuple(scores)
    rows = [
        task_row(
            task,
            scores,
            gaps,
            complete=wanted.cells if (wanted := selection.wanted.get(task)) else None,
            any_revision=any_revision,
        )
        for task in tasks
    ]
    selected = selected_tasks(rows, scores, selection)
    ranked, unranked = place(rows, systems, selected, coverage)
    mean_tasks = tasks_of_means(rows, systems, ranked, selected, coverage)
    rows = fill(rows, systems, ranked, mean_tasks)
    return tuple(rows), selected, mean_tasks, standings(rows, systems, ranked, selected, mean_tasks), unranked


def _require_sound(scores: Scores) -> None:
    labels = [system.label for system in scores]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ConfigError(f"duplicate label {twice!r}; give each system its own label")
    for system, of_system in scores.items():
        for task, score in of_system.items():
            if not math.isfinite(score.value):
                raise ConfigError(f"{system.label}, {task}: the score is {score.value}; remove it from {score.source}")
            if not -1 <= score.value <= 1:
                raise ConfigError(
                    f"{system.label}, {task}: score {score.value:g} is outside -1 to 1; divide percentages by 100"
                )


def _tasks(scores: Scores, selection: Selection) -> list[str]:
    types = {task: score.type for of in list(scores.values())[::-1] for task, score in of.items()}
    types = dict.fromkeys(selection.required or (), "unknown") | types
    return sorted(
        filter(lambda task: selection.takes(task, types[task]), types),
        key=lambda task: (types[task], task.casefold(), task),
    )


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


def _ranks(placed: Sequence[System], duels: Sequence[Duel], alpha: float) -> list[tuple[int, int]]:
    number = {system.label: i for i, system in enumerate(placed)}
    decided = [
        (number[best.label], number[(duel.second if best is duel.first else duel.first).label])
        for duel in duels
        if {duel.first.label, duel.second.label} <= number.keys() and (best := winner(duel, alpha))
    ]
    return possible_ranks(len(placed), decided)


def _notes(
    scores: Scores,
    rows: Sequence[TaskRow],
    selected: Sequence[str],
    mean_tasks: Sequence[str],
    ranked: Sequence[Standing],
    by_item: Mapping[tuple[str, str], Mapping[str, ByItem]],
    duels: Sequence[Duel],
    prices: Sequence[Price],
) -> Iterator[str]:
    compared = [[cell for cell in row.cells if isinstance(cell, Score)] for row in rows]
    compared = [cells for cells in compared if len(cells) > 1]
    if selected and len(selected) < len(once([row.task for row in rows])):
        yield (
            f"Ranked are the systems that have enough of {many(len(selected), 'task')}: those on which more than half "
            "of all systems have comparable scores"
        )
    if outside := [one.system.label for i, one in enumerate(ranked, 1) if not one.best_rank <= i <= one.worst_rank]:
        yield (
            f"The place by mean of {listed(outside)} is outside the range of ranks: ranks come from pairs over all "
            f"tasks that both have, and means are over {many(len(mean_tasks), 'task')}"
        )
    for task in mean_tasks:
        if any(part in {row.task for row in rows} for part in AGGREGATES.get(task, ())):
            yield f"{task} is the mean of other tasks; the means count it once and leave those tasks out"
    if unstated := sum(any(score.dataset_revision is None for score in cells) for cells in compared):
        yield (
            f"On {unstated} of {many(len(compared), 'compared task')} a source does not state the data revision; "
            "the scores are compared anyway"
        )
    metrics = [{score.metric for score in cells if score.metric} for cells in compared]
    if several := [names for names in metrics if len(names) > 1]:
        names = sorted(set.union(*several))
        yield f"On {many(len(several), 'task')} the sources name different main scores ({listed(names)})"
    hands = sorted({system.provenance for system, of in scores.items() if of})
    if len(hands) > 1:
        yield f"The scores differ in provenance ({listed(hands)}); a difference can come from how they were measured"
    versions = sorted({score.mteb_version for cells in compared for score in cells if score.mteb_version})
    if len(versions) > 1:
        yield f"The scores come from several versions of mteb ({listed(versions)}); tasks can change between versions"
    yield from _notes_on_prices(prices)
    if any(duel.items for duel in duels):
        yield "There are few tasks, so tests are over their items: ranks and pairs hold for these tasks, not for others"
    untold = {task for of_tasks in by_item.values() for task, one in of_tasks.items() if one.difference is None}
    if untold:
        yield f"No test over items on {listed(sorted(untold))}: too few items, or constant values"


def _notes_on_prices(prices: Sequence[Price]) -> Iterator[str]:
    if prices:
        yield "Speeds are from single runs under unknown load; `stella-mteb bench` measures models in turn"
    machines = {price.machine for price in prices if price.machine}
    if len(machines) > 1:
        yield f"Speed and memory were measured on {len(machines)} machines; compare them only within one machine"
