"""Rows from files: JSONL, CSV, TSV, Parquet or the hub, with the place of every row for the error that names it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import read_text

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
# A Parquet file of 100 kB can stand for 20 GB of text.
MAX_PARQUET_ROWS = 20_000_000
MAX_PARQUET_BYTES = 4 << 30
_SHOWN = 10

Value = TypeVar("Value")


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    place: str
    column: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: column {self.column!r}: {self.reason}" if self.column else f"{self.place}: {self.reason}"


Row = tuple[str, dict[str, Any]]
"""Where a row is from (`file:line`), and its columns."""


def read_rows(path: Path) -> Iterator[Row | BadRow]:
    """Read a data file row by row.

    Args:
        path: A `.jsonl`, `.csv`, `.tsv` or `.parquet` file.

    Yields:
        Rows with their place, or what is wrong with one.

    Raises:
        ConfigError: If the file as a whole cannot be read.
    """
    readers = {".jsonl": _jsonl, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        raise ConfigError(f"{path}: the format is told by the suffix, one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    return readers[path.suffix](path)


def _jsonl(path: Path) -> Iterator[Row | BadRow]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        place = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except RecursionError:
            yield BadRow(place, "", "not valid JSON: nested too deeply")
            continue
        except ValueError as error:  # JSONDecodeError, or an integer of more than 4300 digits
            yield BadRow(place, "", f"not valid JSON: {getattr(error, 'msg', error)}")
            continue
        yield (place, row) if isinstance(row, dict) else BadRow(place, "", "must be a JSON object")


def _csv(path: Path) -> Iterator[Row | BadRow]:
    # StringIO, not splitlines(): that one also ends a line at U+2028, U+0085 and form feeds.
    reader = csv.reader(
        io.StringIO(read_text(path), newline=""), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True
    )
    start = 1
    try:
        header = next(reader, None)
        if header is None:
            return
        if len(set(header)) != len(header):
            raise ConfigError(f"{path}:1: a column name stands twice")
        start = reader.line_num + 1
        for cells in reader:
            place, start = f"{path}:{start}", reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                yield BadRow(place, "", f"has {len(cells)} cells, the header has {len(header)}")
                continue
            yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise ConfigError(f"{path}:{start}: not valid CSV: {error}") from None


def _parquet(path: Path) -> Iterator[Row | BadRow]:
    import pyarrow  # noqa: PLC0415 -- only for those who use it
    import pyarrow.parquet  # noqa: PLC0415

    number = size = 0
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.OSFile(str(path)))
        if file.metadata.num_rows > MAX_PARQUET_ROWS:
            raise ConfigError(
                f"{path}: has {file.metadata.num_rows} rows, more than the {MAX_PARQUET_ROWS} that fit in memory"
            )
        if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
            raise ConfigError(f"{path}: a column name stands twice")
        for batch in file.iter_batches():
            size += batch.nbytes
            if size > MAX_PARQUET_BYTES:
                raise ConfigError(
                    f"{path}: unpacks to more than {MAX_PARQUET_BYTES >> 30} GiB, which do not fit in memory"
                )
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", row
    except ConfigError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path}: not a Parquet file: {error}") from None


def read_hub(path: str, revision: str, name: str | None, split: str) -> Iterator[Row | BadRow]:
    """Read one split of a data set of the hub at a pinned commit.

    Raises:
        ConfigError: If a folder of the working folder has its name, which would be read in its place.
        EnvironmentProblem: If it cannot be reached and is not in the cache.
    """
    import datasets  # noqa: PLC0415

    if Path(path).exists():
        raise ConfigError(
            f"data set {path}: {Path(path).resolve()} has the same name and would be read in its place; "
            "run in another folder, or give it as a file: -t NAME=FILE"
        )
    try:
        data = datasets.load_dataset(path, name, split=split, revision=revision)
    except Exception as error:  # the library raises a dozen kinds for "not to be had"
        raise EnvironmentProblem(
            f"data set {path} (split {split}) could not be loaded: {error}. Without network, give a local file "
            "with the same columns: -t NAME=FILE, with the task's name"
        ) from error
    for number, row in enumerate(data, start=1):
        yield f"{path}[{split}] row {number}", dict(row)


class RowChecker:
    """Collects good values and bad rows, and decides when there are too many of the latter.

    Args:
        max_bad_rows: How many bad rows are left out before the task is refused.
    """

    def __init__(self, max_bad_rows: int = 0) -> None:
        self.max_bad_rows = max_bad_rows
        self.bad: list[BadRow] = []

    def text(self, place: str, row: Mapping[str, Any], column: str) -> str | None:
        """A text column's value, or None after noting why it has none."""
        return self._read(place, row, column, _text)

    def number(self, place: str, row: Mapping[str, Any], column: str, low: float, high: float) -> float | None:
        """A score column's value, or None after noting why it has none."""
        # In CSV everything is text; elsewhere a number in quotes is a mistake.
        in_quotes = place.rpartition(":")[0].endswith((".csv", ".tsv"))
        return self._read(place, row, column, lambda value: _number(value, low, high, in_quotes=in_quotes))

    def _read(self, place: str, row: Mapping[str, Any], column: str, read: Callable[[Any], Value]) -> Value | None:
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
            "Mend them, or leave them out with --max-bad-rows N (max_bad_rows in the task's YAML)"
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text (got {value!r}, {type(value).__name__})")
    if not value.strip():
        raise ValueError("is empty")
    if problem := half_character(value):
        raise ValueError(problem)
    return value


def half_character(text: str) -> str | None:
    """What is wrong with a text that cannot be written as UTF-8; None for any other."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds half a character (lone surrogate at {error.start})"
    return None


def _number(value: Any, low: float, high: float, *, in_quotes: bool) -> float:
    if isinstance(value, bool | bytes) or (isinstance(value, str) and not in_quotes):
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


def digest(rows: Iterable[Any]) -> str:
    """12 hex digits that change when the rows of a task change; the revision of local data."""
    state = hashlib.sha256()
    for row in rows:
        state.update(json.dumps(row, ensure_ascii=True).encode() + b"\n")
    return state.hexdigest()[:12]
