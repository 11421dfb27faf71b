"""Render a comparison as one HTML file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from jinja2 import Template

from stella_mteb.compare import words
from stella_mteb.compare.pictures import pictures, strips
from stella_mteb.compare.provenance import CONDITIONS, conditions, sources
from stella_mteb.compare.records import Comparison, Duel, Gap, ModelFacts, Score, TaskDifference, TaskRow
from stella_mteb.compare.shown import shown, usual_provenance
from stella_mteb.files.atomic import atomic_write
from stella_mteb.files.tables import plain
from stella_mteb.pages.page import template, typeset


def write_report(comparison: Comparison, path: Path) -> None:
    """Write one self-contained HTML file, atomically.

    Args:
        comparison: The comparison to show.
        path: The file; an existing file is replaced.

    Raises:
        StorageProblem: If the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(render_report(comparison))


def render_report(comparison: Comparison) -> str:
    """Render the page as text; the same comparison gives the same bytes."""
    named, order = shown(comparison), words.placed(comparison)
    duels = {(duel.first, duel.second): duel for duel in comparison.duels}
    return _template().render(
        c=comparison,
        headline=words.headline(comparison, {label: name.short for label, name in named.items()}),
        means_over=words.means_over(comparison),
        about_means=words.about_means(comparison, {label: name.telling for label, name in named.items()}),
        no_mean=words.no_mean(comparison),
        order=order,
        facts=comparison.facts if any(one != ModelFacts() for one in comparison.facts.values()) else {},
        level=words.per_cent(comparison.alpha).replace(" ", "\N{NO-BREAK SPACE}"),
        names=words.names(comparison),
        shown=named,
        provenance=usual_provenance(comparison),
        several_hands=len({system.provenance for system in comparison.systems}) > 1,
        types=words.types(comparison),
        all_types=sorted({row.type for row in comparison.rows}),
        main_duels=words.main_duels(comparison),
        against=[duel for duel in comparison.duels if duel.first == comparison.duels[0].first],
        left_out=words.LEFT_OUT,
        beside=words.beside_the_first(comparison),
        duels_data=json.dumps(
            [_figures(duels[pair]) if pair in duels else None for pair in combinations(order, 2)], separators=(",", ":")
        ),
        strips=strips(comparison),
        tasks=_tasks(comparison),
        reasons=_reasons(comparison),
        machines=words.machines(comparison),
        pictures=pictures(comparison),
        means={standing.system.label: standing.mean for standing in comparison.standings},
        type_of={row.task: row.type for row in comparison.rows},
        labels=_labels(comparison),
        condition_names=CONDITIONS,
        conditions=conditions(comparison),
        sources=sources(comparison),
    )


@cache
def _template() -> Template:
    return template(
        "stella_mteb.compare",
        {
            "bytes": words.in_bytes,
            "count": words.count,
            "finding": _finding,
            "left_out": words.left_out,
            "interval": lambda one, turned=False: typeset(words.interval(*words.ends(one, turned=turned))),
            "p": words.p_value,
            "points": words.points,
            "share": words.share,
            "weights": words.weights,
            "rank": lambda one: words.rank(one).replace("-", "\N{EN DASH}"),
            "settings": words.settings,
            "turned": lambda value: None if value is None else -value,
            "signed": lambda value: typeset(words.signed(value)),
            "whole": lambda value: "-" if value is None else f"{value:,.0f}",
        },
    )


def _finding(duel: Duel, alpha: float) -> str:
    better = words.winner(duel, alpha)
    return "not significant" if better is None else "better" if better is duel.first else "worse"


def _figures(duel: Duel) -> list[float | None]:
    points = [
        None if x is None or not math.isfinite(x) else round(100 * x, 2) for x in (duel.difference, duel.low, duel.high)
    ]
    p = None if duel.p_adjusted is None else round(duel.p_adjusted, 6)
    left_out = [duel.lacking, duel.apart] if duel.lacking or duel.apart else []  # most pairs leave nothing out
    return [*points, p, duel.tasks, duel.wins, duel.ties, duel.losses, *left_out]


@dataclass(frozen=True)
class _Cell:
    """One cell of the table of tasks: a score, or the number of the gap's reason and its estimate in the means."""

    score: Score | None
    reason: int | None
    best: bool
    estimate: float | None = None


@dataclass(frozen=True)
class _Task:
    """One row of the table of tasks, with cells in the order of the leaderboard."""

    row: TaskRow
    cells: Sequence[_Cell]
    in_means: bool
    difference: float | None
    items: TaskDifference | None


def _tasks(comparison: Comparison) -> list[_Task]:
    reasons = {reason: number for number, reason in enumerate(_reasons(comparison), 1)}
    labels = [system.label for system in comparison.systems]
    order = [labels.index(system.label) for system in words.placed(comparison)]
    duel = comparison.duels[0] if len(comparison.duels) == 1 else None
    items = {one.task: one for one in duel.by_task} if duel else {}
    tasks = []
    for row in comparison.rows:
        scores = [cell.value for cell in row.cells if isinstance(cell, Score)]
        cells = [
            _Cell(None, reasons[cell.reason], best=False, estimate=cell.estimate)
            if isinstance(cell, Gap)
            else _Cell(cell, None, best=len(scores) > 1 and cell.value == max(scores))
            for cell in (row.cells[i] for i in order)
        ]
        both = [cell.score.value for cell in cells if cell.score]
        one = items.get(row.task)
        difference = one.difference if one else both[0] - both[1] if duel and len(both) == 2 else None
        tasks.append(_Task(row, cells, row.task in comparison.mean_tasks, difference, one))
    return tasks


def _reasons(comparison: Comparison) -> dict[str, list[str]]:
    """List the task of each missing score by reason, in the order of the page's numbers."""
    found: dict[str, list[str]] = {}
    for one in words.gaps(comparison):
        found.setdefault(one.reason, []).extend([*one.tasks] * len(one.labels))
    return found


@dataclass(frozen=True)
class _Labels:
    """The table by label of one system; a cell is a text and the value."""

    task: str
    system: str
    columns: Sequence[str]
    rows: Sequence[Sequence[tuple[str, Any]]]


def _labels(comparison: Comparison) -> list[_Labels]:
    names = words.names(comparison)
    tables = []
    for task, systems in (comparison.per_label or {}).items():
        for label, entries in systems.items():
            keys = list(dict.fromkeys(key for entry in entries for key in entry))
            rows = [
                [(f"{cell:.3f}" if isinstance(cell, float) else plain(cell), cell) for cell in map(entry.get, keys)]
                for entry in entries
            ]
            columns = [str(key).replace("_", " ") for key in keys]
            tables.append(_Labels(task, names.get(label, label), columns, rows))
    return tables
