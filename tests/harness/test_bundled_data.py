"""The bundled data agree with their data cards."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from scipy.stats import spearmanr

from stella_mteb.harness.task_yaml import TaskFile, bundled_tasks

FAULTS = {
    "paraphrase", "attribute", "omission", "hallucination", "order_swap", "agent_swap", "negation",
    "same_setting", "unrelated",
}  # fmt: skip
RATED = ("VatexEval", "VideoParagraphFactuality", "StorySummaryRating")
TASKS = ("VideoSummarySTS", "VideoSummaryRetrieval", "VideoSummaryFaithfulness")


def data_file(task: TaskFile) -> Path:
    return (task.path.parent / task.spec.data).resolve()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    text = data_file(bundled_tasks()["VideoSummarySTS"]).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def clips(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    by_clip: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_clip[row["clip_id"]].append(row)
    return by_clip


def card() -> str:
    return " ".join((data_file(bundled_tasks()["VideoSummarySTS"]).parent / "README.md").read_text().split())


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[a-z0-9']+", text.lower()))


def test_the_bundled_tasks_have_the_documented_names_and_types() -> None:
    assert set(bundled_tasks()) == {*TASKS, "VideoDescriptionSTS", "ClipCCRetrieval", *RATED}
    assert {name: task.spec.type for name, task in bundled_tasks().items() if name in TASKS} == {
        "VideoSummarySTS": "STS",
        "VideoSummaryRetrieval": "Retrieval",
        "VideoSummaryFaithfulness": "PairClassification",
    }


def test_the_three_video_summary_tasks_read_one_file() -> None:
    assert len({data_file(bundled_tasks()[name]) for name in TASKS}) == 1


@pytest.mark.parametrize("name", TASKS)
def test_no_bundled_row_is_bad(name: str, rows: list[dict[str, Any]]) -> None:
    pairs = bundled_tasks()[name].pairs

    assert pairs.bad == []
    assert len(pairs.first) == len(rows)


def test_there_are_at_least_forty_clips_with_five_candidates_each(
    clips: dict[str, list[dict[str, Any]]],
) -> None:
    assert len(clips) >= 40
    assert {len(members) for members in clips.values()} == {5}


def test_the_description_gives_the_true_number_of_clips(clips: dict[str, list[dict[str, Any]]]) -> None:
    for name in ("VideoSummarySTS", "VideoSummaryRetrieval"):
        assert re.search(rf"\b{len(clips)}\s(?:invented )?clips", bundled_tasks()[name].spec.description)


def test_each_clip_has_one_reference_and_each_reference_one_clip(rows: list[dict[str, Any]]) -> None:
    pairs = {(row["clip_id"], row["reference"]) for row in rows}

    assert len(pairs) == len({clip for clip, _ in pairs}) == len({reference for _, reference in pairs})


def test_references_have_80_to_250_words(rows: list[dict[str, Any]]) -> None:
    lengths = {row["clip_id"]: len(row["reference"].split()) for row in rows}

    assert {clip: length for clip, length in lengths.items() if not 80 <= length <= 250} == {}


def test_candidates_are_summaries_not_fragments(rows: list[dict[str, Any]]) -> None:
    assert min(len(row["candidate"].split()) for row in rows) >= 40


def test_every_fault_occurs_often_enough_for_a_mean(rows: list[dict[str, Any]]) -> None:
    counts = Counter(row["fault"] for row in rows)

    assert set(counts) == FAULTS
    assert min(counts.values()) >= 20


def test_every_clip_has_a_faithful_candidate_and_distinct_faults(
    clips: dict[str, list[dict[str, Any]]],
) -> None:
    for clip, members in clips.items():
        labels = [row["fault"] for row in members]

        assert "paraphrase" in labels, clip
        assert len(set(labels)) == len(labels), clip


def test_scores_are_the_mean_of_their_grades_and_in_range(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert len(row["grades"]) >= 2
        assert all(0 <= grade <= 5 for grade in row["grades"])
        assert row["score"] == pytest.approx(mean(row["grades"]), abs=1e-9)


def test_the_mean_scores_of_the_faults_have_the_order_of_the_rubric(rows: list[dict[str, Any]]) -> None:
    """A changed detail costs less than a reversed event, which costs less than another story."""
    means = {fault: mean(row["score"] for row in rows if row["fault"] == fault) for fault in FAULTS}
    tiers = [
        {"paraphrase"},
        {"attribute", "omission", "hallucination", "order_swap"},
        {"agent_swap", "negation"},
        {"same_setting"},
        {"unrelated"},
    ]

    for better, worse in pairwise(tiers):
        assert min(means[fault] for fault in better) > max(means[fault] for fault in worse)


def test_paraphrases_count_as_faithful_and_every_other_fault_does_not(rows: list[dict[str, Any]]) -> None:
    positive_from = bundled_tasks()["VideoSummaryFaithfulness"].spec.positive_from

    assert {row["fault"] for row in rows if row["score"] >= positive_from} == {"paraphrase"}
    assert all(row["score"] >= positive_from for row in rows if row["fault"] == "paraphrase")


def test_candidates_of_another_clip_are_no_retrieval_queries(rows: list[dict[str, Any]]) -> None:
    positive_from = bundled_tasks()["VideoSummaryRetrieval"].spec.positive_from

    other_story = {row["score"] for row in rows if row["fault"] in {"unrelated", "same_setting"}}
    assert max(other_story) < positive_from


def test_no_candidate_is_a_duplicate_or_equals_a_reference(rows: list[dict[str, Any]]) -> None:
    candidates = [" ".join(row["candidate"].lower().split()) for row in rows]
    references = {" ".join(row["reference"].lower().split()) for row in rows}

    assert len(set(candidates)) == len(candidates)
    assert references.isdisjoint(candidates)


def test_candidates_are_written_not_shuffled(rows: list[dict[str, Any]]) -> None:
    """Only candidates with swapped order or actors may have exactly the words of their reference."""
    shuffled = [
        (row["clip_id"], row["fault"])
        for row in rows
        if words(row["candidate"]) == words(row["reference"]) and row["fault"] not in {"order_swap", "agent_swap"}
    ]

    assert shuffled == []


def test_candidates_are_whole_sentences(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        sentences = re.split(r"(?<=[a-z][.!?])[\"')]?\s+", row["candidate"])

        assert len(sentences) >= 2, row["clip_id"]
        assert all(re.match(r"[\"'(]?[A-Z0-9]", sentence) for sentence in sentences), row["clip_id"]
        assert row["candidate"].rstrip("\"')")[-1] in ".!?", row["clip_id"]


def test_word_overlap_alone_does_not_give_the_grades_away(rows: list[dict[str, Any]]) -> None:
    """Faithful paraphrases share fewer words with the reference than most faulty candidates."""

    def overlap(row: dict[str, Any]) -> float:
        one, two = words(row["reference"]), words(row["candidate"])
        return (one & two).total() / max(one.total(), two.total())

    faithful = mean(overlap(row) for row in rows if row["fault"] == "paraphrase")
    swapped = mean(overlap(row) for row in rows if row["fault"] in {"negation", "agent_swap", "attribute"})
    assert faithful < swapped


def test_the_texts_are_plain_ascii(rows: list[dict[str, Any]]) -> None:
    """Curly quotes and long dashes would tell hand-written from generated text, and tokenise apart."""
    odd = {
        character
        for row in rows
        for key in ("reference", "candidate", "note")
        for character in row[key]
        if not " " <= character <= "~"
    }

    assert odd == set()


def test_every_row_says_what_is_wrong_with_it(rows: list[dict[str, Any]]) -> None:
    assert [row["clip_id"] for row in rows if not row["note"].strip()] == []
    assert {tuple(row) for row in rows} == {
        ("clip_id", "genre", "reference", "candidate", "score", "grades", "fault", "note")
    }


def test_the_data_cards_table_of_faults_is_true(rows: list[dict[str, Any]]) -> None:
    listed = re.findall(r"\| `(\w+)` \| (\d+) \| [^|]+ \| ([\d.]+) to ([\d.]+) \|", card())

    assert {fault for fault, *_ in listed} == FAULTS
    for fault, count, low, high in listed:
        members = [row for row in rows if row["fault"] == fault]
        assert len(members) == int(count)
        assert all(float(low) <= grade <= float(high) for row in members for grade in row["grades"]), fault


def test_the_data_cards_agreement_of_the_gradings_is_true(rows: list[dict[str, Any]]) -> None:
    one, two = zip(*(row["grades"] for row in rows), strict=True)
    gaps = [abs(a - b) for a, b in zip(one, two, strict=True)]

    assert f"a Spearman correlation of {spearmanr(one, two).statistic:.3f};" in card()
    assert f"{mean(gap <= 0.5 for gap in gaps):.0%}".replace("%", " % of the pairs") in card()
    assert max(gaps) < 1.5


@pytest.mark.parametrize("name", TASKS)
def test_each_task_of_the_bundled_data_names_its_licence(name: str) -> None:
    assert bundled_tasks()[name].spec.licence == "cc-by-4.0"
