"""Figures of a comparison. The tables of the page have the same numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest

from markupsafe import Markup

from stella_mteb.compare.records import Comparison, Duel, Score, System
from stella_mteb.compare.shown import shown
from stella_mteb.compare.words import interval, machines, main_duels, per_cent, points, signed
from stella_mteb.files.tables import many, plain
from stella_mteb.pages import svg

_TASK = 38  # characters of a task's name: the longest of MTEB(eng, v1)


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        title: Title of the figure.
        caption: Instructions for reading it, or the reason why it is not drawn.
        svg: The drawing; None without one.
    """

    title: str
    caption: str
    svg: Markup | None


def pictures(comparison: Comparison) -> list[Picture]:
    """Draw all figures; one that cannot be drawn has the reason in its caption."""
    return [
        *(differences(comparison, duel, f"differences-{i}") for i, duel in enumerate(main_duels(comparison), 1)),
        *([quality_and_speed(comparison)] if comparison.prices else []),
        *([picture] if (picture := score_by_dimension(comparison)) else []),
    ]


# ------------------------------------------------------------------------------------------------- the leaderboard


@dataclass(frozen=True)
class Strips:
    """The column of the leaderboard that draws means: one strip per row, all on one axis.

    Attributes:
        axis: The axis, for the head of the column.
        rows: The strips by system label. A strip draws the system's mean, and the interval of its difference from the
            first place, measured from the mean of the first place. A vertical line marks that mean in all strips.
    """

    axis: Markup
    rows: Mapping[str, Markup]


def strips(comparison: Comparison) -> Strips | None:
    """Draw the means with their intervals; None if fewer than two systems have a mean."""
    means = {one.system.label: 100 * one.mean for one in comparison.standings if one.mean is not None}
    if len(means) < 2:
        return None
    label, first = next(iter(means.items()))
    duels = {duel.second.label: duel for duel in comparison.duels if duel.first.label == label}
    ends = {
        other: (first - 100 * duel.high, first - 100 * duel.low)
        for other, duel in duels.items()
        if duel.low is not None and duel.high is not None and other in means
    }
    low, high = min(means.values()), max(means.values())
    room = max((high - low) * 0.15, 0.5)
    reach = (low - room, high + room)  # longer intervals are clipped here, so that they do not compress the scale
    x, axis = svg.strip_axis(*reach)
    rows = {}
    for other, mean in means.items():
        parts = [svg.line(x(first), 0, x(first), 22, "zero")]
        duel, told, doubt = duels.get(other), f"{mean:.2f} points", True
        if other in ends and duel:
            start, end = (min(max(end, reach[0]), reach[1]) for end in ends[other])
            parts.append(svg.line(x(start), 11, x(end), 11, "bar first" if start <= first <= end else "bar even"))
            told += f"; {interval(duel.low, duel.high)} below the first place"
        if duel:
            doubt = duel.p_adjusted is None or duel.p_adjusted >= comparison.alpha
        colour = "s0" if other == label else "s0 hollow" if doubt else "s5"
        rows[other] = svg.strip(svg.STRIP, 22, told, [*parts, svg.mark(0, x(mean), 11, 4.5, colour)])
    return Strips(axis, rows)


# -------------------------------------------------------------------------------------------- differences by task


@dataclass(frozen=True)
class _Row:
    task: str
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def differences(comparison: Comparison, duel: Duel, key: str) -> Picture:
    """Draw the differences of two systems by task, sorted by size, with intervals where items are known.

    Args:
        comparison: The comparison that contains both systems.
        duel: The duel of the two systems.
        key: Prefix of element ids, unique within the page.
    """
    named = shown(comparison)
    first, second = named[duel.first.label].short, named[duel.second.label].short
    title = f"{first} minus {second}, task by task"
    rows = _rows(comparison, duel)
    if not rows:
        return Picture(title, "The two systems have no task with comparable scores.", None)
    left, right, top, step = 30 + 7 * min(max(len(one.task) for one in rows), _TASK), 648, 50, 19
    bottom = top + step * len(rows)
    reach = max(abs(end) for one in rows for end in (one.value, one.low, one.high) if end is not None) or 0.01
    ticks = svg.round_ticks(-100 * reach, 100 * reach, 9)
    x = svg.linear(-1.04 * reach, 1.04 * reach, left, right)
    parts = [
        *(
            svg.line(x(tick / 100), top - 8, x(tick / 100), bottom + 2, "zero" if tick == 0 else "grid")
            for tick in ticks
        ),
        *(svg.written(x(tick / 100), bottom + 18, svg.tick_label(tick, sign=True), "middle") for tick in ticks),
        svg.written((left + right) / 2, bottom + 38, "difference in points", "middle"),
        svg.written(x(0) - 10, top - 24, f"◂ {svg.shortened(second, 36)} higher", "end", "second"),
        svg.written(x(0) + 10, top - 24, f"{svg.shortened(first, 24)} higher ▸", "start", "first"),
        *(_difference(one, x, top + step * (i + 0.5), left, comparison.alpha) for i, one in enumerate(rows)),
    ]
    ahead, behind = sum(one.value > 0 for one in rows), sum(one.value < 0 for one in rows)
    summary = (
        f"{many(len(rows), 'task')}. {first} is higher on {ahead}, {second} on {behind}. "
        f"From {signed(rows[0].value)} points on {rows[0].task} to {signed(rows[-1].value)} on {rows[-1].task}."
    )
    return Picture(
        title, _how_to_read(comparison, duel, rows, first, second), svg.figure(key, bottom + 50, title, summary, parts)
    )


def _rows(comparison: Comparison, duel: Duel) -> list[_Row]:
    labels = [system.label for system in comparison.systems]
    i, j = labels.index(duel.first.label), labels.index(duel.second.label)
    known = {one.task: one for one in duel.by_task}
    found = []
    for row in comparison.rows:
        a, b, one = row.cells[i], row.cells[j], known.get(row.task)
        if one is not None:
            found.append(_Row(plain(row.task), one.difference, one.low, one.high, one.p_adjusted))
        elif isinstance(a, Score) and isinstance(b, Score):
            found.append(_Row(plain(row.task), a.value - b.value))
    return sorted((one for one in found if math.isfinite(one.value)), key=lambda one: -one.value)


def _how_to_read(comparison: Comparison, duel: Duel, rows: Sequence[_Row], first: str, second: str) -> str:
    text = f"Sorted by size. Circle: {first} is higher; diamond: {second} is higher."
    known = sum(one.p is not None for one in rows)
    if known:
        text += (
            f" A bar is the {per_cent(comparison.alpha)} interval over the items of the task; a hollow mark is not "
            f"significant (adjusted p of {comparison.alpha:g} or more)."
        )
    if known < len(rows):
        which = "a mark on a thin stem has no interval" if known else "no mark has an interval"
        text += f" Predictions for single items are unavailable for {'the others' if known else 'all tasks'}: {which}."
    if hidden := duel.tasks - len(rows):
        text += (
            f" {hidden} of their tasks {'is' if hidden == 1 else 'are'} not drawn: there, the two scores are "
            "comparable with each other, but not with those of most systems."
        )
    return text


def _difference(one: _Row, x: svg.Scale, y: float, left: float, alpha: float) -> Markup:
    side = "first" if one.value > 0 else "second" if one.value < 0 else "even"
    doubt = one.p is not None and one.p >= alpha
    bar, told = svg.line(x(0), y, x(one.value), y, f"stem {side}"), f"{one.task}: {signed(one.value)}"
    if one.low is not None and one.high is not None:
        bar = svg.line(x(one.low), y, x(one.high), y, f"bar {side}")
        told += f" ({signed(one.low)} to {signed(one.high)})"
    mark = svg.mark({"first": 0, "second": 1, "even": 2}[side], x(one.value), y, 4.5, f"{side}{' hollow' * doubt}")
    return svg.group(
        told,
        svg.written(left - 12, y + 4, svg.shortened(one.task, _TASK), "end", "name"),
        bar,
        mark,
        svg.written(svg.WIDTH - 4, y + 4, signed(one.value).replace("-", "\N{MINUS SIGN}"), "end", "name"),
    )


# ---------------------------------------------------------------------------------------------- quality and speed


@dataclass(frozen=True)
class _Dot:
    x: float
    y: float
    label: str
    told: str
    shape: int
    hollow: bool = False


def quality_and_speed(comparison: Comparison) -> Picture:
    """Draw mean score against tokens per second with the Pareto front, if all speeds are from one machine."""
    title = "Quality against speed"
    means = {one.system.label: one.mean for one in comparison.standings}
    named = shown(comparison)
    found = [
        (price.tokens_per_second, mean, price.system.label)
        for price in comparison.prices
        if price.tokens_per_second and (mean := means.get(price.system.label)) is not None
    ]
    if len(found) < 2:
        return Picture(title, "Not drawn: fewer than two of these systems have both a mean score and a speed.", None)
    places = machines(comparison)
    if len(places) > 1 or places == ["not stated"]:
        where = "not stated" if len(places) == 1 else f"different: {'; '.join(map(plain, places))}"
        return Picture(
            title, f"Not drawn: speeds are comparable only on one machine, and these machines are {where}.", None
        )
    front = pareto([(speed, mean) for speed, mean, _ in found])
    order = [system.label for system in comparison.systems]
    axes = _Axes([speed for speed, _, _ in found], [100 * mean for _, mean, _ in found])
    dots = [
        _Dot(
            axes.x(speed),
            axes.y(100 * mean),
            named[label].short,
            f"{named[label].short}: {points(mean)} points, {speed:,.0f} tokens/s",
            order.index(label),
            hollow=i not in front,
        )
        for i, (speed, mean, label) in enumerate(found)
    ]
    best = [dots[i] for i in front]
    # Points under the steps are dominated; the front is ordered from fast to good.
    corners = [(slow.x, fast.y) for fast, slow in pairwise(best)]
    stairs = [place for both in zip_longest([(dot.x, dot.y) for dot in best], corners) for place in both if place]
    field = axes.drawn("tokens per second (logarithmic) ▸ faster", "mean score, points")
    summary = f"On the Pareto front, from fast to good: {'; '.join(dot.told for dot in best)}."
    caption = (
        f"Up is better, right is faster; measured on {places[0]}. Filled marks are the Pareto front: no other system "
        "is better without being slower. A hollow mark has another system that is at least as good and as fast."
    )
    return Picture(
        title,
        caption,
        svg.figure("speed", axes.height, title, summary, [*field, svg.polyline(stairs), *_labelled(dots)]),
    )


def pareto(both: Sequence[tuple[float, float]]) -> list[int]:
    """Find the indices of the Pareto-optimal pairs (more is better), in descending order of the first value."""
    return [
        i
        for i, (a, b) in sorted(enumerate(both), key=lambda one: (-one[1][0], -one[1][1]))
        if not any(c >= a and d >= b and (c, d) != (a, b) for c, d in both)
    ]


# --------------------------------------------------------------------------------------------- score and dimension


def score_by_dimension(comparison: Comparison) -> Picture | None:
    """Draw mean score against vector length for models with several, otherwise run alike; None without one."""
    lines: dict[tuple[str, str, str], list[tuple[int, float, System]]] = {}
    for one in comparison.standings:
        system = one.system
        if system.dimension is not None and system.dimension > 0 and one.mean is not None:
            rest = {key: value for key, value in system.settings.items() if key != "embed_dim"}
            alike = (system.model, system.provenance, repr(sorted(rest.items(), key=str)))
            lines.setdefault(alike, []).append((system.dimension, one.mean, system))
    lines = {key: sorted(line, key=lambda one: one[0]) for key, line in lines.items() if len(line) > 1}
    if not lines:
        return None
    title, named = "Score against dimension", shown(comparison)
    sizes = sorted({size for line in lines.values() for size, _, _ in line})
    axes = _Axes(sizes, [100 * mean for line in lines.values() for _, mean, _ in line], sizes)
    parts, told = axes.drawn("dimension of the vectors (logarithmic)", "mean score, points"), []
    for number, line in enumerate(lines.values()):
        dots = [
            _Dot(axes.x(size), axes.y(100 * mean), "", f"{named[system.label].short}: {points(mean)} points", number)
            for size, mean, system in line
        ]
        name = re.sub(r"@[0-9]+", "", named[line[-1][2].label].short)
        dots[-1] = _Dot(dots[-1].x, dots[-1].y, name, dots[-1].told, number)
        parts += [svg.polyline([(dot.x, dot.y) for dot in dots], f"s{number % svg.SHAPES}"), *_labelled(dots)]
        told += [dot.told for dot in dots]
    caption = "Each line is one model; only the dimension differs. A vector takes 4 bytes per dimension."
    return Picture(title, caption, svg.figure("dimension", axes.height, title, "; ".join(told) + ".", parts))


# ------------------------------------------------------------------------------------------------------- plotting


class _Axes:
    """Axes of a scatter plot with a margin: x is logarithmic, y is linear."""

    left, right, top, bottom, height = 62, svg.WIDTH - 24, 30, 320, 366

    def __init__(self, xs: Sequence[float], ys: Sequence[float], ticks: Sequence[float] = ()):
        low, high = math.log(min(xs)), math.log(max(xs))
        room = max((high - low) * 0.12, 0.1)
        scale = svg.linear(low - room, high + room, self.left, self.right)
        self.x: svg.Scale = lambda value: scale(math.log(value))
        self.x_ticks = ticks
        if not ticks:
            low, high = math.exp(low - room), math.exp(high + room)
            powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            marks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
            self.x_ticks = [mark for mark in marks if low <= mark <= high]
            if len(self.x_ticks) < 3:
                self.x_ticks = [mark for mark in svg.round_ticks(low, high) if mark > 0]
        room = max((max(ys) - min(ys)) * 0.15, 0.05)
        self.y = svg.linear(min(ys) - room, max(ys) + room, self.bottom, self.top)
        self.y_ticks = svg.round_ticks(min(ys) - room, max(ys) + room)

    def drawn(self, below: str, beside: str) -> list[Markup]:
        return [
            *(svg.line(self.left, self.y(tick), self.right, self.y(tick), "grid") for tick in self.y_ticks),
            *(svg.written(self.left - 10, self.y(tick) + 4, svg.tick_label(tick), "end") for tick in self.y_ticks),
            *(svg.line(self.x(tick), self.bottom, self.x(tick), self.bottom + 5, "zero") for tick in self.x_ticks),
            *(svg.written(self.x(tick), self.bottom + 20, f"{tick:,.0f}", "middle") for tick in self.x_ticks),
            svg.line(self.left, self.bottom, self.right, self.bottom, "zero"),
            svg.written((self.left + self.right) / 2, self.bottom + 40, below, "middle"),
            svg.written(self.left, self.top - 14, f"▴ {beside}", "start"),
        ]


def _labelled(dots: Sequence[_Dot]) -> list[Markup]:
    # A label is above its mark, on the side with more room. Labels are placed from the top down; one that would overlap
    # another is moved below it.
    parts, placed = [], list[tuple[float, float, float]]()
    for dot in sorted(dots, key=lambda dot: dot.y):
        parts.append(
            svg.group(
                dot.told, svg.mark(dot.shape, dot.x, dot.y, 5.5, f"s{dot.shape % svg.SHAPES}{' hollow' * dot.hollow}")
            )
        )
        if not dot.label:
            continue
        text = svg.shortened(dot.label, 34)
        before = dot.x > svg.WIDTH * 0.55
        x, width = dot.x + (-4 if before else 4), 7 * len(text)
        start, end = (x - width, x) if before else (x, x + width)
        y = dot.y - 10
        for a, b, other in sorted(placed, key=lambda one: one[2]):
            if start < b and a < end and abs(y - other) < 15:
                y = other + 15
        placed.append((start, end, y))
        parts.append(svg.written(x, y, text, "end" if before else "start", "name"))
    return parts
