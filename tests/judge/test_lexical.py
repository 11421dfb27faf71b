"""ROUGE-1 recall, compared with rouge-score, if installed, and with values by hand."""

from __future__ import annotations

import pytest

from stella_mteb.judge.lexical import rouge_1_recall, words_of
from tests.support.judging import PREDICTIONS, REFERENCES


def recall(reference: str, candidate: str) -> float:
    return rouge_1_recall(words_of(reference), words_of(candidate))


def test_a_word_counts_as_often_as_both_have_it() -> None:
    assert recall("The cat, the dog, the end.", "the THE bird's end") == pytest.approx(3 / 6)
    assert recall("Кот спит", "кот бежит") == pytest.approx(1 / 2)
    assert recall("...", "a b") == 0


def test_it_is_rouge_scores_recall_without_stemming() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1"])

    for texts in PREDICTIONS.values():
        for clip, text in texts.items():
            expected = scorer.score(REFERENCES[clip], text)["rouge1"].recall
            assert recall(REFERENCES[clip], text) == pytest.approx(expected)
