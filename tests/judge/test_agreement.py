"""Agreement of judges, compared with scipy and with rankings of known truth."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap, kendalltau, spearmanr

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import write_json
from stella_mteb.judge.ranking import agreements
from stella_mteb.judge.reports import Result, read_results
from tests.conftest import SHARED, Call, needs_shared
from tests.support.judging import of_clips, of_means


def judged(scores: Any) -> dict[str, dict[str, Result]]:
    """Results of [judges, models, clips]."""
    return of_clips(
        {
            f"judge{j}": {f"model{m}": {f"{c:03}": float(x) for c, x in enumerate(row)} for m, row in enumerate(table)}
            for j, table in enumerate(scores)
        }
    )


def test_tau_rho_and_interval_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(1, 6, 1)) * 0.3 + rng.normal(size=(2, 6, 40))
    first, second = scores.mean(axis=2)

    (found,) = agreements(judged(scores))
    theirs = bootstrap(
        [np.arange(40)],
        lambda drawn: kendalltau(*scores[:, :, drawn].mean(axis=2)).statistic,
        vectorized=False,
        n_resamples=2_000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval

    assert found.kendall == pytest.approx(kendalltau(first, second).statistic)
    assert found.spearman == pytest.approx(spearmanr(first, second).statistic)
    # Tau over six models moves in steps of 2/15.
    assert found.low == pytest.approx(theirs.low, abs=0.14)
    assert found.high == pytest.approx(theirs.high, abs=0.14)
    assert found.clips == 40


def test_judges_with_equal_scores_agree_fully_on_any_clips() -> None:
    rng = np.random.default_rng(3)
    table = np.arange(5)[:, None] + rng.normal(size=(5, 30)) * 0.1

    (found,) = agreements(judged([table, table * 2 + 1]))

    assert (found.kendall, found.spearman, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0, 1.0))


def test_all_models_and_judges_share_the_drawn_clips() -> None:
    """Clips differ by far more than models: drawn apart, they would drown an order that no clip contradicts."""
    hard = np.random.default_rng(4).normal(size=50) * 100
    table = np.arange(4)[:, None] + hard

    (found,) = agreements(judged([table, table]))

    assert found.low == pytest.approx(1.0)


def test_without_scores_per_clip_there_is_a_figure_and_no_interval() -> None:
    results = judged(np.random.default_rng(5).normal(size=(2, 4, 9)))
    results["judge1"] = {model: Result(result.mean) for model, result in results["judge1"].items()}

    (found,) = agreements(results)

    assert found.kendall is not None
    assert (found.low, found.high, found.clips) == (None, None, 0)


def test_only_models_of_both_judges_and_clips_of_all_count() -> None:
    results = judged(np.random.default_rng(6).normal(size=(2, 4, 9)))
    del results["judge0"]["model3"]
    clips = results["judge1"]["model2"].clips or {}
    results["judge1"]["model2"] = Result(0.5, 8, {clip: score for clip, score in clips.items() if clip != "004"})

    (found,) = agreements(results)

    assert (found.models, found.clips) == (3, 8)


def test_a_judge_who_ties_every_model_has_no_order_to_agree_with() -> None:
    (found,) = agreements(of_means({"a": {"x": 0.5, "y": 0.5}, "b": {"x": 0.1, "y": 0.2}}))

    assert (found.kendall, found.spearman) == (None, None)


def test_pairs_of_another_form_are_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs/judge/model.json"
    path.parent.mkdir(parents=True)
    path.write_text('[{"video": "001"}]')
    write_json(tmp_path / "aggregated/judge/model.json", {"hybrid_stats": {"hm_cf": {"mean": 0.5}}})

    with pytest.raises(ConfigError, match=r"model\.json: must be a list of objects with video_id and hm_cf"):
        read_results(tmp_path)


@needs_shared
def test_the_five_published_judges_agree_with_intervals_from_their_own_clips(tmp_path: Path, call: Call) -> None:
    with (SHARED / "clip_cc/pair_scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    for judge in ("kalm", "nemo"):
        for model in {row["vlm"] for row in rows}:
            pairs = [
                {"video_id": row["video_id"], "hm_cf": float(row[f"{judge}_hm_cf"])}
                for row in rows
                if row["vlm"] == model
            ]
            path = tmp_path / "pairs" / judge / f"{model}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(pairs))
            mean = float(np.mean([pair["hm_cf"] for pair in pairs]))
            path = tmp_path / "aggregated" / judge / f"{model}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"hybrid_stats": {"hm_cf": {"mean": mean}}}))

    code, out, _ = call("rank", tmp_path, "--agreement", "--format", "json")
    (found,) = json.loads(out)

    assert code == 0
    assert found["kendall"] == pytest.approx(17 / 18)
    assert found["low"] <= found["kendall"] <= found["high"] <= 1
    assert found["low"] > 0.8
    assert found["clips"] == 199
