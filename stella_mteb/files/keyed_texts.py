"""Reads texts by id from JSON objects, JSON lists, or rows."""

from __future__ import annotations

import ast
import json
import re
import textwrap
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.rows import SUFFIXES, BadRow, Column, read_rows
from stella_mteb.files.texts import is_blank, lone_surrogate

# Ids of a described object. Several entries with one id are several texts of it, as in COCO and MSR-VTT.
DESCRIBED = {"image", "imageid", "imagename", "video", "videoid", "videoname", "clip", "clipid", "clipname"}
IDS = {"id", "vid", "key", "name", "filename"}
_TEXTS = {"caption", "text", "prediction", "sentence", "description", "reference", "response", "output", "answer"}
_TEXTS |= {f"{name}s" for name in _TEXTS} | {"summary", "summaries", "pred"}
_SHOWN = 200


@dataclass(frozen=True)
class KeyedColumns:
    """The columns of an id and of its text, by name, or by position from 1 in a file without header.

    If a column is None or missing in a file, the file is searched for a column with a known name.
    """

    id: str | None = None
    text: str | None = None


BY_NAME = KeyedColumns()


@dataclass(frozen=True)
class Entry:
    """The texts of one id, for example several people's captions of a clip. Empty texts count."""

    place: str
    id: str
    texts: tuple[str, ...]


def data_files(path: Path) -> list[Path]:
    """List the text files in a folder, or return the single file.

    Raises:
        ConfigError: If there is no such file or folder.
    """
    if path.is_dir():
        return [f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file() and f.name[0] != "."]
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file or folder of predictions; give one file {{id: text}} for each model "
            "(`stella-mteb demo` writes an example to demo-output/judge-input/predictions)"
        )
    return [path]


def read_texts(path: Path, columns: KeyedColumns = BY_NAME) -> dict[str, str]:
    """Read a file with one text for each id.

    Raises:
        ConfigError: If the file has another form, a duplicate id, or several texts for an id; states the place.
    """
    texts: dict[str, str] = {}
    for entry in read_entries(path, columns):
        if isinstance(entry, BadRow):
            raise ConfigError(str(entry))
        if entry.id in texts:
            raise ConfigError(f"{entry.place}: duplicate id {entry.id!r}")
        if len(entry.texts) > 1:
            raise ConfigError(f"{entry.place}: {len(entry.texts)} texts ({entry.texts[0]!r}, ...); expected one")
        texts[entry.id] = entry.texts[0]
    return texts


def matching(path: Path, given: Mapping[str, str], references: Mapping[str, object]) -> dict[str, str]:
    """Select the texts that are not blank and whose id is that of a reference, in the order of the references.

    Raises:
        ConfigError: If there is none.
    """
    texts = {clip: given[clip] for clip in references if not is_blank(given.get(clip, ""))}
    if not texts:
        why = "every prediction is empty" if set(given) & set(references) else "no id is that of a reference"
        here, there = (", ".join([*map(_shown, list(ids)[:2]), "..."]) for ids in (given, references))
        raise ConfigError(f"{path}: nothing to score: {why} (ids here: {here}; of the references: {there})")
    return texts


def read_entries(path: Path, columns: KeyedColumns = BY_NAME) -> Iterator[Entry | BadRow]:
    """Read a file of texts by id.

    Ids are integers or text, normalised to NFC. The dense captions of a video, texts with timestamps, are joined to one
    text with one caption per line.

    Args:
        path: A JSON object `{id: text}`, a JSON list or rows of `{"id", "summary"}`, or another layout that `read_rows`
            supports, such as those of COCO captions and ActivityNet.
        columns: The columns of id and text, if their names do not tell.

    Yields:
        Entries, or descriptions of faulty ones.

    Raises:
        ConfigError: If the file has another form, or its columns are ambiguous; shows the first entry.
    """
    positions = [int(column) for column in (columns.id, columns.text) if column and column.isdecimal()]
    found: tuple[Column, Sequence[Column]] | None = None
    described: dict[str, Entry] = {}
    for row in read_rows(path, positions):
        if isinstance(row, BadRow):
            yield row
            continue
        found = found or _columns(*row, columns)
        entry = _entry(*row, *found)
        if isinstance(entry, BadRow) or not named([found[0]], DESCRIBED):
            yield entry
        elif entry.id in described:
            described[entry.id] = replace(described[entry.id], texts=described[entry.id].texts + entry.texts)
        else:
            described[entry.id] = entry
    yield from described.values()


def _columns(place: str, row: dict[Column, Any], given: KeyedColumns) -> tuple[Column, Sequence[Column]]:
    ids, texts = id_columns(row, given.id), _asked(row, given.text) or named(row, _TEXTS)
    if {"id", "summary"} <= row.keys():  # the documented form takes precedence
        texts = _asked(row, given.text) or ["summary"]
    elif "references" in row:
        texts = _asked(row, given.text) or ["references"]
    if not ids and len(texts) == 1 and len(row) == 2:
        ids = [column for column in row if column not in texts]
    several = len({re.sub(r"[ _-]?\d+$", "", str(name)) for name in texts}) == 1  # caption_1, caption_2, ...
    for what, names, asked in (("id", ids, given.id), ("text", texts[:1] if several else texts, given.text)):
        if len(names) != 1:
            lacking = f"There is no {asked!r}. " if asked else ""
            raise ConfigError(
                f"{place}: which column has the {what}? {lacking}Name it with --{what}-column: "
                f"{', '.join(map(str, row))}\n"
                f"The first entry is {textwrap.shorten(json.dumps(row, ensure_ascii=False, default=str), _SHOWN)}"
            )
    return ids[0], texts


def id_columns(columns: Collection[Column], given: str | None) -> list[Column]:
    """Select the column of ids, or those that it may be: the given one, that of a described object, or another."""
    if asked := _asked(columns, given):
        return asked
    documented: list[Column] = ["id"] if {"id", "summary"} <= set(columns) else []
    return documented or named(columns, DESCRIBED) or named(columns, IDS)


def require_columns(columns: KeyedColumns, files: Sequence[Path]) -> None:
    """Check that one of the files has the given columns; a file without them is searched for usual names.

    Raises:
        ConfigError: If none has them.
    """
    for what, given in (("id", columns.id), ("text", columns.text)):
        if given is None or given.isdecimal():
            continue
        rows = [row[1] for file in files for row in read_rows(file) if not isinstance(row, BadRow)]
        known = dict.fromkeys(str(name) for row in rows for name in row)
        if given not in known:
            raise ConfigError(
                f"--{what}-column: there is no column {given!r} in {' or '.join(map(str, files))}; the columns are "
                f"{', '.join(known)}"
            )


def _asked(row: Collection[Column], column: str | None) -> list[Column]:
    return [name for name in row if str(name) == column]


def named(columns: Iterable[Column], known: set[str]) -> list[Column]:
    """Select the columns whose letters, in lower case, are a known name."""
    return [column for column in columns if re.sub("[^a-z]", "", str(column).lower()) in known]


def _entry(place: str, row: dict[Column, Any], id_column: Column, text_columns: Sequence[Column]) -> Entry | BadRow:
    for column in (id_column, *text_columns):
        if column not in row:
            return BadRow(place, column, f"is missing; there are {', '.join(map(str, row))}")
    try:
        clip = clip_id(row[id_column])
    except ValueError as error:
        return BadRow(place, id_column, str(error))
    value = row[text_columns[0]]
    if len(text_columns) > 1:  # of several, some may be empty
        value = [row[column] for column in text_columns if row[column] not in (None, "")]
    parts = [_part(part) for part in (value if isinstance(value, list) else [value])]
    if None in parts:
        return BadRow(place, None, f"its text must be a string, or a list of strings (got {value!r})")
    texts = [part for part in parts if part is not None] or [""]
    timed = isinstance(value, list) and all(isinstance(part, dict) and "timestamp" in part for part in value)
    dense = "timestamps" in row or timed
    return Entry(place, clip, ("\n".join(map(str.strip, texts)),) if dense else tuple(texts))


def clip_id(value: Any) -> str:
    """Return an id as text, normalised to NFC; 7, 7.0 and "7" are the same.

    Raises:
        ValueError: If it is neither text nor a whole number.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"must be text or a whole number (got {value!r})")
    clip = unicodedata.normalize("NFC", str(value))
    if problem := lone_surrogate(clip):  # could not be written with its scores
        raise ValueError(f"{clip!r} {problem}")
    return clip


def list_in(text: str) -> list[str] | None:
    """Return the list of strings that a cell contains as JSON or as Python writes it, such as `["a", "b"]`."""
    if not re.match(r"\s*\[\s*[\"'\]]", text):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return found
    return None


def _part(value: Any) -> str | None:
    """Return one of an entry's texts: a string, an empty value, or an object with one key of a known name."""
    if isinstance(value, dict) and len(names := named(value, _TEXTS)) == 1:
        value = value[names[0]]
    return "" if value is None else value if isinstance(value, str) else None


def _shown(clip: str) -> str:
    return repr(clip) if clip.isascii() else f"{clip!r} = {clip!a}"
