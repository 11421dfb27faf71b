"""A comparison as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

from jinja2 import Template

from stella_mteb.compare import words
from stella_mteb.compare.pictures import pictures
from stella_mteb.compare.records import Comparison, Gap, Score, System, TaskDifference, TaskRow
from stella_mteb.files.atomic import atomic_write
from stella_mteb.files.tables import plain
from stella_mteb.pages.page import template, typeset


def write_report(comparison: Comparison, path: Path) -> None:
    """Write one self-contained HTML file, atomically.

    Args:
        comparison: What to show.
        path: The file; what stands there is replaced.

    Raises:
        StorageProblem: If it cannot be written.
    """
    with atomic_write(path) as file:
        file.write(render_report(comparison))


def render_report(comparison: Comparison) -> str:
    """The same as text; the same comparison gives the same bytes."""
    return _template().render(
        c=comparison,
        headline=words.headline(comparison),
        level=words.per_cent(comparison.alpha).replace(" ", "\N{NO-BREAK SPACE}"),
        names=words.names(comparison),
        types=words.types(comparison),
        all_types=sorted({row.type for row in comparison.rows}),
        main_duels=words.main_duels(comparison),
        tasks=_tasks(comparison),
        reasons=_reasons(comparison),
        machines=words.machines(comparison),
        pictures=pictures(comparison),
        means={standing.system.label: standing.mean for standing in comparison.standings},
        type_of={row.task: row.type for row in comparison.rows},
        labels=_labels(comparison),
        sources=[_sources(comparison, i) for i in range(len(comparison.systems))],
    )


@cache
def _template() -> Template:
    return template(
        "stella_mteb.compare",
        {
            "bytes": words.in_bytes,
            "count": words.count,
            "interval": lambda one: typeset(words.interval(one.low, one.high)),
            "p": words.p_value,
            "points": words.points,
            "rank": lambda one: words.rank(one).replace("-", "\N{EN DASH}"),
            "settings": words.settings,
            "signed": lambda value: typeset(words.signed(value)),
            "full": lambda value: f"{value:.6g}",
            "whole": lambda value: "-" if value is None else f"{value:,.0f}",
        },
    )


@dataclass(frozen=True)
class _Cell:
    """One score of the table of tasks, or the number of the reason why there is none."""

    score: Score | None
    reason: int | None
    best: bool


@dataclass(frozen=True)
class _Task:
    """A row of the table of tasks; the cells stand in the order of the leaderboard."""

    row: TaskRow
    cells: Sequence[_Cell]
    in_means: bool
    difference: float | None
    items: TaskDifference | None


def _tasks(comparison: Comparison) -> list[_Task]:
    reasons = {reason: number for number, reason in enumerate(_reasons(comparison), 1)}
    order = _order(comparison)
    duel = comparison.duels[0] if len(comparison.duels) == 1 else None
    items = {one.task: one for one in duel.by_task} if duel else {}
    tasks = []
    for row in comparison.rows:
        scores = [cell.value for cell in row.cells if isinstance(cell, Score)]
        cells = [_cell(row.cells[i], scores, reasons) for i in order]
        both = [cell.score.value for cell in cells if cell.score]
        one = items.get(row.task)
        difference = one.difference if one else both[0] - both[1] if duel and len(both) == 2 else None
        tasks.append(_Task(row, cells, row.task in comparison.common, difference, one))
    return tasks


def _order(comparison: Comparison) -> list[int]:
    labels = [system.label for system in comparison.systems]
    return [labels.index(standing.system.label) for standing in comparison.standings]


def _cell(cell: Score | Gap, scores: Sequence[float], reasons: Mapping[str, int]) -> _Cell:
    if isinstance(cell, Gap):
        return _Cell(None, reasons[cell.reason], best=False)
    return _Cell(cell, None, best=len(scores) > 1 and cell.value == max(scores))


def _reasons(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(reason for _, reason in words.gaps(comparison)))


@dataclass(frozen=True)
class _Labels:
    """One system's table by label: cells are text and number."""

    task: str
    system: str
    columns: Sequence[str]
    rows: Sequence[Sequence[tuple[str, float | None]]]


def _labels(comparison: Comparison) -> list[_Labels]:
    shown = words.names(comparison)
    tables = []
    for task, systems in (comparison.per_label or {}).items():
        for label, entries in systems.items():
            keys = list(dict.fromkeys(key for entry in entries for key in entry))
            rows = [[_text_and_number(entry.get(key)) for key in keys] for entry in entries]
            columns = [str(key).replace("_", " ") for key in keys]
            tables.append(_Labels(task, shown.get(label, label), columns, rows))
    return tables


def _text_and_number(value: object) -> tuple[str, float | None]:
    if isinstance(value, float):
        return f"{value:.3f}", value
    return plain(value), value if isinstance(value, int) else None


def _folder(paths: Sequence[str]) -> str:
    """The folder that different paths have in common."""
    folders = zip(*(path.split("/")[:-1] for path in paths), strict=False)
    shared = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, folders)]
    return "/".join([*shared, ""]) if shared and len(set(paths)) > 1 else ""


@dataclass(frozen=True)
class _Sources:
    """Where one system's scores are from; what is the same for all of them is said once."""

    system: System
    versions: Sequence[str]
    shared: Sequence[tuple[str, str]]
    columns: Sequence[str]
    rows: Sequence[tuple[str, float, Sequence[str]]]


def _sources(comparison: Comparison, index: int) -> _Sources:
    scores = [cell for row in comparison.rows if isinstance(cell := row.cells[index], Score)]
    stated: dict[str, list[str | None]] = {
        "split": [score.split for score in scores],
        "subsets": [", ".join(score.subsets) for score in scores],
        "languages": [", ".join(score.languages) for score in scores],
        "revision of the data": [score.dataset_revision for score in scores],
        "metric": [score.metric for score in scores],
        "mteb": [score.mteb_version for score in scores],
        "source": [score.source for score in scores],
    }
    columns = {name: [value or "not stated" for value in values] for name, values in stated.items()}
    shared = [(name, values[0]) for name, values in columns.items() if len(set(values)) == 1]
    if folder := _folder(columns["source"]):
        columns["source"] = [value.removeprefix(folder) for value in columns["source"]]
        shared.append(("folder of the sources", folder))
    own = {name: values for name, values in columns.items() if len(set(values)) > 1}
    rows = [(score.task, score.value, [values[i] for values in own.values()]) for i, score in enumerate(scores)]
    versions = sorted({score.mteb_version for score in scores if score.mteb_version})
    return _Sources(comparison.systems[index], versions, shared, list(own), rows)
