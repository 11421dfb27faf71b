from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, bootstrap, permutation_test, rankdata, spearmanr
from sklearn.metrics import average_precision_score, precision_recall_curve

from stella_mteb.statistics import paired as statistics
from stella_mteb.statistics.paired import (
    Difference,
    Part,
    holm,
    of_weights,
    paired_differences,
    scores,
)
from tests.support.paired import paired_difference

HOW: dict[str, Any] = {"alpha": 0.05, "resamples": 1_999, "seed": 0}
Array = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def simulated(kind: str, n: int, rng: np.random.Generator, noise: tuple[float, float] = (0.7, 0.7)) -> Any:
    """Gold scores and two systems that see the truth through noise, on different scales; ties in gold and first."""
    truth = rng.standard_normal(n)
    first, second = (truth + size * rng.standard_normal(n) for size in noise)
    if kind == "mean":
        return None, np.clip(np.round(4 * first) / 4 + 0.5, 0, 1), np.clip(np.round(4 * second) / 4 + 0.5, 0, 1)
    gold = (truth > 1).astype(float) if kind == "ap" else np.clip(np.round(2.5 + 1.2 * truth), 0, 5)
    return gold, np.round(first, 1), np.exp(second)


def score(kind: str, gold: Array, values: Array) -> float:
    """Compute it with the libraries."""
    if kind == "mean":
        return float(values.mean())
    if kind == "spearman":
        return float(spearmanr(gold, values)[0])
    precision, recall, _ = precision_recall_curve(gold, values)  # half the time of average_precision_score
    return float(-np.sum(np.diff(recall) * precision[:-1]))


# -------------------------------------------------------------------------------------------------------- scores


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), min_size=3, max_size=30))
@settings(max_examples=50, deadline=None)
def test_spearman_with_ties_equals_scipy(rows: list[tuple[int, int]]) -> None:
    gold, values = np.array(rows, dtype=float).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = spearmanr(gold, values)[0]

    found = scores(Part("spearman", gold, values[None]))[0]

    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_average_precision_with_ties_equals_sklearn(rows: list[tuple[bool, int]]) -> None:
    gold, values = np.array([*rows, (True, 0)], dtype=float).T

    found = scores(Part("ap", gold, values[None]))[0]

    assert found == pytest.approx(average_precision_score(gold, values), abs=1e-12)


@given(kind=st.sampled_from(["spearman", "ap", "mean"]), seed=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_weight_of_three_equals_three_copies(kind: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold, *systems = simulated(kind, 30, rng)
    gold = None if gold is None else np.append(gold, [0, 1])
    values = np.array([np.append(system, [0.1, 0.2]) for system in systems])
    weights = np.append(rng.integers(0, 4, (5, 30)), np.ones((5, 2)), axis=1).astype(int)

    found = of_weights(Part(kind, gold, values))(weights.astype(float))

    for column, row in enumerate(weights):
        repeated = [None if one is None else np.repeat(one, row) for one in (gold, *values)]
        expected = [score(kind, repeated[0], one) for one in repeated[1:]]
        assert found[:, column] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "gold", "values"),
    [
        ("spearman", [2, 2, 2], [1, 2, 3]),
        ("spearman", [1, 2, 3], [2, 2, 2]),
        ("spearman", [1], [1]),
        ("ap", [0, 0], [1, 2]),
    ],
)
def test_an_undefined_score_is_nan_without_a_warning(kind: Any, gold: list[float], values: list[float]) -> None:
    assert np.isnan(scores(Part(kind, np.array(gold, float), np.array([values], float)))[0])


def test_a_rank_score_without_gold_is_refused() -> None:
    with pytest.raises(ValueError, match="spearman needs gold"):
        scores(Part("spearman", None, np.ones((1, 3))))


# -------------------------------------------------------------------------------------- two systems, the same items


def test_bias_and_acceleration_equal_scipy() -> None:
    """A biased statistic of skewed data gives the same interval from the same draws."""
    data = np.random.default_rng(0).exponential(size=25)
    drawn = bootstrap((data,), np.var, n_resamples=999, method="BCa", rng=np.random.default_rng(0))
    left_out = np.array([np.delete(data, i).var() for i in range(25)])

    found = statistics._bca(data.var(), drawn.bootstrap_distribution, [left_out], 0.05)

    assert found == pytest.approx(tuple(drawn.confidence_interval), abs=1e-9)
    assert found != pytest.approx(tuple(np.quantile(drawn.bootstrap_distribution, [0.025, 0.975])), rel=0.1)


@pytest.mark.parametrize("kind", ["spearman", "ap", "mean"])
def test_the_interval_equals_scipys_paired_bca_bootstrap(kind: Any) -> None:
    gold, first, second = simulated(kind, 120, np.random.default_rng(3), (0.5, 0.8))
    labels = first if gold is None else gold
    drawn = bootstrap(
        (np.arange(120),),
        lambda i: score(kind, labels[i], first[i]) - score(kind, labels[i], second[i]),
        vectorized=False,
        n_resamples=3_000,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval

    found = paired_difference(kind, gold, first, second, alpha=0.05, resamples=9_999, seed=0)

    assert found is not None
    assert found.value == pytest.approx(score(kind, gold, first) - score(kind, gold, second))
    assert (found.low, found.high) == pytest.approx(drawn, abs=0.06 * (drawn.high - drawn.low))


def test_the_interval_over_parts_equals_scipys_bca_bootstrap_of_several_samples() -> None:
    rng = np.random.default_rng(4)
    gains = [rng.exponential(size=30), rng.exponential(3, size=60)]
    drawn = bootstrap(
        gains,
        lambda a, b, axis: (a.mean(axis=axis) + b.mean(axis=axis)) / 2,
        n_resamples=20_000,
        method="BCa",
        rng=rng,
    ).confidence_interval
    parts = [Part("mean", None, np.stack([gain, np.zeros_like(gain)])) for gain in gains]

    found = paired_differences(parts, alpha=0.05, resamples=20_000, seed=0)[0, 1]

    assert found is not None
    assert found.value == pytest.approx((gains[0].mean() + gains[1].mean()) / 2)
    assert (found.low, found.high) == pytest.approx(drawn, abs=0.04 * (drawn.high - drawn.low))


def test_a_grouped_jackknife_gives_the_interval_of_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gain = np.random.default_rng(6).lognormal(size=1_200)
    both = ("mean", None, gain, np.zeros_like(gain))
    one_by_one = paired_difference(*both, **HOW)
    monkeypatch.setattr(statistics, "_LEFT_OUT", 400)

    grouped = paired_difference(*both, **HOW)

    assert one_by_one is not None
    assert grouped is not None
    width = one_by_one.high - one_by_one.low
    assert (grouped.low, grouped.high) == pytest.approx((one_by_one.low, one_by_one.high), abs=0.03 * width)


@pytest.mark.parametrize("kind", ["spearman", "ap", "mean"])
def test_p_equals_scipys_permutation_test_of_samples(kind: Any) -> None:
    gold, first, second = simulated(kind, 60, np.random.default_rng(13), (0.5, 0.9))
    ranked = (first, second) if kind == "mean" else (rankdata(first), rankdata(second))

    def difference(a: Array, b: Array) -> float:
        if kind == "spearman":  # of ranks that are not ranked again
            return float(np.corrcoef(rankdata(gold), a)[0, 1] - np.corrcoef(rankdata(gold), b)[0, 1])
        return score(kind, gold, a) - score(kind, gold, b)

    expected = permutation_test(
        ranked, difference, permutation_type="samples", n_resamples=2_000, rng=np.random.default_rng(1)
    ).pvalue

    found = paired_difference(kind, gold, first, second, alpha=0.05, resamples=9_999, seed=0)

    assert found is not None
    assert 0.005 < found.p < 0.5
    assert found.p == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 2_000))


@given(kind=st.sampled_from(["spearman", "ap", "mean"]), seed=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_swap_exchanges_the_values_of_both_systems(kind: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold, *systems = simulated(kind, 30, rng)
    gold = None if gold is None else np.append(gold, [0, 1])
    both = np.array([np.append(one, [0.1, 0.2]) for one in systems])
    kept = rng.integers(0, 2, 32)

    found = statistics._after_swaps(Part(kind, gold, both))(kept[None].astype(float))

    ranked = both if kind == "mean" else rankdata(both, axis=1)
    swapped = np.where(kept, ranked[0], ranked[1]), np.where(kept, ranked[1], ranked[0])
    if kind == "spearman":
        first, second = (np.corrcoef(rankdata(gold), one)[0, 1] for one in swapped)
    else:
        first, second = (score(kind, gold, one) for one in swapped)
    assert found[0, 0] == pytest.approx(first - second, abs=1e-12)


@pytest.mark.parametrize("kind", ["spearman", "ap", "mean"])
def test_identical_systems_have_difference_zero_and_p_one(kind: Any) -> None:
    gold, first, _ = simulated(kind, 80, np.random.default_rng(0))

    assert paired_difference(kind, gold, first, first, **HOW) == Difference(0, 0, 0, 1)


@pytest.mark.parametrize("kind", ["spearman", "ap"])
def test_the_scale_of_values_has_no_effect(kind: Any) -> None:
    gold, first, second = simulated(kind, 80, np.random.default_rng(1))

    assert paired_difference(kind, gold, first**3, second, **HOW) == paired_difference(
        kind, gold, first, np.log(second), **HOW
    )


@pytest.mark.parametrize("kind", ["spearman", "ap", "mean"])
def test_exchanged_systems_change_all_signs_and_not_p(kind: Any) -> None:
    gold, first, second = simulated(kind, 80, np.random.default_rng(2), (0.5, 0.8))

    one = paired_difference(kind, gold, first, second, **HOW)
    other = paired_difference(kind, gold, second, first, **HOW)

    assert one is not None
    assert other is not None
    assert (other.value, other.low, other.high) == pytest.approx((-one.value, -one.high, -one.low), abs=1e-9)
    assert other.p == pytest.approx(one.p, abs=0.02)


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    data = simulated("spearman", 80, np.random.default_rng(2))

    first, again, other = (paired_difference("spearman", *data, **{**HOW, "seed": seed}) for seed in (1, 1, 2))

    assert first == again != other


def test_systems_compared_together_have_the_figures_of_each_pair() -> None:
    rng = np.random.default_rng(5)
    gold, first, second = simulated("spearman", 60, rng)
    systems = [first, second, gold + rng.standard_normal(60)]

    together = paired_differences([Part("spearman", gold, np.array(systems))], **HOW)

    assert list(together) == [(0, 1), (0, 2), (1, 2)]
    for (i, j), found in together.items():
        assert found == paired_difference("spearman", gold, systems[i], systems[j], **HOW)


def test_a_system_without_comparable_items_does_not_affect_the_others() -> None:
    gold, first, second = simulated("spearman", 60, np.random.default_rng(5))
    broken = [
        np.full(60, 0.3),
        np.where(np.arange(60) == 7, np.nan, first),
        np.where(np.arange(60) == 7, np.inf, first),
    ]

    found = paired_differences([Part("spearman", gold, np.stack([*broken, first, second]))], **HOW)

    assert {pair for pair, one in found.items() if one} == {(3, 4)}
    assert found[3, 4] == paired_difference("spearman", gold, first, second, **HOW)


@pytest.mark.parametrize(
    ("kind", "gold"),
    [
        ("spearman", np.ones(40)),
        ("spearman", np.arange(19.0)),
        ("spearman", np.ones(1)),
        ("mean", np.zeros(19)),
        ("ap", np.arange(40) < 9),
        ("ap", np.arange(40) >= 9),
        ("ap", np.zeros(40)),
    ],
)
def test_too_few_items_or_constant_ratings_give_no_interval(kind: Any, gold: Array) -> None:
    first, second = np.random.default_rng(0).standard_normal((2, len(gold)))

    assert paired_difference(kind, None if kind == "mean" else gold.astype(float), first, second, **HOW) is None


def test_a_resample_of_constant_ratings_is_ignored() -> None:
    gold = (np.arange(25) == 24).astype(float)
    first, second = np.arange(25.0), np.roll(np.arange(25.0), 9)

    found = paired_difference("spearman", gold, first, second, **HOW)

    assert found is not None
    assert 0 < found.low < found.value <= found.high


def test_a_clear_difference_is_found_and_its_interval_is_on_its_side() -> None:
    found = paired_difference("spearman", *simulated("spearman", 300, np.random.default_rng(0), (0.3, 1.0)), **HOW)

    assert found is not None
    assert found.p == 1 / 2_000
    assert 0 < found.low < found.value < found.high


def test_ten_thousand_items_take_bounded_memory() -> None:
    data = simulated("spearman", 10_000, np.random.default_rng(0))
    tracemalloc.start()

    paired_difference("spearman", *data, alpha=0.05, resamples=500, seed=0)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6  # the resamples themselves are 40 MB, the jackknife's 160 MB


# ---------------------------------------------------------------------------------------------------- many systems


def test_holms_adjustment_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_holm_lies_between_no_adjustment_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)

    assert all(one <= more <= min(1, len(p) * one) + 1e-15 for one, more in zip(p, adjusted, strict=True))
    assert [adjusted[i] for i in np.argsort(p, kind="stable")] == sorted(adjusted)


# ------------------------------------------------------------------------------------------- against a known truth


def plausible(hits: int, trials: int, low: float, high: float) -> bool:
    """Check whether a rate between low and high explains the number of hits; wrong once in a thousand."""
    return bool(binom.ppf(0.0005, trials, low) <= hits <= binom.ppf(0.9995, trials, high))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "n", "low"), [("spearman", 300, 0.93), ("mean", 200, 0.93), ("ap", 1_000, 0.92)])
def test_intervals_over_items_contain_the_true_difference(kind: Any, n: int, low: float) -> None:
    rng, noise, trials = np.random.default_rng(1), (0.5, 0.9), 400
    gold, first, second = simulated(kind, 2_000_000, rng, noise)
    truth = score(kind, gold, first) - score(kind, gold, second)

    found = [
        paired_difference(kind, *simulated(kind, n, rng, noise), alpha=0.05, resamples=999, seed=i)
        for i in range(trials)
    ]

    assert plausible(sum(one.low <= truth <= one.high for one in found if one), trials, low, 0.96)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "n"), [("spearman", 40), ("spearman", 300), ("mean", 100), ("ap", 300)])
def test_the_test_over_items_has_the_nominal_error_rate(kind: Any, n: int) -> None:
    rng, trials = np.random.default_rng(2), 800

    found = [
        paired_difference(kind, *simulated(kind, n, rng), alpha=0.05, resamples=499, seed=i) for i in range(trials)
    ]

    assert plausible(sum(one.p <= 0.05 for one in found if one), sum(map(bool, found)), 0.02, 0.05)
