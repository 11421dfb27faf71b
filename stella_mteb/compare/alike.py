"""Scores meet if they are of one task under the same conditions; no task meets its own parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from stella_mteb.compare.records import Gap, Score, Scores, System, TaskRow
from stella_mteb.compare.words import listed

# fmt: off
_FORUMS = ("Android", "English", "Gaming", "Gis", "Mathematica", "Physics", "Programmers", "Stats", "Tex", "Unix",
           "Webmasters", "Wordpress")
_FEELINGS = ("Anger", "Satisfaction", "Friendship", "Fear", "Jealousy", "Surprise", "Love", "Sadness", "Happiness")
# fmt: on
AGGREGATES: Mapping[str, frozenset[str]] = {
    "CQADupstackRetrieval": frozenset(f"CQADupstack{forum}Retrieval" for forum in _FORUMS),
    "CQADupstackRetrieval-Fa": frozenset(f"CQADupstack{forum}Retrieval-Fa" for forum in _FORUMS),
    "CQADupstackRetrieval-PL": frozenset(f"CQADupstack-{forum}-PL" for forum in _FORUMS),
    "CQADupstack-NL": frozenset(f"CQADupstack{forum}-NL" for forum in _FORUMS),
    "SynPerChatbotConvSAClassification": frozenset(f"SynPerChatbotConvSA{feeling}" for feeling in _FEELINGS),
}
"""MTEB's text tasks that are the mean of other tasks, which would count twice beside them."""


def alike(one: Score, other: Score) -> bool:
    """Whether two scores of a task may be compared; what one of them does not state contradicts nothing."""
    return _agree(_condition(one), _condition(other))


def with_aggregates(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Scores with the mean of a task's parts where all of them are there and it is not, as MTEB makes it."""
    made = {}
    for task, parts in AGGREGATES.items():
        own = [scores[part] for part in sorted(parts) if part in scores]
        if task in scores or len(own) < len(parts) or len({(part.split, part.subsets) for part in own}) > 1:
            continue
        made[task] = replace(
            own[0],
            task=task,
            value=math.fsum(part.value for part in own) / len(own),
            languages=tuple(sorted({language for part in own for language in part.languages})),
            dataset_revision=None,
            mteb_version=", ".join(sorted({part.mteb_version for part in own if part.mteb_version})) or None,
            source=f"mean of its {len(own)} parts",
        )
    return {**scores, **made}


def task_row(task: str, scores: Scores, gaps: Mapping[System, Mapping[str, str]]) -> TaskRow:
    """One task over all systems: the scores that most systems share, the others as gaps.

    Args:
        task: At least one system has a score for it.
        scores: By system, then by task.
        gaps: Why a system has no score, where that is known.
    """
    found = {system: of[task] for system, of in scores.items() if task in of}
    shared = _shared(map(_condition, found.values()))
    cells = tuple(
        _cell(found[system], shared)
        if system in found
        else Gap(gaps.get(system, {}).get(task) or _lacking(task, scores[system]))
        for system in scores
    )
    alone = sum(isinstance(cell, Score) for cell in cells) < 2
    return TaskRow(task, next(iter(found.values())).type, cells, "" if alone else _as_text(shared))


def _lacking(task: str, scores: Mapping[str, Score]) -> str:
    parts = AGGREGATES.get(task, frozenset())
    missing = sorted(parts - scores.keys())
    if len(missing) == len(parts):
        return "no score"
    if not missing:
        return "its parts are not alike"
    return f"{len(parts) - len(missing)} of its {len(parts)} parts, without {listed(missing)}"


def once(tasks: Sequence[str]) -> tuple[str, ...]:
    """Tasks less the parts of those that are the mean of others."""
    parts = {part for task in tasks for part in AGGREGATES.get(task, ())}
    return tuple(task for task in tasks if task not in parts)


class _Condition(NamedTuple):
    split: str
    subsets: tuple[str, ...]
    languages: tuple[str, ...]
    revision: str | None


def _condition(score: Score) -> _Condition:
    return _Condition(score.split, score.subsets, score.languages, score.dataset_revision)


def _agree(one: _Condition, other: _Condition) -> bool:
    return (
        (one.split, one.subsets) == (other.split, other.subsets)
        and (not one.languages or not other.languages or one.languages == other.languages)
        and (one.revision is None or other.revision is None or one.revision == other.revision)
    )


def _both(one: _Condition, other: _Condition) -> _Condition:
    """Join what two comparable scores state."""
    return one._replace(languages=one.languages or other.languages, revision=one.revision or other.revision)


def _shared(conditions: Iterable[_Condition]) -> _Condition:
    """The condition that most scores share; of several the one of the earliest system."""
    conditions = list(conditions)
    best, most = conditions[0], 0
    for start in conditions:
        # Being alike does not carry over: what states no revision is like two that contradict each other.
        union, count = start, 0
        for condition in conditions:
            if _agree(union, condition):
                union, count = _both(union, condition), count + 1
        if count > most:
            best, most = union, count
    return best


def _cell(score: Score, shared: _Condition) -> Score | Gap:
    own = _condition(score)
    return score if _agree(own, shared) else Gap(_reason(own, shared))


def _reason(own: _Condition, shared: _Condition) -> str:
    reasons = []
    if own.split != shared.split:
        reasons.append(f"evaluated on split {own.split}, not {shared.split}")
    if own.subsets != shared.subsets:
        reasons.append(f"on {_counted('subset', own.subsets)}, not {listed(shared.subsets)}")
    elif own.languages and shared.languages and own.languages != shared.languages:
        reasons.append(f"on {_counted('language', own.languages)}, not {listed(shared.languages)}")
    if own.revision and shared.revision and own.revision != shared.revision:
        reasons.append(f"on revision {own.revision[:8]} of the data, not {shared.revision[:8]}")
    return "; ".join(reasons)


def _as_text(condition: _Condition) -> str:
    revision = f"revision {condition.revision[:8]}" if condition.revision else "revision not stated"
    return f"split {condition.split}, {_counted('subset', condition.subsets)}, {revision}"


def _counted(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {listed(names)}"
