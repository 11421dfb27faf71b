"""The ranking of models from the means of several judges."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.judge.ranking import Apart, RankedModel, means_beside, rank_models
from stella_mteb.judge.reports import Result, read_results
from tests.conftest import SHARED, Call, needs_shared
from tests.support.judging import JUDGES, of_clips, of_means

HmCf = dict[str, dict[str, float]]
# Few distinct values, so that ties are common; thirds and tenths, so that sums are not exact.
MEANS = st.sampled_from([0.1, 0.2, 0.3, 1 / 3, 0.5, 0.7, 0.30000000000000004])


@st.composite
def judges(draw: st.DrawFn) -> HmCf:
    models = [f"m{number}" for number in range(draw(st.integers(1, 6)))]
    count = draw(st.integers(1, 5))
    return {f"j{number}": {model: draw(MEANS) for model in models} for number in range(count)}


def borda_by_hand(hm_cf: HmCf) -> dict[str, float]:
    """A model gets a point from a judge for every model it beats, and half a point for every model it equals."""
    points: dict[str, float] = defaultdict(float)
    for means in hm_cf.values():
        for model, mean in means.items():
            for other, its in means.items():
                if model != other:
                    points[model] += 1.0 if mean > its else 0.5 if mean == its else 0.0
            points[model] += 0.0
    return points


@settings(max_examples=50, deadline=None)
@given(hm_cf=judges())
def test_borda_is_the_number_of_beaten_models_with_ties_shared(hm_cf: HmCf) -> None:
    ranking, incomplete = rank_models(of_means(hm_cf))
    points = borda_by_hand(hm_cf)

    assert incomplete == []
    assert {row.slug: row.borda for row in ranking} == points
    for row in ranking:
        values = [means[row.slug] for means in hm_cf.values()]
        assert row.mean_hm_cf == pytest.approx(sum(values) / len(values), abs=1e-15)
    assert sum(points.values()) == len(hm_cf) * len(points) * (len(points) - 1) / 2


@settings(max_examples=50, deadline=None)
@given(hm_cf=judges())
def test_a_models_rank_is_one_more_than_the_number_of_better_models(hm_cf: HmCf) -> None:
    ranking, _ = rank_models(of_means(hm_cf))
    key = {row.slug: (row.borda, row.mean_hm_cf) for row in ranking}

    assert [row.rank for row in ranking] == [
        1 + sum(other > key[row.slug] for other in key.values()) for row in ranking
    ]
    assert [row.rank for row in ranking] == sorted(row.rank for row in ranking)


@settings(max_examples=50, deadline=None)
@given(hm_cf=judges(), seed=st.integers(0, 1000))
def test_the_order_of_models_and_of_judges_does_not_matter(hm_cf: HmCf, seed: int) -> None:
    shuffle = random.Random(seed)

    def shuffled(content: dict[str, Any]) -> dict[str, Any]:
        return dict(shuffle.sample(list(content.items()), len(content)))

    other = shuffled({name: shuffled(means) for name, means in hm_cf.items()})

    assert rank_models(of_means(other)) == rank_models(of_means(hm_cf))


def test_models_with_the_same_means_in_another_order_share_a_rank() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point, but the two models are equal."""
    ranking, _ = rank_models(
        of_means({"x": {"a": 0.1, "b": 0.3}, "y": {"a": 0.2, "b": 0.2}, "z": {"a": 0.3, "b": 0.1}})
    )

    assert [(row.slug, row.borda, row.rank) for row in ranking] == [("a", 1.5, 1), ("b", 1.5, 1)]


def test_a_tie_is_a_tie_at_full_precision_only() -> None:
    above = np.nextafter(0.5, 1)
    ranking, _ = rank_models(of_means({"x": {"a": 0.5, "b": float(above), "c": 0.5}}))

    assert [(row.slug, row.borda, row.rank) for row in ranking] == [("b", 2.0, 1), ("a", 0.5, 2), ("c", 0.5, 2)]


def test_equal_points_are_decided_by_the_mean_and_the_next_rank_is_left_free() -> None:
    hm_cf = {"x": {"a": 0.9, "b": 0.5, "c": 0.1, "d": 0.1}, "y": {"a": 0.5, "b": 0.6, "c": 0.1, "d": 0.1}}

    ranking, _ = rank_models(of_means(hm_cf))

    assert ranking[0] == RankedModel("a", 5.0, 0.7, 1)
    assert ranking[1] == RankedModel("b", 5.0, 0.55, 2)
    assert [(row.slug, row.rank) for row in ranking[2:]] == [("c", 3), ("d", 3)]
    after, _ = rank_models(of_means({"x": {"a": 0.9, "b": 0.9, "c": 0.1}}))
    assert [row.rank for row in after] == [1, 1, 3]


def test_a_model_that_one_judge_lacks_is_listed_and_takes_no_points_from_others() -> None:
    whole = {"x": {"a": 0.9, "b": 0.5}, "y": {"a": 0.4, "b": 0.5}}
    with_gap = {"x": {**whole["x"], "half": 0.7}, "y": whole["y"]}

    ranking, apart = rank_models(of_means(with_gap))

    assert apart == [Apart("half", 0.7, None, "not every judge has scored it")]
    assert ranking == rank_models(of_means(whole))[0]


def test_judges_without_a_common_model_rank_nothing() -> None:
    ranking, apart = rank_models(of_means({"x": {"a": 0.9}, "y": {"b": 0.4}}))

    assert ranking == []
    assert [one.slug for one in apart] == ["a", "b"]


EASY, HARD = {"1": 0.9}, {f"{clip}": 0.3 for clip in range(2, 11)}


def test_a_model_that_is_silent_on_hard_clips_is_not_ranked() -> None:
    results = of_clips({"x": {"full": {**EASY, **HARD}, "lazy": EASY, "other": {**EASY, **HARD, "2": 0.2}}})

    ranking, apart = rank_models(results)

    assert [(row.slug, row.rank, row.clips) for row in ranking] == [("full", 1, 10), ("other", 2, 10)]
    assert apart == [Apart("lazy", 0.9, 1, "scored on 1 of 10 clips")]


def test_models_that_lack_a_few_clips_are_ranked_over_those_that_all_have() -> None:
    """Over all its clips `b` has the higher mean, because it lacks a hard one; over the common clips `a` has."""
    a = {**EASY, **HARD}
    b = {clip: score - 0.001 for clip, score in a.items() if clip != "7"}
    results = of_clips({"x": {"a": a, "b": b}, "y": {"a": a, "b": b | {"7": 0.1}}})
    assert results["x"]["b"].mean > results["x"]["a"].mean

    ranking, apart = rank_models(results)

    assert [(row.slug, row.borda, row.clips) for row in ranking] == [("a", 2.0, 9), ("b", 0.0, 9)]
    assert ranking[0].mean_hm_cf == pytest.approx((0.9 + 8 * 0.3) / 9)
    assert apart == []


def test_models_without_a_common_clip_are_not_ranked() -> None:
    results = of_clips({"x": {"a": {"1": 0.5}, "b": {"2": 0.6}}})

    assert rank_models(results) == (
        [], [Apart(slug, score, 1, "no clip is common to all models") for slug, score in (("b", 0.6), ("a", 0.5))],
    )  # fmt: skip


def test_where_only_counts_are_known_fewer_clips_are_not_ranked() -> None:
    ranking, apart = rank_models({"x": {"a": Result(0.5, 199), "b": Result(0.6, 198), "c": Result(0.4, 199)}})

    assert [(row.slug, row.clips) for row in ranking] == [("a", 199), ("c", 199)]
    assert apart == [Apart("b", 0.6, 198, "scored on 198 of 199 clips")]


def test_other_measures_are_means_over_judges_of_those_that_all_judges_have() -> None:
    results = {
        "x": {"a": Result(0.5, means={"precision": 0.4, "order": 0.9})},
        "y": {"a": Result(0.7, means={"precision": 0.6}), "b": Result(0.7, means={"order": 0.2})},
    }

    assert means_beside(results, "a") == {"precision": 0.5}
    assert means_beside(results, "b") == {"order": 0.2}


@needs_shared
def test_the_table_calls_precision_faithfulness_and_recall_coverage_and_json_does_not(call: Call) -> None:
    path = SHARED / "clip_cc/aggregated"
    fine = [json.loads((path / judge / "longva.json").read_text("utf-8"))["fine_grained_stats"] for judge in JUDGES]
    precision, recall = (np.mean([own[name]["mean"] for own in fine]) for name in ("precision", "recall"))

    _, table, _ = call("rank", path, "--format", "md")
    _, given, _ = call("rank", path, "--format", "json")

    assert "| slug | coarse | faithfulness | coverage |" in table
    assert f"| {precision:.3f} | {recall:.3f} |" in table
    means = {row["slug"]: row["means"] for row in json.loads(given)}
    assert means["longva"]["precision"] == pytest.approx(precision)
    assert means["longva"]["recall"] == pytest.approx(recall)


@needs_shared
def test_the_published_judges_rank_videollama3_first_and_longva_last() -> None:
    hm_cf: HmCf = defaultdict(dict)
    for path in (SHARED / "clip_cc/aggregated").glob("*/*.json"):
        hm_cf[path.parent.name][path.stem] = json.loads(path.read_text("utf-8"))["hybrid_stats"]["hm_cf"]["mean"]

    ranking, incomplete = rank_models(read_results(SHARED / "clip_cc"))

    assert incomplete == []
    assert set(hm_cf) == set(JUDGES)
    assert {row.slug: row.borda for row in ranking} == borda_by_hand(hm_cf)
    assert (ranking[0].slug, ranking[0].borda, ranking[0].rank) == ("videollama3", 40, 1)
    assert (ranking[-1].slug, ranking[-1].borda, ranking[-1].rank) == ("longva", 0, 9)
