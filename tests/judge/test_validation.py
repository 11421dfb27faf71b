"""The judge compared with people: figures of other code on human-rated sets, and every layout of ratings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from stella_mteb.judge.agreement import accuracies, agreement_rows, ceiling, differences
from stella_mteb.judge.ratings import Preference, Rating
from tests.conftest import SHARED, Call, needs_shared
from tests.support.judging import made_up_ratings


def test_levels_are_those_of_scipy_over_items_ratings_and_systems() -> None:
    ratings, values = made_up_ratings()
    gold = np.array([one.score for one in ratings])
    each = np.array([score for one in ratings for score in one.raters])

    rows = {(row.level, row.against): row for row in agreement_rows("j", {"best": {"hm_cf": values}}, ratings)}

    assert rows["item", "mean"].correlations.spearman == pytest.approx(spearmanr(values, gold).statistic)
    assert rows["item", "rater"].correlations.kendall_b == pytest.approx(
        kendalltau(np.repeat(values, 3), each).statistic
    )
    assert rows["item", "rater"].correlations.n == 3 * len(ratings)
    apart = [kendalltau(values, [one.raters[r] for one in ratings]).statistic for r in range(3)]
    assert rows["item", "each"].correlations.kendall_b == pytest.approx(np.mean(apart))
    means = [[side[k::3].mean() for k in range(3)] for side in (values, gold)]
    assert rows["system", "mean"].correlations.pearson == pytest.approx(np.corrcoef(*means)[0, 1])
    for row in rows.values():
        assert row.low is not None and row.high is not None and row.correlations.spearman is not None
        assert row.low <= row.correlations.spearman <= row.high


def test_the_interval_over_raters_is_that_of_the_mean_of_their_rhos_in_resamples_of_whole_clips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stella_mteb.judge.agreement.RESAMPLES", 200)
    ratings, values = made_up_ratings(clips=25)
    table, rng = np.array([one.raters for one in ratings]), np.random.default_rng(5)
    items_of = np.arange(len(ratings)).reshape(25, 3)
    drawn = [items_of[rng.integers(0, 25, 25)].ravel() for _ in range(400)]
    means = [np.mean([spearmanr(values[i], table[i, rater]).statistic for rater in range(3)]) for i in drawn]

    rows = {(row.level, row.against): row for row in agreement_rows("j", {"best": {"hm_cf": values}}, ratings)}

    assert rows["item", "each"].low == pytest.approx(np.quantile(means, 0.025), abs=0.04)
    assert rows["item", "each"].high == pytest.approx(np.quantile(means, 0.975), abs=0.04)


def test_a_better_measure_is_found_better_and_a_copy_is_not() -> None:
    ratings, values = made_up_ratings()
    noisy = values + np.random.default_rng(1).normal(size=len(values)) * 2
    nearly = values + np.random.default_rng(2).normal(size=len(values)) * 1e-3

    found = {(one.first[1], one.second[1]): one for one in differences(
        {"j": {"best": {"hm_cf": values, "coarse": noisy, "f1": nearly}}}, ratings
    )}  # fmt: skip

    assert found["hm_cf", "coarse"].low > 0  # type: ignore[operator]
    assert found["hm_cf", "coarse"].p_adjusted < 0.05
    assert found["hm_cf", "f1"].p_adjusted > 0.05


def test_among_many_measures_the_better_one_is_found_and_of_copies_none_is() -> None:
    ratings, values = made_up_ratings()
    rng = np.random.default_rng(4)
    noisy = {
        name: values + rng.normal(size=len(values)) * 2 for name in ("coarse", "precision", "recall", "f1", "order")
    }

    found = differences({"j": {"best": {"hm_cf": values, "copy": values.copy(), **noisy}}}, ratings)

    assert len(found) == 21
    better = {(one.first[1], one.second[1]) for one in found if one.p_adjusted < 0.05 and one.difference > 0}
    assert better == {(good, name) for good in ("hm_cf", "copy") for name in noisy}
    (copied,) = (one for one in found if (one.first[1], one.second[1]) == ("hm_cf", "copy"))
    assert (copied.difference, copied.p, copied.p_adjusted) == (0, 1, 1)


def test_of_equally_noisy_measures_one_set_in_twenty_claims_any_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stella_mteb.judge.agreement.RESAMPLES", 200)
    rng, claimed = np.random.default_rng(6), 0
    for seed in range(60):
        ratings, values = made_up_ratings(seed, clips=30)
        own = {str(i): values + rng.normal(size=len(values)) * 2 for i in range(5)}
        claimed += any(one.p_adjusted < 0.05 for one in differences({"j": {"best": own}}, ratings))

    assert claimed <= 8  # of 60 with probability .05 each, more has probability .003


def test_the_ceiling_is_one_rater_against_the_mean_of_the_others() -> None:
    ratings, _ = made_up_ratings()
    table = np.array([one.raters for one in ratings])
    expected = np.mean([spearmanr(table[:, r], np.delete(table, r, 1).mean(1)).statistic for r in range(3)])

    found = ceiling(ratings)

    assert found is not None
    assert found["spearman"] == pytest.approx(expected)
    assert ceiling([Rating("1", "text", 3.0)]) is None


def test_preferences_count_equal_scores_half() -> None:
    preferences = [Preference(str(n), ("a", "b"), preferred) for n, preferred in enumerate((0, 1, 1, 0))]
    values = np.array([0.9, 0.1, 0.2, 0.8, 0.9, 0.3, 0.5, 0.5])

    (row,) = accuracies("j", {"best": {"hm_cf": values}}, preferences)

    assert (row["accuracy"], row["n"]) == ((1 + 1 + 0 + 0.5) / 4, 4)


def validated(call: Call, name: str, *options: object) -> dict[str, Any]:
    folder = SHARED / "human" / name
    files = ["--references", folder / "references.jsonl", "--ratings", folder / "ratings.jsonl"]
    code, out, err = call("validate", *files, "-m", "all_minilm_l6_v2", "--format", "json", *options)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def row_of(found: dict[str, Any], measure: str, level: str, against: str, references: str = "best") -> dict[str, Any]:
    wanted = (measure, level, against, references)
    (row,) = [r for r in found["rows"] if (r["measure"], r["level"], r["against"], r["references"]) == wanted]
    return dict(row)


@needs_shared
@pytest.mark.slow
def test_factuality_of_video_paragraphs(call: Call) -> None:
    """Figures of a probe with other code: HM-CF .611, precision .578."""
    found = validated(call, "factvc_youcook2", "--published", "factvc_youcook2")

    assert row_of(found, "hm_cf", "item", "mean")["pearson"] == pytest.approx(0.611, abs=0.003)
    assert row_of(found, "precision", "item", "mean")["pearson"] == pytest.approx(0.578, abs=0.003)
    assert {row["metric"]: row["pearson"] for row in found["published"]}["BERTScore"] == 0.426
    assert found["ceiling"] is None


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "measure", "against", "references", "figures"),
    [
        ("squality", "hm_cf", "mean", "best", {"spearman": 0.609}),
        ("flickr8k_expert", "coarse", "rater", "best", {"kendall_c": 0.552}),
        ("vatex_eval", "hm_cf", "each", "best", {"kendall_b": 0.386, "spearman": 0.494}),
        ("vatex_eval", "hm_cf", "each", "first", {"kendall_b": 0.284, "spearman": 0.367}),
    ],
)
def test_figures_on_larger_sets(
    call: Call, name: str, measure: str, against: str, references: str, figures: dict[str, float]
) -> None:
    row = row_of(validated(call, name), measure, "item", against, references)

    assert {key: row[key] for key in figures} == pytest.approx(figures, abs=0.003)


def test_a_set_of_which_nothing_is_published_is_refused_with_those_that_are_known(call: Call, tmp_path: Path) -> None:
    code, _, err = call("validate", "--references", tmp_path / "r", "--ratings", tmp_path / "s", "-m", "x",
                        "--published", "vatex")  # fmt: skip

    assert code == 2
    assert "vatex_eval" in err
