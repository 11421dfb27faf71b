"""Texts by id, as models and people write them: JSON objects, JSON lists, or rows."""

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
from stella_mteb.files.texts import half_character, is_blank

# What is described: several entries of one of these are several texts of it, as in COCO and MSR-VTT.
_DESCRIBED = {"image", "imageid", "imagename", "video", "videoid", "videoname", "clip", "clipid", "clipname"}
_IDS = {"id", "vid", "key", "name", "filename"}
_TEXTS = {"caption", "text", "prediction", "sentence", "description", "reference", "response", "output", "answer"}
_TEXTS |= {f"{name}s" for name in _TEXTS} | {"summary", "summaries", "pred"}
_SHOWN = 200


@dataclass(frozen=True)
class KeyedColumns:
    """The columns of an id and of its text, by name or by position from 1 where there is no header.

    A file that does not have a column of this name, or where none is given, is looked through for one of a known name.
    """

    id: str | None = None
    text: str | None = None


BY_NAME = KeyedColumns()


@dataclass(frozen=True)
class Entry:
    """The texts of one id, such as the captions that several people wrote of a clip; an empty text is one too."""

    place: str
    id: str
    texts: tuple[str, ...]


def data_files(path: Path) -> list[Path]:
    """The files of texts in a folder, or the one that the path names.

    Raises:
        ConfigError: If there is no such file or folder.
    """
    if path.is_dir():
        return [f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file() and f.name[0] != "."]
    if not path.is_file():
        raise ConfigError(f"{path}: no such file or folder of predictions")
    return [path]


def read_texts(path: Path, columns: KeyedColumns = BY_NAME) -> dict[str, str]:
    """Read a file of one text for each id.

    Raises:
        ConfigError: If the file has another form, an id twice, or several texts of one; names the place.
    """
    texts: dict[str, str] = {}
    for entry in read_entries(path, columns):
        if isinstance(entry, BadRow):
            raise ConfigError(str(entry))
        if entry.id in texts:
            raise ConfigError(f"{entry.place}: id {entry.id!r} stands twice")
        if len(entry.texts) > 1:
            raise ConfigError(
                f"{entry.place}: {len(entry.texts)} texts, where one is asked for ({entry.texts[0]!r}, ...)"
            )
        texts[entry.id] = entry.texts[0]
    return texts


def matching(path: Path, given: Mapping[str, str], references: Mapping[str, object]) -> dict[str, str]:
    """The texts of a file that hold something and whose id is that of a reference, in the order of the references.

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

    Ids are whole numbers or text, and the same in every Unicode form (NFC). A dense captioning of a video, texts with
    timestamps, is one text, a caption a line.

    Args:
        path: A JSON object `{id: text}`, a JSON list or rows of `{"id", "summary"}`, or what `read_rows` makes of other
            layouts, such as those of COCO captions and ActivityNet.
        columns: Those of the id and of the text, where their names do not tell.

    Yields:
        Entries, or what is wrong with one.

    Raises:
        ConfigError: If the file has another form, or its columns do not tell which are which; shows the first entry.
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
    if {"id", "summary"} <= row.keys():  # the documented form, whatever else there is
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
    if problem := half_character(clip):  # it could not be written with its scores
        return BadRow(place, id_column, f"{clip!r} {problem}")
    parts = [_part(part) for part in (value if isinstance(value, list) else [value])]
    if None in parts:
        return BadRow(place, None, f"its text must be a string, or a list of strings (got {value!r})")
    texts = [part for part in parts if part is not None] or [""]
    dense = "timestamps" in row or (isinstance(value, list) and all(_is_timed(part) for part in value))
    return Entry(place, clip, ("\n".join(map(str.strip, texts)),) if dense else tuple(texts))


def _part(value: Any) -> str | None:
    """One of an entry's texts: text, nothing, or an object in which one key of a known name has it."""
    if isinstance(value, dict) and len(names := _named(value, _TEXTS)) == 1:
        value = value[names[0]]
    return "" if value is None else value if isinstance(value, str) else None


def _is_timed(part: Any) -> bool:
    return isinstance(part, dict) and "timestamp" in part


def _shown(clip: str) -> str:
    return repr(clip) if clip.isascii() else f"{clip!r} = {clip!a}"
