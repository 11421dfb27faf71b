"""The judge's inputs: one file of references, one file of predictions for each candidate model.

References: a JSON list of `{"id", "summary"}` (other keys are left alone), or JSONL or CSV with these columns.
Predictions: a JSON object `{id: text}`, or JSONL or CSV with `id` and `summary`; the file's name is the model's.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stella_mteb.errors import ConfigError
from stella_mteb.files.keyed_texts import data_files, matching, read_entries, read_texts

_SHOWN = 10
_LONGEST_SLUG = 240
"""Bytes; with a suffix it is the name of a file."""


@dataclass(frozen=True)
class Candidate:
    """One candidate model's predictions.

    Attributes:
        slug: Name of the model: its file's name without suffix.
        texts: Prediction by clip id; only clips that have a reference, and only texts that hold something.
        missing: Clips of the references that the file does not have.
        empty: Clips whose prediction is empty.
        unknown: Ids of the file that no reference has.
    """

    slug: str
    texts: dict[str, str]
    missing: tuple[str, ...]
    empty: tuple[str, ...]
    unknown: tuple[str, ...]


def read_references(path: Path) -> dict[str, str]:
    """Read the references.

    Args:
        path: The file.

    Returns:
        Reference by clip id, in the order of the file.

    Raises:
        ConfigError: If a clip has no text, an id stands twice, or the file has another form; names the place.
    """
    references: dict[str, str] = {}
    faults: list[str] = []
    for place, clip, text in read_entries(path):
        if clip is None or not isinstance(text, str) or not text.strip():
            faults.append(f"  {place}: needs an 'id' and a 'summary' that is not empty")
        elif clip in references:
            faults.append(f"  {place}: id {clip!r} stands twice")
        else:
            references[clip] = text
    if faults:
        shown = "\n".join(faults[:_SHOWN])
        raise ConfigError(f"{path}: {len(faults)} references cannot be used:\n{shown}")
    if not references:
        raise ConfigError(f"{path}: holds no reference")
    return references


def read_candidates(paths: Iterable[Path], references: dict[str, str]) -> list[Candidate]:
    """Read the predictions of all candidate models.

    Args:
        paths: Files, and folders whose `.json`, `.jsonl` and `.csv` files are read.
        references: From `read_references`; clips that are not among them are listed and left out.

    Returns:
        One candidate for each file, by name.

    Raises:
        ConfigError: If a file has another form, two files give one name, or there is none.
    """
    paths = list(paths)
    files = sorted({file for path in paths for file in data_files(path)}, key=lambda file: file.stem)
    if not files:
        where = ", ".join(map(str, paths))
        raise ConfigError(f"no predictions in {where}: give files, or a folder with one .json file for each model")
    seen: dict[str, Path] = {}
    candidates = []
    for file in files:
        slug = _slug(file.stem)
        same = unicodedata.normalize("NFC", slug).casefold()  # to some file systems
        if same in seen:
            raise ConfigError(f"{file} and {seen[same]} are both predictions of {slug!r}; rename one")
        seen[same] = file
        candidates.append(_read_candidate(file, slug, references))
    return candidates


def _slug(stem: str) -> str:
    slug = re.sub(r"[^\w.+-]", "_", stem).lstrip(".") or "model"
    if len(slug.encode()) <= _LONGEST_SLUG:
        return slug
    return f"{slug[:50]}-{hashlib.blake2b(stem.encode('utf-8', 'surrogateescape'), digest_size=6).hexdigest()}"


def _read_candidate(path: Path, slug: str, references: dict[str, str]) -> Candidate:
    given = read_texts(path)
    texts = matching(path, given, references)
    return Candidate(
        slug=slug,
        texts=texts,
        missing=tuple(clip for clip in references if clip not in given),
        empty=tuple(clip for clip in references if clip in given and clip not in texts),
        unknown=tuple(clip for clip in given if clip not in references),
    )
