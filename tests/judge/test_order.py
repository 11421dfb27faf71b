"""The order measure, compared with a search over all monotone alignments, and on the bundled faults."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.judge.order import monotone_share, order_kept
from stella_mteb.judge.similarity import harmonic_mean


@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(st.integers(1, 5), st.integers(1, 5)), seed=st.integers(0, 2**32 - 1))
def test_it_is_the_best_of_all_alignments_that_never_go_back(shape: tuple[int, int], seed: int) -> None:
    cosines = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
    alignments = itertools.combinations_with_replacement(range(shape[1]), shape[0])
    best = max(np.mean([row[match] for row, match in zip(cosines, own, strict=True)]) for own in alignments)

    assert monotone_share(cosines) == pytest.approx(best, abs=1e-6)


def f1_of(cosines: np.ndarray) -> float:
    return harmonic_mean(float(cosines.max(axis=1).mean()), float(cosines.max(axis=0).mean()))


def test_a_kept_order_is_one_and_a_turned_one_is_less() -> None:
    alike = np.eye(4, dtype=np.float32) * 0.8 + 0.1

    assert order_kept(alike, f1_of(alike)) == pytest.approx(1)
    # Turned round, at best one of four sentences is matched on either side.
    assert order_kept(alike[::-1], f1_of(alike)) == pytest.approx((0.9 + 3 * 0.1) / 4 / 0.9)


def test_a_single_sentence_has_no_order() -> None:
    assert order_kept(np.ones((1, 3), dtype=np.float32), 1.0) is None
    assert order_kept(np.ones((3, 1), dtype=np.float32), 1.0) is None
    assert order_kept(-np.ones((2, 2), dtype=np.float32), 0.0) is None


@pytest.mark.slow
def test_it_finds_swapped_events_where_hm_cf_does_not(minilm) -> None:
    from stella_mteb.harness.task_yaml import bundled_tasks
    from stella_mteb.judge.judge import TextVectors
    from stella_mteb.judge.similarity import score_pair

    folder = bundled_tasks()["VideoSummarySTS"].path.parent
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()]
    pairs = [row for row in pairs if row["fault"] in {"paraphrase", "order_swap"}]
    vectors = TextVectors(
        minilm, "", dict.fromkeys(text for row in pairs for text in (row["reference"], row["candidate"]))
    )
    scores = [score_pair(vectors[row["reference"]], vectors[row["candidate"]]) for row in pairs]

    def auc(measure: str) -> float:
        swapped, faithful = (
            np.array(
                [getattr(score, measure) for score, row in zip(scores, pairs, strict=True) if row["fault"] == fault]
            )
            for fault in ("order_swap", "paraphrase")
        )
        return float((swapped[:, None] < faithful[None]).mean())

    assert auc("order") == pytest.approx(0.964, abs=0.003)
    assert auc("hm_cf") == pytest.approx(0.011, abs=0.003)
