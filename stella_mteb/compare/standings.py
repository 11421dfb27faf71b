"""Ranking of systems and their means. A missing score of a ranked system is estimated from all other scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stella_mteb.compare.alike import once
from stella_mteb.compare.records import Gap, Score, Scores, Standing, System, TaskRow, Unranked
from stella_mteb.compare.selection import Selection
from stella_mteb.files.tables import listed, many

Array = NDArray[np.float64]


def selected_tasks(rows: Sequence[TaskRow], scores: Scores, selection: Selection) -> tuple[str, ...]:
    """Choose the tasks that decide who is ranked: the requested ones, or those with comparable scores of most systems.

    Most is more than half of the systems that have any score.
    """
    if selection.required is not None:
        types = {row.task: row.type for row in rows}
        return once([task for task in selection.required if selection.takes(task, types.get(task, ""))])
    systems = sum(bool(of) for of in scores.values())
    return once([row.task for row in rows if 2 * sum(isinstance(cell, Score) for cell in row.cells) > systems])


def place(
    rows: Sequence[TaskRow], systems: Sequence[System], tasks: Sequence[str], coverage: float
) -> tuple[list[System], list[Unranked]]:
    """Separate ranked systems from those with scores on too few of the tasks.

    A ranked system has comparable scores on more than half of the tasks, so every two have tasks in common.

    Returns:
        The ranked systems, and the others with the tasks that they lack, most complete first.
    """
    ranked, unranked = [], []
    of_task = {row.task: row for row in rows}
    held = {
        system: [task for task in tasks if task in of_task and _is_held(of_task[task].cells[i])]
        for i, system in enumerate(systems)
    }
    for i, system in enumerate(systems):
        share = len(held[system]) / len(tasks) if tasks else 0.0
        alike = sum(isinstance(of_task[task].cells[i], Score) for task in held[system])
        if tasks and share >= coverage and 2 * alike > len(tasks):
            ranked.append(system)
            continue
        lacking = tuple(task for task in tasks if task not in held[system])
        reason = _reason(len(tasks), lacking, alike, coverage)
        together = {task for other, own in held.items() if other.model == system.model for task in own}
        rows_of_model = sum(other.model == system.model for other in systems)
        if len(together) > len(held[system]) and len(together) >= coverage * len(tasks):
            reason += f"; --join combines its {rows_of_model} rows: {len(together)} of {many(len(tasks), 'task')}"
        unranked.append(Unranked(system, len(held[system]), share, reason, lacking))
    return ranked, sorted(unranked, key=lambda one: -one.tasks)


def _is_held(cell: Score | Gap) -> bool:
    return isinstance(cell, Score) or cell.value is not None


def _reason(total: int, lacking: Sequence[str], alike: int, coverage: float) -> str:
    held = total - len(lacking)
    if not total:
        return "has no task in common with more than half of the others"
    if not held:
        return f"has none of the {many(total, 'task')}"
    if held / total < coverage:
        return f"has {held} of {many(total, 'task')} ({held / total:.0%}), lacking {listed(lacking)}"
    return f"has {many(held, 'task')}, but only {alike} on the data that most others have"


def tasks_of_means(
    rows: Sequence[TaskRow], systems: Sequence[System], ranked: Sequence[System], selected: Sequence[str], least: float
) -> tuple[str, ...]:
    """Choose the tasks of the means among the selected ones.

    A task is left out if a ranked system was measured on other data, so that the means are plain means of comparable
    scores. If fewer than the share `least` would remain, no task is left out, and `fill` estimates these scores.
    """
    own = [systems.index(system) for system in ranked]
    cells = {row.task: [row.cells[i] for i in own] for row in rows if row.task in selected}
    known = tuple(task for task, of in cells.items() if any(isinstance(cell, Score) for cell in of))
    alike = tuple(task for task in known if all(isinstance(cell, Score) or cell.value is None for cell in cells[task]))
    return alike if len(alike) >= least * len(known) else known


def fill(
    rows: Sequence[TaskRow], systems: Sequence[System], ranked: Sequence[System], tasks: Sequence[str]
) -> list[TaskRow]:
    """Put an estimate into each gap of a ranked system on a task of the means.

    The estimate is a system effect plus a task effect, fitted by least squares to all scores of ranked systems. So the
    mean of a complete system is the plain mean of its scores. If only two systems are ranked, their means differ by
    their mean difference on the tasks that both have.
    """
    of_means = [i for i, row in enumerate(rows) if row.task in tasks]
    places = [systems.index(system) for system in ranked]
    cells = [[rows[i].cells[place] for i in of_means] for place in places]
    values = np.array([[one.value if isinstance(one, Score) else math.nan for one in own] for own in cells])
    expected = _fitted(values.reshape(len(places), len(of_means)))
    filled = list(rows)
    for i, column in zip(of_means, expected.T, strict=True):
        estimates = dict(zip(places, column.tolist(), strict=True))
        filled[i] = replace(
            rows[i],
            cells=tuple(
                replace(cell, estimate=estimates[place])
                if isinstance(cell, Gap) and math.isfinite(estimates.get(place, math.nan))
                else cell
                for place, cell in enumerate(rows[i].cells)
            ),
        )
    return filled


def _fitted(values: Array) -> Array:
    """Fit a system effect plus a task effect to values [systems, tasks]; NaN for a task without any value."""
    seen = np.isfinite(values)
    known = np.nan_to_num(values)
    normal = np.block([[np.diag(seen.sum(axis=1)), seen], [seen.T, np.diag(seen.sum(axis=0))]]).astype(float)
    effects = np.linalg.lstsq(normal, np.concatenate([known.sum(axis=1), known.sum(axis=0)]), rcond=None)[0]
    fitted = effects[: len(values), None] + effects[None, len(values) :]
    return np.where(seen.any(axis=0), fitted, np.nan)


def standings(
    rows: Sequence[TaskRow],
    systems: Sequence[System],
    ranked: Sequence[System],
    selected: Sequence[str],
    mean_tasks: Sequence[str],
) -> list[Standing]:
    """Compute the standings of the ranked systems, best mean first. The caller sets the range of ranks.

    Args:
        rows: All rows, with estimates.
        systems: All systems, in the order of the cells.
        ranked: The ranked systems.
        selected: The tasks that decide who is ranked.
        mean_tasks: The tasks of the means.
    """
    of_means = [row for row in rows if row.task in mean_tasks]
    own = [systems.index(system) for system in ranked]
    cells = [[row.cells[i] for row in of_means] for i in own]
    known = [[one.value if isinstance(one, Score) else one.estimate for one in of] for of in cells]
    values = np.array(known, dtype=float).reshape(len(own), len(of_means))
    worse = (values[:, None] > values).sum(axis=(1, 2))
    even = (values[:, None] == values).sum(axis=(1, 2)) - len(of_means)
    points = worse + even / 2
    borda = 1 + (points[:, None] < points).sum(axis=1)
    found = []
    for system, i, figures, place in zip(ranked, own, values.tolist(), borda.tolist(), strict=True):
        of_type: dict[str, list[float]] = {}
        for value, row in zip(figures, of_means, strict=True):
            of_type.setdefault(row.type, []).append(value)
        by_type = {kind: math.fsum(values) / len(values) for kind, values in of_type.items()}
        held = sum(_is_held(row.cells[i]) for row in rows if row.task in selected)
        found.append(
            Standing(
                system=system,
                mean=math.fsum(figures) / len(figures) if figures else None,
                by_type=by_type,
                best_rank=1,
                worst_rank=len(ranked),
                tasks=held,
                mean_by_type=math.fsum(by_type.values()) / len(by_type) if by_type else None,
                borda=place,
                coverage=held / len(selected),
                estimated=sum(isinstance(row.cells[i], Gap) for row in of_means),
            )
        )
    return sorted(found, key=lambda one: -math.inf if one.mean is None else one.mean, reverse=True)
