"""Simultaneous tests: compared with scipy for one duel, and with a known truth for many."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, permutation_test, t

from stella_mteb.statistics.max_t import MaxT, families_needed, max_t, possible_ranks
from stella_mteb.statistics.paired import holm

Array = NDArray[np.float64]
HOW: dict[str, Any] = {"alpha": 0.05, "resamples": 9_999, "seed": 0}


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def alone(differences: Any, families: Any = None, **how: Any) -> MaxT:
    """Test one duel; by default each task is its own family."""
    row = np.asarray(differences, dtype=float)[None]
    return max_t(row, np.arange(row.shape[1]) if families is None else np.asarray(families), **HOW | how)


def duels_of(table: Array) -> Array:
    first, second = np.triu_indices(len(table), 1)
    return np.asarray(table[first] - table[second])


# ------------------------------------------------------------------------------------------------------------ one duel


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=12).filter(any))
@settings(max_examples=50, deadline=None)
def test_p_of_few_tasks_equals_scipys_exact_permutation_test(differences: list[int]) -> None:
    exact = permutation_test((np.array(differences, float),), np.mean, permutation_type="samples", n_resamples=9_999)

    found = alone(differences)

    assert found.p == found.p_adjusted == pytest.approx([exact.pvalue])
    assert found.difference == pytest.approx([np.mean(differences)])


def test_p_of_many_tasks_is_close_to_the_exact_one() -> None:
    differences = np.random.default_rng(0).integers(-12, 16, 40)
    ways = np.ones(1)  # of each sum of signed differences, one task after the other
    for d in abs(differences):
        ways = np.convolve(ways, np.bincount([0, 2 * d]) / 2 if d else np.ones(1))
    sums = np.arange(len(ways)) - abs(differences).sum()
    expected = ways[abs(sums) >= abs(differences.sum())].sum()

    (found,) = alone(differences).p

    assert 0.01 < expected < 0.5
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected / 9_999))


def test_a_family_changes_its_signs_together() -> None:
    differences = np.array([0.5, 0.4, 0.3, -0.1, 0.2, 0.3, 0.1, 0.2, 0.2])
    families = [0, 0, 0, 1, 2, 3, 4, 5, 6]
    sums = np.array([1.2, -0.1, 0.2, 0.3, 0.1, 0.2, 0.2])
    exact = permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=9_999).pvalue

    found = alone(differences, families)

    assert found.p == pytest.approx([exact])
    assert found.p > alone(differences).p
    assert found.families == 7
    assert found.difference == pytest.approx([differences.mean()])


def test_the_interval_is_students_for_normal_differences() -> None:
    differences = np.random.default_rng(0).standard_normal(56)
    reach = t.isf(0.025, 55) * differences.std(ddof=1) / np.sqrt(56)

    found = alone(differences)

    assert (found.low + found.high) / 2 == pytest.approx([differences.mean()])
    assert (found.high - found.low) / 2 == pytest.approx([reach], rel=0.05)


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=9), st.floats(-0.5, 0.5))
@settings(max_examples=50, deadline=None)
def test_interval_and_p_agree(differences: list[float], shift: float) -> None:
    found = alone(np.array(differences) + shift)

    assert bool(found.p_adjusted[0] < 0.05) == bool(found.low[0] > 0 or found.high[0] < 0)


@pytest.mark.parametrize("alpha", [0.1, 0.0625, 0.05, 0.01])
def test_the_minimum_number_of_families_for_significance_is_correct(alpha: float) -> None:
    n = families_needed(alpha)
    enough, too_few = alone(np.arange(1.0, n + 1), alpha=alpha), alone(np.arange(1.0, n), alpha=alpha)

    assert (enough.p < alpha, too_few.p >= alpha) == (True, True)
    assert (enough.needed, too_few.needed) == (n, n)
    assert (too_few.low, too_few.high) == (-np.inf, np.inf)


def test_zero_differences_are_not_significant_and_constant_ones_have_no_interval_width() -> None:
    assert alone(np.zeros(20)).p == 1
    same = alone(np.full(8, 0.25))

    assert (same.low, same.high) == pytest.approx((0.25, 0.25))
    assert same.p == pytest.approx(1 / 2**7)


def test_a_duel_without_tasks_and_an_empty_list_are_accepted() -> None:
    found = max_t(np.array([[np.nan, np.nan], [0.1, np.nan]]), np.arange(2), **HOW)

    assert np.isnan(found.difference).tolist() == [True, False]
    assert found.families.tolist() == [0, 1]
    assert len(max_t(np.empty((0, 3)), np.arange(3), **HOW).p) == 0
    assert max_t(np.empty((1, 0)), np.arange(0), **HOW).families.tolist() == [0]


# ----------------------------------------------------------------------------------------------------------- many duels


def test_an_adjusted_p_is_the_share_of_flips_in_which_any_duel_reaches_it() -> None:
    differences = duels_of(np.random.default_rng(1).standard_normal((4, 8)) + np.array([[0.0], [0.4], [0.8], [2.0]]))

    def statistics(rows: Array) -> Array:
        return np.asarray(abs(rows.sum(axis=1)) / np.sqrt((rows**2).sum(axis=1)))

    flipped = [statistics(differences * signs) for signs in itertools.product([-1, 1], repeat=8)]
    expected = [np.mean([max(one) >= own - 1e-12 for one in flipped]) for own in statistics(differences)]

    found = max_t(differences, np.arange(8), **HOW)

    assert found.p_adjusted == pytest.approx(expected)
    assert (found.p <= found.p_adjusted).all()


def test_a_missing_task_is_left_out_of_its_systems_duels() -> None:
    table = np.random.default_rng(2).standard_normal((3, 10)) + np.arange(3.0)[:, None]
    table[0, 3] = np.nan

    found = max_t(duels_of(table), np.arange(10), **HOW)

    assert found.families.tolist() == [9, 9, 10]
    for duel, difference in enumerate(duels_of(table)):
        kept = difference[np.isfinite(difference)]
        assert found.difference[duel] == pytest.approx(kept.mean())
        assert found.p[duel] == pytest.approx(alone(kept).p[0])


def test_forty_systems_are_separated_when_holms_method_separates_none() -> None:
    rng = np.random.default_rng(3)
    differences = duels_of(rng.standard_normal((40, 1)) * 0.05 + rng.standard_normal((40, 41)) * 0.04)

    found = max_t(differences, np.arange(41), **HOW)

    assert (found.p_adjusted < 0.05).mean() > 0.4
    assert sum(p < 0.05 for p in holm(found.p.tolist())) == 0


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    differences = duels_of(np.random.default_rng(4).standard_normal((5, 30)))

    first, again, other = (max_t(differences, np.arange(30), **HOW | {"seed": seed}) for seed in (1, 1, 2))

    assert (first.p == again.p).all()
    assert (first.p != other.p).any()


# ------------------------------------------------------------------------------------------------ against a known truth


def plausible(hits: int, trials: int, low: float, high: float) -> bool:
    """Check whether a rate between low and high explains the number of hits; wrong once in a thousand."""
    return bool(binom.ppf(0.0005, trials, low) <= hits <= binom.ppf(0.9995, trials, high))


DRAWS: dict[str, Callable[[np.random.Generator, Any], Array]] = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "heavy tails": lambda rng, size: rng.standard_t(3, size),
    "skewed": lambda rng, size: rng.exponential(size=size),
}
FAMILIES = np.repeat(np.arange(30), [4, 3, 2, 2, *[1] * 26])


def leaderboard(rng: np.random.Generator, kind: str, means: Array) -> Array:
    """Draw scores of systems on 37 tasks; the tasks of a family share most of the effect of a system."""
    own, shared = DRAWS[kind](rng, (len(means), len(FAMILIES))), DRAWS[kind](rng, (len(means), 30))
    return np.asarray(means[:, None] + 0.5 * own + 0.9 * shared[:, FAMILIES] + rng.standard_normal(len(FAMILIES)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", DRAWS)
def test_a_leaderboard_of_equals_has_a_false_finding_in_one_of_twenty_at_most(kind: str) -> None:
    rng, trials, wrong, by_task, unadjusted = np.random.default_rng(0), 600, 0, 0, 0
    for i in range(trials):
        differences = duels_of(leaderboard(rng, kind, np.zeros(12)))
        found = max_t(differences, FAMILIES, alpha=0.05, resamples=999, seed=i)
        wrong += found.p_adjusted.min() < 0.05
        unadjusted += found.p.min() < 0.05
        by_task += max_t(differences, np.arange(len(FAMILIES)), alpha=0.05, resamples=999, seed=i).p.min() < 0.05

    assert plausible(wrong, trials, 0.02, 0.05)
    assert unadjusted > 0.4 * trials  # what would come of no adjustment
    assert by_task > unadjusted  # and of families that are taken for independent tasks


@pytest.mark.slow
def test_if_some_systems_differ_no_equal_one_is_called_better() -> None:
    rng, trials, wrong = np.random.default_rng(1), 600, 0
    means = np.repeat([0.0, 1.5, 4.0], 4)
    first, second = np.triu_indices(12, 1)
    for i in range(trials):
        found = max_t(duels_of(leaderboard(rng, "normal", means)), FAMILIES, alpha=0.05, resamples=999, seed=i)
        wrong += (found.p_adjusted[means[first] == means[second]] < 0.05).any()

    assert plausible(wrong, trials, 0.005, 0.05)


@pytest.mark.slow
def test_it_finds_all_of_holms_differences_and_more_with_many_systems() -> None:
    rng, shares = np.random.default_rng(2), {}
    for systems in (4, 12, 40):
        found = holms = true = 0
        for i in range(20):
            means = 0.8 * rng.standard_normal(systems)
            tested = max_t(duels_of(leaderboard(rng, "normal", means)), FAMILIES, alpha=0.05, resamples=9_999, seed=i)
            found += int((tested.p_adjusted < 0.05).sum())
            holms += sum(p < 0.05 for p in holm(tested.p.tolist()))
            true += len(tested.p)
        shares[systems] = found / true, holms / true

    assert shares[4][0] > shares[4][1] - 0.03
    assert shares[12][0] > shares[12][1] - 0.03
    assert shares[40][0] > 0.25
    assert shares[40][1] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "low"), [("normal", 0.94), ("heavy tails", 0.94), ("skewed", 0.94)])
def test_intervals_contain_all_true_differences_jointly(kind: str, low: float) -> None:
    rng, trials, held = np.random.default_rng(3), 600, 0
    means = np.linspace(0, 3, 6)
    for i in range(trials):
        found = max_t(duels_of(leaderboard(rng, kind, means)), FAMILIES, alpha=0.05, resamples=999, seed=i)
        truth = duels_of(means[:, None])[:, 0]
        held += bool(((found.low <= truth) & (truth <= found.high)).all())

    assert plausible(held, trials, low, 0.98)


@pytest.mark.parametrize("kind", DRAWS)
def test_ranges_of_ranks_contain_all_true_ranks_jointly(kind: str) -> None:
    rng, trials, held, single = np.random.default_rng(4), 1_000, 0, 0
    means = np.array([4.0, 3.8, 2.5, 2.4, 2.3, 1.0, 0.0, -2.0])
    first, second = np.triu_indices(len(means), 1)
    for i in range(trials):
        found = max_t(duels_of(leaderboard(rng, kind, means)), FAMILIES, alpha=0.05, resamples=499, seed=i)
        sure, ahead = found.p_adjusted < 0.05, found.difference > 0
        winners, losers = np.where(ahead, first, second)[sure], np.where(ahead, second, first)[sure]
        ranges = possible_ranks(len(means), zip(winners.tolist(), losers.tolist(), strict=True))
        held += all(low <= rank <= high for rank, (low, high) in enumerate(ranges, 1))
        single += sum(low == high for low, high in ranges)

    assert plausible(held, trials, 0.95, 1)
    assert single > 0.5 * trials  # the ranges are not so wide that they say nothing


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "truth"), [("normal", 0.0), ("heavy tails", 0.0), ("skewed", 1.0)])
@pytest.mark.parametrize("n", [10, 20, 56])
def test_the_interval_of_one_duel_contains_its_true_mean(kind: str, truth: float, n: int) -> None:
    rng, trials = np.random.default_rng(n), 1_500

    found = [alone(DRAWS[kind](rng, n), resamples=999, seed=i) for i in range(trials)]

    assert plausible(sum(bool(one.low <= truth <= one.high) for one in found), trials, 0.90, 0.98)
