"""The rows of a task, checked value by value: what is good, what is bad, and when too much is bad."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from stella_mteb.errors import ConfigError
from stella_mteb.files.rows import BadRow, Column
from stella_mteb.files.texts import half_character, is_blank

_SHOWN = 10

Value = TypeVar("Value")


class RowChecker:
    """Collects good values and bad rows, and decides when there are too many of the latter.

    Args:
        max_bad_rows: How many bad rows are left out before the task is refused.
    """

    def __init__(self, max_bad_rows: int = 0) -> None:
        self.max_bad_rows = max_bad_rows
        self.bad: list[BadRow] = []

    def text(self, place: str, row: Mapping[Column, Any], column: Column) -> str | None:
        """A text column's value, or None after noting why it has none."""
        return self._read(place, row, column, _text)

    def label(self, place: str, row: Mapping[Column, Any], column: Column) -> str | None:
        """A label column's value, which may be a number, as text; or None after noting why it has none."""
        return self._read(place, row, column, _label)

    def number(self, place: str, row: Mapping[Column, Any], column: Column, low: float, high: float) -> float | None:
        """A score column's value, which may stand in quotes, or None after noting why it has none."""
        return self._read(place, row, column, lambda value: _number(value, low, high))

    def _read(
        self, place: str, row: Mapping[Column, Any], column: Column, read: Callable[[Any], Value]
    ) -> Value | None:
        try:
            if column not in row:
                raise ValueError(f"is missing; there are {', '.join(map(str, row))}")
            return read(row[column])
        except ValueError as error:
            self.note(BadRow(place, column, str(error)))
            return None

    def note(self, bad: BadRow) -> None:
        """Note a bad row that the reader found."""
        self.bad.append(bad)

    def require(self, what: str) -> None:
        """Raise unless the bad rows are within the limit.

        Raises:
            ConfigError: Names the first bad rows and counts them all.
        """
        rows = len({bad.place for bad in self.bad})
        if rows <= self.max_bad_rows:
            return
        shown = "\n".join(f"  {bad}" for bad in self.bad[:_SHOWN])
        more = f"\n  ... and {len(self.bad) - _SHOWN} more" if len(self.bad) > _SHOWN else ""
        raise ConfigError(
            f"{what}: {rows} bad {'row' if rows == 1 else 'rows'} ({self.max_bad_rows} allowed):\n{shown}{more}\n"
            "Fix the rows, or leave them out with --max-bad-rows N (max_bad_rows in the task's YAML)"
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text (got {value!r}, {type(value).__name__})")
    if is_blank(value):
        raise ValueError("is empty")
    if problem := half_character(value):
        raise ValueError(problem)
    return value


def _label(value: object) -> str:
    is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return json.dumps(value) if is_number else _text(value)


def _number(value: Any, low: float, high: float) -> float:
    if isinstance(value, bool | bytes):
        raise ValueError(f"must be a number (got {value!r}, {type(value).__name__})")
    try:
        if isinstance(value, str) and ("_" in value or not value.isascii()):  # float() takes 1_0 for ten
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"must be a number (got {value!r})") from None
    if not math.isfinite(number):
        raise ValueError(f"must be a finite number (got {value!r})")
    if not low <= number <= high:
        raise ValueError(f"must be from {low:g} to {high:g} (got {number:g})")
    return number
