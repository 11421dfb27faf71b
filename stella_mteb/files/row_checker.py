"""Checks the rows of a task value by value and limits the number of bad rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from stella_mteb.errors import ConfigError
from stella_mteb.files.rows import BadRow, Column
from stella_mteb.files.tables import many
from stella_mteb.files.texts import is_blank, lone_surrogate

_SHOWN = 10

Value = TypeVar("Value")


class RowChecker:
    """Checks values and collects bad rows.

    Args:
        max_bad_rows: Number of bad rows to leave out; with more, the task is refused.
    """

    def __init__(self, max_bad_rows: int = 0) -> None:
        self.max_bad_rows = max_bad_rows
        self.bad: list[BadRow] = []

    def text(self, place: str, row: Mapping[Column, Any], column: Column) -> str | None:
        """Return the value of a text column, or None after noting the fault."""
        return self._read(place, row, column, _text)

    def label(self, place: str, row: Mapping[Column, Any], column: Column) -> str | None:
        """Return the value of a label column as text, which may be a number, or None after noting the fault."""
        return self._read(place, row, column, _label)

    def number(self, place: str, row: Mapping[Column, Any], column: Column, low: float, high: float) -> float | None:
        """Return the value of a score column, which may be quoted, or None after noting the fault."""
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
        """Add a bad row."""
        self.bad.append(bad)

    def require(self, what: str) -> None:
        """Check that the number of bad rows is within the limit.

        Raises:
            ConfigError: If it is not; lists the first bad rows and the total.
        """
        rows = len({bad.place for bad in self.bad})
        if rows <= self.max_bad_rows:
            return
        shown = "\n".join(f"  {bad}" for bad in self.bad[:_SHOWN])
        more = f"\n  ... and {len(self.bad) - _SHOWN} more" if len(self.bad) > _SHOWN else ""
        raise ConfigError(
            f"{what}: {many(rows, 'bad row')} ({self.max_bad_rows} allowed):\n{shown}{more}\n"
            "Fix the rows, or leave them out with --max-bad-rows N (max_bad_rows in the task's YAML)"
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text (got {value!r}, {type(value).__name__})")
    if is_blank(value):
        raise ValueError("is empty")
    if problem := lone_surrogate(value):
        raise ValueError(problem)
    return value


def _label(value: object) -> str:
    is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return json.dumps(value) if is_number else _text(value)


def _number(value: Any, low: float, high: float) -> float:
    if isinstance(value, bool | bytes):
        raise ValueError(f"must be a number (got {value!r}, {type(value).__name__})")
    try:
        if isinstance(value, str) and ("_" in value or not value.isascii()):  # float("1_0") is 10
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"must be a number (got {value!r})") from None
    if not math.isfinite(number):
        raise ValueError(f"must be a finite number (got {value!r})")
    if not low <= number <= high:
        raise ValueError(f"must be from {low:g} to {high:g} (got {number:g})")
    return number
