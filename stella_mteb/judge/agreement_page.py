"""The page of `validate`: one HTML file with pictures and tables of the agreement with people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from stella_mteb.files.atomic import atomic_write
from stella_mteb.files.tables import many, plain
from stella_mteb.judge.agreement_words import SHORT, advice, best_row, in_support, named, tables
from stella_mteb.pages import svg
from stella_mteb.pages.page import template, typeset

_PANELS = {"item": "over all texts", "clip": "within clips", "system": "over systems"}
_RATERS = "The line is the agreement of one rater with the mean of the others. "
_STEP = 21
_NAME = 40  # characters


def write_page(path: Path, found: Mapping[str, Any]) -> None:
    """Write one self-contained HTML file, atomically.

    Args:
        path: The file; an existing one is replaced.
        found: From `stella_mteb.judge.validation.Validation.as_json`, with the `published` figures of others.

    Raises:
        StorageProblem: If the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(render_page(found))


def render_page(found: Mapping[str, Any]) -> str:
    """Render the page as text; the same figures give the same bytes."""
    rows = [*found["rows"], *found["preferences"]]
    return _template().render(
        headline=advice(found),
        support=in_support(found),
        judges=list(dict.fromkeys(row["judge"] for row in rows)),
        pictures=list(_pictures(found)),
        tables=tables(found),
        reasons=found["reasons"],
        sources=list(dict.fromkeys(row["source"] for row in found["published"])),
        with_order=any(row["measure"] == "order" for row in rows),
        with_nli=any(row["measure"] == "nli" for row in rows),
    )


@cache
def _template() -> Template:
    return template(
        "stella_mteb.judge",
        {"cell": lambda value: _figure(value) if isinstance(value, float) else plain(value)},
        "agreement",
    )


def _figure(value: float) -> str:
    return typeset(f"{value:.3f}")


@dataclass(frozen=True)
class _Dot:
    """A row of a picture."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    others: bool = False

    @property
    def told(self) -> str:
        interval = "" if self.low is None else f" (95 % interval {self.low:.3f} to {self.high:.3f})"
        return f"{self.name}: {typeset(f'{self.value:.3f}{interval}')}"


def _pictures(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Draw the levels, then our figures beside those of others, then the preferences."""
    panels: dict[str, dict[str, _Dot]] = {}
    for row in found["rows"]:
        if (row["against"], row["references"]) == ("mean", "best") and row["spearman"] is not None:
            dot = _Dot(named(row, found), row["spearman"], row["low"], row["high"])
            panels.setdefault(row["level"], {})[dot.name] = dot
    if panels:
        yield _levels(found, panels)
    for number, (references, against) in enumerate(
        dict.fromkeys((row["references"], row["against"]) for row in found["published"]), 1
    ):
        if drawn := _beside_others(found, references, against, f"published-{number}"):
            yield drawn
    pairs = [row for row in found["preferences"] if row["references"] == "best"]
    if pairs:
        dots = [_Dot(named(row, found), row["accuracy"], row["low"], row["high"]) for row in pairs]
        title = "Share of pairs in which a measure prefers what people prefer"
        yield _one_panel("preferences", title, "A bar is the 95 % interval. The line is chance.", dots, {"chance": 0.5})


def _levels(found: Mapping[str, Any], panels: Mapping[str, Mapping[str, _Dot]]) -> dict[str, Any]:
    """Draw rho of every measure, one panel for each level, with the same measures in the same order."""
    title = "Agreement with people by measure"
    first = next(iter(panels.values()))
    names = sorted(
        dict.fromkeys(name for own in panels.values() for name in own), key=lambda name: -_value(first, name)
    )
    left, top = _left(names), 52
    bottom = top + _STEP * len(names)
    width = (svg.WIDTH - left) / len(panels)
    limit = (found["ceiling"] or {}).get("spearman")
    best = best_row(found)
    winner = named(best, found) if best else None
    parts = [
        svg.written(left - 10, top + _STEP * (i + 0.5) + 4, svg.shortened(name, _NAME), "end",
                    "first" if name == winner else "name")
        for i, name in enumerate(names)
    ]  # fmt: skip
    for number, (level, own) in enumerate(panels.items()):
        start = left + width * number
        lines = {"raters": limit} if level == "item" and limit is not None else {}
        x, axis = _axis(own.values(), lines, start + 8, start + width - 14, top, bottom)
        parts += [svg.written(start + width / 2, 14, f"rho {_PANELS[level]}", "middle", "name"), *axis]
        parts += [_mark(own[name], x, top + _STEP * (i + 0.5)) for i, name in enumerate(names) if name in own]
    caption = (
        "Rho against the mean of the raters, with the best reference; a bar is the 95 % interval by resampling clips. "
        f"{_RATERS if limit is not None else ''}"
        "Within clips, texts compete only with texts of the same clip. Each panel has its own scale."
    )
    summary = "; ".join(dot.told for dot in first.values())
    return {"title": title, "caption": caption, "svg": svg.figure("levels", bottom + 24, title, summary, parts)}


def _value(own: Mapping[str, _Dot], name: str) -> float:
    return own[name].value if name in own else -2


def _beside_others(found: Mapping[str, Any], references: str, against: str, key: str) -> dict[str, Any] | None:
    """Draw our figures and published ones of the same kind; None if ours have none of that kind."""
    others = [row for row in found["published"] if (row["references"], row["against"]) == (references, against)]
    figure = max(SHORT, key=lambda name: sum(row[name] is not None for row in others))
    several = found["sizes"]["references"]
    mode = "best" if int(references) == several else "first" if references == "1" else None
    ours = [
        row
        for row in found["rows"]
        if (row["level"], row["against"], row["references"]) == ("item", against, mode) and row[figure] is not None
    ]
    if not ours:
        return None
    ends = ("low", "high") if figure == "spearman" else ()
    dots = [
        *(_Dot(named(row, found), row[figure], *(row[end] for end in ends)) for row in ours),
        *(_Dot(row["metric"], row[figure], others=True) for row in others if row[figure] is not None),
    ]
    limit = (found["ceiling"] or {}).get(figure)
    how = {"each": "against each rater, mean over raters", "rater": "with each rater as an item"}
    caption = (
        f"{SHORT[figure]} over all texts, {how.get(against, 'against the mean of the raters')}. A circle is a measure "
        "of the judge, a diamond a published figure, quoted from its source. "
        f"{_RATERS if limit is not None else ''}"
        f"{'A bar is the 95 % interval by resampling clips.' if ends else 'Intervals are computed for rho only.'}"
    )
    title = f"Beside published metrics, {many(int(references), 'reference')}"
    return _one_panel(key, title, caption, dots, {} if limit is None else {"raters": limit})


def _one_panel(key: str, title: str, caption: str, dots: Sequence[_Dot], lines: Mapping[str, float]) -> dict[str, Any]:
    dots = sorted(dots, key=lambda dot: -dot.value)
    left, top = _left([dot.name for dot in dots]), 40
    bottom = top + _STEP * len(dots)
    x, axis = _axis(dots, lines, left + 8, svg.WIDTH - 60, top, bottom)
    parts = list(axis)
    for i, dot in enumerate(dots):
        y = top + _STEP * (i + 0.5)
        kind = "second" if dot.others else "name"
        parts += [
            svg.written(left - 10, y + 4, svg.shortened(dot.name, _NAME), "end", kind),
            _mark(dot, x, y),
            svg.written(svg.WIDTH - 4, y + 4, _figure(dot.value), "end", kind),
        ]
    summary = "; ".join(dot.told for dot in dots)
    return {"title": title, "caption": caption, "svg": svg.figure(key, bottom + 24, title, summary, parts)}


def _left(names: Sequence[str]) -> float:
    return 30 + 6.6 * min(max(map(len, names)), _NAME)


def _axis(
    dots: Any, lines: Mapping[str, float], start: float, end: float, top: float, bottom: float
) -> tuple[svg.Scale, list[Markup]]:
    """Return the scale of a panel, which contains 0 and all intervals, and its ticks and named lines."""
    ends = [end for dot in dots for end in (dot.value, dot.low, dot.high) if end is not None]
    low, high = min(0.0, *ends, *lines.values()), max(*ends, *lines.values(), 0.1)
    x = svg.linear(low, high, start, end)
    parts = []
    for tick in svg.round_ticks(low, high, max(3, round((end - start) / 50))):
        parts.append(svg.line(x(tick), top - 4, x(tick), bottom + 2, "zero" if tick == 0 else "grid"))
        parts.append(svg.written(x(tick), bottom + 18, svg.tick_label(tick), "middle"))
    for name, value in lines.items():
        parts.append(svg.line(x(value), top - 8, x(value), bottom + 2, "limit"))
        parts.append(
            svg.written(
                x(value), top - 12, f"{name} {value:.3f}", "end" if x(value) > (start + end) / 2 else "start", "quiet"
            )
        )
    return x, parts


def _mark(dot: _Dot, x: svg.Scale, y: float) -> Markup:
    side = "second" if dot.others else "first"
    bar = Markup("") if dot.low is None or dot.high is None else svg.line(x(dot.low), y, x(dot.high), y, f"bar {side}")
    return svg.group(dot.told, bar, svg.mark(1 if dot.others else 0, x(dot.value), y, 4.5, side))
