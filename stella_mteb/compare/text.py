"""A comparison as text: for a terminal, as Markdown, JSON or CSV."""

from __future__ import annotations

import math
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stella_mteb.compare.export import as_csv, as_json
from stella_mteb.compare.records import Comparison, Duel, Standing
from stella_mteb.compare.words import (
    count,
    gaps,
    headline,
    in_bytes,
    interval,
    listed,
    machines,
    main_duels,
    names,
    p_value,
    per_cent,
    points,
    rank,
    settings,
    signed,
    types,
)
from stella_mteb.files.tables import TableFormat, plain, render

_NAME_WIDTH = 15
_MARKS = re.compile(r"([|\\`<>\[\]*_&~])")
_BEGINS_A_BLOCK = re.compile(r"^(\d*)([#+.)=-])")


def render_comparison(comparison: Comparison, form: TableFormat, width: int | None = None) -> str:
    """A comparison as text.

    Args:
        comparison: What to show.
        form: `table` for a terminal, `md`, `json` or `csv`; for the last two see `export`.
        width: Columns of the terminal; None for what it is.
    """
    if form == "json":
        return as_json(comparison)
    if form == "csv":
        return as_csv(comparison)
    if form == "md":
        return "\n\n".join(_markdown(section) for section in _sections(comparison, 10**6))
    width = width or shutil.get_terminal_size().columns
    return "\n\n".join(_terminal(section, width) for section in _sections(comparison, width))


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
        {"system": shown[label], "tasks": len(tasks), "which": listed(tasks), "why": reason}
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
            "p adjusted": p_value(duel.p_adjusted),
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
            "p adjusted": p_value(one.p_adjusted),
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
