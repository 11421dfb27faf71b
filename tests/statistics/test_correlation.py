"""Correlations over items and within groups, compared with scipy, one group at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr

from stella_mteb.statistics.correlation import correlate, correlate_within, draws, interval, resampled_spearman


def rated(seed: int, groups: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores and ratings with many ties, in groups of one to seven items that stand in any order."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), generator.integers(1, 8, groups))
    generator.shuffle(group)
    gold = generator.integers(1, 6, len(group)).astype(float)
    return np.round(gold + generator.normal(size=len(group)) * 2, 1), gold, group


def by_scipy(x: np.ndarray, y: np.ndarray) -> list[float]:
    return [
        spearmanr(x, y).statistic, kendalltau(x, y).statistic, kendalltau(x, y, variant="c").statistic,
        pearsonr(x, y).statistic,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_within_groups_it_is_the_mean_of_scipys_correlations(seed: int) -> None:
    x, y, group = rated(seed)
    each = [
        by_scipy(x[group == g], y[group == g]) for g in range(30) if min(map(np.ptp, (x[group == g], y[group == g])))
    ]

    found, by_group = correlate_within(x, y, group)

    assert [found.spearman, found.kendall_b, found.kendall_c, found.pearson] == pytest.approx(np.mean(each, axis=0))
    assert found.n == len(each)
    assert np.nanmean(by_group) == pytest.approx(np.mean(each, axis=0)[0])


def test_over_all_items_it_equals_scipy() -> None:
    x, y, _ = rated(7)
    found = correlate(x, y)

    assert [found.spearman, found.kendall_b, found.kendall_c, found.pearson] == pytest.approx(by_scipy(x, y))
    assert correlate(x, np.ones_like(x)).spearman is None


def test_a_resample_is_spearman_over_whole_groups_repeated() -> None:
    x, y, group = rated(8)
    drawn = resampled_spearman(y, np.stack([x, -x]), group, resamples=20, seed=3)
    weights = np.concatenate(list(draws(group, 20, 3, len(x))))

    for row, of_first, of_second in zip(weights.astype(int), *drawn, strict=True):
        items = np.concatenate([np.tile(np.flatnonzero(group == g), times) for g, times in enumerate(row)]).astype(int)
        assert of_first == pytest.approx(spearmanr(x[items], y[items]).statistic)
        assert of_second == pytest.approx(-of_first)


def test_items_of_a_group_are_not_treated_as_independent() -> None:
    """Repeating each item ten times adds no evidence: the interval by groups stays, one by items would shrink."""
    x, y, _ = rated(9, groups=60)
    every = np.arange(len(x))
    once = interval(resampled_spearman(y, x[None], every, resamples=400, seed=0)[0])
    ten = (np.repeat(side, 10) for side in (y, x, every))
    y10, x10, groups = ten
    repeated = interval(resampled_spearman(y10, x10[None], groups, resamples=400, seed=0)[0])

    assert repeated == pytest.approx(once, abs=1e-9)
