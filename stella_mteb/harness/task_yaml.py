"""Reading of tasks from YAML: `tasks/*/task.yaml`, and a user's own with `-t path.yaml`.

name: MyVideoSTS
type: STS                      # STS | Retrieval | PairClassification
data: pairs.jsonl              # JSONL, JSON, CSV, TSV or Parquet, relative to the YAML; or hub: {path, revision, split}
columns: {sentence1: reference, sentence2: candidate, score: rating, label: fault}
score_range: [0, 5]
"""

from __future__ import annotations

import importlib.resources
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from stella_mteb.errors import ConfigError
from stella_mteb.files.keyed_texts import data_files, matching, read_texts
from stella_mteb.files.row_checker import RowChecker
from stella_mteb.files.rows import BadRow, Column, Row, by_position, digest, read_hub, read_rows
from stella_mteb.files.strict_yaml import COMMIT, NAME, FaultAt, FileName, StrictModel, read_yaml, validate

logger = logging.getLogger(__name__)

TaskType = Literal["STS", "Retrieval", "PairClassification"]
MAIN_SCORE: dict[str, str] = {
    "STS": "cosine_spearman",
    "Retrieval": "ndcg_at_10",
    "PairClassification": "max_ap",
}
_COLUMNS: dict[str, tuple[set[str], set[str]]] = {
    "STS": ({"sentence1", "sentence2", "score"}, {"label", "system"}),
    "Retrieval": ({"query", "document"}, {"score"}),
    "PairClassification": ({"sentence1", "sentence2", "score"}, {"label"}),
}
_SEVERAL = {"references": "sentence1", "raters": "score"}
"""Roles of STS that take several columns or a column of lists, and the single-column role that each replaces."""


class HubData(StrictModel):
    """A data set on the hub at a fixed commit."""

    path: str = Field(pattern=f"^(?:{NAME}/)?{NAME}$")
    revision: str = Field(pattern=f"^{COMMIT}$")
    name: str | None = None
    split: str = "test"


def _column(value: object) -> object:
    if isinstance(value, list) and value:
        return [_column(one) for one in value]
    if isinstance(value, bool) or not isinstance(value, str | int) or (isinstance(value, int) and value < 1):
        raise ValueError("must be the name of a column, or its position from 1")
    return value


class TaskSpec(StrictModel):
    """The content of a task YAML file.

    Attributes:
        name: Name of the task, unique in MTEB.
        type: Task type.
        data: A file, relative to the YAML.
        hub: A data set on the hub, used if `data` is not given.
        layout: `rows`; `clip_cc` for a folder with ground_truth.json and predictions/; `rated` for a folder with
            references.jsonl and ratings.jsonl, as `stella-mteb validate` reads them.
        columns: The column of each role of the type, by name, or by position from 1 in a file without header. For STS,
            `references` (instead of sentence1) and `raters` take several columns or a column of lists. The similarity
            is that of the best reference. Without a column `score`, the score is the mean of the raters.
        where: Required values of columns; other rows are ignored.
        score_range: Lowest and highest score.
        positive_from: Retrieval, PairClassification: the score from which a pair counts as positive.
        max_bad_rows: Number of bad rows to tolerate.
        split: Name of the split in results.
        description: Shown to users, like the citation.
        citation: BibTeX entry.
        licence: Licence of the data.
        languages: ISO 639-3 and script.
        instruction: For prompt profiles that use one.
    """

    name: FileName
    type: TaskType
    data: str | None = None
    hub: HubData | None = None
    layout: Literal["rows", "clip_cc", "rated"] = "rows"
    columns: dict[str, Annotated[Any, AfterValidator(_column)]]
    where: dict[str, str] = {}
    score_range: tuple[float, float] = Field(default=(0, 5), strict=False)
    positive_from: float | None = Field(default=None, strict=False)
    max_bad_rows: int = Field(default=0, ge=0)
    split: str = Field(default="test", pattern=f"^{NAME}$")
    description: str = ""
    citation: str | None = None
    licence: str = "not specified"
    languages: list[str] = Field(default=["eng-Latn"], min_length=1)
    instruction: str | None = None

    @property
    def named(self) -> list[Column]:
        """All columns that have a role."""
        found = (columns if isinstance(columns, list) else [columns] for columns in self.columns.values())
        return [column for columns in found for column in columns]

    @property
    def conditions(self) -> dict[Column, str]:
        """The conditions of `where`, with positions as integers if columns are given by position."""
        positions = by_position(self.named)
        return {int(c) if positions and c.isdecimal() else c: value for c, value in self.where.items()}

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpec:
        required, optional = _COLUMNS[self.type]
        several = _SEVERAL if self.type == "STS" else {}
        if missing := required - {several.get(role, role) for role in self.columns}:
            names = ", ".join(sorted(missing))
            raise FaultAt(f"columns must name {names} for a task of type {self.type}", "columns")
        if unknown := set(self.columns) - required - optional - set(several):
            raise FaultAt(
                f"columns has {', '.join(sorted(unknown))}, but a task of type {self.type} allows "
                f"{', '.join(sorted({*required, *optional, *several}))}",
                "columns",
            )
        if {"references", "sentence1"} <= set(self.columns):
            raise FaultAt("columns names both references and sentence1; remove one of them", "columns", "sentence1")
        if lists := [role for role, column in self.columns.items() if isinstance(column, list) and role not in several]:
            raise FaultAt(f"{lists[0]} has one column; only {' and '.join(_SEVERAL)} of STS may have a list", "columns")
        if any(isinstance(column, int) for column in self.named) and not by_position(self.named):
            raise FaultAt("columns must be all names, or all positions in a file without header", "columns")
        if self.score_range[0] >= self.score_range[1]:
            raise FaultAt("score_range must be [lowest, highest]", "score_range")
        scored_pairs = self.type != "STS" and "score" in self.columns
        if scored_pairs and self.positive_from is None:
            raise FaultAt("positive_from must give the score from which a pair counts as positive", "columns")
        for i, language in enumerate(self.languages):
            if not re.fullmatch("[a-z]{3}-[A-Z][a-z]{3}", language):
                raise FaultAt(f"language {language!r} must be ISO 639-3 and script, such as eng-Latn", "languages", i)
        return self


@dataclass(frozen=True)
class TaskFile:
    """A task YAML with its path, and the data that replaces its own (`-t NAME=FILE`)."""

    spec: TaskSpec
    path: Path
    data: Path | None = None
    max_bad_rows: int | None = None

    @property
    def is_local(self) -> bool:
        """Whether the rows are on this machine or must be given by the user, instead of coming from the hub."""
        return self.data is not None or self.spec.data is not None or self.spec.hub is None

    @property
    def place(self) -> Path | None:
        """The file or folder of the rows, if they are on this machine and known."""
        return self.data or (self.path.parent / Path(self.spec.data).expanduser() if self.spec.data else None)

    @cached_property
    def pairs(self) -> Pairs:
        """The rows, read and checked once.

        Raises:
            ConfigError: If there are more bad rows than allowed, or too few good ones.
        """
        spec = self.spec
        checker = RowChecker(spec.max_bad_rows if self.max_bad_rows is None else self.max_bad_rows)
        rows: list[_Values] = []
        for row in _rows(self):
            if isinstance(row, BadRow):
                checker.note(row)
                continue
            place, values = row
            if absent := [column for column in spec.conditions if column not in values]:
                checker.note(
                    BadRow(place, absent[0], f"is missing (for where); there are {', '.join(map(str, values))}")
                )
            elif all(str(values[column]) == wanted for column, wanted in spec.conditions.items()):
                rows += _read_row(spec, checker, place, values)
        checker.require(f"task {spec.name}")
        _require_enough(spec, [row.score for row in rows])
        _tell_repeats(spec, [(row.references[0], row.second) for row in rows])
        roles = set(spec.columns)
        # Only tasks that use the newer roles have them in their digest, so that revisions of older tasks stay the same.
        newer = bool(roles & {*_SEVERAL, "system"})
        return Pairs(
            references=[row.references for row in rows],
            second=[row.second for row in rows],
            scores=[row.score for row in rows] if roles & {"score", "raters"} else [],
            labels=[row.label for row in rows] if "label" in roles else [],
            raters=[row.raters for row in rows] if "raters" in roles else [],
            systems=[row.system for row in rows] if "system" in roles else [],
            bad=checker.bad,
            digest=digest(
                (row.references[0], row.second, row.score, row.label)
                + ((row.references[1:], row.raters, row.system) if newer else ())
                for row in rows
            ),
        )

    @cached_property
    def revision(self) -> str:
        """A digest of everything that affects a model's score: the rows and how they are used."""
        spec = self.spec
        grades = ("graded",) if spec.type == "Retrieval" and "score" in spec.columns else ()
        used = (spec.type, spec.positive_from, spec.instruction, *grades)
        if spec.hub is not None and not self.is_local:
            return f"{spec.hub.revision}-{digest([used, spec.hub.model_dump(), spec.where, spec.columns])}"
        return f"sha256-{digest([used, self.pairs.digest])}"


@dataclass(frozen=True)
class Pairs:
    """The valid rows of a task.

    Attributes:
        references: The references of each row; for most tasks a single text, sentence1 or query.
        second: sentence2, or document.
        scores: Gold score of each pair; empty if the task has none.
        labels: Label of each pair; empty if the task has none.
        raters: Each rater's score of each pair; empty if the task has none.
        systems: Name of the system that wrote the text of each pair; empty if the task has none.
        bad: Rows that were left out.
        digest: Digest of the rows.
    """

    references: list[tuple[str, ...]]
    second: list[str]
    scores: list[float]
    labels: list[str]
    raters: list[tuple[float, ...]]
    systems: list[str]
    bad: list[BadRow]
    digest: str

    @cached_property
    def first(self) -> list[str]:
        """The first reference of each row."""
        return [references[0] for references in self.references]

    @property
    def sides(self) -> tuple[list[str], list[str]]:
        """The texts of both sides: every reference of every row, and the texts that are compared with them."""
        return [text for references in self.references for text in references], self.second


def bundled_tasks() -> dict[str, TaskFile]:
    """Return the tasks that ship with the package, by name."""
    folder = Path(str(importlib.resources.files("stella_mteb.tasks")))
    files = map(load_task_file, sorted(folder.glob("*/task.yaml")))
    return {file.spec.name: file for file in files}


def load_task_file(path: Path) -> TaskFile:
    """Read a task YAML.

    Raises:
        ConfigError: Lists every fault with file, line and key.
    """
    data, lines = read_yaml(path)
    return TaskFile(validate(TaskSpec, data, path, lines), path)


@dataclass(frozen=True)
class _Values:
    """The values of a row, by role; roles that the task lacks are empty, or 0."""

    references: tuple[str, ...]
    second: str
    score: float
    label: str
    raters: tuple[float, ...]
    system: str


def _read_row(spec: TaskSpec, checker: RowChecker, place: str, values: Mapping[Column, Any]) -> list[_Values]:
    """Return the row in a list, or an empty list if a value is bad; the checker records the bad value."""
    before, roles = len(checker.bad), spec.columns

    def number(place: str, values: Mapping[Column, Any], column: Column) -> float:
        return checker.number(place, values, column, *spec.score_range) or 0.0

    first = next(roles[role] for role in ("references", "sentence1", "query") if role in roles)
    second = roles["document" if spec.type == "Retrieval" else "sentence2"]
    references = (
        _several(checker.text, place, values, first) if "references" in roles else (checker.text(place, values, first),)
    )
    text = checker.text(place, values, second)
    raters = _several(number, place, values, roles["raters"]) if "raters" in roles else ()
    score = number(place, values, roles["score"]) if "score" in roles else sum(raters) / max(1, len(raters))
    label, system = (checker.label(place, values, roles[role]) if role in roles else "" for role in ("label", "system"))
    if len(checker.bad) > before:
        return []
    return [_Values(tuple(map(str, references)), str(text), score, str(label), raters, str(system))]


Value = TypeVar("Value")
Read = Callable[[str, Mapping[Column, Any], Column], Value]


def _several(
    read: Read[Value], place: str, values: Mapping[Column, Any], columns: Column | list[Column]
) -> tuple[Value, ...]:
    """Read the non-empty values of several columns, or the value or list of values of one column."""
    if isinstance(columns, list):
        given = [column for column in columns if column not in values or values[column] not in (None, "")]
        return tuple(read(place, values, column) for column in given or columns)
    value = values.get(columns)
    if not isinstance(value, list) or not value:
        return (read(place, values, columns),)
    named: dict[Column, Any] = {f"{columns}[{i}]": one for i, one in enumerate(value)}
    return tuple(read(place, named, name) for name in named)


def _rows(file: TaskFile) -> Iterator[Row | BadRow]:
    spec = file.spec
    local = file.place
    if local is None:
        if spec.hub is None:
            raise ConfigError(f"task {spec.name} needs its data: -t {spec.name}=PATH")
        return read_hub(spec.hub.path, spec.hub.revision, spec.hub.name, spec.hub.split)
    if spec.layout == "clip_cc":
        references = read_texts(local / "ground_truth.json")
        files = sorted(data_files(local / "predictions"), key=lambda file: file.stem)
        return (
            (f"{file.stem}: {clip}", {"prediction": text, "summary": references[clip]})
            for file in files
            for clip, text in matching(file, read_texts(file), references).items()
        )
    if spec.layout == "rated":
        return _rated_rows(local)
    if file.data is None:
        return read_rows(local, [*spec.named, *spec.conditions])
    # `where` selects rows of the hub's data; a user's own file contains only selected rows.
    rows = read_rows(local, spec.named)
    return (row if isinstance(row, BadRow) else (row[0], {**spec.conditions, **row[1]}) for row in rows)


def _rated_rows(folder: Path) -> Iterator[Row | BadRow]:
    references: dict[str, Any] = {}
    for row in read_rows(folder / "references.jsonl"):
        if isinstance(row, BadRow):
            yield row
        else:
            references[str(row[1].get("id"))] = row[1].get("references")
    for row in read_rows(folder / "ratings.jsonl"):
        if isinstance(row, BadRow):
            yield row
        elif (clip := str(row[1].get("id"))) in references:
            yield row[0], {**row[1], "references": references[clip]}
        else:
            yield BadRow(row[0], "id", f"{clip!r} is not an id of references.jsonl")


def _require_enough(spec: TaskSpec, scores: Sequence[float]) -> None:
    if len(scores) < 2:
        raise ConfigError(f"task {spec.name}: {len(scores)} usable rows; at least two are needed")
    if spec.type == "STS" and len(set(scores)) == 1:
        raise ConfigError(f"task {spec.name}: every score is {scores[0]:g}; a correlation needs scores that differ")
    positive = sum(score >= (spec.positive_from or 0) for score in scores)
    if spec.type != "STS" and "score" in spec.columns and positive in {0, len(scores)}:
        which = "no pair is" if positive == 0 else "every pair is"
        raise ConfigError(f"task {spec.name}: {which} at least positive_from {spec.positive_from:g}")


def _tell_repeats(spec: TaskSpec, pairs: Sequence[tuple[str, str]]) -> None:
    # The order matters for a query and its document, but not for two sentences.
    counts = Counter(pair if spec.type == "Retrieval" else tuple(sorted(pair)) for pair in pairs)
    if repeats := len(pairs) - len(counts):
        ((first, second), _), *_ = counts.most_common(1)
        logger.warning(
            "task %s: %d of %d rows repeat a pair (%r and %r, for example); each repetition counts in the score",
            *(spec.name, repeats, len(pairs), first[:60], second[:60]),
        )
