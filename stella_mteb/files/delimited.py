"""Reads delimited text: with commas, tabs or semicolons, with or without quotes, with or without a header.

The suffix does not determine the format. The module chooses the reading in which most rows have as many cells as the
first row.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stella_mteb.errors import ConfigError

_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons"}
_SHOWN = 200


class Cells(NamedTuple):
    """The cells of a row, and the first and last line of the row in the file."""

    first: int
    last: int
    cells: list[str]


@dataclass(frozen=True)
class Reading:
    """Text split by one delimiter, with quotes either around cells (RFC 4180) or as ordinary characters.

    Attributes:
        delimiter: The character between two cells.
        rows: Rows that are not empty.
        fault: Line and reason if the text after these rows cannot be split.
    """

    delimiter: str
    rows: list[Cells]
    fault: tuple[int, str] | None = None

    @property
    def regular(self) -> int:
        """Number of rows with as many cells as the first; 0 if that has one cell."""
        width = len(self.rows[0].cells) if self.rows else 0
        return sum(len(row.cells) == width for row in self.rows) if width > 1 else 0


def read_delimited(path: Path, text: str) -> Reading:
    """Split the text of a delimited file.

    Quotes in a tab-separated file are ordinary characters if they would otherwise merge rows.

    Args:
        path: The file; its suffix determines the delimiter that is tried first.
        text: Its content.

    Raises:
        ConfigError: If a quote opens in one row and closes in another, or never; states the line.
    """
    delimiters = "\t,;" if path.suffix.lower() == ".tsv" else ",\t;"
    first_line = text.partition("\n")[0]
    possible = [delimiter for delimiter in delimiters if delimiter in first_line] or [delimiters[0]]
    quoted = max((_with_quotes(text, delimiter) for delimiter in possible), key=lambda reading: reading.regular)
    if "\t" in first_line and '"' in text:
        tabs = _without_quotes(text, "\t")
        if tabs.regular > quoted.regular:
            return tabs
    if quoted.fault:
        line, reason = quoted.fault
        raise ConfigError(f"{path}:{line}: not valid CSV: {reason}")
    if swallowed := _swallowed(quoted, text):
        raise ConfigError(
            f"{path}:{swallowed.first}: a quote opens here and closes on line {swallowed.last}, but each line between "
            'is a complete row. Double a quote inside a text (""), and put the text in quotes'
        )
    return quoted


def _with_quotes(text: str, delimiter: str) -> Reading:
    # StringIO, because splitlines() also splits at U+2028, U+0085 and form feeds.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Cells] = []
    start = 1
    try:
        for cells in reader:
            if cells:
                rows.append(Cells(start, reader.line_num, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        return Reading(delimiter, rows, (start, str(error)))
    return Reading(delimiter, rows)


def _without_quotes(text: str, delimiter: str) -> Reading:
    # A comma in prose is followed by a space, a comma between cells is not.
    between = re.compile(re.escape(delimiter) + ("" if delimiter == "\t" else "(?! )"))
    lines = enumerate(re.split("\r\n|\n|\r", text), start=1)
    return Reading(delimiter, [Cells(number, number, between.split(line)) for number, line in lines if line])


def _swallowed(quoted: Reading, text: str) -> Cells | None:
    """Return the first row that spans several lines each of which would be a complete row."""
    long = [row for row in quoted.rows if row.last > row.first]
    if not long:
        return None
    width = len(quoted.rows[0].cells)
    whole = {row.first for row in _without_quotes(text, quoted.delimiter).rows if len(row.cells) == width}
    return next((row for row in long if whole.issuperset(range(row.first, row.last + 1))), None) if width > 1 else None


def look(reading: Reading) -> str:
    """Describe the first line of a delimited file, for errors about missing columns."""
    cells = reading.rows[0].cells
    shown = ", ".join(map(repr, cells))
    return (
        f"its first line has {len(cells)} cells between {_NAMES[reading.delimiter]}: "
        f"{shown if len(shown) <= _SHOWN else shown[:_SHOWN] + ' ...'}"
    )
