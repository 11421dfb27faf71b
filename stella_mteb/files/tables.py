"""Small tables for terminal, Markdown, JSON and CSV, with cells that are escaped for each of them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

TableFormat = Literal["table", "md", "json", "csv"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# A token of the hub, the password in a URL, a token in its parameters or in a header.
_SECRET = re.compile(
    r"""\bhf_[A-Za-z0-9]{16,} | (?<=://)[^\s/@"'\\]+(?=@) | (?<=token=)[^\s&"'\\]+ | (?<=bearer\ )[^\s"'\\]+""",
    re.IGNORECASE | re.VERBOSE,
)
_SHORTEST_TOKEN = 8
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def plain(value: object) -> str:
    """Convert a value to one line of text, without control characters and access tokens."""
    if value is None:
        return "-"
    return _CONTROL.sub(" ", without_secrets(str(value)))


def without_secrets(text: str) -> str:
    """Mask access tokens and the passwords of URLs in a text."""
    for token in map(os.environ.get, _TOKENS):
        if token and len(token) >= _SHORTEST_TOKEN:
            text = text.replace(token, "***")
    return _SECRET.sub("***", text)


def many(count: int, noun: str) -> str:
    """Format a count with its noun: `1 task`, `2 tasks`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """Join names with commas and `and`; after `most` items, `N more` replaces the rest."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def render(rows: Sequence[Mapping[str, Any]], form: TableFormat, *, width: int | None = None) -> str:
    """Format rows as text.

    Args:
        rows: Rows with the same keys, which are the column names.
        form: `table` for a terminal, `md`, `json` (full precision) or `csv` (full precision).
        width: Columns of the terminal; None to detect them.
    """
    if form == "json":
        text = json.dumps(list(rows), indent=2, ensure_ascii=False)
        shown = without_secrets(text).split("\n")
        return "\n".join(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line) for line in shown)
    columns = list(rows[0]) if rows else []
    if form == "csv":
        return _csv(columns, rows)
    if form == "md":
        cells = [[re.sub(r"([|\\`<>\[\]*_&~])", r"\\\1", cell) for cell in row] for row in _cells(columns, rows)]
        lines = [columns, ["---"] * len(columns), *cells]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return _terminal(columns, rows, width)


def _cells(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    # The numbers of a column have the same decimals: as many as one of them needs, at most four.
    decimals = {
        column: max(
            (len(f"{row[column]:.4f}".rstrip("0").partition(".")[2]) for row in rows if isinstance(row[column], float)),
            default=0,
        )
        for column in columns
    }
    return [
        [f"{row[c]:.{decimals[c]}f}" if isinstance(row[c], float) else plain(row[c]) for c in columns] for row in rows
    ]


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    def cell(value: object) -> object:
        if isinstance(value, int | float) or value is None:
            return value
        text = plain(value)
        # Spreadsheets execute a cell that begins like a formula.
        return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(row[column]) for column in columns] for row in rows)
    return out.getvalue().rstrip("\n")


def _terminal(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], width: int | None) -> str:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 -- JSON and CSV need no rich
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numeric = all(isinstance(row[column], int | float) or row[column] is None for row in rows)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in _cells(columns, rows):
        table.add_row(*map(Text, row))
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    if console.measure(table, options=console.options.update(max_width=10_000)).maximum > console.width:
        table.padding = (0, 1, 0, 0)  # two spaces between columns instead of three, before any cell is wrapped
    console.print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines() if line.strip())
