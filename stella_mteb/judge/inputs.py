"""The judge's inputs: one file of references, one file of predictions for each candidate model.

References: a JSON list of `{"id", "summary"}` (other keys are left alone); a list of texts in place of one, or several
captions in the layout of COCO, are several references. Predictions: a JSON object `{id: text}`; the file's name is the
model's. Both may have any layout that `stella_mteb.files.keyed_texts` reads.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stella_mteb.errors import ConfigError
from stella_mteb.files.keyed_texts import BY_NAME, KeyedColumns, data_files, matching, read_entries, read_texts
from stella_mteb.files.rows import BadRow
from stella_mteb.files.texts import is_blank
from stella_mteb.judge.wrappers import unwrap

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
        wrapped: Clips by what a chat model put around their summary: `stella_mteb.judge.wrappers`.
    """

    slug: str
    texts: dict[str, str]
    missing: tuple[str, ...]
    empty: tuple[str, ...]
    unknown: tuple[str, ...]
    wrapped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_references(path: Path, columns: KeyedColumns = BY_NAME) -> dict[str, tuple[str, ...]]:
    """Read the references.

    Args:
        path: The file.
        columns: Those of id and text, where their names do not tell.

    Returns:
        The references of each clip, at least one, by its id, in the order of the file.

    Raises:
        ConfigError: If a clip has no text or an empty one, an id stands twice, or the file has another form; names
            the place.
    """
    references: dict[str, tuple[str, ...]] = {}
    faults: list[str] = []
    for entry in read_entries(path, columns):
        if isinstance(entry, BadRow):
            faults.append(f"  {entry}")
        elif any(map(is_blank, entry.texts)):
            faults.append(f"  {entry.place}: a text of {entry.id!r} is empty")
        elif entry.id in references:
            faults.append(f"  {entry.place}: id {entry.id!r} stands twice; give a clip's references as one list")
        else:
            references[entry.id] = entry.texts
    if faults:
        shown = "\n".join(faults[:_SHOWN])
        raise ConfigError(f"{path}: {len(faults)} references cannot be used:\n{shown}")
    if not references:
        raise ConfigError(f"{path}: holds no reference")
    return references


def read_candidates(
    paths: Iterable[Path],
    references: Mapping[str, Sequence[str]],
    columns: KeyedColumns = BY_NAME,
    *,
    unwrapped: bool = False,
) -> list[Candidate]:
    """Read the predictions of all candidate models.

    Args:
        paths: Files, and folders whose data files are read.
        references: From `read_references`; clips that are not among them are listed and left out.
        columns: Those of id and text, where their names do not tell.
        unwrapped: Whether what a chat model puts around a summary is taken out; it is listed in any case.

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
        candidates.append(_read_candidate(file, slug, references, columns, unwrapped))
    return candidates


def _slug(stem: str) -> str:
    slug = re.sub(r"[^\w.+-]", "_", stem).lstrip(".") or "model"
    if len(slug.encode()) <= _LONGEST_SLUG:
        return slug
    return f"{slug[:50]}-{hashlib.blake2b(stem.encode('utf-8', 'surrogateescape'), digest_size=6).hexdigest()}"


def _read_candidate(
    path: Path, slug: str, references: Mapping[str, Sequence[str]], columns: KeyedColumns, unwrapped: bool
) -> Candidate:
    given = read_texts(path, columns)
    wrapped: dict[str, list[str]] = {}
    for clip in filter(references.__contains__, given):
        text, kinds = unwrap(given[clip])
        given[clip] = text if unwrapped else given[clip]
        for kind in kinds:
            wrapped.setdefault(kind, []).append(clip)
    texts = matching(path, given, references)
    return Candidate(
        slug=slug,
        texts=texts,
        missing=tuple(clip for clip in references if clip not in given),
        empty=tuple(clip for clip in references if clip in given and clip not in texts),
        unknown=tuple(clip for clip in given if clip not in references),
        wrapped={kind: tuple(clips) for kind, clips in sorted(wrapped.items())},
    )
