"""Pairwise tests of systems over the tasks on which both have comparable scores."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stella_mteb.compare.alike import AGGREGATES, Condition
from stella_mteb.compare.item_tests import ByItem, How, task_differences
from stella_mteb.compare.records import Duel, Scores, System
from stella_mteb.statistics.max_t import max_t

Array = NDArray[np.float64]


def fight(
    placed: Sequence[System],
    scores: Scores,
    tasks: Sequence[str],
    by_item: Mapping[tuple[str, str], Mapping[str, ByItem]],
    families: Mapping[str, str],
    how: How,
    *,
    any_revision: bool = False,
) -> tuple[tuple[Duel, ...], int]:
    """Test every pair of systems over tasks.

    Returns:
        The duels, without verdicts, and the number of task families that a finding needs.
    """
    differences = _differences(placed, scores, tasks, any_revision=any_revision)
    numbers = np.unique([families.get(task, task) for task in tasks], return_inverse=True)[1]
    tested = max_t(differences, numbers, **how._asdict())
    duels = []
    for i, (one, other) in enumerate(itertools.combinations(placed, 2)):
        both = np.isfinite(differences[i])
        row, known = differences[i][both], by_item[one.label, other.label]
        bounded = len(row) > 0 and tested.low[i] > -math.inf
        duels.append(
            Duel(
                first=one,
                second=other,
                tasks=len(row),
                families=int(tested.families[i]),
                difference=float(tested.difference[i]) if len(row) else None,
                low=float(tested.low[i]) if bounded else None,
                high=float(tested.high[i]) if bounded else None,
                p=float(tested.p[i]) if len(row) else None,
                p_adjusted=float(tested.p_adjusted[i]) if len(row) else None,
                wins=int((row > 0).sum()),
                ties=int((row == 0).sum()),
                losses=int((row < 0).sum()),
                verdict="",
                by_task=task_differences(
                    {task: known[task] for task in itertools.compress(tasks, both) if task in known}
                ),
            )
        )
    return tuple(duels), tested.needed


def _differences(placed: Sequence[System], scores: Scores, tasks: Sequence[str], *, any_revision: bool) -> Array:
    """Compute first minus second, [duels, tasks], over shared splits and subsets; NaN where there are none."""
    pairs = np.triu_indices(len(placed), 1)
    found = np.full((len(pairs[0]), len(tasks)), np.nan)
    for column, task in zip(found.T, tasks, strict=True):
        groups = defaultdict(list)
        for i, system in enumerate(placed):
            if task in scores[system]:
                groups[Condition.of(scores[system][task], any_revision=any_revision)].append(i)
        of_pairs = np.full((len(placed), len(placed)), np.nan)
        for one, other in itertools.combinations_with_replacement(groups, 2):
            if cells := one.shared(other):
                first, second = (
                    np.array([scores[placed[i]][task].over(cells).value for i in groups[group]])
                    for group in (one, other)
                )
                of_pairs[np.ix_(groups[one], groups[other])] = first[:, None] - second
                of_pairs[np.ix_(groups[other], groups[one])] = second[:, None] - first
        column[:] = of_pairs[pairs]
    # If both systems have an aggregate task, its parts do not count beside it.
    number = {task: i for i, task in enumerate(tasks)}
    for whole in AGGREGATES.keys() & number.keys():
        parts = [number[part] for part in AGGREGATES[whole] if part in number]
        found[np.ix_(np.isfinite(found[:, number[whole]]), parts)] = np.nan
    return found
