"""Contradiction by words: detected and undetected cases, and the AUC on the bundled faults."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stella_mteb.judge.contradiction import consistency, contradict, cues_of, matched


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A man is opening the door.", "A man is not opening the door."),
        ("There is no dog on the beach.", "There is a dog on the beach."),
        ("She didn't answer.", "She answered."),
        ("She doesn\u2019t smile.", "She smiles."),
        ("The patch holds.", "The patch fails."),
        ("A boy opens the red door slowly.", "A boy closes the red door slowly."),
        ("The woman is putting on a hat.", "The woman is taking off a hat."),
        ("The Bakers won the match.", "The Bakers lost the match."),
    ],
)
def test_negation_on_one_side_and_opposite_words_contradict_in_both_directions(one: str, other: str) -> None:
    assert contradict(cues_of(one), cues_of(other))
    assert contradict(cues_of(other), cues_of(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Nobody waves.", "No one waves goodbye."),
        ("She not only sings but dances.", "She sings and dances."),
        ("He goes up the stairs and down again.", "He goes down the stairs and up again."),
        ("The old man put on his coat in the hall.", "Off the coast lies a small island with a light."),
        ("A notable knot.", "A famous loop."),
    ],
)
def test_the_same_negation_and_opposites_in_other_sentences_do_not(one: str, other: str) -> None:
    assert not contradict(cues_of(one), cues_of(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The dog bites the man.", "The man bites the dog."),
        ("Three boats leave.", "Four boats leave."),
        ("Quist arrests Lisle.", "Quist takes the money and lets Lisle walk away."),
    ],
)
def test_exchanged_agents_other_numbers_and_outcomes_in_other_words_are_not_seen(one: str, other: str) -> None:
    assert not contradict(cues_of(one), cues_of(other))


def test_consistency_is_one_less_the_highest_cosine_of_a_matched_contradiction() -> None:
    candidate = [cues_of(text) for text in ("He did not go.", "It rains.", "No boat came.")]
    reference = [cues_of(text) for text in ("He went.", "It rains.")]
    cosines = np.array([[0.9, 0.1], [0.1, 0.8], [0.3, 0.2]], dtype=np.float32)

    assert matched(cosines) == [(0, 0), (1, 1), (2, 0)]
    assert consistency(cosines, candidate, reference) == pytest.approx(0.1)
    assert consistency(cosines, candidate[1:2] * 3, reference) == 1
    assert consistency(-cosines, candidate, reference) == 1


@pytest.mark.slow
def test_it_finds_negated_outcomes_where_hm_cf_does_not(minilm) -> None:
    from stella_mteb.harness.task_yaml import bundled_tasks
    from stella_mteb.judge.judge import TextVectors, score

    folder = bundled_tasks()["VideoSummarySTS"].path.parent
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()]
    pairs = [row for row in pairs if row["fault"] in {"paraphrase", "negation"}]
    vectors = TextVectors(
        minilm, "", dict.fromkeys(text for row in pairs for text in (row["reference"], row["candidate"]))
    )
    scores = [score(vectors.read(row["reference"]), vectors.read(row["candidate"])) for row in pairs]

    def auc(measure: str) -> float:
        negated, faithful = (
            np.array([getattr(one, measure) for one, row in zip(scores, pairs, strict=True) if row["fault"] == fault])
            for fault in ("negation", "paraphrase")
        )
        return float(((negated[:, None] < faithful[None]) + (negated[:, None] == faithful[None]) / 2).mean())

    assert auc("consistency") == pytest.approx(0.84, abs=0.01)
    assert auc("hm_cf") < 0.1
