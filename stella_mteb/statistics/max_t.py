"""Tests many duels over tasks at once: single-step maxT of Westfall and Young with one set of sign flips.

Source: P. H. Westfall and S. S. Young, Resampling-Based Multiple Testing (1993), section 2.3. Tasks on shared data are
not independent evidence, so the differences of a family of tasks change their signs together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_CELLS = 2**21  # statistics of one batch
_ROUNDING = 1e-9


@dataclass(frozen=True)
class MaxT:
    """Differences of pairs of systems (first minus second), tested over the tasks that both have.

    Attributes:
        difference: [duels], means over tasks; NaN without a task.
        low: [duels], lower ends of the simultaneous intervals; -inf if the difference cannot be significant.
        high: [duels], upper ends.
        p: [duels], two-sided, for the hypothesis that each family's difference is as likely as its negative.
        p_adjusted: [duels], adjusted for all duels; below alpha exactly if the interval excludes 0.
        families: [duels], number of families of tasks.
        needed: Smallest number of families for which a difference can be significant.
    """

    difference: Array
    low: Array
    high: Array
    p: Array
    p_adjusted: Array
    families: NDArray[np.intp]
    needed: int


def max_t(differences: Array, families: NDArray[np.intp], *, alpha: float, resamples: int, seed: int) -> MaxT:
    """Test all duels so that the probability of any false finding is at most alpha.

    A duel's statistic is the sum of its differences divided by the root of the sum of squares of its families' sums; it
    orders samples as Student's t does. The adjusted p-value is the share of flips in which the largest statistic of all
    duels reaches that of this duel. The interval has the mean differences that the test with the same critical value
    does not reject, so interval and p-value always agree.

    Args:
        differences: [duels, tasks], first minus second; NaN if two scores are not comparable.
        families: [tasks], number of each task's family.
        alpha: Level of all tests together; the simultaneous level of the intervals is 1 - alpha.
        resamples: Number of flips. If there are at most that many, all are used and p-values are exact.
        seed: Seed of the flips; the same seed gives the same results.
    """
    member = (families[:, None] == np.unique(families)).astype(float)
    sums, counts = np.nan_to_num(differences) @ member, np.isfinite(differences) @ member
    roots = np.sqrt((sums**2).sum(axis=1, keepdims=True))
    units = np.divide(sums, roots, out=np.zeros_like(sums), where=roots > 0)
    flips, exact = _sign_flips(member.shape[1], resamples, seed)
    observed = np.abs(units.sum(axis=1)) - _ROUNDING
    reached, largest = np.zeros(len(units)), np.zeros(len(flips))
    size = max(1, _CELLS // max(1, len(units)))
    for start in range(0, len(flips), size) if len(units) else ():
        flipped = np.abs(units @ flips[start : start + size].T)
        reached += (flipped >= observed[:, None]).sum(axis=1)
        largest[start : start + size] = flipped.max(axis=0)
    largest.sort()
    # The observed data count as one flip; the set of all flips includes them.
    unseen = 0 if exact else 1
    total = len(flips) + unseen
    may_reach = math.ceil(alpha * total - _ROUNDING) - 1
    critical = float(largest[unseen - may_reach - 1]) if may_reach >= 1 else math.inf
    low, high = _not_rejected(sums, counts, critical)
    p_adjusted = (len(flips) - np.searchsorted(largest, observed) + unseen) / total
    kept = p_adjusted >= alpha  # rounding may move the end of an interval across 0
    with np.errstate(invalid="ignore"):
        return MaxT(
            difference=sums.sum(axis=1) / counts.sum(axis=1),
            low=np.where(kept, np.minimum(low, 0), low),
            high=np.where(kept, np.maximum(high, 0), high),
            p=(reached + unseen) / total,
            p_adjusted=p_adjusted,
            families=np.count_nonzero(counts, axis=1),
            needed=max(families_needed(alpha), math.floor(critical**2) + 1 if critical < math.inf else 0),
        )


def families_needed(alpha: float) -> int:
    """Return the smallest number of families that can be significant: with 5, 2 of 32 sign patterns give 0.0625."""
    return math.floor(1 - math.log2(alpha)) + 1


def possible_ranks(systems: int, decided: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Compute the best and the worst rank that the duels leave each system.

    The best rank is 1 + the number of systems that beat it, and the worst is the number of systems - the number that it
    beats. So no range contradicts a duel. If the duels hold simultaneously, so do the ranges. If all duels are over the
    tasks of the means, the place by mean is inside each range, since a duel's winner has the higher mean.

    Source: M. Mogstad, J. P. Romano, A. M. Shaikh and D. Wilhelm, Inference for Ranks with Applications to Mobility
    across Neighborhoods and Academic Achievement across Countries (Review of Economic Studies, 2024).

    Args:
        systems: Number of systems, which are numbered from 0.
        decided: Winner and loser of every duel that the tests decide.
    """
    best, worst = [1] * systems, [systems] * systems
    for winner, loser in decided:
        best[loser] += 1
        worst[winner] -= 1
    return list(zip(best, worst, strict=True))


def _sign_flips(families: int, resamples: int, seed: int) -> tuple[Array, bool]:
    """Return [flips, families] of -1 and 1, one of each flip and its opposite, and whether these are all flips."""
    free = max(families - 1, 0)
    if 2**free <= resamples:
        every = [(1.0, *rest) for rest in itertools.product((1.0, -1.0), repeat=free)]
        return np.array(every)[:, :families], True
    signs = np.random.default_rng(seed).integers(0, 2, (resamples, families))
    return 2.0 * signs.astype(np.float64) - 1.0, False


def _not_rejected(sums: Array, counts: Array, critical: float) -> tuple[Array, Array]:
    """Solve |sum(s - n d)| <= critical * root(sum((s - n d)^2)) for the shift d: the roots of a quadratic."""
    if critical == math.inf:
        return np.full(len(sums), -np.inf), np.full(len(sums), np.inf)
    square = critical**2
    a = counts.sum(axis=1) ** 2 - square * (counts**2).sum(axis=1)
    b = sums.sum(axis=1) * counts.sum(axis=1) - square * (sums * counts).sum(axis=1)
    c = sums.sum(axis=1) ** 2 - square * (sums**2).sum(axis=1)
    bounded = a > _ROUNDING
    with np.errstate(invalid="ignore", divide="ignore"):
        reach = np.sqrt(np.maximum(b**2 - a * c, 0))
        return np.where(bounded, (b - reach) / a, -np.inf), np.where(bounded, (b + reach) / a, np.inf)
