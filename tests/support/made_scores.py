"""Made-up scores by system and task, and the comparison of them, for the tests of `stella_mteb.compare`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stella_mteb.compare.comparison import compare
from stella_mteb.compare.records import Comparison, Duel, Gap, Part, Score, System

TASKS = [f"Task{i:02}" for i in range(12)]


def system(label: str, **fields: Any) -> System:
    return System(**{"label": label, "model": f"org/{label}", "provenance": "measured here", "origin": "r", **fields})


def score(task: str, value: float, *, split: str = "test", subsets: Any = ("default",), **fields: Any) -> Score:
    """Build a score whose parts all have its value; subsets may have other values."""
    of_subsets = subsets if isinstance(subsets, dict) else dict.fromkeys(subsets, value)
    languages = fields.pop("languages", ())
    parts = [Part(split, subset, one, languages) for subset, one in of_subsets.items()]
    return Score(
        **{"task": task, "type": "STS", "value": 0, "split": "", "subsets": (), "source": "f", **fields}
    ).made_of(parts)


def scores_of(**systems: Mapping[str, float | Score]) -> dict[System, dict[str, Score]]:
    """Build scores by label and task from scores or values."""
    return {
        system(label): {t: one if isinstance(one, Score) else score(t, one) for t, one in of.items()}
        for label, of in systems.items()
    }


def values(base: float, tasks: list[str] = TASKS, spread: float = 0.02, seed: int = 0) -> dict[str, float]:
    return dict(zip(tasks, base + spread * np.random.default_rng(seed).standard_normal(len(tasks)), strict=True))


def fast(scores: Any, **kwargs: Any) -> Comparison:
    return compare(scores, **{"resamples": 499, **kwargs})


def reasons(comparison: Comparison, task: str) -> list[str | None]:
    """Return the reasons of the gaps of a row; None for a score."""
    (row,) = (row for row in comparison.rows if row.task == task)
    return [cell.reason if isinstance(cell, Gap) else None for cell in row.cells]


def duel_of(comparison: Comparison, first: str, second: str) -> Duel:
    (found,) = (duel for duel in comparison.duels if {duel.first.label, duel.second.label} == {first, second})
    return found


def assert_ranks_follow_from_duels(comparison: Comparison) -> None:
    """A range of ranks begins after the systems that beat this one, and ends before those that it beats."""
    labels = [one.system.label for one in comparison.standings]
    beaten = {(a, b): False for a in labels for b in labels}
    for duel in comparison.duels:
        if duel.p_adjusted is not None and duel.p_adjusted < comparison.alpha and duel.difference:
            pair = (duel.first.label, duel.second.label)
            beaten[pair if duel.difference > 0 else pair[::-1]] = True
    for one in comparison.standings:
        own = one.system.label
        assert one.best_rank == 1 + sum(beaten[other, own] for other in labels)
        assert one.worst_rank == len(labels) - sum(beaten[own, other] for other in labels)
