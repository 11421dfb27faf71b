"""The four numbers of a pair: coarse, fine precision and recall (and their F1), HM-CF.

As CLIP-CC-Bench defines them: coarse is the cosine of the two whole texts; each sentence's best cosine on the other
side, averaged over the candidate's sentences, is the precision, over the reference's the recall; HM-CF is the harmonic
mean of coarse and F1.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from stella_mteb.engine.pooling import FloatMatrix
from stella_mteb.judge.order import order_kept

Several = Literal["best", "mean"]
"""The reference that counts where a clip has several."""


MEASURES = ("coarse", "precision", "recall", "f1", "hm_cf", "order", "consistency", "nli", "rouge_1_recall")
"""The fields of `PairScore` that say how good a candidate is; more is better."""

SHOWN_AS = {"precision": "faithfulness", "recall": "coverage", "rouge_1_recall": "rouge-1"}
"""What tables and pages call a measure for people, where files keep the in-house name."""


@dataclass(frozen=True)
class PairScore:
    """Scores of one candidate summary against a clip's reference; cosines and means of cosines, from -1 to 1.

    Attributes:
        coarse: Cosine of the two whole texts.
        precision: Mean over the candidate's sentences of the best cosine with a sentence of the reference.
        recall: Mean over the reference's sentences of the best cosine with a sentence of the candidate.
        f1: Harmonic mean of the two.
        hm_cf: Harmonic mean of coarse and F1.
        num_reference_sentences: A mean, where the scores are means over references.
        num_candidate_sentences: Of the candidate.
        reference: Which of the clip's references the scores are of, from 0; None for means over all.
        order: Whether events are told in the reference's order: `stella_mteb.judge.order.order_kept`.
        consistency: Whether words of sentences that match contradict: `stella_mteb.judge.contradiction.consistency`.
        nli: 1 minus the highest probability of a contradiction, by a model for it; None without one.
        rouge_1_recall: Share of the reference's words that the candidate has.
    """

    coarse: float
    precision: float
    recall: float
    f1: float
    hm_cf: float
    num_reference_sentences: float
    num_candidate_sentences: int
    reference: int | None = 0
    order: float | None = None
    consistency: float | None = None
    nli: float | None = None
    rouge_1_recall: float | None = None


def harmonic_mean(a: float, b: float) -> float:
    """The harmonic mean of two similarities, 0 where either is not positive."""
    return 2 * a * b / (a + b) if a > 0 and b > 0 else 0.0


def score_pair(reference: FloatMatrix, candidate: FloatMatrix) -> PairScore:
    """Score one pair.

    Args:
        reference: Unit vectors, float32 [1 + sentences, dimension]: the whole text first, then its sentences.
        candidate: The same of the candidate.
    """
    # Unit vectors in float32: the cosine of equals may be 1.0000001.
    coarse = float(np.dot(reference[0], candidate[0]).clip(-1, 1))
    # Between two and a hundred sentences a side: one small matrix product.
    cosines = sentence_cosines(reference, candidate)
    precision, recall = float(cosines.max(axis=1).mean()), float(cosines.max(axis=0).mean())
    f1 = harmonic_mean(precision, recall)
    return PairScore(
        coarse, precision, recall, f1, harmonic_mean(coarse, f1), len(reference) - 1, len(candidate) - 1,
        order=order_kept(cosines, f1),
    )  # fmt: skip


def sentence_cosines(reference: FloatMatrix, candidate: FloatMatrix) -> FloatMatrix:
    """The cosines of all sentences [candidate's, reference's] of two texts, from the vectors of `score_pair`."""
    return (candidate[1:] @ reference[1:].T).clip(-1, 1)


def over_references(scores: Sequence[PairScore], several: Several) -> PairScore:
    """One candidate's scores against each of a clip's references, as one.

    `best` takes all figures from one reference, that of the highest HM-CF (of the highest coarse where it is equal), so
    that they fit together. `mean` averages each figure.
    """
    if several == "best":
        won = max(range(len(scores)), key=lambda index: (scores[index].hm_cf, scores[index].coarse))
        return replace(scores[won], reference=won)
    names = [*MEASURES, "num_reference_sentences"]
    known = {name: [value for score in scores if (value := getattr(score, name)) is not None] for name in names}
    means: dict[str, Any] = {name: statistics.fmean(values) if values else None for name, values in known.items()}
    return replace(scores[0], **means, reference=None)
