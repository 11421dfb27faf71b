"""Agreement of scores with ratings: correlations over all items or within groups, with intervals from resampled groups.

Spearman, Kendall's tau-b and tau-c and Pearson are those of scipy. Intervals resample whole groups (clips), because the
items of a clip share its references and are not independent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stella_mteb.statistics.paired import Part, of_weights

Array = NDArray[np.float64]
Groups = NDArray[np.intp]
"""The number of each item's group, from 0."""

_CELLS = 2**20  # weights of one batch of resamples


@dataclass(frozen=True)
class Correlations:
    """Correlations of two series; None if undefined (fewer than two items, or a constant series).

    Attributes:
        spearman: Spearman's rho.
        kendall_b: Kendall's tau-b.
        kendall_c: Kendall's tau-c (Stuart's).
        pearson: Pearson's r.
        n: Number of items, or of groups for means over groups.
    """

    spearman: float | None
    kendall_b: float | None
    kendall_c: float | None
    pearson: float | None
    n: int


def correlate(x: Array, y: Array) -> Correlations:
    """Compute the correlations of two series over all items."""
    from scipy.stats import kendalltau, pearsonr, spearmanr  # noqa: PLC0415 -- takes half a second

    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlations(None, None, None, None, len(x))
    return Correlations(
        float(spearmanr(x, y).statistic),
        float(kendalltau(x, y).statistic),
        float(kendalltau(x, y, variant="c").statistic),
        float(pearsonr(x, y).statistic),
        len(x),
    )


def correlate_within(x: Array, y: Array, groups: Groups) -> tuple[Correlations, Array]:
    """Compute the correlations within each group and their means.

    Returns:
        The means over the groups in which they are defined, with the number of these groups, and Spearman's rho by
        group (NaN if undefined).
    """
    from scipy.stats import rankdata  # noqa: PLC0415

    sizes = np.bincount(groups)
    found = np.full((4, len(sizes)), np.nan)
    order = np.argsort(groups, kind="stable")
    for size in np.unique(sizes[sizes > 1]):
        of_size = np.flatnonzero(sizes == size)
        rows = order[np.isin(groups[order], of_size)].reshape(-1, size)
        a, b = x[rows], y[rows]
        with np.errstate(invalid="ignore", divide="ignore"):
            found[0, of_size] = _pearson(rankdata(a, axis=1), rankdata(b, axis=1))
            found[3, of_size] = _pearson(a, b)
            signs = [np.sign(side[:, :, None] - side[:, None, :]) for side in (a, b)]
            concordant = (signs[0] * signs[1]).sum(axis=(1, 2))
            untied = [np.abs(sign).sum(axis=(1, 2)) for sign in signs]
            distinct = np.minimum(*(1 + (np.diff(np.sort(side, axis=1), axis=1) > 0).sum(axis=1) for side in (a, b)))
            found[1, of_size] = concordant / np.sqrt(untied[0] * untied[1])
            found[2, of_size] = np.where(distinct > 1, concordant * distinct / (size**2 * (distinct - 1)), np.nan)
    defined = np.isfinite(found).all(axis=0)
    means = [float(row[defined].mean()) if defined.any() else None for row in found]
    return Correlations(means[0], means[1], means[2], means[3], int(defined.sum())), found[0]


def _pearson(a: Array, b: Array) -> Array:
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return np.asarray((a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1)))


def resampled_spearman(gold: Array, values: Array, groups: Groups, *, resamples: int, seed: int) -> Array:
    """Compute Spearman's rho of each system with the gold ratings in resamples of whole groups.

    Args:
        gold: Ratings [items].
        values: Scores [systems, items], finite.
        groups: The group of each item.
        resamples: Number of resamples.
        seed: The same seed draws the same groups, whatever is scored.

    Returns:
        [systems, resamples]; NaN if a series is constant in a resample.
    """
    of = of_weights(Part("spearman", gold, values))
    return np.concatenate([of(weights[:, groups]) for weights in draws(groups, resamples, seed, len(gold))], axis=1)


def draws(groups: Groups, resamples: int, seed: int, items: int) -> Iterator[Array]:
    """Yield batches of resamples: the number of times that each group is drawn, [rows, groups]."""
    rng = np.random.default_rng(seed)
    number = int(groups.max()) + 1
    for done in range(0, resamples, batch := max(1, _CELLS // items)):
        rows = min(batch, resamples - done)
        yield rng.multinomial(number, np.full(number, 1 / number), rows).astype(float)


def interval(drawn: Array, level: float = 0.95) -> tuple[float | None, float | None]:
    """Return the percentile interval of the defined resamples, or None if there are none."""
    defined = drawn[np.isfinite(drawn)]
    if not len(defined):
        return None, None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
