"""The scores of a pair of texts as CLIP-CC-Bench defines them: coarse, precision, recall, F1 and HM-CF.

Coarse is the cosine of the two whole texts. Precision is the mean, over the candidate's sentences, of the best cosine
with a sentence of the reference; recall is the mean over the reference's sentences. F1 is their harmonic mean, and
HM-CF is the harmonic mean of coarse and F1.
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
"""The score that counts if a clip has several references: the best reference's, or the mean."""


MEASURES = ("coarse", "precision", "recall", "f1", "hm_cf", "order", "consistency", "nli", "rouge_1_recall")
"""The fields of `PairScore` that measure the quality of a candidate; higher is better."""

SHOWN_AS = {"precision": "faithfulness", "recall": "coverage", "rouge_1_recall": "rouge-1"}
"""Names of measures in tables and pages; files keep the in-house names."""


@dataclass(frozen=True)
class PairScore:
    """The scores of one candidate summary against a clip's reference; cosines and means of cosines are from -1 to 1.

    Attributes:
        coarse: Cosine of the two whole texts.
        precision: Mean over the candidate's sentences of the best cosine with a sentence of the reference.
        recall: Mean over the reference's sentences of the best cosine with a sentence of the candidate.
        f1: Harmonic mean of precision and recall.
        hm_cf: Harmonic mean of coarse and F1.
        num_reference_sentences: Number of sentences; a mean if the scores are means over references.
        num_candidate_sentences: Number of sentences.
        reference: Index of the scored reference among the clip's references; None for means over all.
        order: 1 if events are in the reference's order: `stella_mteb.judge.order.order_kept`.
        consistency: 1 if no matched sentences contradict by words: `stella_mteb.judge.contradiction.consistency`.
        nli: 1 minus the highest probability of a contradiction by an NLI model; None without one.
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
    """Compute the harmonic mean of two similarities; 0 if either is not positive."""
    return 2 * a * b / (a + b) if a > 0 and b > 0 else 0.0


def score_pair(reference: FloatMatrix, candidate: FloatMatrix) -> PairScore:
    """Score one pair.

    Args:
        reference: Unit vectors, float32 [1 + sentences, dimension]: the whole text first, then its sentences.
        candidate: Likewise for the candidate.
    """
    # In float32 the cosine of equal unit vectors may be 1.0000001.
    coarse = float(np.dot(reference[0], candidate[0]).clip(-1, 1))
    # One small matrix product: a side has between two and a hundred sentences.
    cosines = sentence_cosines(reference, candidate)
    precision, recall = float(cosines.max(axis=1).mean()), float(cosines.max(axis=0).mean())
    f1 = harmonic_mean(precision, recall)
    return PairScore(
        coarse, precision, recall, f1, harmonic_mean(coarse, f1), len(reference) - 1, len(candidate) - 1,
        order=order_kept(cosines, f1),
    )  # fmt: skip


def sentence_cosines(reference: FloatMatrix, candidate: FloatMatrix) -> FloatMatrix:
    """Compute the cosines [candidate's sentences, reference's sentences] from the vectors of `score_pair`."""
    return (candidate[1:] @ reference[1:].T).clip(-1, 1)


def over_references(scores: Sequence[PairScore], several: Several) -> PairScore:
    """Combine one candidate's scores against all references of a clip into one.

    `best` takes all figures from the reference with the highest HM-CF (if equal, with the highest coarse), so that they
    are consistent with each other. `mean` averages each figure.
    """
    if several == "best":
        won = max(range(len(scores)), key=lambda index: (scores[index].hm_cf, scores[index].coarse))
        return replace(scores[won], reference=won)
    names = [*MEASURES, "num_reference_sentences"]
    known = {name: [value for score in scores if (value := getattr(score, name)) is not None] for name in names}
    means: dict[str, Any] = {name: statistics.fmean(values) if values else None for name, values in known.items()}
    return replace(scores[0], **means, reference=None)
