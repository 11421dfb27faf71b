"""The scores of a pair of texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stella_mteb.judge.similarity import harmonic_mean, score_pair
from tests.conftest import needs_shared
from tests.support.judging import (
    FIGURES,
    JUDGES,
    brute_force,
    figures,
    published_pairs,
)


def unit_rows(generator: np.random.Generator, rows: int, dimension: int) -> np.ndarray:
    vectors = generator.normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(
    sentences=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    dimension=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_pairs_numbers_are_those_of_a_double_loop_over_its_sentences(
    sentences: tuple[int, int], dimension: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    reference, other = (unit_rows(generator, 1 + count, dimension) for count in sentences)
    expected = brute_force(reference, other)
    # A cosine that is zero but for rounding may fall on either side of it, where the harmonic mean jumps.
    assume(all(abs(value) > 1e-5 for value in expected[:3]))

    score = score_pair(reference, other)

    # Near zero a harmonic mean is a quotient of two small numbers and keeps fewer digits.
    assert figures(score)[:3] == pytest.approx(expected[:3], abs=1e-6)
    assert figures(score)[3:] == pytest.approx(expected[3:], abs=1e-5)
    assert (score.num_reference_sentences, score.num_candidate_sentences) == sentences


@settings(max_examples=50, deadline=None)
@given(counts=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 2**32 - 1))
def test_swapping_the_sides_swaps_precision_and_recall_and_nothing_else(counts: tuple[int, int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    one, two = (unit_rows(generator, 1 + count, 8) for count in counts)

    there, back = score_pair(one, two), score_pair(two, one)

    assert there.precision == pytest.approx(back.recall, abs=1e-6)
    assert there.recall == pytest.approx(back.precision, abs=1e-6)
    assert there.coarse == pytest.approx(back.coarse, abs=1e-6)


def rows(*vectors: tuple[float, float]) -> np.ndarray:
    return np.array(vectors, dtype=np.float32)


RIGHT, UP, DOWN, LEFT, BETWEEN = (1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (-1.0, 0.0), (0.6, 0.8)


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        # One of two reference sentences is told: precise, but half is missing.
        (rows(BETWEEN, RIGHT, UP), rows(RIGHT, RIGHT), [0.6, 1.0, 0.5, 2 / 3, 12 / 19]),
        # Everything is told, and as much again that is not in the reference.
        (rows(RIGHT, RIGHT), rows(BETWEEN, RIGHT, UP), [0.6, 0.5, 1.0, 2 / 3, 12 / 19]),
        # Another order of the same sentences is a full match of the sentences.
        (rows(BETWEEN, RIGHT, UP), rows(BETWEEN, UP, RIGHT), [1.0, 1.0, 1.0, 1.0, 1.0]),
        # A sentence said twice counts twice in the precision.
        (rows(RIGHT, RIGHT), rows(RIGHT, RIGHT, UP, UP), [1.0, 1 / 3, 1.0, 0.5, 2 / 3]),
        # The best match is what counts, even where every match is bad.
        (rows(RIGHT, RIGHT, LEFT), rows(RIGHT, UP), [1.0, 0.0, 0.0, 0.0, 0.0]),
        # The whole texts are opposite: HM-CF is 0 and not a negative or a huge number.
        (rows(RIGHT, RIGHT), rows(LEFT, RIGHT), [-1.0, 1.0, 1.0, 1.0, 0.0]),
        # Precision is negative: F1 is 0, hence HM-CF too.
        (rows(RIGHT, UP), rows(RIGHT, DOWN), [1.0, -1.0, -1.0, 0.0, 0.0]),
    ],
)
def test_hand_computed_pairs(reference: np.ndarray, other: np.ndarray, expected: list[float]) -> None:
    assert figures(score_pair(reference, other)) == pytest.approx(expected, abs=1e-6)


def test_no_cosine_is_above_one() -> None:
    """A vector of unit length times itself is 1.0000001 in float32, as often as not."""
    generator = np.random.default_rng(0)
    for _ in range(200):
        vectors = unit_rows(generator, 4, 384)

        assert max(figures(score_pair(vectors, vectors))) <= 1
        assert score_pair(vectors, -vectors[:2]).coarse >= -1


SIMILARITY = st.floats(-1, 1, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(a=SIMILARITY, b=SIMILARITY)
def test_the_harmonic_mean_is_symmetric_and_zero_unless_both_are_positive(a: float, b: float) -> None:
    mean = harmonic_mean(a, b)

    assert mean == harmonic_mean(b, a)
    if a <= 0 or b <= 0:
        assert mean == 0
    else:
        assert min(a, b) * (1 - 1e-12) <= mean <= max(a, b) * (1 + 1e-12) or mean == pytest.approx(0, abs=1e-150)


@pytest.mark.parametrize(("a", "b", "mean"), [(1, 1, 1), (1, 0.5, 2 / 3), (0.2, 0.8, 0.32), (0, 1, 0), (-0.5, 1, 0)])
def test_harmonic_means_by_hand(a: float, b: float, mean: float) -> None:
    assert harmonic_mean(a, b) == pytest.approx(mean, abs=1e-15)


@needs_shared
@pytest.mark.parametrize("name", JUDGES)
def test_the_published_hm_cf_and_f1_are_harmonic_means(name: str) -> None:
    """The definitions are those of the benchmark: all five judges recorded what these functions give."""
    worst_f1 = worst_hm_cf = 0.0
    for row in published_pairs():
        value = {figure: float(row[f"{name}_{figure}"]) for figure in FIGURES}
        worst_f1 = max(worst_f1, abs(harmonic_mean(value["precision"], value["recall"]) - value["f1"]))
        worst_hm_cf = max(worst_hm_cf, abs(harmonic_mean(value["coarse"], value["f1"]) - value["hm_cf"]))

    assert len(published_pairs()) == 9 * 199
    assert worst_f1 < 2e-6
    assert worst_hm_cf < 2e-6
