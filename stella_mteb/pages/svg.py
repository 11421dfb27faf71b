"""Parts of figures as inline SVG, without scripts or files; colours come from the page's style sheet.

Every figure has a title and a description for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from markupsafe import Markup

WIDTH = 720
"""Width of a figure, in its own units."""
SHAPES = 6
"""Number of different marker shapes; the style sheet has as many colours."""

STRIP = 190
"""Width of a figure in a table row, in its own units."""

Scale = Callable[[float], float]


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Return the linear scale that maps `low` to `start` and `high` to `end`."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most `most` round values between two others, in steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
    apart = next(step for step in (power / 5, power / 2, power, 2 * power, 5 * power) if (high - low) / step <= most)
    return [round(i * apart, 9) for i in range(math.ceil(low / apart), math.floor(high / apart) + 1)]


def tick_label(value: float, *, sign: bool = False) -> str:
    """Format a round value."""
    return (f"{value:+g}" if sign and value else f"{value:g}").replace("-", "\N{MINUS SIGN}")


def shortened(text: str, most: int) -> str:
    """Shorten a text to at most `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def mark(number: int, x: float, y: float, r: float, colour: str) -> Markup:
    """Draw a marker of radius `r`, whose shape depends on its number: circle, diamond, square, triangle, ..."""
    kind = number % SHAPES
    if kind == 0:
        return Markup('<circle class="mark {}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(colour, x, y, r)
    corners = {
        1: [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        2: [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        3: [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
        4: [(0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
        5: [(-0.6, -1.1), (0.6, -1.1), (1.2, 0), (0.6, 1.1), (-0.6, 1.1), (-1.2, 0)],
    }[kind]
    points = " ".join(f"{x + r * a:.1f},{y + r * b:.1f}" for a, b in corners)
    return Markup('<polygon class="mark {}" points="{}"/>').format(colour, points)


def polyline(places: Iterable[tuple[float, float]], colour: str = "") -> Markup:
    """Draw a line through points."""
    return Markup('<polyline class="front {}" points="{}"/>').format(
        colour, " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """Draw a line between two points; its kind is a class of the style sheet."""
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def written(x: float, y: float, text: str, anchor: str, kind: str = "quiet") -> Markup:
    """Draw a text that starts at, ends at or is centred on a point."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, text)


def group(told: str, *parts: Markup) -> Markup:
    """Group parts under one tooltip."""
    return Markup("<g><title>{}</title>{}</g>").format(told, Markup("").join(parts))


def figure(key: str, height: float, title: str, summary: str, parts: Iterable[Markup]) -> Markup:
    """Draw a whole figure.

    Args:
        key: Prefix of ids, unique within the page.
        height: Height in units of `WIDTH`.
        title: Title of the figure.
        summary: Description for screen readers.
        parts: The content of the figure.
    """
    return Markup(
        '<svg viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" role="img" '
        'aria-labelledby="{key}-title {key}-desc"><title id="{key}-title">{title}</title>'
        '<desc id="{key}-desc">{summary}</desc>{parts}</svg>'
    ).format(width=WIDTH, height=height, key=key, title=title, summary=summary, parts=Markup("\n").join(parts))


def strip(width: float, height: float, told: str, parts: Iterable[Markup]) -> Markup:
    """Draw a small figure in a table row, next to the numbers that it shows.

    Args:
        width: Width in the figure's units.
        height: Height in the same units.
        told: Tooltip and text for screen readers; empty for an axis.
        parts: The content of the figure.
    """
    named = Markup('role="img" aria-label="{}"><title>{}</title>').format(told, told)
    return Markup('<svg class="strip" viewBox="0 0 {} {}" {}{}</svg>').format(
        width, height, named if told else Markup('aria-hidden="true">'), Markup("").join(parts)
    )


def strip_axis(low: float, high: float) -> tuple[Scale, Markup]:
    """Return the shared scale of a column's strips, and its axis for the column head."""
    x = linear(low, high, 6, STRIP - 6)
    ticks = [tick for tick in round_ticks(low, high, 4) if 14 < x(tick) < STRIP - 14]
    return x, strip(STRIP, 16, "", [written(x(tick), 12, tick_label(tick), "middle") for tick in ticks])
