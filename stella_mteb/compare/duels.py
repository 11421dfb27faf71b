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
    pairs = np.triu_indices(len(placed), 1)
    first, second = _values(placed, scores, tasks, pairs, any_revision=any_revision)
    has = np.array([[task in scores[system] for task in tasks] for system in placed], dtype=bool)
    one_has, other_has = (has.reshape(len(placed), len(tasks))[own] for own in pairs)
    # If both systems have an aggregate task, its parts do not count beside it.
    number = {task: i for i, task in enumerate(tasks)}
    for whole in AGGREGATES.keys() & number.keys():
        parts = np.isin(tasks, list(AGGREGATES[whole]))
        beside = np.ix_(np.isfinite(first[:, number[whole]]), parts)
        first[beside], one_has[beside], other_has[beside] = np.nan, False, False
    differences, lacking = first - second, one_has ^ other_has
    apart = one_has & other_has & np.isnan(differences)
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
                first_mean=float(first[i][both].mean()) if len(row) else None,
                second_mean=float(second[i][both].mean()) if len(row) else None,
                lacking=int(lacking[i].sum()),
                apart=int(apart[i].sum()),
            )
        )
    return tuple(duels), tested.needed


def _values(
    placed: Sequence[System],
    scores: Scores,
    tasks: Sequence[str],
    pairs: tuple[NDArray[np.intp], NDArray[np.intp]],
    *,
    any_revision: bool,
) -> tuple[Array, Array]:
    """Compute both systems' scores over shared splits and subsets, [duels, tasks]; NaN where there are none."""
    found = np.full((2, len(pairs[0]), len(tasks)), np.nan)
    for t, task in enumerate(tasks):
        groups = defaultdict(list)
        for i, system in enumerate(placed):
            if task in scores[system]:
                groups[Condition.of(scores[system][task], any_revision=any_revision)].append(i)
        own = np.full((len(placed), len(placed)), np.nan)  # score of the first over the cells shared with the second
        for one, other in itertools.product(groups, repeat=2):
            if cells := one.shared(other):
                values = np.array([scores[placed[i]][task].over(cells).value for i in groups[one]])
                own[np.ix_(groups[one], groups[other])] = values[:, None]
        found[0, :, t], found[1, :, t] = own[pairs], own.T[pairs]
    return found[0], found[1]
