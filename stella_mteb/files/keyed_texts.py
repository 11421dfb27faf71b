"""Reads texts by id from JSON objects, JSON lists, or rows."""

from __future__ import annotations

import json
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.rows import SUFFIXES, BadRow, Column, read_rows
from stella_mteb.files.texts import is_blank, lone_surrogate

# Ids of a described object. Several entries with one id are several texts of it, as in COCO and MSR-VTT.
_DESCRIBED = {"image", "imageid", "imagename", "video", "videoid", "videoname", "clip", "clipid", "clipname"}
_IDS = {"id", "vid", "key", "name", "filename"}
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
        raise ConfigError(f"{path}: no such file or folder of predictions")
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
    found: tuple[Column, Column] | None = None
    described: dict[str, Entry] = {}
    for row in read_rows(path, positions):
        if isinstance(row, BadRow):
            yield row
            continue
        found = found or _columns(*row, columns)
        entry = _entry(*row, *found)
        if isinstance(entry, BadRow) or not _named([found[0]], _DESCRIBED):
            yield entry
        elif entry.id in described:
            described[entry.id] = replace(described[entry.id], texts=described[entry.id].texts + entry.texts)
        else:
            described[entry.id] = entry
    yield from described.values()


def _columns(place: str, row: dict[Column, Any], given: KeyedColumns) -> tuple[Column, Column]:
    ids = _asked(row, given.id) or _named(row, _DESCRIBED) or _named(row, _IDS)
    texts = _asked(row, given.text) or _named(row, _TEXTS)
    if {"id", "summary"} <= row.keys():  # the documented form takes precedence
        ids, texts = _asked(row, given.id) or ["id"], _asked(row, given.text) or ["summary"]
    if not ids and len(texts) == 1 and len(row) == 2:
        ids = [column for column in row if column not in texts]
    for what, names in (("id", ids), ("text", texts)):
        if len(names) != 1:
            raise ConfigError(
                f"{place}: which column has the {what}? Name it with --{what}-column: {', '.join(map(str, row))}\n"
                f"The first entry is {textwrap.shorten(json.dumps(row, ensure_ascii=False, default=str), _SHOWN)}"
            )
    return ids[0], texts[0]


def _asked(row: dict[Column, Any], column: str | None) -> list[Column]:
    return [name for name in row if str(name) == column]


def _named(columns: Iterable[Column], known: set[str]) -> list[Column]:
    return [column for column in columns if re.sub("[^a-z]", "", str(column).lower()) in known]


def _entry(place: str, row: dict[Column, Any], id_column: Column, text_column: Column) -> Entry | BadRow:
    for column in (id_column, text_column):
        if column not in row:
            return BadRow(place, column, f"is missing; there are {', '.join(map(str, row))}")
    clip, value = row[id_column], row[text_column]
    if isinstance(clip, bool) or not isinstance(clip, str | int) or clip == "":
        return BadRow(place, id_column, f"must be text or a whole number (got {clip!r})")
    clip = unicodedata.normalize("NFC", str(clip))
    if problem := lone_surrogate(clip):  # could not be written with its scores
        return BadRow(place, id_column, f"{clip!r} {problem}")
    parts = [_part(part) for part in (value if isinstance(value, list) else [value])]
    if None in parts:
        return BadRow(place, None, f"its text must be a string, or a list of strings (got {value!r})")
    texts = [part for part in parts if part is not None] or [""]
    timed = isinstance(value, list) and all(isinstance(part, dict) and "timestamp" in part for part in value)
    dense = "timestamps" in row or timed
    return Entry(place, clip, ("\n".join(map(str.strip, texts)),) if dense else tuple(texts))


def _part(value: Any) -> str | None:
    """Return one of an entry's texts: a string, an empty value, or an object with one key of a known name."""
    if isinstance(value, dict) and len(names := _named(value, _TEXTS)) == 1:
        value = value[names[0]]
    return "" if value is None else value if isinstance(value, str) else None


def _shown(clip: str) -> str:
    return repr(clip) if clip.isascii() else f"{clip!r} = {clip!a}"
