"""Render a comparison as text: for a terminal, as Markdown, JSON or CSV."""

from __future__ import annotations

import math
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stella_mteb.compare.export import as_csv, as_json
from stella_mteb.compare.records import Comparison, Duel, ModelFacts
from stella_mteb.compare.shown import shown as short_names
from stella_mteb.compare.shown import usual_provenance
from stella_mteb.compare.sources import at
from stella_mteb.compare.words import (
    LEFT_OUT,
    Missing,
    about_means,
    beside_the_first,
    count,
    ends,
    gaps,
    headline,
    in_bytes,
    interval,
    left_out,
    machines,
    main_duels,
    means_over,
    no_mean,
    p_value,
    per_cent,
    placed,
    points,
    rank,
    settings,
    share,
    signed,
    types,
    weights,
)
from stella_mteb.files.tables import TableFormat, listed, many, plain, render

_GAP = 3
"""Width between the columns of a table, in characters."""
_TYPE = 5
"""Width of a task type's column, in characters: a score in points."""
_LEAST_NAME = 16
_ELSEWHERE = "see --format md, or the page of --html FILE"
_MOST = 15
"""The most rows or lines of a section on a terminal, except in sections that are always whole."""
_MARKS = re.compile(r"([|\\`<>\[\]*_&~])")
_BEGINS_A_BLOCK = re.compile(r"^(\d*)([#+.)=-])")


def render_comparison(comparison: Comparison, form: TableFormat, width: int | None = None) -> str:
    """Render a comparison as text.

    Args:
        comparison: The comparison to show.
        form: `table` for a terminal, `md`, `json` or `csv`; for the last two see `export`.
        width: Width in characters; None for that of the terminal.
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
    """A title, sentences, a table, and sentences below. Unless `whole`, a terminal shows the first lines and rows."""

    title: str
    lines: Sequence[str] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    whole: bool = False
    below: Sequence[str] = ()


def _sections(comparison: Comparison, width: int) -> Iterator[_Section]:
    shown = {label: name.telling for label, name in short_names(comparison).items()}
    verdicts = [duel.verdict for duel in comparison.duels]
    if len(verdicts) == 1:  # the verdict repeats the headline and adds the uncertainty
        yield _Section(verdicts[0])
    else:
        yield _Section(headline(comparison, shown), verdicts if len(verdicts) <= 3 else ())
    yield _leaderboard(comparison, shown)
    if comparison.unranked:
        yield _unranked(comparison, shown)
    if comparison.standings and comparison.mean_tasks:
        yield _by_type(comparison, shown, width)
    if any(facts != ModelFacts() for facts in comparison.facts.values()):
        yield _models(comparison, shown)
    if missing := gaps(comparison):
        yield _missing(missing, shown)
    if comparison.duels:
        yield _duels(comparison, shown)
    yield from (_by_task(comparison, duel, shown) for duel in main_duels(comparison) if duel.by_task)
    yield from _per_label(comparison)
    if comparison.prices:
        yield _prices(comparison, shown)
    yield _sources(comparison, shown)
    if comparison.notes:
        yield _Section("Notes", comparison.notes, whole=True)


def _leaderboard(comparison: Comparison, shown: Mapping[str, str]) -> _Section:
    standings, usual = comparison.standings, usual_provenance(comparison)
    rows = [
        {
            "rank": rank(one),
            "system": shown[one.system.label],
            "mean": points(one.mean),
            "mean of types": points(one.mean_by_type),
            "Borda rank": "-" if one.borda is None else str(one.borda),
            "tasks": f"{one.tasks} of {len(comparison.selected)}",
        }
        for one in standings
    ]
    lines = []
    if len({system.provenance for system in comparison.systems}) > 1:
        lines.append(f"Unless a name says otherwise, its scores are {usual}.")
    elif usual:
        lines.append(f"All scores are {usual}.")
    if any(one.best_rank != one.worst_rank for one in standings):
        lines.append("A rank such as 1-2 is a range: these results cannot tell which place in it is right.")
    if not comparison.mean_tasks:
        lines.append(no_mean(comparison))
    title = f"Leaderboard: mean score in points (x 100) over {means_over(comparison)}"
    return _Section(title, lines, rows, whole=True, below=about_means(comparison, shown))


def _unranked(comparison: Comparison, shown: Mapping[str, str]) -> _Section:
    lines = [f"{shown[one.system.label]}: {one.reason}" for one in comparison.unranked]
    title = f"Not ranked: less than {100 * comparison.coverage:g} % of the tasks"
    if not (beside := beside_the_first(comparison)):
        return _Section(title, lines)
    first = shown[comparison.duels[0].first.label]
    place, before = ("first place", "the first place, ") if comparison.standings else ("first", "")
    rows = [
        {
            "system": shown[label],
            "tasks": str(duel.tasks),
            "mean": points(duel.second_mean),
            place: points(duel.first_mean),
            "difference": signed(duel.difference and -duel.difference),
            "interval": interval(*ends(duel, turned=True)),
        }
        for label, duel in beside.items()
    ]
    title += f". Means in points are over the tasks shared with {before}{first}"
    return _Section(title, lines, rows)


def _by_type(comparison: Comparison, shown: Mapping[str, str], width: int) -> _Section:
    """Show types as columns: full headings if all fit, else short ones, as many as leave room for the system."""
    kinds = types(comparison)
    headings = {kind: f"{plain(kind)} ({number})" for kind, number in kinds.items()}
    room = width - max(map(len, shown.values()), default=0)
    if sum(len(heading) + _GAP for heading in headings.values()) > room:
        # The first two words of a CamelCase name, each cut to the width of a score.
        words = {kind: re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z]+", plain(kind))[:2] for kind in kinds}
        cut = {
            kind: " ".join(word if len(word) <= _TYPE else f"{word[: _TYPE - 1]}." for word in words[kind])
            for kind in list(kinds)[: (width - _LEAST_NAME) // (_TYPE + _GAP)]
        }
        headings = {kind: f"{short} ({kinds[kind]})" for kind, short in cut.items()}
    rows = [
        {"system": shown[one.system.label], **{text: points(one.by_type.get(kind)) for kind, text in headings.items()}}
        for one in comparison.standings
    ]
    left = len(kinds) - len(headings)
    lines = [f"{many(left, 'more type')}: {_ELSEWHERE}"] if left else []
    return _Section("Mean by task type (number of tasks), in points", lines, rows, whole=True)


def _models(comparison: Comparison, shown: Mapping[str, str]) -> _Section:
    of = comparison.facts
    rows = [
        {
            "system": shown[label],
            "params": count(of[label].parameters),
            "max tokens": _whole(of[label].max_tokens),
            "dim": _whole(of[label].dimension),
            "licence": plain(weights(of[label])),
            "released": (of[label].released or "-")[:7],
            "zero shot": share(of[label].zero_shot),
        }
        for label in (one.label for one in placed(comparison))
    ]
    title = (
        "Models: settings of the run or of this project's config, else MTEB's description; zero-shot: the share of the "
        "tasks whose data it was not trained on"
    )
    return _Section(title, (), rows)


def _missing(missing: Sequence[Missing], shown: Mapping[str, str]) -> _Section:
    lines = []
    for reason, tasks, labels in missing:
        of = f"{len(labels)} systems" if len(labels) > 1 else shown[labels[0]]
        on = many(len(tasks), "task") if len(tasks) > 1 else tasks[0]
        which = [listed([shown[label] for label in labels])] * (len(labels) > 1) + [listed(tasks)] * (len(tasks) > 1)
        lines.append(f"{of} on {on}: {reason}" + (f" ({'; '.join(which)})" if which else ""))
    return _Section("Gaps: no score that is comparable with those of most other systems", lines)


def _duels(comparison: Comparison, shown: Mapping[str, str]) -> _Section:
    found, title, first = comparison.duels, "Pairwise comparison", "first minus second"
    if len(found) > 3:
        found, title = found[: len(comparison.standings) - 1], "First place against each of the others"
        first = f"{shown[found[0].first.label]} minus each"
    rows = [
        {
            **({} if len(found) < len(comparison.duels) else {"first": shown[duel.first.label]}),
            "second": shown[duel.second.label],
            "points": signed(duel.difference),
            "interval": interval(duel.low, duel.high),
            "p": p_value(duel.p_adjusted),
            "tasks": f"{duel.wins}/{duel.ties}/{duel.losses}",
            **({"left out": left_out(duel, "lack", "data") or "-"} if any(map(left_out, found)) else {}),
        }
        for duel in found
    ]
    level = per_cent(comparison.alpha)
    adjusted = (
        f"; intervals and p are adjusted for all {len(comparison.duels)} pairs" if len(comparison.duels) > 1 else ""
    )
    title += f": {first}, mean difference in points with its {level} interval; tasks won/tied/lost{adjusted}"
    return _Section(title, (), rows, below=[LEFT_OUT] * any(map(left_out, found)))


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
        f"{shown[duel.first.label]} minus {shown[duel.second.label]}, on tasks with a known prediction for each item: "
        f"difference in points with its {per_cent(comparison.alpha)} interval",
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
    title = "Cost, measured on one machine" if len(places) == 1 else "Cost, on different machines: not comparable"
    if places == ["not stated"]:
        title = "Cost, on a machine that is not stated"
    shared = [key for key in ("machine", "dtype") if len({row[key] for row in rows}) == 1]
    values = ", ".join(f"{key} {rows[0][key]}" for key in shared if rows[0][key] != "not stated")
    rows = [{key: cell for key, cell in row.items() if key not in shared} for row in rows]
    return _Section(f"{title} ({values})" if values else title, (), rows)


def _whole(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:,.0f}"


def _sources(comparison: Comparison, shown: Mapping[str, str]) -> _Section:
    froms = [f"{system.provenance}, from {system.origin}" for system in comparison.systems]
    shared = len(set(froms)) == 1
    lines = [
        (f"{shown[system.label]}: " if system.model.rpartition("/")[2] != shown[system.label] else "")
        + f"{system.model}, {'; '.join(system.joined) or at(system)}"
        + ("" if shared else f"; {told}")
        + (f"; {settings(system)}" if system.settings else "")
        for system, told in zip(comparison.systems, froms, strict=True)
    ]
    return _Section(f"Where the scores are from: {froms[0]}" if shared else "Where the scores are from", lines)


# ---------------------------------------------------------------------------------------------- terminal, Markdown


def _terminal(section: _Section, width: int) -> str:
    lines, rows, most = section.lines, section.rows, None if section.whole else _MOST
    left = 0 if section.whole else max(len(lines), len(rows)) - _MOST
    bullet = "- " if len(lines) > 1 else ""
    texts = [plain(section.title), *(f"{bullet}{plain(line)}" for line in lines[:most])]
    parts = [
        textwrap.fill(text, width, subsequent_indent="  " * text.startswith("- "), break_on_hyphens=False)
        for text in texts
    ]
    if rows:
        shown = _fitted(_aligned(rows[:most]), width)
        parts.append(render(shown, "table", width=width))
    if left > 0:
        parts.append(textwrap.fill(f"... and {left} more: {_ELSEWHERE}", width))
    parts += [textwrap.fill(plain(line), width, break_on_hyphens=False) for line in section.below]
    return "\n".join(parts)


def _aligned(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    # A heading that is wider than its cells has one word per line. Figures are text here (always two decimals), and
    # `render` aligns only numbers to the right.
    figures = re.compile(r"-|[<+-]? ?[\d.,]+")
    columns = {}
    for key in rows[0]:
        cells = [row[key] for row in rows]
        width = max(len(plain(cell)) for cell in cells)
        heading = key.replace(" ", "\n") if len(key) > width else key
        if all(isinstance(cell, str) and figures.fullmatch(cell) for cell in cells):
            cells = [cell.rjust(max(width, min(_columns(heading), 15))) for cell in cells]
        columns[heading] = cells
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _fitted(rows: Sequence[Mapping[str, Any]], width: int) -> list[dict[str, Any]]:
    """Cut names in the middle if the table is too wide; names differ mostly at their ends."""
    cut = [column for column in rows[0] if column in {"system", "first", "second", "task"}]
    others = sum(
        _GAP + max(_columns(column), *(_columns(plain(row[column])) for row in rows))
        for column in rows[0]
        if column not in cut
    )
    most = max(_LEAST_NAME, (width - others - 2 + _GAP) // max(1, len(cut)) - _GAP)
    shorter = {}
    for column in cut:
        names = [row[column] for row in rows]
        cuts = [
            [name if len(name) <= most else f"{name[: most - tail - 1]}…{name[len(name) - tail :]}" for name in names]
            for tail in range(most // 2, -1, -1)
        ]
        # Different names stay different if any place for the cut allows it.
        shorter[column] = max(cuts, key=lambda names: len(set(names)))
    return [{key: shorter[key][i] if key in cut else cell for key, cell in row.items()} for i, row in enumerate(rows)]


def _columns(text: str) -> int:
    return max((len(line) for line in text.split("\n")), default=0)


def _markdown(section: _Section) -> str:
    parts = [f"### {_escape(section.title)}"]
    if section.lines:
        parts.append("\n".join(f"- {_escape(line)}" for line in section.lines))
    if section.rows:
        parts.append(render([{_escape(key): cell for key, cell in row.items()} for row in section.rows], "md"))
    parts += [_escape(line) for line in section.below]
    return "\n\n".join(parts)


def _escape(text: str) -> str:
    return _BEGINS_A_BLOCK.sub(r"\1\\\2", _MARKS.sub(r"\\\1", plain(text).strip()))
