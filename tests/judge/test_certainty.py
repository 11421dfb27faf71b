"""Uncertainty of a ranking: compared with scipy, in simulations of equal models, and on the published judges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from stella_mteb.judge.certainty import Certainty, certainty, ties_in_words
from stella_mteb.judge.ranking import rank_models
from stella_mteb.judge.reports import Result
from stella_mteb.statistics.max_t import possible_ranks
from tests.conftest import Call, needs_shared
from tests.support.judging import JUDGES, of_clips, of_means, published_pairs


def judged(scores: np.ndarray) -> dict[str, dict[str, Result]]:
    """Results of [judges, models, clips]."""
    return of_clips(
        {
            f"j{j}": {f"m{m}": {f"{c:03}": float(x) for c, x in enumerate(row)} for m, row in enumerate(table)}
            for j, table in enumerate(scores)
        }
    )


def sure_of(scores: np.ndarray) -> Certainty:
    results = judged(scores)
    found = certainty(results, rank_models(results)[0])
    assert found is not None
    return found


def some_models(gaps: list[float], clips: int = 60, judges: int = 2) -> np.ndarray:
    """Models that far below the first, on clips that differ by more than they do."""
    rng = np.random.default_rng(7)
    hard = rng.normal(size=clips)
    return 0.5 - np.array(gaps)[:, None] + hard + rng.normal(size=(judges, len(gaps), clips)) * 0.1


def test_an_interval_is_scipys_bootstrap_of_the_mean_over_judges() -> None:
    scores = some_models([0, 0.1])

    low, high = sure_of(scores).intervals["m0"]
    theirs = bootstrap(
        [scores[:, 0].mean(axis=0)], np.mean, method="percentile", n_resamples=4_000, rng=np.random.default_rng(1)
    )

    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.03)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.03)


def test_two_models_p_value_is_scipys_paired_permutation_test() -> None:
    scores = some_models([0, 0.03], clips=14)
    theirs = permutation_test(
        scores.mean(axis=0), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples", n_resamples=20_000
    )

    (duel,) = sure_of(scores).duels

    assert duel.p == pytest.approx(theirs.pvalue, abs=0.02)
    assert duel.p_adjusted == pytest.approx(duel.p)  # of one duel there is nothing to correct


def test_clear_models_keep_their_rank_and_near_ones_share_a_range_and_a_sentence() -> None:
    found = sure_of(some_models([0, 0.3, 0.302, 0.6]))

    assert list(found.ranks.values()) == [(1, 1), (2, 3), (2, 3), (4, 4)]
    tied, words = [duel for duel in found.duels if duel.is_tie], ties_in_words(found)
    assert [{duel.first, duel.second} for duel in tied] == [{"m1", "m2"}]
    assert words[0].startswith("5 of 6 pairs of models differ significantly (paired tests on 60 clips")
    assert len(words) == 2
    assert words[1].startswith(f"{tied[0].first} cannot be told apart from {tied[0].second} (difference +")


def test_of_equal_models_one_ranking_in_twenty_claims_any_difference() -> None:
    rng = np.random.default_rng(3)
    worlds = [sure_of(rng.normal(size=(1, 5, 25))) for _ in range(100)]

    claimed = sum(any(not duel.is_tie for duel in found.duels) for found in worlds)

    assert claimed <= 11  # of 100 with probability .05 each, more has probability .004


def test_too_few_clips_are_said_to_be_too_few() -> None:
    found = sure_of(some_models([0, 1, 2], clips=5))

    assert ties_in_words(found) == [
        f"No difference can be significant on 5 clips: a test of these models needs {found.needed}."
    ]


def test_without_scores_by_clip_nothing_is_claimed() -> None:
    results = of_means({"x": {"a": 0.9, "b": 0.5}})

    assert certainty(results, rank_models(results)[0]) is None


def test_a_range_of_ranks_counts_who_is_certainly_better_and_who_is_certainly_worse() -> None:
    assert possible_ranks(3, [(0, 1), (0, 2), (1, 2)]) == [(1, 1), (2, 2), (3, 3)]
    assert possible_ranks(3, []) == [(1, 3)] * 3
    # The one in the third place beats the first: the ranges follow the duel, not the order shown.
    assert possible_ranks(3, [(2, 0)]) == [(2, 3), (1, 3), (1, 2)]


@needs_shared
def test_the_published_judges_tell_all_nine_models_apart_and_their_ranking_is_exact(tmp_path: Path, call: Call) -> None:
    rows = published_pairs()
    for judge in JUDGES:
        for model in {row["vlm"] for row in rows}:
            own = {row["video_id"]: float(row[f"{judge}_hm_cf"]) for row in rows if row["vlm"] == model}
            means = {"hybrid_stats": {"hm_cf": {"mean": float(np.mean([*own.values()]))}}}
            pairs = [{"video_id": clip, "hm_cf": score} for clip, score in own.items()]
            for kind, content in (("pairs", pairs), ("aggregated", means)):
                path = tmp_path / kind / judge / f"{model}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(content))

    code, out, _ = call("rank", tmp_path, "--format", "json")
    ranking = json.loads(out)

    assert code == 0
    assert [row["slug"] for row in ranking] == [
        "videollama3", "llava_one_vision", "longvu", "Qwen2.5-32B", "minicpm", "sharegpt4", "timechat", "ts_llava",
        "longva",
    ]  # fmt: skip
    assert [row["borda"] for row in ranking] == [40, 35, 30, 25, 20, 14, 11, 5, 0]
    assert [(row["best_rank"], row["worst_rank"]) for row in ranking] == [(rank, rank) for rank in range(1, 10)]
    assert all(row["low"] < row["mean_hm_cf"] < row["high"] for row in ranking)
    duels = [duel for row in ranking for duel in row["duels"]]
    assert len(duels) == 36
    nearest = max(duels, key=lambda duel: duel["p_adjusted"])
    assert (nearest["first"], nearest["second"]) == ("Qwen2.5-32B", "minicpm")
    assert nearest["p_adjusted"] == pytest.approx(0.045, abs=0.004)
