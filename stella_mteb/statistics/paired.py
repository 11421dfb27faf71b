"""Intervals and permutation tests for the differences of systems on the same items (pairs, queries).

A resample is a row of weights over items that are sorted once, and one draw serves all systems. No resample costs a
sort, and memory does not grow with their number: 10 000 rated pairs take seconds, while ranking every resample, as in
`scipy.stats.bootstrap`, takes minutes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Kind = Literal["spearman", "ap", "mean"]
Array = NDArray[np.float64]
OfWeights = Callable[[Array], Array]
"""Maps integer weights [rows, items] to scores [systems, rows]; NaN if a score is undefined for a row."""

MIN_ITEMS = 20
"""Minimum number of items for an interval."""
MIN_OF_A_LABEL = 10
"""Minimum number of positives and of negatives for an interval of average precision."""

_CELLS = 2**18  # weights of one batch, which fit in the processor's cache
_LEFT_OUT = 2_000  # parts of the jackknife; leaving out every single item is slow and adds little


@dataclass(frozen=True)
class Part:
    """All systems on the same items: one subset of a task.

    Attributes:
        kind: How a score is computed from values: `spearman` or `ap` (average precision) with `gold`, or their `mean`.
        gold: Ratings, or labels 0 and 1, for each item; None for `mean`.
        values: [systems, items].
        weight: Weight of this part in the mean over parts.
    """

    kind: Kind
    gold: Array | None
    values: Array
    weight: float = 1.0


@dataclass(frozen=True)
class Difference:
    """The difference of two systems, first minus second.

    Attributes:
        value: Difference of the scores.
        low: Lower end of the interval.
        high: Upper end.
        p: Two-sided, for the hypothesis that the two are interchangeable.
    """

    value: float
    low: float
    high: float
    p: float


def scores(part: Part) -> Array:
    """Compute each system's score; NaN if undefined (constant ratings or values, no positive label).

    Tied values share their mean rank in `spearman` (as in scipy) and one step of `ap` (as in scikit-learn).
    """
    return of_weights(part)(np.ones((1, part.values.shape[1])))[:, 0]


def of_weights(part: Part) -> OfWeights:
    """Return a function from item weights to each system's score."""
    if part.kind == "mean":
        return lambda weights: np.asarray(part.values @ weights.T / weights.sum(axis=1))
    if part.gold is None:
        raise ValueError(f"{part.kind} needs gold ratings or labels")
    return (_spearman if part.kind == "spearman" else _average_precision)(part.gold, part.values)


def paired_differences(
    parts: Sequence[Part], *, alpha: float, resamples: int, seed: int
) -> dict[tuple[int, int], Difference | None]:
    """Compare every two systems on the same items; scores are means over parts, which are subsets of tasks.

    The interval is a bias-corrected and accelerated bootstrap (BCa) over items, drawn for all systems at once, part by
    part. A resample in which a score is undefined (no positive label) does not count. In simulations of 50 / 200 /
    1 000 items, nominal 95 % intervals contained the true difference in .93 / .94 / .95 (`spearman`), .92 / .95 / .94
    (`mean`) and, with one positive in six, .87 / .93 / .93 (`ap`) of cases: with few items they are too short.

    For p, the two systems' values are swapped at random, item by item. If a score depends only on their order
    (`spearman`, `ap`), ranks are swapped, because raw cosines of two models have different scales.

    The interval tells how far apart two systems are, p whether they are interchangeable; at the margin they can
    disagree.

    Args:
        parts: At least one, all with the same systems.
        alpha: 0.05 for 95 % intervals.
        resamples: Number of bootstrap resamples, and of permutations.
        seed: Seed of both; the same seed gives the same results.

    Returns:
        By numbers of the systems, first < second. None if a part has too few items (`MIN_ITEMS`, `MIN_OF_A_LABEL`), a
        score is undefined (constant ratings or values), or a value is not finite.
    """
    found: dict[tuple[int, int], Difference | None] = dict.fromkeys(_pairs(len(parts[0].values)))
    usable = np.flatnonzero(np.all([_usable(part) for part in parts], axis=0))
    if len(usable) < 2:
        return found
    parts = [replace(part, values=part.values[usable]) for part in parts]
    value = _mean(parts, [scores(part) for part in parts])
    rng = np.random.default_rng(seed)
    means = _mean(parts, [_over(of_weights(part), _draws(rng, part.values.shape[1], resamples)) for part in parts])
    left_out = []
    for part in parts:
        n = part.values.shape[1]
        group = np.arange(n) % (groups := min(n, _LEFT_OUT))
        kept = ((group != start + np.arange(rows)[:, None]).astype(float) for start, rows in _batches(groups, n))
        left_out.append(part.weight * _over(of_weights(part), kept))
    for pair, p in zip(_pairs(len(usable)), _swap_p(parts, resamples, seed), strict=True):
        i, j = pair
        low, high = _bca(value[i] - value[j], means[i] - means[j], [x[i] - x[j] for x in left_out], alpha)
        found[int(usable[i]), int(usable[j])] = Difference(float(value[i] - value[j]), low, high, float(p))
    return found


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's method, so that the probability of any false finding below alpha is at most alpha."""
    adjusted, largest = [0.0] * len(p), 0.0
    for done, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - done) * p[i]))
        adjusted[i] = largest
    return adjusted


def _mean(parts: Sequence[Part], of_parts: Sequence[Array]) -> Array:
    return np.asarray(np.average(of_parts, axis=0, weights=[part.weight for part in parts]))


def _pairs(systems: int) -> Iterator[tuple[int, int]]:
    return itertools.combinations(range(systems), 2)


def _usable(part: Part) -> NDArray[np.bool_]:
    """Check which systems of a part can be compared."""
    n = part.values.shape[1]
    enough = n >= MIN_ITEMS
    if part.kind == "ap" and part.gold is not None:
        positives = np.count_nonzero(part.gold)
        enough = enough and min(positives, n - positives) >= MIN_OF_A_LABEL
    return np.asarray(np.isfinite(part.values).all(axis=1) & np.isfinite(scores(part)) & enough)


def _spearman(gold: Array, values: Array) -> OfWeights:
    of_gold, *of_values = [_mean_ranks(row) for row in (gold, *values)]

    def of(weights: Array) -> Array:
        middle = (weights.sum(axis=1, keepdims=True) + 1) / 2
        x = of_gold(weights) - middle
        xx = np.einsum("ij,ij,ij->i", weights, x, x)
        result = np.empty((len(of_values), len(weights)))
        for row, ranks in zip(result, of_values, strict=True):
            y = ranks(weights) - middle
            wy = weights * y
            with np.errstate(invalid="ignore"):
                row[:] = np.einsum("ij,ij->i", wy, x) / np.sqrt(xx * np.einsum("ij,ij->i", wy, y))
        return result

    return of


def _mean_ranks(values: Array) -> OfWeights:
    # An item with weight w has w ranks; equal values share their mean rank.
    order, last, group = _sorted_groups(values)

    def of(weights: Array) -> Array:
        upto = weights.take(order, axis=1).cumsum(axis=1).take(last, axis=1)
        here = np.diff(upto, axis=1, prepend=0)
        return np.asarray((upto - (here - 1) / 2).take(group, axis=1))

    return of


def _average_precision(gold: Array, values: Array) -> OfWeights:
    # The mean over the positives of the share of positives among all items that are ranked no lower.
    systems = []
    for row in values:
        order, last, group = _sorted_groups(-row)
        ends = last[group[order]]
        places = np.flatnonzero(gold[order])
        tied = np.searchsorted(places, ends[places], side="right") - 1
        systems.append((order, ends[places], places, tied))

    def of(weights: Array) -> Array:
        result = np.empty((len(systems), len(weights)))
        for row, (order, ends, places, tied) in zip(result, systems, strict=True):
            ordered = weights.take(order, axis=1)
            positives = ordered.take(places, axis=1)
            found = positives.cumsum(axis=1).take(tied, axis=1)
            seen = ordered.cumsum(axis=1).take(ends, axis=1)
            with np.errstate(invalid="ignore"):
                row[:] = (positives * found / np.maximum(seen, 1)).sum(axis=1) / positives.sum(axis=1)
        return result

    return of


def _sorted_groups(values: Array) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    # Returns the sorting order, the last position of each distinct value in it, and the number of each item's value.
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return values.argsort(kind="stable"), counts.cumsum() - 1, group


def _bca(value: float, drawn: Array, left_out: Sequence[Array], alpha: float) -> tuple[float, float]:
    defined = drawn[np.isfinite(drawn)]
    below = ((defined < value).mean() + (defined <= value).mean()) / 2
    bias = ndtri(np.clip(below, 0.5 / len(defined), 1 - 0.5 / len(defined)))
    # Efron's acceleration from the jackknife; parts add up as in scipy.
    influences = [own.mean() - own for own in (values[np.isfinite(values)] for values in left_out)]
    squares, cubes = (sum(float((one**power).sum()) for one in influences) for power in (2, 3))
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    z = bias + ndtri([alpha / 2, 1 - alpha / 2])
    low, high = np.quantile(defined, ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def _swap_p(parts: Sequence[Part], resamples: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    observed, swapped = [], []
    for part in parts:
        n = part.values.shape[1]
        of = _after_swaps(part)
        observed.append(of(np.ones((1, n))))
        swapped.append(_over(of, (rng.integers(0, 2, (rows, n)).astype(float) for _, rows in _batches(resamples, n))))
    reach = np.abs(_mean(parts, observed))
    nearer = np.abs(_mean(parts, swapped)) < reach - 1e-10  # not >=, so that undefined values count against a finding
    return np.asarray((1 + resamples - nearer.sum(axis=1)) / (1 + resamples))


def _after_swaps(part: Part) -> OfWeights:
    """Return the differences [pairs, rows] of two systems that keep the items marked 1 and swap those marked 0."""
    values, gold = part.values, part.gold
    ranks = values if gold is None else [_ranks(row) for row in values]

    def swapped(i: int, j: int) -> OfWeights:
        if gold is None:
            gain = (values[i] - values[j]) / values.shape[1]
            return lambda kept: np.asarray(2 * (kept @ gain) - gain.sum())
        if part.kind == "spearman":
            return _swapped_correlation(gold, ranks[i], ranks[j])
        # Weights over the concatenated values of both: items that the first does not take, the second does.
        score = _average_precision(np.tile(gold, 2), np.concatenate([ranks[i], ranks[j]])[None])
        return lambda kept: (score(np.hstack([kept, 1 - kept])) - score(np.hstack([1 - kept, kept])))[0]

    of = [swapped(i, j) for i, j in _pairs(len(values))]
    return lambda kept: np.stack([one(kept) for one in of])


def _ranks(values: Array) -> Array:
    return np.asarray(_mean_ranks(values)(np.ones((1, len(values))))[0])


def _swapped_correlation(gold: Array, first: Array, second: Array) -> OfWeights:
    # Ranks are swapped but not recomputed. Any statistic that equals Spearman's before the swaps is valid, and this one
    # needs three dot products.
    gold, first, second = (ranks - ranks.mean() for ranks in (_ranks(gold), first, second))
    moments = np.stack([gold * (first - second), first - second, first**2 - second**2], axis=1)

    def correlation(moved: Array, base: Array) -> Array:
        covariance, total, squares = moved.T
        return np.asarray((gold @ base + covariance) / np.sqrt(base @ base + squares - total**2 / len(gold)))

    def of(kept: Array) -> Array:
        moved = kept @ moments
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((correlation(moved, second) - correlation(-moved, first)) / np.sqrt(gold @ gold))

    return of


def _over(of: OfWeights, batches: Iterable[Array]) -> Array:
    return np.concatenate([of(batch) for batch in batches], axis=1)


def _batches(total: int, items: int) -> Iterator[tuple[int, int]]:
    """Divide resamples into batches: the number of the first, and how many."""
    size = max(1, _CELLS // items)
    return ((start, min(size, total - start)) for start in range(0, total, size))


def _draws(rng: np.random.Generator, n: int, resamples: int) -> Iterator[Array]:
    for _, rows in _batches(resamples, n):
        cells = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(cells.ravel(), minlength=rows * n).reshape(rows, n).astype(float)
