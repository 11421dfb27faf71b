"""People's ratings of candidate texts, and their preferences between two texts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.keyed_texts import BY_NAME, KeyedColumns, clip_id, id_columns, list_in, named
from stella_mteb.files.rows import BadRow, Column, read_rows
from stella_mteb.files.tables import many
from stella_mteb.files.texts import is_blank

_SHOWN = 10
_KNOWN = {
    "text": {"candidate", "caption", "summary", "text", "prediction", "hypothesis", "output", "response"},
    "score": {"score", "rating", "humanscore", "humanrating"},
    "raters": {"raters", "ratings"},
    "system": {"system", "systemname", "model", "modelname"},
    "rater": {"rater", "raterid", "annotator", "annotatorid", "worker", "workerid"},
}
"""Usual names of columns, in lower case and without other characters than letters."""
_SINGLE = re.compile(r"(rater|annotator|worker|expert|score|rating)[ _-]?\d+")
"""Names of the columns of single raters, such as rater_1."""
_MISSING = {"", "na", "n/a", "nan", "none", "null", "-"}


@dataclass(frozen=True)
class Rating:
    """The rating of one candidate text.

    Attributes:
        clip: Id of the clip, which has references.
        candidate: The candidate text.
        score: The rating; by default the mean of the raters.
        raters: Each rater's score, the same rater at a position in every text unless `Rated` says otherwise; NaN for a
            rater who gave none; empty if unknown.
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


@dataclass(frozen=True)
class Rated:
    """Human ratings of texts.

    Attributes:
        ratings: Ratings of texts.
        preferences: Preferences between two texts.
        left_out: Sentences on rows that are left out or counted several times, and on raters that are not told apart.
        same_raters: Whether a position in `Rating.raters` is the same rater in every text.
    """

    ratings: list[Rating]
    preferences: list[Preference] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    same_raters: bool = True


def read_ratings(
    path: Path, references: Mapping[str, Sequence[str]], columns: KeyedColumns = BY_NAME, scores: Sequence[str] = ()
) -> Rated:
    """Read a file of ratings.

    Args:
        path: JSONL, JSON, CSV, TSV or Parquet with `id`, `candidate` and `score` (or `raters`, a list, or a column for
            each rater), and optionally `system`. With a column `rater`, each row has the score of one rater. For
            preferences `id`, `candidates` (two texts, or two columns) and `preferred` (0 or 1).
        references: From `stella_mteb.judge.inputs.read_references`.
        columns: The columns of id and text, if they have other names.
        scores: The column of scores, or the columns of the raters, if they have other names.

    Raises:
        ConfigError: If a row lacks a value, or an id has no reference; names the row.
    """
    positions = [int(name) for name in (columns.id, columns.text, *scores) if name and name.isdecimal()]
    rows = list(read_rows(path, positions))
    known = dict.fromkeys(name for row in rows if not isinstance(row, BadRow) for name in row[1])
    if known and (absent := [name for name in scores if name not in map(str, known)]):
        raise ConfigError(
            f"{path}: --score-column: there is no column {absent[0]!r}; the columns are {', '.join(map(str, known))}"
        )
    zeros = any(_code(row[1].get("preferred")) == "0" for row in rows if not isinstance(row, BadRow))
    reader = _Reader(references, columns, scores, list(known), zeros=zeros)
    faults: list[str] = []
    for row in rows:
        if isinstance(row, BadRow):
            faults.append(str(row))
            continue
        place, content = row
        try:
            reader.take(place, content)
        except ConfigError:
            raise
        except ValueError as error:
            faults.append(f"{place}: {error}")
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
        raise ConfigError(f"{path}: {many(len(faults), 'unusable row')}:\n{shown}")
    rated = reader.rated()
    if not rated.ratings and not rated.preferences:
        raise ConfigError(f"{path}: contains no ratings{''.join(f'; {one}' for one in rated.left_out)}")
    return rated


class _Reader:
    def __init__(
        self,
        references: Mapping[str, Sequence[str]],
        columns: KeyedColumns,
        scores: Sequence[str],
        known: Sequence[Column],
        *,
        zeros: bool,
    ) -> None:
        self._references, self._columns, self._scores, self._zeros = references, columns, scores, zeros
        self._known = known  # the columns of all rows: a row of JSON may lack some
        self._ratings: list[Rating] = []
        self._by_rater: dict[tuple[str, str | None, str], dict[str, float]] = {}
        self._preferences: list[Preference] = []
        self._left_out: Counter[str] = Counter()

    def take(self, place: str, row: Mapping[Column, Any]) -> None:
        """Read one row; raises ValueError if it is unusable, ConfigError if its columns have no known names."""
        (own,) = self._find(place, "id", [self._columns.id])
        clip = clip_id(row.get(own))
        if clip not in self._references:
            some = ", ".join(map(repr, list(self._references)[:3]))
            raise ValueError(f"id {clip!r} has no reference (ids of references: {some}, ...)")
        if "preferred" in row and (pair := _pair(row, zeros=self._zeros)):
            self._take_preference(clip, *pair, row["preferred"])
            return
        (own,) = self._find(place, "text", [self._columns.text])
        text = row.get(own)
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{own!r} must be text (got {text!r})")
        raters, score = self._given(place, row)
        if not math.isfinite(score):
            self._left_out["no rating"] += 1
        elif is_blank(text or ""):
            self._left_out["an empty text"] += 1
        else:
            system, rater = (
                next((str(row[name]).strip() for name in _exact(row, role) if row[name] is not None), "")
                for role in ("system", "rater")
            )
            rating = Rating(clip, str(text), score, raters, system or None)
            if not rater:
                self._ratings.append(rating)
            elif rater in (own_raters := self._by_rater.setdefault((clip, rating.system, rating.candidate), {})):
                raise ValueError(f"rater {rater!r} rates this text a second time")
            else:
                own_raters[rater] = score

    def _find(self, place: str, role: str, given: Sequence[str | None]) -> list[Column]:
        """Return the column of a role; several only if they are given."""
        asked = [name for name in self._known if str(name) in given]
        found = asked or (id_columns(self._known, None) if role == "id" else _exact(self._known, role))
        if not found or (len(found) > 1 and not asked):
            wanted = [name for name in given if name] or _KNOWN.get(role, {"id", "video_id", "clip_id", "name"})
            raise self._unclear(
                place, role, found, f"no column for the {role} (looked for {', '.join(sorted(wanted))})"
            )
        return found

    def _unclear(self, place: str, role: str, found: Sequence[Column], lacking: str = "") -> ConfigError:
        problem = f"several columns for the {role}: {', '.join(map(str, found))}" if found else lacking
        columns = ", ".join(map(str, self._known))
        return ConfigError(f"{place}: {problem}; the columns are {columns}. Name it with --{role}-column")

    def _given(self, place: str, row: Mapping[Column, Any]) -> tuple[tuple[float, ...], float]:
        """Return each rater's score, and their mean or the score of its own column; NaN is missing."""
        lists = [] if self._scores else _exact(self._known, "raters")
        single = [] if self._scores or lists else self._single(place)
        raters = tuple(_number(row.get(name), name) for name in single)
        if lists:
            raters = tuple(_number(value, lists[0]) for value in _as_list(row.get(lists[0]), lists[0]))
        if (lists or single) and not _exact(self._known, "score"):
            return raters, _mean(raters)
        names = self._find(place, "score", self._scores)
        scores = tuple(_number(row.get(name), name) for name in names)
        if len(names) > 1:
            return scores, _mean(scores)
        return raters, scores[0] if math.isfinite(scores[0]) else _mean(raters)

    def _single(self, place: str) -> list[Column]:
        """Return the columns of single raters; of `worker_1, score_1, worker_2, score_2`, those of the scores."""
        stems: dict[str, list[Column]] = {}
        for name in self._known:
            if match := _SINGLE.fullmatch(str(name).lower()):
                stems.setdefault(match[1], []).append(name)
        of_scores = [names for stem, names in stems.items() if stem in _KNOWN["score"]]
        found = of_scores or list(stems.values())
        if len(found) > 1:
            raise self._unclear(place, "score", [name for names in found for name in names])
        return found[0] if found and len(found[0]) > 1 else []

    def _take_preference(self, clip: str, texts: tuple[Any, Any], codes: Sequence[tuple[str, str]], value: Any) -> None:
        if any(not isinstance(text, str) or is_blank(text) for text in texts):
            raise ValueError(f"a preference needs two texts (got {texts[0]!r} and {texts[1]!r})")
        wanted = _code(value)
        if value is None or wanted in _MISSING or wanted in {"tie", "equal", "both"}:
            self._left_out["no preference"] += 1
        elif code := next((code for code in codes if wanted in code), None):
            self._preferences.append(Preference(clip, texts, code.index(wanted)))
        else:
            forms = ", or ".join(" or ".join(code) for code in codes)
            why = ", as another row has 0" if self._zeros and wanted == "2" else ""
            raise ValueError(f"'preferred' must be {forms}{why} (got {value!r})")

    def rated(self) -> Rated:
        """Return what was read; scores of single raters are joined by text."""
        rated = Counter(name for own in self._by_rater.values() for name in own)
        fewest = min(rated, key=rated.__getitem__, default="")
        same = 2 * rated[fewest] >= len(self._by_rater)  # in crowd work, a correlation with one rater has few texts
        joined = []
        for (clip, system, text), own in self._by_rater.items():
            raters = tuple(own.get(name, math.nan) for name in rated) if same else tuple(own.values())
            joined.append(Rating(clip, text, _mean(raters), raters, system))
        said = [f"{many(count, 'row')} with {what} left out." for what, count in self._left_out.items()]
        repeats = len(self._ratings) - len({(one.clip, one.system, one.candidate) for one in self._ratings})
        if repeats and 2 * repeats >= len(self._ratings):
            said.append(
                f"{many(repeats, 'row')} with the text of another row counted separately; a column rater joins them."
            )
        if not same:
            said.append(
                f"No figures against each rater and no agreement among raters: {fewest!r}, one of {len(rated)} raters, "
                f"rated {rated[fewest]} of {many(len(joined), 'text')}, and they need half."
            )
        return Rated([*self._ratings, *joined], self._preferences, said, same)


def _exact(row: Collection[Column], role: str) -> list[Column]:
    """Return the column with the documented name of a role, or those with one of its usual names."""
    exact = {"text": "candidate"}.get(role, role)
    if exact in row:
        return [exact]
    found = [name for name in named(row, _KNOWN[role]) if not re.search(r"\d$", str(name))]
    return found if role in {"text", "score"} else found[:1]


def _pair(row: Mapping[Column, Any], *, zeros: bool) -> tuple[tuple[Any, Any], list[tuple[str, str]]] | None:
    """Return the two texts of a preference, and the pairs of values of `preferred` that name them.

    Args:
        row: The row.
        zeros: Whether 0 occurs in `preferred`; otherwise a number 1 may be the first text or the second.
    """
    if "candidates" in row:
        texts = list_in(row["candidates"]) if isinstance(row["candidates"], str) else row["candidates"]
        if not isinstance(texts, list) or len(texts) != 2:
            raise ValueError("a preference needs 'candidates' (two texts) and 'preferred' (0 or 1)")
        return (texts[0], texts[1]), [("0", "1")]
    matched = [(name, re.fullmatch(r"(.*?)[ _-]?([ab012])", str(name).lower())) for name in row]
    sides = sorted((match[2], name) for name, match in matched if match and match[1] in _KNOWN["text"])
    if len(sides) != 2:
        return None
    ends, (first, second) = zip(*sides, strict=True)
    numbers = ("0", "1")
    codes = [numbers if zeros and ends == ("1", "2") else ends, (_code(first), _code(second))]
    return (row[first], row[second]), [*codes, *([numbers] if zeros and numbers not in codes else [])]


def _code(preferred: Any) -> str:
    """Write a value of `preferred` as text: 1, 1.0, true and "1" are the same."""
    return (f"{preferred:g}" if isinstance(preferred, float | bool) else str(preferred)).strip().lower()


def _as_list(value: Any, column: Column) -> list[Any]:
    if isinstance(value, str):
        text = value.strip().strip("[]()")
        return [part for part in re.split(r"[;,|\s]+", text) if part]
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{column!r} must be a list of numbers (got {value!r})")
    return value


def _mean(scores: Sequence[float]) -> float:
    known = [score for score in scores if math.isfinite(score)]
    return math.fsum(known) / len(known) if known else math.nan


def _number(value: Any, column: Column) -> float:
    """Read a score; NaN if it is missing."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return math.nan
    try:
        number = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise ValueError(f"{column!r} must be a number (got {value!r})")
    return number
