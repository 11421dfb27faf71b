"""Reads rows from files (JSON, JSONL, CSV, TSV, Parquet) or the hub, each with its place for error messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import read_json, read_text
from stella_mteb.files.delimited import look, read_delimited

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
# A Parquet file of 100 kB can unpack to 20 GB of text.
MAX_PARQUET_ROWS = 20_000_000
MAX_PARQUET_BYTES = 4 << 30
# Keys under which a JSON object may hold its rows, next to metadata: COCO, MSR-VTT, ActivityNet.
_TABLES = ("annotations", "sentences", "results", "predictions", "references", "captions", "data")


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and the reason."""

    place: str
    column: Column | None
    reason: str

    def __str__(self) -> str:
        where = "" if self.column is None else f"column {self.column!r}: "
        return f"{self.place}: {where}{self.reason}"


Column = str | int
"""The name of a column, or its position from 1 if columns have no names."""

Row = tuple[str, dict[Column, Any]]
"""The place of a row (`file:line`), and its columns."""


def read_rows(path: Path, columns: Collection[Column] = ()) -> Iterator[Row | BadRow]:
    """Read a data file row by row.

    Args:
        path: A `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet` file. JSON may be a list of objects, an object of
            objects by id, either of them under a key such as `annotations`, or JSON Lines.
        columns: Columns that the caller needs. If all are positions, a delimited file has no header, and rows of JSON
            are lists.

    Yields:
        Rows with their place, or descriptions of bad rows.

    Raises:
        ConfigError: If the file as a whole cannot be read, or a delimited file lacks these columns.
    """
    readers = {".jsonl": _json, ".json": _json, ".csv": _delimited, ".tsv": _delimited, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise ConfigError(f"{path}: the suffix must be one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    return readers[path.suffix.lower()](path, columns)


def by_position(columns: Collection[Column]) -> bool:
    """Check whether columns are given by position, as in a file without header."""
    return bool(columns) and all(isinstance(column, int) for column in columns)


def _json(path: Path, columns: Collection[Column]) -> Iterator[Row | BadRow]:
    numbered = enumerate(read_text(path).split("\n"), start=1)
    lines = [(f"{path}:{number}", line) for number, line in numbered if line.strip()]
    first = _parsed(*lines[0]) if len(lines) > 1 else None
    is_lines = path.suffix.lower() == ".jsonl" or (isinstance(first, tuple) and isinstance(first[1], dict))
    for row in (_parsed(*line) for line in lines) if is_lines else _entries(str(path), read_json(path)):
        if isinstance(row, tuple) and isinstance(row[1], list) and by_position(columns):
            yield row[0], dict(enumerate(row[1], start=1))
        elif isinstance(row, tuple) and not isinstance(row[1], dict):
            yield BadRow(row[0], None, "must be a JSON object")
        else:
            yield row


def _parsed(place: str, line: str) -> tuple[str, Any] | BadRow:
    try:
        return place, json.loads(line)
    except RecursionError:
        return BadRow(place, None, "not valid JSON: nested too deeply")
    except ValueError as error:  # JSONDecodeError, or an integer of more than 4300 digits
        return BadRow(place, None, f"not valid JSON: {getattr(error, 'msg', error)}")


def _entries(place: str, content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, list):
        yield from ((f"{place}: entry {number}", row) for number, row in enumerate(content))
        return
    if not isinstance(content, dict):
        raise ConfigError(f"{place}: must be a JSON list of {{id, summary}} or an object {{id: text}}")
    tables = [
        key
        for key in _TABLES
        if isinstance(value := content.get(key), dict)
        or (isinstance(value, list) and value and isinstance(value[0], dict))
    ]
    if len(tables) == 1:
        yield from _entries(f"{place}: {tables[0]}", content[tables[0]])
        return
    for key, value in content.items():
        yield f"{place}: {key}", {**value, "id": key} if isinstance(value, dict) else {"id": key, "summary": value}


def _delimited(path: Path, columns: Collection[Column]) -> Iterator[Row | BadRow]:
    reading = read_delimited(path, read_text(path))
    if not reading.rows:
        return
    header = reading.rows[0].cells
    if by_position(columns):
        longest = max(map(int, columns))
        for line, _, cells in reading.rows:
            good = len(cells) >= longest
            reason = f"has {len(cells)} cells, but column {longest} is needed"
            yield (
                (f"{path}:{line}", dict(enumerate(cells, start=1))) if good else BadRow(f"{path}:{line}", None, reason)
            )
        return
    if len(set(header)) != len(header):
        raise ConfigError(f"{path}:1: duplicate column name")
    if missing := [column for column in columns if column not in header]:
        raise ConfigError(
            f"{path}:1: no column {missing[0]!r}; {look(reading)}. Use the column names of the file or, if it has no "
            f"header, positions from 1 to {len(header)}"
        )
    for line, _, cells in reading.rows[1:]:
        if len(cells) == len(header):
            yield f"{path}:{line}", dict(zip(header, cells, strict=True))
        else:
            yield BadRow(f"{path}:{line}", None, f"has {len(cells)} cells, but the header has {len(header)}")


def _parquet(path: Path, columns: Collection[Column]) -> Iterator[Row | BadRow]:
    import pyarrow  # noqa: PLC0415 -- only when needed
    import pyarrow.parquet  # noqa: PLC0415

    number = size = 0
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.OSFile(str(path)))
        if file.metadata.num_rows > MAX_PARQUET_ROWS:
            raise ConfigError(
                f"{path}: has {file.metadata.num_rows} rows, but at most {MAX_PARQUET_ROWS} fit in memory"
            )
        if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
            raise ConfigError(f"{path}: duplicate column name")
        for batch in file.iter_batches():
            size += batch.nbytes
            if size > MAX_PARQUET_BYTES:
                raise ConfigError(
                    f"{path}: unpacks to more than {MAX_PARQUET_BYTES >> 30} GiB, which does not fit in memory"
                )
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", row
    except ConfigError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path}: not a Parquet file: {error}") from None


def read_hub(path: str, revision: str, name: str | None, split: str) -> Iterator[Row | BadRow]:
    """Read one split of a data set on the hub at a pinned commit.

    Raises:
        ConfigError: If the working folder has a folder of the same name, which would be read instead.
        EnvironmentProblem: If it cannot be downloaded and is not in the cache.
    """
    import datasets  # noqa: PLC0415

    if Path(path).exists():
        raise ConfigError(
            f"data set {path}: {Path(path).resolve()} has the same name and would be read instead; "
            "run in another folder, or give the data as a file: -t NAME=FILE"
        )
    try:
        data = datasets.load_dataset(path, name, split=split, revision=revision)
    except Exception as error:  # the library raises a dozen types if data is unavailable
        raise EnvironmentProblem(
            f"data set {path} (split {split}) could not be loaded: {error}. Without network, give a local file with "
            "the same columns: -t NAME=FILE, where NAME is the task"
        ) from error
    for number, row in enumerate(data, start=1):
        yield f"{path}[{split}] row {number}", dict(row)


def digest(rows: Iterable[Any]) -> str:
    """Compute 12 hex digits that change when a row changes; the revision of local data."""
    state = hashlib.sha256()
    for row in rows:
        state.update(json.dumps(row, ensure_ascii=True).encode() + b"\n")
    return state.hexdigest()[:12]
