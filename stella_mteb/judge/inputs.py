"""The judge's inputs: one file of references, and one file of predictions for each candidate model.

References are a JSON list of `{"id", "summary"}`; other keys are ignored. A clip with several references has a list of
texts, or several captions in the layout of COCO. Predictions are a JSON object `{id: text}`; the name of the file is
the name of the model. Both may have any layout that `stella_mteb.files.keyed_texts` reads.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stella_mteb.errors import ConfigError
from stella_mteb.files.keyed_texts import (
    BY_NAME,
    KeyedColumns,
    data_files,
    list_in,
    matching,
    read_entries,
    read_texts,
)
from stella_mteb.files.rows import BadRow
from stella_mteb.files.tables import many
from stella_mteb.files.texts import is_blank
from stella_mteb.judge.wrappers import unwrap

_SHOWN = 10
_LONGEST_SLUG = 240
"""In bytes; the slug with a suffix is a file name."""


@dataclass(frozen=True)
class Candidate:
    """One candidate model's predictions.

    Attributes:
        slug: Name of the model: the file name without suffix.
        texts: Prediction by clip id, without blank ones and those of clips without a reference.
        missing: Clips of the references that are missing from the file.
        empty: Clips whose prediction is empty.
        unknown: Ids of the file that have no reference.
        wrapped: Clips by the kind of text that a chat model put around the summary: `stella_mteb.judge.wrappers`.
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
        columns: The columns of id and text, if their names are ambiguous.

    Returns:
        The references of each clip, at least one, by its id, in the order of the file.

    Raises:
        ConfigError: If a clip has no text or an empty one, an id is duplicated, or the layout is unknown; names the
            entry.
    """
    references: dict[str, tuple[str, ...]] = {}
    faults: list[str] = []
    in_cells = path.suffix.lower() in {".csv", ".tsv"}
    for entry in read_entries(path, columns):
        if not isinstance(entry, BadRow) and in_cells and (listed := list_in(entry.texts[0])) is not None:
            entry = replace(entry, texts=tuple(listed) or ("",))  # noqa: PLW2901
        if isinstance(entry, BadRow):
            faults.append(f"  {entry}")
        elif any(map(is_blank, entry.texts)):
            faults.append(f"  {entry.place}: empty text of id {entry.id!r}")
        elif entry.id in references and references[entry.id] != entry.texts:
            faults.append(
                f"  {entry.place}: duplicate id {entry.id!r}; give a clip's references as one list"
                " (or in columns reference_1, reference_2)"
            )
        else:
            references[entry.id] = entry.texts
    if faults:
        shown = "\n".join(faults[:_SHOWN])
        raise ConfigError(f"{path}: {many(len(faults), 'unusable reference')}; fix these entries:\n{shown}")
    if not references:
        raise ConfigError(f"{path}: contains no references")
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
        paths: Files, or folders of data files.
        references: From `read_references`; predictions of other clips are listed and left out.
        columns: The columns of id and text, if their names are ambiguous.
        unwrapped: Whether to remove the text that a chat model puts around a summary; it is listed in any case.

    Returns:
        One candidate for each file, sorted by name.

    Raises:
        ConfigError: If the layout of a file is unknown, two files have the same name, or there is no file.
    """
    paths = list(paths)
    files = sorted({file for path in paths for file in data_files(path)}, key=lambda file: file.stem)
    if not files:
        where = ", ".join(map(str, paths))
        raise ConfigError(f"no predictions in {where}: give files, or a folder with one .json file for each model")
    seen: dict[str, Path] = {}
    candidates = []
    for file in files:
        slug = re.sub(r"[^\w.+-]", "_", file.stem).lstrip(".") or "model"
        if len(slug.encode()) > _LONGEST_SLUG:
            short = hashlib.blake2b(file.stem.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
            slug = f"{slug[:50]}-{short}"
        same = unicodedata.normalize("NFC", slug).casefold()  # the same file on some file systems
        if same in seen:
            raise ConfigError(f"{file} and {seen[same]} are both predictions of {slug!r}; rename one")
        seen[same] = file
        candidates.append(_read_candidate(file, slug, references, columns, unwrapped))
    return candidates


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
