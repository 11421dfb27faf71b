"""A comparison as text: for a terminal, as Markdown, JSON or CSV. Points are scores x 100."""

from __future__ import annotations

import json
import math
import re
import shutil
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from stella_mteb.compare.records import Comparison, Duel, Gap, Score, Standing, System, TaskRow
from stella_mteb.files.tables import TableFormat, plain, render, without_secrets

SCHEMA_VERSION = 1
"""Of the JSON object; raised when a key changes its meaning or goes."""

_NAME_WIDTH = 15
_MARKS = re.compile(r"([|\\`<>\[\]*_&~])")
_BEGINS_A_BLOCK = re.compile(r"^(\d*)([#+.)=-])")


def render_comparison(comparison: Comparison, form: TableFormat, width: int | None = None) -> str:
    """A comparison as text.

    Args:
        comparison: What to show.
        form: `table` for a terminal, `md`, `json` (one object, full precision) or `csv` (a row for each system and
            task, with where the score is from, so that a spreadsheet can do all of it again).
        width: Columns of the terminal; None for what it is.
    """
    if form == "json":
        return without_secrets(json.dumps(_as_json(comparison), indent=2, allow_nan=False))
    if form == "csv":
        return render(_score_rows(comparison), "csv")
    if form == "md":
        return "\n\n".join(_markdown(section) for section in _sections(comparison, 10**6))
    width = width or shutil.get_terminal_size().columns
    return "\n\n".join(_terminal(section, width) for section in _sections(comparison, width))


# ------------------------------------------------------------------------------------------ in words and figures


def headline(comparison: Comparison) -> str:
    """The answer in one sentence: who is best, or that the results cannot tell."""
    shown = names(comparison)
    standings = [standing for standing in comparison.standings if standing.tasks]
    labels = [shown[standing.system.label] for standing in standings]
    if len(labels) < 2:
        return f"{labels[0]} stands alone: there is nothing to compare it with" if labels else "No results to compare"
    if not comparison.common:
        return f"No task has comparable scores of all {len(labels)} systems"
    return _ranked(standings, labels)


def _ranked(standings: Sequence[Standing], labels: Sequence[str]) -> str:
    top = [label for standing, label in zip(standings, labels, strict=True) if standing.best_rank == 1]
    if len(top) != 1:
        start = "These" if len(top) == len(labels) else "At the top, these"
        return f"{start} results cannot separate {in_words(top or labels)}"
    others = [label for label in labels if label != top[0]]
    if min(standing.worst_rank for standing in standings) > 1:
        return f"{top[0]} leads, but not beyond doubt against each of the others"
    return f"{top[0]} is better than {others[0] if len(others) == 1 else f'each of the other {len(others)}'}"


def in_words(items: Sequence[str], most: int = 4) -> str:
    """`a, b and c`; of many, the first and how many more."""
    if len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} more"]
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def names(comparison: Comparison, reserved: Collection[str] = ()) -> dict[str, str]:
    """Labels as one line without control characters, still unlike each other."""
    shown: dict[str, str] = {}
    for system in comparison.systems:
        name = plain(system.label).strip() or "(no name)"
        count, unique = 1, name
        while unique in shown.values() or unique in reserved:
            count += 1
            unique = f"{name} ({count})"
        shown[system.label] = unique
    return shown


def points(value: float | None) -> str:
    """A score x 100 with two decimals."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.2f}"


def signed(value: float | None) -> str:
    """A difference x 100 with its sign."""
    return "-" if value is None or not math.isfinite(value) else f"{round(100 * value, 2) + 0:+.2f}"  # no -0.00


def interval(low: float | None, high: float | None) -> str:
    """An interval of differences."""
    return "-" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def p_value(value: float | None) -> str:
    """A probability with three decimals."""
    if value is None or not math.isfinite(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def rank(standing: Standing) -> str:
    """`1`, or `1-2` where the results cannot tell; none without any score."""
    low, high = standing.best_rank, standing.worst_rank
    if not standing.tasks:
        return "-"
    return str(low) if low == high else f"{low}-{high}"


def in_bytes(value: float | None) -> str:
    """Bytes in decimal units, three digits."""
    return _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def count(value: float | None) -> str:
    """A large number in three digits: `1.54 billion`."""
    return _scaled(value, ("", "thousand", "million", "billion"))


def _scaled(value: float | None, units: Sequence[str]) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    power = 0
    while value >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    figures = f"{value:,.0f}" if value >= 99.95 or power == 0 else f"{value:.3g}"
    return f"{figures} {units[power]}".rstrip()


def settings(system: System) -> str:
    """What tells the row from others, as one line."""
    return ", ".join(f"{key}={_jsonable(value)}" for key, value in sorted(system.settings.items()))


def types(comparison: Comparison) -> dict[str, int]:
    """The task types of the means, in alphabetical order, with how many tasks each has."""
    of_task = {row.task: row.type for row in comparison.rows}
    counted = [of_task[task] for task in comparison.common if task in of_task]
    return {name: counted.count(name) for name in sorted(set(counted))}


def per_cent(alpha: float) -> str:
    """The level of intervals: `95 %`."""
    return f"{100 * (1 - alpha):g} %"


def machines(comparison: Comparison) -> list[str]:
    """The machines that prices were measured on; 'not stated' is one of them."""
    return sorted({price.machine or "not stated" for price in comparison.prices})


def main_duels(comparison: Comparison) -> Sequence[Duel]:
    """The duels that are shown task by task: all, or of more than three only that of the first two places."""
    return comparison.duels if len(comparison.duels) <= 3 else comparison.duels[:1]


def gaps(comparison: Comparison) -> dict[tuple[str, str], list[str]]:
    """The tasks that a system has no comparable score for, by its label and the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in comparison.rows:
        for system, cell in zip(comparison.systems, row.cells, strict=True):
            if isinstance(cell, Gap):
                found.setdefault((system.label, cell.reason), []).append(row.task)
    return found


# ------------------------------------------------------------------------------------------------------- sections


@dataclass(frozen=True)
class _Section:
    """A title with sentences and a table under it; any of them may be missing."""

    title: str
    lines: Sequence[str] = ()
    rows: Sequence[Mapping[str, Any]] = ()


def _sections(comparison: Comparison, width: int) -> Iterator[_Section]:
    shown = names(comparison, reserved={"task type", "tasks"})
    verdicts = [duel.verdict for duel in comparison.duels]
    if len(verdicts) == 1:  # it says what the headline says, and how sure that is
        yield _Section(verdicts[0])
    else:
        yield _Section(headline(comparison), verdicts if len(verdicts) <= 3 else ())
    yield _leaderboard(comparison, shown)
    yield from _by_type(comparison, shown, width)
    yield from _missing(comparison, shown)
    if comparison.duels:
        yield _duels(comparison, shown)
    yield from (_by_task(comparison, duel, shown) for duel in main_duels(comparison) if duel.by_task)
    yield from _per_label(comparison)
    if comparison.prices:
        yield _prices(comparison, shown)
    yield _sources(comparison, shown)
    if comparison.notes:
        yield _Section("Notes", comparison.notes)


def _leaderboard(comparison: Comparison, shown: Mapping[str, str]) -> _Section:
    standings, common = comparison.standings, len(comparison.common)
    rows = [
        {
            "rank": rank(one),
            "system": shown[one.system.label],
            "provenance": one.system.provenance,
            "mean": points(one.mean),
            "tasks": f"{one.tasks} of {len(comparison.rows)}",
        }
        for one in standings
    ]
    lines = []
    if any(one.best_rank != one.worst_rank for one in standings):
        lines.append("A rank such as 1-2: these results cannot tell which of these places it is.")
    if not common:
        lines.append("No mean: there is no task on which all have comparable scores.")
    tasks = f"{common} task" + "s" * (common != 1)
    return _Section(f"Leaderboard: mean score in points (x 100) over the {tasks} that all have, alike", lines, rows)


def _by_type(comparison: Comparison, shown: Mapping[str, str], width: int) -> Iterator[_Section]:
    kinds = {f"{plain(kind)} ({number})": kind for kind, number in types(comparison).items()}
    left = width - max(map(len, kinds), default=0)
    title = "Mean by task type (number of tasks), in points"
    for group in _groups(comparison.standings, shown, left) if kinds else ():
        rows = [
            {"task type": text, **{shown[one.system.label]: points(one.by_type.get(kind)) for one in group}}
            for text, kind in kinds.items()
        ]
        yield _Section(title, (), rows)
        title = "Mean by task type, the next systems"


def _groups(standings: Sequence[Standing], shown: Mapping[str, str], width: int) -> list[list[Standing]]:
    # As many columns side by side as fit with their names readable; the others in a further table.
    found: list[list[Standing]] = []
    left = 0
    for standing in standings:
        needs = 3 + max(min(len(shown[standing.system.label]), _NAME_WIDTH), len("100.00"))
        if not found or needs > left:
            found.append([])
            left = width
        found[-1].append(standing)
        left -= needs
    return found


def _missing(comparison: Comparison, shown: Mapping[str, str]) -> Iterator[_Section]:
    rows = [
        {"system": shown[label], "tasks": len(tasks), "which": in_words(tasks), "why": reason}
        for (label, reason), tasks in gaps(comparison).items()
    ]
    if rows:
        yield _Section("Gaps: no comparable score, so the task is in no mean over all", (), rows)


def _duels(comparison: Comparison, shown: Mapping[str, str]) -> _Section:
    found, title = comparison.duels, "Two by two"
    if len(found) > 3:
        found, title = found[: len(comparison.standings) - 1], "The first place against each of the others"
    rows = [
        {
            "first": shown[duel.first.label],
            "second": shown[duel.second.label],
            "points": signed(duel.difference),
            "interval": interval(duel.low, duel.high),
            "p (Holm)": p_value(duel.p_holm),
            "tasks": f"{duel.wins}/{duel.ties}/{duel.losses}",
        }
        for duel in found
    ]
    level = per_cent(comparison.alpha)
    title += f": first minus second, mean difference in points with its {level} interval; tasks won/even/lost"
    return _Section(title, (), rows)


def _by_task(comparison: Comparison, duel: Duel, shown: Mapping[str, str]) -> _Section:
    rows = [
        {
            "task": plain(one.task),
            "difference": signed(one.difference),
            "interval": interval(one.low, one.high),
            "p (Holm)": p_value(one.p_holm),
            "items": f"{one.items} {one.unit}",
        }
        for one in duel.by_task
    ]
    return _Section(
        f"{shown[duel.first.label]} minus {shown[duel.second.label]}, task by task where each item's prediction is "
        f"known: difference in points with its {per_cent(comparison.alpha)} interval",
        (),
        rows,
    )


def _per_label(comparison: Comparison) -> Iterator[_Section]:
    for task, systems in (comparison.per_label or {}).items():
        for label, entries in systems.items():
            columns = list(dict.fromkeys(key for entry in entries for key in entry))
            rows = [{plain(key).replace("_", " "): entry.get(key) for key in columns} for entry in entries]
            if rows:
                yield _Section(f"{plain(task)} by label: {plain(label)}", (), rows)


def _prices(comparison: Comparison, shown: Mapping[str, str]) -> _Section:
    means = {standing.system.label: standing.mean for standing in comparison.standings}
    rows = [
        {
            "system": shown[price.system.label],
            "mean": points(means.get(price.system.label)),
            "machine": price.machine or "not stated",
            "dtype": price.dtype or "not stated",
            "tokens/s": _whole(price.tokens_per_second),
            "texts/s": _whole(price.texts_per_second),
            "memory": in_bytes(price.peak_memory_bytes),
            "vector": in_bytes(price.vector_bytes),
            "parameters": count(price.parameters),
        }
        for price in comparison.prices
    ]
    places = machines(comparison)
    title = "Price, measured on one machine" if len(places) == 1 else "Price, on different machines: not comparable"
    if places == ["not stated"]:
        title = "Price, the machine is not stated"
    shared = [key for key in ("machine", "dtype") if len({row[key] for row in rows}) == 1]
    values = ", ".join(f"{key} {rows[0][key]}" for key in shared if rows[0][key] != "not stated")
    rows = [{key: cell for key, cell in row.items() if key not in shared} for row in rows]
    return _Section(f"{title} ({values})" if values else title, (), rows)


def _whole(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:,.0f}"


def _sources(comparison: Comparison, shown: Mapping[str, str]) -> _Section:
    lines = [
        f"{shown[system.label]}: {system.model}, revision {system.revision or 'not stated'}; {system.provenance}, "
        f"from {system.origin}" + (f"; {settings(system)}" if system.settings else "")
        for system in comparison.systems
    ]
    return _Section("Where the scores are from", lines)


# --------------------------------------------------------------------------------------------------- as people read


def _terminal(section: _Section, width: int) -> str:
    texts = [
        plain(section.title),
        *(f"- {plain(line)}" if len(section.lines) > 1 else plain(line) for line in section.lines),
    ]
    parts = [textwrap.fill(text, width, subsequent_indent="  " * text.startswith("- ")) for text in texts]
    if section.rows:
        parts.append(render(_flush_right(section.rows), "table", width=width))
    return "\n".join(parts)


def _flush_right(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    # Figures are formatted here (two decimals, always), and a table puts only numbers to the right by itself.
    figures = re.compile(r"-|[<+-]? ?[\d.,]+")
    padded = {}
    for column in rows[0]:
        cells = [row[column] for row in rows]
        if all(isinstance(cell, str) and figures.fullmatch(cell) for cell in cells):
            padded[column] = max(*map(len, cells), min(len(column), _NAME_WIDTH))
    return [{key: cell.rjust(padded[key]) if key in padded else cell for key, cell in row.items()} for row in rows]


def _markdown(section: _Section) -> str:
    parts = [f"### {_escape(section.title)}"]
    if section.lines:
        parts.append("\n".join(f"- {_escape(line)}" for line in section.lines))
    if section.rows:
        parts.append(render([{_escape(key): cell for key, cell in row.items()} for row in section.rows], "md"))
    return "\n\n".join(parts)


def _escape(text: str) -> str:
    return _BEGINS_A_BLOCK.sub(r"\1\\\2", _MARKS.sub(r"\\\1", plain(text).strip()))


# ------------------------------------------------------------------------------------------------- as programs read


def _as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "headline": headline(comparison),
        "systems": [_fields(system) for system in comparison.systems],
        "common": list(comparison.common),
        "standings": _jsonable(comparison.standings),
        "tasks": [_task_as_json(comparison.systems, row) for row in comparison.rows],
        "duels": _jsonable(comparison.duels),
        "prices": _jsonable(comparison.prices),
        "per_label": _jsonable(comparison.per_label or {}),
        "notes": list(comparison.notes),
        "alpha": comparison.alpha,
        "resamples": comparison.resamples,
        "seed": comparison.seed,
    }


def _task_as_json(systems: Sequence[System], row: TaskRow) -> dict[str, Any]:
    cells = dict(zip((system.label for system in systems), row.cells, strict=True))
    return {
        "task": row.task,
        "type": row.type,
        "condition": row.condition,
        "scores": {label: _jsonable(cell) for label, cell in cells.items() if isinstance(cell, Score)},
        "gaps": {label: cell.reason for label, cell in cells.items() if isinstance(cell, Gap)},
    }


def _jsonable(value: Any) -> Any:
    # A system is told in full once, and named by its label everywhere else.
    if isinstance(value, System):
        return value.label
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: _jsonable(getattr(value, field.name)) for field in fields(value)}


def _score_rows(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        _score_row(system, row, cell, row.task in comparison.common)
        for row in comparison.rows
        for system, cell in zip(comparison.systems, row.cells, strict=True)
    ]


def _score_row(system: System, row: TaskRow, cell: Score | Gap, in_means: bool) -> dict[str, Any]:
    score = cell if isinstance(cell, Score) else None
    return {
        "system": system.label,
        "task": row.task,
        "type": row.type,
        "score": _jsonable(score.value) if score else None,
        "in_means": "yes" if in_means else "no",
        "gap": cell.reason if isinstance(cell, Gap) else None,
        "split": score and score.split,
        "subsets": score and " ".join(score.subsets),
        "languages": score and " ".join(score.languages),
        "dataset_revision": score and score.dataset_revision,
        "metric": score and score.metric,
        "mteb_version": score and score.mteb_version,
        "source": score and score.source,
        "condition": row.condition,
        "model": system.model,
        "provenance": system.provenance,
        "origin": system.origin,
        "revision": system.revision,
        "settings": json.dumps(_jsonable(system.settings), sort_keys=True),
    }
