from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, spearmanr

from stella_mteb.compare.alike import AGGREGATES
from stella_mteb.compare.comparison import compare
from stella_mteb.compare.records import Comparison, Gap, Price, Score
from stella_mteb.compare.words import headline
from stella_mteb.errors import ConfigError
from stella_mteb.outputs.items import Items
from stella_mteb.statistics.max_t import max_t
from tests.support.made_scores import (
    TASKS,
    assert_ranks_follow_from_duels,
    duel_of,
    fast,
    reasons,
    score,
    scores_of,
    system,
    values,
)
from tests.support.paired import paired_difference

# --------------------------------------------------------------------------------------------- the published scores


@pytest.fixture(scope="module")
def published() -> Comparison:
    from stella_mteb.compare.published import published as published_found

    return compare(published_found().scores)


def test_the_published_means_equal_those_of_the_model_cards(published: Comparison) -> None:
    standings = {standing.system.model: standing for standing in published.standings}
    stella, bge = standings["NovaSearch/stella_en_1.5B_v5"], standings["BAAI/bge-en-icl"]

    assert len(published.mean_tasks) == 56
    assert (round(100 * stella.mean, 2), round(100 * bge.mean, 2)) == (71.20, 71.68)
    assert {name: round(100 * mean, 2) for name, mean in stella.by_type.items()} == {
        "Classification": 87.63,
        "Clustering": 57.69,
        "PairClassification": 88.18,
        "Reranking": 61.21,
        "Retrieval": 61.01,
        "STS": 84.51,
        "Summarization": 31.49,
    }
    assert {name: 100 * mean for name, mean in bge.by_type.items()} == pytest.approx(
        {
            "Classification": 88.95,
            "Clustering": 57.89,
            "PairClassification": 88.16,
            "Reranking": 59.85,
            "Retrieval": 62.165,
            "STS": 84.25,
            "Summarization": 30.77,
        },
        abs=0.006,
    )


def test_the_published_scores_cannot_separate_stella_and_bge(published: Comparison) -> None:
    (duel,) = published.duels

    assert duel.first.model == "BAAI/bge-en-icl"  # the better placed one
    assert (duel.tasks, duel.wins, duel.ties, duel.losses) == (56, 25, 0, 31)
    assert duel.p == pytest.approx(0.35, abs=0.03)
    assert duel.low < 0 < duel.high
    assert "cannot be separated: difference +0.48 points (-0." in duel.verdict
    assert "over 56 tasks, p = 0.3" in duel.verdict
    assert [(standing.best_rank, standing.worst_rank) for standing in published.standings] == [(1, 2), (1, 2)]
    assert any("On 56 of 56 compared tasks" in note and "revision" in note for note in published.notes)


# ---------------------------------------------------------------------------------------------------- like for like


@pytest.mark.fault(48, "scores under different conditions are not compared; the gap gives the reason")
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"split": "validation"}, "evaluated on split validation, not test"),
        ({"subsets": ("de", "en")}, "on subsets de and en, not default"),
        ({"subsets": tuple("abcdef")}, "on subsets a, b, c and 3 more, not default"),
        ({"languages": ("deu-Latn",)}, "on language deu-Latn, not eng-Latn"),
        ({"dataset_revision": "0123456789"}, "on revision 01234567 of the data, not abcdefgh"),
        (
            {"split": "dev", "subsets": ("en",)},
            "evaluated on split dev, not test; on subset en, not default",
        ),
    ],
)
def test_a_score_under_another_condition_is_a_gap_with_its_reason(fields: dict[str, Any], reason: str) -> None:
    usual = {"languages": ("eng-Latn",), "dataset_revision": "abcdefghij"}
    first, second, odd = score("A", 0.5, **usual), score("A", 0.6, **usual), score("A", 0.9, **{**usual, **fields})
    scores = scores_of(odd={"A": odd, "B": 0.1}, first={"A": first, "B": 0.1}, second={"A": second, "B": 0.1})

    comparison = fast(scores)

    assert reasons(comparison, "A") == [reason, None, None]
    assert {standing.system.label: standing.mean for standing in comparison.standings} == {
        "first": pytest.approx(0.3),
        "second": pytest.approx(0.35),
    }
    assert [one.system.label for one in comparison.unranked] == ["odd"]
    assert comparison.rows[0].condition == "split test, subset default, revision abcdefgh"
    assert duel_of(comparison, "odd", "first").tasks == 1
    assert duel_of(comparison, "first", "second").tasks == 2


def test_of_equally_many_scores_under_two_conditions_those_of_the_first_system_are_kept() -> None:
    dev = score("A", 0.5, split="dev")

    assert reasons(fast(scores_of(one={"A": dev}, other={"A": 0.5})), "A") == [
        None,
        "evaluated on split test, not dev",
    ]


def test_an_unstated_condition_contradicts_nothing_and_is_noted() -> None:
    stated = score("A", 0.5, dataset_revision="abc", languages=("eng-Latn",))

    comparison = fast(scores_of(one={"A": stated, "B": stated}, other={"A": 0.4, "B": stated}))

    assert reasons(comparison, "A") == [None, None]
    assert any(note.startswith("On 1 of 2 compared tasks") for note in comparison.notes)


def test_an_unstated_revision_does_not_bridge_two_that_contradict_each_other() -> None:
    old, new = (score("A", 0.5, dataset_revision=revision) for revision in ("old", "new"))

    comparison = fast(scores_of(silent={"A": 0.5}, one={"A": old}, two={"A": new}, three={"A": new}))

    assert reasons(comparison, "A") == [None, "on revision old of the data, not new", None, None]
    assert duel_of(comparison, "silent", "one").tasks == 1
    assert duel_of(comparison, "one", "two").tasks == 0


def test_two_comparable_scores_are_compared_although_a_third_system_has_another_condition() -> None:
    dev = {task: score(task, 0.5, split="dev") for task in TASKS}
    better = {task: replace(one, value=0.6) for task, one in dev.items()}

    comparison = fast(scores_of(a=values(0.5), b=values(0.5), c=dev, d=better))

    assert comparison.mean_tasks == ()
    assert duel_of(comparison, "c", "d").tasks == 12
    assert (comparison.standings, len(comparison.unranked)) == ((), 4)


@pytest.mark.parametrize("settings", [{"embed_dim": 256}, {"dtype": "bfloat16"}, {"prompts": "card"}])
def test_rows_of_one_model_with_other_settings_are_different_systems(settings: dict[str, Any]) -> None:
    one = system("m@1024", model="org/m", settings={"embed_dim": 1024})
    other = system("m, other", model="org/m", settings=settings)

    comparison = fast({one: {"A": score("A", 0.5)}, other: {"A": score("A", 0.4)}})

    assert [(standing.system, standing.mean) for standing in comparison.standings] == [(one, 0.5), (other, 0.4)]


def test_a_public_rerun_of_a_model_does_not_fill_the_gaps_of_its_own_report() -> None:
    reported = system("stella (self-reported)", model="n/stella", provenance="self-reported")
    rerun = system("stella (rerun)", model="n/stella", provenance="measured by others")

    comparison = fast({reported: {"A": score("A", 0.65)}, rerun: {"A": score("A", 0.57), "B": score("B", 0.3)}})

    assert reasons(comparison, "B") == ["no score", None]
    assert [standing.mean for standing in comparison.standings] == [0.65, 0.57]
    assert any("measured by others and self-reported" in note for note in comparison.notes)


@pytest.mark.fault(48, "the model stays in the table; each gap gives its reason")
def test_a_model_without_tasks_is_shown_and_does_not_narrow_the_means() -> None:
    comparison = fast(scores_of(a={"A": 0.5}, none={}, b={"A": 0.7}))

    assert [(s.system.label, s.mean, s.tasks) for s in comparison.standings] == [("b", 0.7, 1), ("a", 0.5, 1)]
    assert [(one.system.label, one.reason) for one in comparison.unranked] == [("none", "has none of the 1 task")]
    assert comparison.mean_tasks == ("A",)
    assert duel_of(comparison, "a", "none").verdict == "a and none have no task with comparable scores"


def test_a_known_reason_for_a_gap_is_given() -> None:
    scores = scores_of(a={"A": 0.5}, b={"B": 0.5})
    b = list(scores)[1]

    comparison = fast(scores, gaps={b: {"A": "not valid JSON"}}, notes=["b: a remark"])

    assert reasons(comparison, "A") == [None, "not valid JSON"]
    assert reasons(comparison, "B") == ["no score", None]
    assert comparison.notes[0] == "b: a remark"


def test_a_note_says_that_a_gap_narrows_the_means() -> None:
    notes = fast(scores_of(a={"A": 0.5, "B": 0.5}, b={"A": 0.5})).notes

    assert (
        "Ranked are the systems that have enough of 1 task: those on which more than half of all systems have "
        "comparable scores" in notes
    )


def test_a_task_and_its_parts_do_not_both_count() -> None:
    parts = {part: 0.1 for part in AGGREGATES["CQADupstackRetrieval"]}
    whole = {**parts, "CQADupstackRetrieval": 0.4, "ArguAna": 0.6}

    comparison = fast(scores_of(a=whole, b={task: value + 0.1 for task, value in whole.items()}))

    assert comparison.mean_tasks == ("ArguAna", "CQADupstackRetrieval")
    assert comparison.standings[0].mean == pytest.approx(0.6)
    assert comparison.duels[0].tasks == 2
    assert len(comparison.rows) == 14
    assert (
        "CQADupstackRetrieval is the mean of other tasks; the means count it once and leave those tasks out"
        in comparison.notes
    )


def test_parts_count_if_their_aggregate_is_not_common() -> None:
    parts = {"CQADupstackGamingRetrieval": 0.6, "CQADupstackUnixRetrieval": 0.4}

    comparison = fast(scores_of(a={**parts, "CQADupstackRetrieval": 0.1}, b=parts))

    assert comparison.mean_tasks == tuple(parts)
    assert comparison.duels[0].tasks == 2


def test_the_table_of_aggregates_equals_mtebs() -> None:
    import mteb
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    found = [task for task in mteb.get_tasks(exclude_aggregate=False) if isinstance(task, AbsTaskAggregate)]
    texts = [task for task in found if task.metadata.modalities == ["text"]]

    assert len(texts) >= 5
    assert {task.metadata.name: {part.metadata.name for part in task.metadata.tasks} for task in texts} == AGGREGATES


# ----------------------------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_score_is_refused_by_name(value: float) -> None:
    with pytest.raises(ConfigError, match=f"model, A: the score is {value}.*results.json"):
        fast(scores_of(model={"A": score("A", value, source="results.json")}))


def test_percentages_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model, A: score 71.2 is outside -1 to 1; divide percentages by 100"):
        fast(scores_of(model={"A": 71.2}))


def test_two_systems_with_the_same_label_are_refused() -> None:
    with pytest.raises(ConfigError, match="duplicate label 'twin'"):
        fast({system("twin"): {}, system("twin", model="org/other"): {}})


# ------------------------------------------------------------------------------------------------------- how sure


def test_a_clear_winner_is_named_first_with_the_size_of_its_lead() -> None:
    comparison = fast(scores_of(weak=values(0.5), strong=values(0.56, seed=1)), resamples=9_999)
    (duel,) = comparison.duels

    assert (duel.first.label, duel.wins) == ("strong", 12)
    assert duel.p == pytest.approx(2 / 2**12)
    assert 0 < duel.low < duel.difference < duel.high
    assert duel.verdict.startswith(f"strong is better than weak: {100 * duel.difference:+.2f} points (+")
    assert duel.verdict.endswith("over 12 tasks, p < 0.001")
    assert [(s.best_rank, s.worst_rank) for s in comparison.standings] == [(1, 1), (2, 2)]


def test_the_better_system_of_a_duel_may_be_the_one_with_the_lower_mean() -> None:
    """Its lead is on tasks that most systems lack."""
    extra = [f"Extra{i}" for i in range(10)]
    low = {"A": 0.5, **dict.fromkeys(extra, 0.8)}
    high = {"A": 0.51, **dict.fromkeys(extra, 0.7)}

    comparison = fast(scores_of(high=high, low=low, **{name: {"A": 0.4} for name in "xyz"}), resamples=9_999)

    assert [standing.system.label for standing in comparison.standings][:2] == ["high", "low"]
    assert [(one.best_rank, one.worst_rank) for one in comparison.standings][:2] == [(2, 5), (1, 4)]
    assert duel_of(comparison, "high", "low").verdict.startswith("low is better than high: +9.00 points (+")
    assert any("The place by mean of high is outside the range of ranks" in note for note in comparison.notes)


@pytest.mark.parametrize(("tasks", "words"), [(5, "5 tasks, too few to tell"), (6, "is better than")])
def test_fewer_than_six_tasks_are_too_few(tasks: int, words: str) -> None:
    (duel,) = fast(scores_of(a=dict.fromkeys(TASKS[:tasks], 0.9), b=dict.fromkeys(TASKS[:tasks], 0.1))).duels

    assert words in duel.verdict
    assert (duel.low is None) == (tasks < 6)


@pytest.mark.fault(50, "one common task: a difference without interval")
def test_one_common_task_has_a_difference_and_no_interval() -> None:
    (duel,) = fast(scores_of(a={"A": 0.9}, b={"A": 0.1})).duels

    assert duel.difference == pytest.approx(0.8)
    assert (duel.p, duel.p_adjusted, duel.low, duel.high) == (1, 1, None, None)
    assert "1 task, too few to tell" in duel.verdict


@pytest.mark.fault(50, "identical scores: the report says so, with p = 1")
def test_identical_scores_have_p_one() -> None:
    (duel,) = fast(scores_of(a=values(0.5), b=values(0.5))).duels

    assert (duel.p, duel.low, duel.high, duel.ties) == (1, 0, 0, 12)
    assert duel.verdict == "a and b have the same score on 12 common tasks"


@pytest.mark.fault(50, "the report says so, and names no winner")
def test_systems_that_share_no_task_say_so() -> None:
    comparison = fast(scores_of(a={"A": 0.5}, b={"B": 0.5}))
    (duel,) = comparison.duels

    assert (duel.tasks, duel.difference, duel.p) == (0, None, None)
    assert duel.verdict == "a and b have no task with comparable scores"
    assert [one.system.label for one in comparison.unranked] == ["a", "b"]
    assert headline(comparison) == "No task has comparable scores for both systems"


def test_all_duels_are_tested_together() -> None:
    table = {
        "top": values(0.6, TASKS[:8]),
        "one": values(0.5, TASKS[:8], seed=1),
        "two": values(0.5, TASKS[:8], seed=2),
        "few": {"Task00": 0.1},
    }
    comparison = fast(scores_of(**table), resamples=9_999)
    placed = [one.system.label for one in (*comparison.standings, *comparison.unranked)]
    pairs = itertools.combinations(placed, 2)
    rows = [[table[a].get(t, np.nan) - table[b].get(t, np.nan) for t in TASKS[:8]] for a, b in pairs]

    expected = max_t(np.array(rows), np.arange(8), alpha=0.05, resamples=9_999, seed=0)

    assert [duel.p for duel in comparison.duels] == pytest.approx(expected.p.tolist())
    assert [duel.p_adjusted for duel in comparison.duels] == pytest.approx(expected.p_adjusted.tolist())
    assert comparison.needed == expected.needed
    assert "(adjusted for 6 pairs)" in duel_of(comparison, "top", "one").verdict


def test_tasks_of_a_family_count_as_one_independent_task() -> None:
    scores = scores_of(a=dict.fromkeys(TASKS[:7], 0.9), b=dict.fromkeys(TASKS[:7], 0.1))

    apart = fast(scores).duels[0]
    together = fast(scores, families={"Task00": "same", "Task01": "same"}).duels[0]

    assert (apart.tasks, apart.families, apart.p) == (7, 7, 1 / 2**6)
    assert (together.tasks, together.families, together.p) == (7, 6, 1 / 2**5)


def test_the_headline_says_if_no_finding_is_possible() -> None:
    comparison = fast(scores_of(a=dict.fromkeys(TASKS[:4], 0.9), b=dict.fromkeys(TASKS[:4], 0.1)))

    assert headline(comparison) == (
        "No finding is possible: these systems share 4 independent tasks, and a test needs 6 to tell"
    )


@given(st.lists(st.lists(st.integers(0, 9), min_size=8, max_size=8), min_size=2, max_size=6))
@settings(max_examples=30, deadline=None)
def test_ranks_are_the_counts_of_won_and_lost_duels_and_hold_the_place_by_mean(table: list[list[int]]) -> None:
    rows = {f"s{i}": dict(zip(TASKS, [v / 10 for v in row], strict=False)) for i, row in enumerate(table)}

    comparison = fast(scores_of(**rows))

    means = [one.mean for one in comparison.standings]
    assert means == sorted(means, reverse=True)
    assert_ranks_follow_from_duels(comparison)
    assert all(one.best_rank <= i <= one.worst_rank for i, one in enumerate(comparison.standings, 1))


def test_systems_that_cannot_be_separated_share_their_ranks() -> None:
    comparison = fast(scores_of(b=values(0.5, seed=1), top=values(0.6), c=values(0.5, seed=2)))

    first, *others = comparison.standings
    assert (first.system.label, first.best_rank, first.worst_rank) == ("top", 1, 1)
    assert {(standing.best_rank, standing.worst_rank) for standing in others} == {(2, 3)}


def test_the_order_of_systems_changes_no_figure() -> None:
    scores = scores_of(a=values(0.5), b=values(0.51, seed=1), c=values(0.6, seed=2))

    one, other = fast(scores), fast(dict(reversed(scores.items())))

    assert one.duels == other.duels
    assert one.standings == other.standings


def test_one_system_or_none_is_not_compared() -> None:
    assert fast({}).standings == ()

    comparison = fast(scores_of(alone={"A": 0.5, "B": 0.7}))

    assert comparison.duels == ()
    assert [(s.mean, s.best_rank, s.worst_rank) for s in comparison.standings] == [(0.6, 1, 1)]
    assert comparison.rows[0].condition == ""


# --------------------------------------------------------------------------------------------------- item by item


def pairs(task: str, noise: float, *, n: int = 200, subset: str = "default", digest: str = "d", seed: int = 0) -> Items:
    gold = np.random.default_rng(99).standard_normal(n)
    cosines = gold + noise * np.random.default_rng(seed).standard_normal(n)
    return Items(task, "test", subset, "spearman", "pairs", digest, gold, cosines)


def with_items(**of: Mapping[str, tuple[Items, ...]]) -> tuple[Any, Any]:
    """Scores computed from items, and the items."""
    scores = {
        system(label): {
            task: score(task, float(np.mean([i.score() for i in its])), subsets=tuple(i.subset for i in its))
            for task, its in tasks.items()
        }
        for label, tasks in of.items()
    }
    return scores, {(label, task): its for label, tasks in of.items() for task, its in tasks.items()}


def test_a_difference_on_one_task_is_found_over_its_items() -> None:
    good, bad = pairs("A", 0.5), pairs("A", 1.0, seed=1)
    even = pairs("B", 0.5, seed=2), pairs("B", 0.5, seed=3)
    scores, items = with_items(bad={"A": (bad,), "B": (even[1],)}, good={"A": (good,), "B": (even[0],)})

    (duel,) = fast(scores, items=items).duels

    alone = paired_difference("spearman", good.gold, good.values, bad.values, alpha=0.05, resamples=499, seed=0)
    first, second = duel.by_task
    assert (first.task, first.items, first.unit) == ("A", 200, "pairs")
    assert first.difference == pytest.approx(spearmanr(good.gold, good.values)[0] - spearmanr(bad.gold, bad.values)[0])
    assert (first.low, first.high, first.p) == pytest.approx((alone.low, alone.high, alone.p), abs=1e-9)
    assert first.p_adjusted == pytest.approx(2 * first.p) == 2 / 500
    assert second.low < 0 < second.high
    assert duel.verdict.startswith("good is better than bad:")
    assert duel.verdict.endswith("; over items, good is better on A, no significant difference on B")


def queries(task: str, values: np.ndarray) -> Items:
    return Items(task, "test", "default", "mean", "queries", "d", None, values)


def test_with_few_tasks_ranks_and_headline_come_from_the_items_of_all_tasks() -> None:
    rng = np.random.default_rng(5)
    first = [rng.uniform(size=n) for n in (60, 90)]
    second = [values - 0.05 + 0.2 * rng.standard_normal(len(values)) for values in first]
    third = [values - 0.2 for values in first]
    named = {"first": first, "second": second, "third": third}
    scores, items = with_items(
        **{name: {task: (queries(task, v),) for task, v in zip("AB", of, strict=True)} for name, of in named.items()}
    )

    comparison = compare(scores, items=items)

    duel = duel_of(comparison, "first", "second")
    gains = [a - b for a, b in zip(first, second, strict=True)]

    def mean_over_tasks(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return (a.mean(axis=axis) + b.mean(axis=axis)) / 2

    expected = bootstrap(
        gains, mean_over_tasks, vectorized=True, n_resamples=9_999, confidence_level=1 - 0.05 / 3, rng=1
    ).confidence_interval
    flips = np.random.default_rng(2).choice([-1, 1], (40_000, 150))
    share = np.array([1 / 120] * 60 + [1 / 180] * 90)
    flipped = np.abs(flips @ (share * np.concatenate(gains)))
    assert duel.items == 150
    assert duel.difference == pytest.approx(mean_over_tasks(*gains))
    assert (duel.low, duel.high) == pytest.approx(tuple(expected), abs=0.003)
    assert duel.p == pytest.approx((flipped >= duel.difference).mean(), abs=0.003)
    assert duel.p_adjusted == pytest.approx(3 * duel.p)
    assert [(one.system.label, one.best_rank, one.worst_rank) for one in comparison.standings] == [
        ("first", 1, 1),
        ("second", 2, 2),
        ("third", 3, 3),
    ]
    assert headline(comparison) == "first is better than each of the other 2"
    assert "over 150 items of 2 tasks" in duel.verdict


def test_an_inconclusive_item_test_does_not_report_too_few_tasks() -> None:
    scores, items = with_items(a={"A": (pairs("A", 0.5),)}, b={"A": (pairs("A", 0.5, seed=1),)})

    comparison = fast(scores, items=items)

    assert headline(comparison) == "These results cannot separate b and a"
    assert "cannot be separated" in comparison.duels[0].verdict


def test_if_a_task_lacks_items_the_test_is_over_tasks() -> None:
    scores, items = with_items(a={"A": (pairs("A", 0.4),)}, b={"A": (pairs("A", 1.2, seed=1),)})
    for of, value in zip(scores.values(), (0.7, 0.6), strict=True):
        of["B"] = score("B", value)

    comparison = fast(scores, items=items)

    assert comparison.duels[0].items == 0
    assert headline(comparison).startswith("No finding is possible")


def test_with_six_tasks_the_test_is_over_tasks_even_with_items() -> None:
    tasks = {name: (pairs(name, 0.5, seed=i),) for i, name in enumerate("ABCDEF")}
    worse = {name: (pairs(name, 1.0, seed=i + 9),) for i, name in enumerate("ABCDEF")}
    scores, items = with_items(a=tasks, b=worse)

    (duel,) = fast(scores, items=items).duels

    assert (duel.items, duel.p) == (0, 2 / 64)


def test_the_difference_of_a_task_with_subsets_is_their_mean() -> None:
    a = [pairs("A", 0.5, subset=subset, seed=seed) for seed, subset in enumerate(("de", "en"))]
    b = [pairs("A", 0.9, subset=subset, seed=seed + 5) for seed, subset in enumerate(("de", "en"))]
    scores, items = with_items(a={"A": tuple(a)}, b={"A": tuple(reversed(b))})
    scores[list(scores)[1]]["A"] = replace(scores[list(scores)[1]]["A"], subsets=("de", "en"))

    (duel,) = fast(scores, items=items).duels

    assert duel.by_task[0].difference == pytest.approx(duel.difference)
    assert duel.by_task[0].items == 400


def test_items_of_other_pairs_are_not_compared() -> None:
    scores, items = with_items(a={"A": (pairs("A", 0.5),)}, b={"A": (pairs("A", 0.9, digest="other"),)})

    assert fast(scores, items=items).duels[0].by_task == ()


def test_items_of_fewer_subsets_are_not_compared() -> None:
    both = pairs("A", 0.5, subset="de"), pairs("A", 0.5, subset="en")
    scores, items = with_items(a={"A": both}, b={"A": both[:1]})

    assert fast(scores, items=items).duels[0].by_task == ()


def test_items_of_incomparable_scores_are_not_compared() -> None:
    scores, items = with_items(a={"A": (pairs("A", 0.5),)}, b={"A": (pairs("A", 0.9),)})
    first, second = scores
    scores[first]["A"] = replace(scores[first]["A"], dataset_revision="old")
    scores[second]["A"] = replace(scores[second]["A"], dataset_revision="new")

    assert fast(scores, items=items).duels[0].by_task == ()


@pytest.mark.fault(50, "one pair: no interval, and the report says so")
def test_one_item_gives_no_interval_and_a_reason() -> None:
    scores, items = with_items(
        a={"A": (pairs("A", 0.5, n=5),)}, b={"A": (pairs("A", 0.9, n=5, seed=1),)}, c={"B": (pairs("B", 0.5),)}
    )

    comparison = fast(scores, items=items)

    assert duel_of(comparison, "a", "b").by_task == ()
    assert "No test over items on A: too few items, or constant values" in comparison.notes


def test_three_systems_need_not_have_the_same_items() -> None:
    good, bad = pairs("A", 0.4), pairs("A", 1.2, seed=1)
    scores, items = with_items(good={"A": (good,)}, other={"A": (replace(good, digest="other"),)}, bad={"A": (bad,)})

    comparison = fast(scores, items=items)

    assert duel_of(comparison, "good", "other").by_task == duel_of(comparison, "other", "bad").by_task == ()
    assert "good is better on A" in duel_of(comparison, "good", "bad").verdict


# ------------------------------------------------------------------------------------------------- other fields


def test_rows_per_label_costs_and_settings_are_kept() -> None:
    rows = ({"label": "fault", "spearman": 0.4},)
    scores = scores_of(a={"A": score("A", 0.5, per_label=rows), "B": 0.5}, b={"A": 0.5, "B": 0.5})
    price = Price(next(iter(scores)), "a laptop", "float32", 1.0, 1.0, 1, 1, 1)

    comparison = fast(scores, prices=[price, replace(price, machine="a server")], alpha=0.1, seed=7)

    assert comparison.per_label == {"A": {"a": rows}}
    assert [price.machine for price in comparison.prices] == ["a laptop", "a server"]
    assert (comparison.alpha, comparison.resamples, comparison.seed) == (0.1, 499, 7)
    assert any("2 machines" in note for note in comparison.notes)
    assert fast(scores_of(a={"A": 0.5})).per_label is None


def test_different_main_scores_and_versions_are_noted() -> None:
    one = score("A", 0.5, metric="map", mteb_version="1.18.0")
    other = score("A", 0.5, metric="map_at_1000", mteb_version="2.26.24")

    notes = fast(scores_of(a={"A": one}, b={"A": other})).notes

    assert "On 1 task the sources name different main scores (map and map_at_1000)" in notes
    assert any("several versions of mteb (1.18.0 and 2.26.24)" in note for note in notes)


CONDITIONS = st.fixed_dictionaries(
    {
        "value": st.floats(-1, 1),
        "split": st.sampled_from(["test", "dev"]),
        "subsets": st.sampled_from([("en",), ("de", "en")]),
        "languages": st.sampled_from([(), ("eng-Latn",), ("deu-Latn",)]),
        "dataset_revision": st.sampled_from([None, "old", "new"]),
    }
)


@given(st.lists(st.dictionaries(st.sampled_from("ABC"), CONDITIONS), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_no_mean_mixes_contradicting_conditions(found: list[dict[str, Any]]) -> None:
    scores = scores_of(**{f"s{i}": {t: score(t, **one) for t, one in of.items()} for i, of in enumerate(found)})

    comparison = compare(scores, resamples=50)

    assert {one.system for one in (*comparison.standings, *comparison.unranked)} == set(scores)
    assert_ranks_follow_from_duels(comparison)
    for row in comparison.rows:
        cells = [cell for cell in row.cells if isinstance(cell, Score)]
        assert cells
        assert all(cell.reason for cell in row.cells if isinstance(cell, Gap))
        for one, other in itertools.combinations(cells, 2):
            assert (one.split, one.subsets) == (other.split, other.subsets)
            assert len({one.languages, other.languages} - {()}) < 2
            assert len({one.dataset_revision, other.dataset_revision} - {None}) < 2
    for standing in comparison.standings:
        place = comparison.systems.index(standing.system)
        cells = [row.cells[place] for row in comparison.rows if row.task in comparison.mean_tasks]
        values = [cell.value if isinstance(cell, Score) else cell.estimate for cell in cells]
        assert standing.mean == pytest.approx(np.mean(values))
        assert 1 <= standing.best_rank <= standing.worst_rank <= len(scores)


def test_comparing_loads_neither_torch_nor_mteb() -> None:
    code = "import sys, json, stella_mteb.compare.comparison; print(json.dumps([*sys.modules]))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)

    assert not {"torch", "mteb", "transformers", "scipy.stats"} & set(loaded)
