"""Sources of scores, with conditions that many scores share stated once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from stella_mteb.compare.records import Comparison, Score, System

_OF_TASK: Mapping[str, Callable[[Score], str]] = {
    "split": lambda score: score.split,
    "subsets": lambda score: ", ".join(score.subsets),
    "languages": lambda score: ", ".join(score.languages),
    "revision of the data": lambda score: score.dataset_revision or "",
    "metric": lambda score: score.metric or "",
}
"""Conditions of a score, by name; each value reads one from a score as text."""
UNSTATED = "not stated"


@dataclass(frozen=True)
class TaskCondition:
    """The conditions that most scores of one task share; `stated` is in the order of `CONDITIONS`."""

    task: str
    stated: Sequence[str]


@dataclass(frozen=True)
class Stated:
    """A fact about some of a system's scores.

    Attributes:
        name: Name of the fact: `source`, `mteb`, or a condition that differs from most scores.
        value: Its value as text.
        tasks: The tasks that it holds for; empty for all tasks of the system.
    """

    name: str
    value: str
    tasks: Sequence[str]


@dataclass(frozen=True)
class Sources:
    """The sources of one system's scores.

    Attributes:
        system: The system.
        scores: The number of its scores.
        versions: The versions of mteb that made them.
        stated: Their files and versions, and the conditions that differ from most scores of a task.
    """

    system: System
    scores: int
    versions: Sequence[str]
    stated: Sequence[Stated]


CONDITIONS = tuple(_OF_TASK)
"""Names of the texts in `TaskCondition.stated`."""


def conditions(comparison: Comparison) -> list[TaskCondition]:
    """Find the conditions that most scores of each task share."""
    found = []
    for row in comparison.rows:
        scores = [cell for cell in row.cells if isinstance(cell, Score)]
        counts = [Counter(filter(None, map(value, scores))) for value in _OF_TASK.values()]
        found.append(TaskCondition(row.task, [next(iter(c.most_common(1)), (UNSTATED,))[0] for c in counts]))
    return found


def sources(comparison: Comparison) -> list[Sources]:
    """Collect the sources of each system's scores, in the order of `Comparison.systems`."""
    usual = {one.task: dict(zip(CONDITIONS, one.stated, strict=True)) for one in conditions(comparison)}
    return [
        _sources(system, [cell for row in comparison.rows if isinstance(cell := row.cells[i], Score)], usual)
        for i, system in enumerate(comparison.systems)
    ]


def _sources(system: System, scores: Sequence[Score], usual: Mapping[str, Mapping[str, str]]) -> Sources:
    folder = _folder([score.source for score in scores])
    places = {score.task: score.source.removeprefix(folder) for score in scores}
    stated = [Stated("folder", folder, ())] if folder else []
    if folder and all(place == f"{task}.json" for task, place in places.items()):
        stated.append(Stated("file", "TASK.json for each task", ()))
    else:
        stated += _grouped("source", places)
    stated += _grouped("mteb", {score.task: score.mteb_version or UNSTATED for score in scores})
    for name, value in _OF_TASK.items():
        told = {score.task: value(score) or UNSTATED for score in scores}
        stated += _grouped(name, {task: text for task, text in told.items() if text != usual[task][name]}, len(scores))
    versions = sorted({score.mteb_version for score in scores if score.mteb_version})
    return Sources(system, len(scores), versions, stated)


def _grouped(name: str, values: Mapping[str, str], every: int | None = None) -> list[Stated]:
    tasks: dict[str, list[str]] = {}
    for task, value in values.items():
        tasks.setdefault(value, []).append(task)
    every = len(values) if every is None else every
    return [Stated(name, value, () if len(of) == every else of) for value, of in tasks.items()]


def _folder(paths: Sequence[str]) -> str:
    """Find the folder that different paths share; empty without one."""
    folders = zip(*(path.split("/")[:-1] for path in paths), strict=False)
    shared = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, folders)]
    return "/".join([*shared, ""]) if shared and len(set(paths)) > 1 else ""
