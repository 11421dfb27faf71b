"""The selected tasks, splits and subsets are compared, as MTEB defines them."""

from __future__ import annotations

from typing import Any

import pytest

from stella_mteb.compare.comparison import compare
from stella_mteb.compare.published import published
from stella_mteb.compare.records import Score
from stella_mteb.compare.selection import choose
from stella_mteb.harness.mteb_facts import load_facts
from tests.support.made_scores import duel_of, fast, reasons, score, scores_of


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return load_facts()


def test_a_benchmark_is_found_under_any_of_mtebs_names(facts: dict[str, Any]) -> None:
    import mteb

    selection = choose(facts, benchmark="mteb(eng)")

    tasks = {task.metadata.name: task for task in mteb.get_benchmark("MTEB(eng, v2)").tasks}
    assert (selection.benchmark, set(selection.required or ())) == ("MTEB(eng, v2)", set(tasks))
    for name, wanted in selection.wanted.items():
        assert set(wanted.splits) == set(tasks[name].eval_splits)
        if wanted.subsets is not None:
            assert set(wanted.subsets) == set(tasks[name].hf_subsets)


def test_types_tasks_and_exclusions_narrow_a_benchmark(facts: dict[str, Any]) -> None:
    reranking = choose(facts, benchmark="MTEB(eng, v2)", types=["reranking"])
    less = choose(facts, benchmark="MTEB(eng, v2)", types=["Reranking"], exclude=["MindSmallReranking"])

    assert reranking.required == ("AskUbuntuDupQuestions", "MindSmallReranking")
    assert less.required == ("AskUbuntuDupQuestions",)
    assert choose(facts, tasks=["STS12", "MySTS"]).required == ("STS12", "MySTS")


def test_a_selection_by_type_gives_the_published_means_by_type(facts: dict[str, Any]) -> None:
    """Of the model card of Stella: retrieval 61.01, STS 84.58."""
    means = {}
    for kind in ("Retrieval", "STS"):
        selection = choose(facts, types=[kind])
        comparison = compare(published(selection).scores, selection=selection, resamples=99)
        means[kind] = {one.system.model: round(100 * (one.mean or 0), 2) for one in comparison.standings}

    assert means["Retrieval"]["NovaSearch/stella_en_1.5B_v5"] == 61.01
    assert means["STS"]["NovaSearch/stella_en_1.5B_v5"] == 84.51


def test_if_subsets_differ_the_shared_ones_are_compared() -> None:
    many = score("A", 0, subsets={"de": 0.2, "en": 0.6, "fr": 0.4})
    scores = scores_of(many={"A": many}, two={"A": score("A", 0, subsets={"en": 0.5, "fr": 0.7})})

    comparison = fast(scores)

    assert [cell.value for cell in comparison.rows[0].cells if isinstance(cell, Score)] == pytest.approx([0.5, 0.6])
    assert duel_of(comparison, "two", "many").difference == pytest.approx(0.1)


def test_the_subsets_of_most_rows_are_ranked_and_a_duel_uses_those_of_its_two_rows() -> None:
    whole = {"de": 0.2, "en": 0.6}
    scores = scores_of(
        a={"A": score("A", 0, subsets=whole)},
        b={"A": score("A", 0, subsets={"de": 0.3, "en": 0.5})},
        english={"A": score("A", 0, subsets={"en": 0.9})},
    )

    comparison = fast(scores)

    assert reasons(comparison, "A") == [None, None, "on subset en, not de and en"]
    assert duel_of(comparison, "a", "b").difference == pytest.approx(0)
    assert duel_of(comparison, "a", "english").difference == pytest.approx(-0.3)


def test_a_benchmark_uses_the_subsets_of_a_complete_row_although_most_rows_lack_them(facts: dict[str, Any]) -> None:
    selection = choose(facts, benchmark="MTEB(Multilingual, v2)", tasks=["STS17"])
    subsets = [f"s{i}" for i in range(selection.wanted["STS17"].cells)]
    scores = scores_of(
        a={"STS17": score("STS17", 0.1, subsets=subsets[:1])},
        b={"STS17": score("STS17", 0.2, subsets=subsets[:1])},
        complete={"STS17": score("STS17", 0.3, subsets=subsets)},
    )

    comparison = fast(scores, selection=selection)

    assert [one.system.label for one in comparison.standings] == ["complete"]
    assert comparison.standings[0].mean == pytest.approx(0.3)
