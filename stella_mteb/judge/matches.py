"""The matches between the sentences of a summary and of its reference, for the page of a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stella_mteb.judge.contradiction import contradict
from stella_mteb.judge.inputs import Candidate
from stella_mteb.judge.judge import ReadText, TextVectors
from stella_mteb.judge.nli import NliModel
from stella_mteb.judge.order import Cosines
from stella_mteb.judge.similarity import over_references, score_pair, sentence_cosines

CHANCE = 0.9
"""The quantile of the best cosines with another clip's reference below which a sentence counts as unmatched.

On YouCook2-Fact it leaves 59 % of the sentences that people marked wrong unmatched, and 23 % of the others.
"""

DISPUTED = 0.5
"""The probability of a contradiction from which a sentence is marked."""


@dataclass(frozen=True)
class Matches:
    """The matches of one summary's sentences with those of a reference, by position from 0.

    Attributes:
        reference: Index of the reference among the clip's references.
        best: The closest sentence of the reference for each sentence of the candidate.
        cosines: The cosine of each of these pairs.
        displaced: Sentences of the candidate that are out of order: their match in the monotone alignment is not
            their closest.
        contradicting: Sentences of the candidate that contradict their closest one by their words.
        disputed: Sentences of the candidate that contradict their closest one by an NLI model; empty without one.
        recalled: For each sentence of the reference, the cosine with the closest sentence of the candidate.
    """

    reference: int
    best: NDArray[np.intp]
    cosines: NDArray[np.float32]
    displaced: NDArray[np.intp]
    contradicting: NDArray[np.intp]
    disputed: NDArray[np.intp]
    recalled: NDArray[np.float32]


def match_all(
    vectors: TextVectors,
    references: Mapping[str, Sequence[str]],
    candidates: Sequence[Candidate],
    nli: NliModel | None = None,
) -> dict[str, dict[str, Matches]]:
    """Match every summary with its best reference; by candidate model and clip."""
    read = {clip: [vectors.read(text) for text in texts] for clip, texts in references.items()}
    return {
        one.slug: {clip: _match(read[clip], vectors.read(text), nli) for clip, text in one.texts.items()}
        for one in candidates
    }


def chance_level(
    vectors: TextVectors, references: Mapping[str, Sequence[str]], candidates: Sequence[Candidate]
) -> float | None:
    """Compute the cosine from which a sentence counts as matched; None for a single clip.

    Every summary is compared with the reference of the next clip, which is unrelated to it: a share `CHANCE` of the
    best cosines is below the level. The level depends on the judge, because the scale of cosines does.
    """
    clips = list(references)
    following = dict(pairwise([*clips, clips[0]]))
    best = [
        sentence_cosines(vectors[references[following[clip]][0]], vectors[text]).max(axis=1)
        for one in candidates
        for clip, text in one.texts.items()
        if len(clips) > 1
    ]
    return float(np.quantile(np.concatenate(best), CHANCE)) if best else None


def monotone_alignment(cosines: Cosines) -> NDArray[np.intp]:
    """Return each row's match in the best monotone alignment, whose matches never go back.

    Args:
        cosines: [sentences of one side, sentences of the other].
    """
    sums = np.empty_like(cosines)  # of the best alignment of the rows so far whose last match is this column
    before = np.zeros(cosines.shape[1], dtype=cosines.dtype)
    for number, row in enumerate(cosines):
        sums[number] = np.maximum.accumulate(before) + row
        before = sums[number]
    found = np.empty(len(cosines), dtype=np.intp)
    end = cosines.shape[1]
    for number in range(len(cosines))[::-1]:
        found[number] = end = int(sums[number, :end].argmax())
        end += 1
    return found


def _match(references: Sequence[ReadText], candidate: ReadText, nli: NliModel | None) -> Matches:
    scores = [score_pair(reference.vectors, candidate.vectors) for reference in references]
    which = over_references(scores, "best").reference or 0
    reference = references[which]
    cosines = sentence_cosines(reference.vectors, candidate.vectors)
    rows = np.arange(len(cosines))
    best = cosines.argmax(axis=1)
    kept = cosines[rows, monotone_alignment(cosines)]
    pairs = [(own, reference.cues[other]) for own, other in zip(candidate.cues, best, strict=True)]
    said = [(reference.sentences[other], own) for own, other in zip(candidate.sentences, best, strict=True)]
    return Matches(
        reference=which,
        best=best,
        cosines=cosines[rows, best],
        displaced=np.flatnonzero(kept < cosines[rows, best]),
        contradicting=np.flatnonzero([contradict(*pair) for pair in pairs]),
        disputed=np.flatnonzero(nli.contradiction(said) > DISPUTED if nli else []),
        recalled=cosines.max(axis=0),
    )
