"""People's ratings of candidate texts, and their preferences between two texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.rows import BadRow, read_rows
from stella_mteb.files.texts import is_blank

_SHOWN = 10


@dataclass(frozen=True)
class Rating:
    """The rating of one candidate text.

    Attributes:
        clip: Id of the clip, which has references.
        candidate: The candidate text.
        score: The rating; by default the mean of the raters.
        raters: Each rater's score; empty if unknown.
        system: Name of the system that wrote the text; None if unknown.
    """

    clip: str
    candidate: str
    score: float
    raters: tuple[float, ...] = ()
    system: str | None = None


@dataclass(frozen=True)
class Preference:
    """Two candidate texts of a clip, and the index (0 or 1) of the one that people prefer."""

    clip: str
    candidates: tuple[str, str]
    preferred: int


def read_ratings(path: Path, references: Mapping[str, Sequence[str]]) -> tuple[list[Rating], list[Preference]]:
    """Read a file of ratings.

    Args:
        path: JSONL, JSON, CSV, TSV or Parquet with `id`, `candidate` and `score` (or `raters`, a list), and
            optionally `system`; for preferences `id`, `candidates` (two texts) and `preferred` (0 or 1).
        references: From `stella_mteb.judge.inputs.read_references`.

    Raises:
        ConfigError: If a row lacks a value, or an id has no reference; names the row.
    """
    ratings: list[Rating] = []
    preferences: list[Preference] = []
    faults: list[str] = []
    for row in read_rows(path):
        if isinstance(row, BadRow):
            faults.append(str(row))
            continue
        place, content = row
        try:
            one = _preference(content) if "preferred" in content else _rating(content)
            if one.clip not in references:
                raise ValueError(f"id {one.clip!r} has no reference")
        except (TypeError, ValueError) as error:
            faults.append(f"{place}: {error}")
            continue
        if isinstance(one, Preference):
            preferences.append(one)
        else:
            ratings.append(one)
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
        raise ConfigError(f"{path}: {len(faults)} unusable rows; fix them:\n{shown}")
    if not ratings and not preferences:
        raise ConfigError(f"{path}: contains no ratings")
    return ratings, preferences


def _rating(row: Mapping[Any, Any]) -> Rating:
    raters = tuple(_number(value, "raters") for value in row.get("raters") or ())
    if row.get("score") is None and not raters:
        raise ValueError(f"needs 'score' (a number) or 'raters' (a list of numbers); it has {', '.join(map(str, row))}")
    score = _number(row["score"], "score") if row.get("score") is not None else math.fsum(raters) / len(raters)
    system = row.get("system")
    return Rating(
        _clip(row), _text(row.get("candidate"), "candidate"), score, raters, None if system is None else str(system)
    )


def _preference(row: Mapping[Any, Any]) -> Preference:
    candidates = row.get("candidates")
    if not isinstance(candidates, list) or len(candidates) != 2 or row["preferred"] not in (0, 1):
        raise ValueError("a preference needs 'candidates' (two texts) and 'preferred' (0 or 1)")
    first, second = (_text(text, "candidates") for text in candidates)
    return Preference(_clip(row), (first, second), int(row["preferred"]))


def _clip(row: Mapping[Any, Any]) -> str:
    clip = row.get("id")
    if isinstance(clip, bool) or not isinstance(clip, str | int) or clip == "":
        raise ValueError(f"'id' must be text or a whole number (got {clip!r})")
    return str(clip)


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str) or is_blank(value):
        raise ValueError(f"'{column}' must be non-empty text (got {value!r})")
    return value


def _number(value: Any, column: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"'{column}' must be a number (got {value!r})")
    return number
