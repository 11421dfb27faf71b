"""Ranked systems, their means, and the reasons why others are not ranked."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import rankdata

from stella_mteb.compare.html import render_report
from stella_mteb.compare.records import Gap, Score
from stella_mteb.compare.selection import Selection
from stella_mteb.compare.text import render_comparison
from stella_mteb.compare.words import about_means, headline
from tests.support.made_scores import TASKS, fast, score, scores_of, values

TEN = TASKS[:10]


def test_one_stray_row_does_not_narrow_the_means() -> None:
    comparison = fast(scores_of(a=values(0.5, TEN), b=values(0.6, TEN), stray={"Other": 0.9}))

    assert comparison.mean_tasks == tuple(TEN)
    assert [one.system.label for one in comparison.standings] == ["b", "a"]
    (stray,) = comparison.unranked
    assert (stray.system.label, stray.tasks, stray.reason) == ("stray", 0, "has none of the 10 tasks")


@pytest.mark.parametrize(("coverage", "ranked"), [(0.8, ["a", "most"]), (0.81, ["a"]), (1.0, ["a"])])
def test_systems_with_enough_of_the_tasks_are_ranked(coverage: float, ranked: list[str]) -> None:
    scores = scores_of(a=values(0.5, TEN), most=values(0.4, TEN[:8]), few=values(0.4, TEN[:7]))

    comparison = fast(scores, coverage=coverage, selection=Selection(required=tuple(TEN)))

    assert [one.system.label for one in comparison.standings] == ranked
    few = next(one for one in comparison.unranked if one.system.label == "few")
    assert (few.coverage, few.lacking) == (0.7, ("Task07", "Task08", "Task09"))
    assert few.reason == "has 7 of 10 tasks (70%), lacking Task07, Task08 and Task09"


def test_a_missing_score_is_estimated_by_least_squares_and_a_complete_mean_is_plain() -> None:
    table = np.random.default_rng(0).uniform(0.3, 0.8, (4, 10))
    table[1, 3] = table[1, 7] = table[2, 0] = np.nan
    rows = {f"s{i}": {t: v for t, v in zip(TEN, own, strict=True) if np.isfinite(v)} for i, own in enumerate(table)}

    comparison = fast(scores_of(**rows), selection=Selection(required=tuple(TEN)))

    seen = np.argwhere(np.isfinite(table))
    design = np.zeros((len(seen), 14))
    for line, (i, t) in zip(design, seen, strict=True):
        line[i] = line[4 + t] = 1
    effects = np.linalg.lstsq(design, table[np.isfinite(table)], rcond=None)[0]
    filled = np.where(np.isfinite(table), table, effects[:4, None] + effects[4:])
    means = {one.system.label: one.mean for one in comparison.standings}
    assert [means[f"s{i}"] for i in range(4)] == pytest.approx(filled.mean(axis=1).tolist())
    assert means["s0"] == pytest.approx(table[0].mean())
    assert {one.system.label: one.estimated for one in comparison.standings} == {"s0": 0, "s1": 2, "s2": 1, "s3": 0}


def test_with_estimates_two_means_differ_as_on_the_common_tasks() -> None:
    comparison = fast(
        scores_of(a=values(0.5, TEN, 0.1), b=values(0.5, TEN[:9], 0.1, seed=1)),
        selection=Selection(required=tuple(TEN)),
    )

    first, second = (one.mean or 0 for one in comparison.standings)
    assert first - second == pytest.approx(comparison.duels[0].difference)


def test_borda_ranks_by_points_for_every_worse_system() -> None:
    table = np.round(np.random.default_rng(1).uniform(0.3, 0.8, (6, 10)), 1)  # with ties
    rows = {f"s{i}": dict(zip(TEN, own, strict=True)) for i, own in enumerate(table)}

    comparison = fast(scores_of(**rows))

    points = (6 - rankdata(-table, axis=0, method="average")).sum(axis=1)
    expected = rankdata(-points, method="min")
    assert {one.system.label: one.borda for one in comparison.standings} == {
        f"s{i}": rank for i, rank in enumerate(expected)
    }


def test_the_mean_over_types_weights_every_type_equally() -> None:
    own = {**{task: score(task, 0.8) for task in "abc"}, "d": score("d", 0.2, type="Retrieval")}

    (standing,) = fast(scores_of(one=own)).standings

    assert standing.mean == pytest.approx(0.65)
    assert standing.by_type == {"Retrieval": 0.2, "STS": pytest.approx(0.8)}
    assert standing.mean_by_type == pytest.approx(0.5)


def test_a_score_on_other_data_is_a_gap_unless_the_option_allows_it() -> None:
    other = {task: score(task, 0.7, dataset_revision="new" if task == "Task00" else "old") for task in TEN}
    old = {task: score(task, 0.5, dataset_revision="old") for task in TEN}
    scores = scores_of(a=old, b=old, other=other)

    strict, lax = fast(scores), fast(scores, any_data_revision=True)

    assert strict.rows[0].cells[2] == Gap("on revision new of the data, not old", 0.7, None, by_revision=True)
    assert strict.mean_tasks == tuple(TEN[1:])
    assert {one.system.label: one.mean for one in strict.standings} == pytest.approx({"a": 0.5, "b": 0.5, "other": 0.7})
    assert {one.system.label: one.coverage for one in strict.standings}["other"] == 1
    assert about_means(strict) == [
        "The means leave out 1 task on which 1 score of ranked systems is on other data than most: Task00 (1 score). "
        "--any-data-revision counts them, as MTEB's leaderboard does."
    ]
    assert all(isinstance(cell, Score) for row in lax.rows for cell in row.cells)
    assert (lax.mean_tasks, about_means(lax)) == (tuple(TEN), [])


def test_if_too_few_tasks_would_remain_the_scores_on_other_data_are_estimated() -> None:
    def row(value: float, *other: int) -> dict[str, Score]:
        return {t: score(t, value, dataset_revision="new" if i in other else "old") for i, t in enumerate(TEN)}

    comparison = fast(scores_of(a=row(0.5), b=row(0.6, 0, 1), c=row(0.4, 2)))

    assert comparison.mean_tasks == tuple(TEN)
    assert {one.system.label: one.mean for one in comparison.standings} == pytest.approx({"a": 0.5, "b": 0.6, "c": 0.4})
    assert about_means(comparison) == [
        "The means use estimates for 3 scores that 2 ranked systems lack on the data of most others (b: 2 and c: 1): a "
        "system effect plus a task effect, fitted by least squares to all scores of ranked systems."
    ]


def test_a_row_entirely_on_other_data_is_not_ranked() -> None:
    old, new = ({task: score(task, 0.5, dataset_revision=one) for task in TEN} for one in ("old", "new"))

    comparison = fast(scores_of(a=old, b=old, other=new))

    assert [one.reason for one in comparison.unranked] == ["has 10 tasks, but only 0 on the data that most others have"]


def test_a_selected_task_without_scores_is_missing_for_all() -> None:
    comparison = fast(scores_of(a=values(0.5, TEN), b=values(0.4, TEN)), selection=Selection(required=(*TEN, "None")))

    assert comparison.mean_tasks == tuple(TEN)
    assert [one.coverage for one in comparison.standings] == pytest.approx([10 / 11] * 2)


def test_a_pair_says_how_many_tasks_it_leaves_out_and_why() -> None:
    other = {task: score(task, 0.6, dataset_revision="new" if i < 4 else "old") for i, task in enumerate(TASKS)}
    old = {task: score(task, 0.5, dataset_revision="old") for task in TASKS[:10]}
    comparison = fast(scores_of(old=old, other=other))

    (duel,) = comparison.duels
    shown = " ".join(render_comparison(comparison, "table", 80).split())

    assert (duel.tasks, duel.lacking, duel.apart) == (6, 2, 4)
    assert "over 6 of 12 tasks (2 lacking, 4 on other data)" in shown
    assert "2 lack, 4 data Left out of a pair" in shown


def test_who_is_not_ranked_stands_beside_the_first_place_on_the_tasks_that_both_have() -> None:
    few = dict(zip(TASKS[:6], [0.4, 0.5, 0.6, 0.7, 0.8, 0.9], strict=True))
    comparison = fast(scores_of(whole=values(0.5), few=few), selection=Selection(required=tuple(TASKS)))
    (duel,) = comparison.duels
    both = np.mean([list(values(0.5).values())[:6], list(few.values())], axis=1)

    shown = " ".join(render_comparison(comparison, "table", 80).split())

    assert headline(comparison) == "On the 6 tasks that both have, these results cannot separate whole and few"
    assert (duel.first_mean, duel.second_mean) == pytest.approx(tuple(both))
    assert "tasks shared with the first place, whole" in shown
    assert re.search(rf"few +6 +{100 * both[1]:.2f} +{100 * both[0]:.2f} +\+{100 * (both[1] - both[0]):.2f}", shown)


def test_if_nobody_is_ranked_the_outputs_say_so_and_the_pair_is_still_compared() -> None:
    one, other = dict.fromkeys(TEN[:7], 0.5), {task: 0.5 + 0.01 * i for i, task in enumerate(TEN) if i > 3}
    comparison = fast(scores_of(one=one, other=other), selection=Selection(required=tuple(TEN)))

    shown = " ".join(render_comparison(comparison, "table", 80).split())

    assert (comparison.standings, len(comparison.duels), comparison.duels[0].tasks) == ((), 1, 3)
    assert "No mean: no system has enough of the tasks to be ranked." in shown
    assert "first place" not in shown
    assert "No task has comparable scores" not in shown
    assert "no system has enough of the tasks to be ranked" in render_report(comparison)


@pytest.mark.parametrize("revision", ["old", "new"])
def test_an_option_that_would_not_help_is_not_recommended(revision: str) -> None:
    english = {task: score(task, 0.5, languages=("eng-Latn",), dataset_revision="old") for task in TEN}
    french = score(TEN[0], 0.7, languages=("fra-Latn",), dataset_revision=revision)

    said = about_means(fast(scores_of(a=english, b=english, other={**english, TEN[0]: french})))

    assert said == [
        "The means leave out 1 task on which 1 score of ranked systems is on other data than most: Task00 (1 score)."
    ]
