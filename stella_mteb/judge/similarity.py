"""The four numbers of a pair: coarse, fine precision and recall (and their F1), HM-CF.

As CLIP-CC-Bench defines them: coarse is the cosine of the two whole texts; each sentence's best cosine on the other
side, averaged over the candidate's sentences, is the precision, over the reference's the recall; HM-CF is the harmonic
mean of coarse and F1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stella_mteb.engine.pooling import FloatMatrix


@dataclass(frozen=True)
class PairScore:
    """Scores of one candidate summary against one reference; cosines and means of cosines, from -1 to 1."""

    coarse: float
    precision: float
    recall: float
    f1: float
    hm_cf: float
    num_reference_sentences: int
    num_candidate_sentences: int


def harmonic_mean(a: float, b: float) -> float:
    """The harmonic mean of two similarities, 0 where either is not positive."""
    return 2 * a * b / (a + b) if a > 0 and b > 0 else 0.0


def score_pair(reference: FloatMatrix, candidate: FloatMatrix) -> PairScore:
    """Score one pair.

    Args:
        reference: Unit vectors, float32 [1 + sentences, dimension]: the whole text first, then its sentences.
        candidate: The same of the candidate.
    """
    coarse = float(np.dot(reference[0], candidate[0]))
    # Between two and a hundred sentences a side: one small matrix product.
    cosines = candidate[1:] @ reference[1:].T
    precision, recall = float(cosines.max(axis=1).mean()), float(cosines.max(axis=0).mean())
    f1 = harmonic_mean(precision, recall)
    return PairScore(coarse, precision, recall, f1, harmonic_mean(coarse, f1), len(reference) - 1, len(candidate) - 1)
