"""Texts by id, as models and people write them: JSON objects, JSON lists, or rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import read_json
from stella_mteb.files.rows import SUFFIXES, BadRow, Row, read_rows
from stella_mteb.files.texts import half_character


def data_files(path: Path) -> list[Path]:
    """The files of texts in a folder, or the one that the path names.

    Raises:
        ConfigError: If there is no such file or folder.
    """
    if path.is_dir():
        return [f for f in path.iterdir() if f.suffix in SUFFIXES and f.is_file() and not f.name.startswith(".")]
    if not path.is_file():
        raise ConfigError(f"{path}: no such file or folder of predictions")
    return [path]


def read_texts(path: Path) -> dict[str, str]:
    """Read a file of texts by id as a mapping.

    Raises:
        ConfigError: If the file has another form, or an id twice; names the place.
    """
    texts: dict[str, str] = {}
    for place, clip, text in read_entries(path):
        if clip is None or not isinstance(text, str | None):
            raise ConfigError(f"{place}: must be a clip id and a text (got {clip!r}: {text!r})")
        if clip in texts:
            raise ConfigError(f"{place}: id {clip!r} stands twice")
        texts[clip] = text or ""
    return texts


def matching(path: Path, given: Mapping[str, str], references: Mapping[str, object]) -> dict[str, str]:
    """The texts of a file that hold something and whose id is that of a reference, in the order of the references.

    Raises:
        ConfigError: If there is none.
    """
    texts = {clip: given[clip] for clip in references if given.get(clip, "").strip()}
    if not texts:
        why = "every prediction is empty" if set(given) & set(references) else "no id is that of a reference"
        raise ConfigError(f"{path}: nothing to score: {why} (ids of the references: {next(iter(references))!r}, ...)")
    return texts


def read_entries(path: Path) -> Iterator[tuple[str, str | None, Any]]:
    """Read a file of texts by id.

    Args:
        path: A JSON object `{id: text}`, a JSON list of `{"id", "summary"}`, or JSONL, CSV, TSV or Parquet with
            these columns.

    Yields:
        The place of an entry, its id (None where it has none), and its text (which may be anything).

    Raises:
        ConfigError: If the file has another form; names the place.
    """
    if path.suffix != ".json":
        rows: Iterable[Row | BadRow] = read_rows(path)
    elif isinstance(content := read_json(path), dict):
        rows = ((f"{path}: {clip}", {"id": clip, "summary": text}) for clip, text in content.items())
    elif isinstance(content, list):
        rows = ((f"{path}: entry {number}", row) for number, row in enumerate(content))
    else:
        raise ConfigError(f"{path}: must be a JSON list of {{id, summary}} or an object {{id: text}}")
    for row in rows:
        if isinstance(row, BadRow):
            raise ConfigError(str(row))
        place, clip, text = _entry(*row)
        if clip is not None and (problem := half_character(clip)):  # it could not be written with its scores
            raise ConfigError(f"{place}: id {clip!r} {problem}")
        yield place, clip, text


def _entry(place: str, row: Any) -> tuple[str, str | None, Any]:
    if not isinstance(row, dict):
        return place, None, row
    clip = row.get("id")
    if "summary" not in row:
        raise ConfigError(f"{place}: column 'summary' is missing; there are {', '.join(map(str, row))}")
    if not isinstance(clip, str):  # 7 and "7" would be two clips
        raise ConfigError(f"{place}: 'id' must be text, such as \"007\" (got {clip!r})")
    return place, clip or None, row["summary"]
