"""Which sentence of a summary matches which of its reference: for people who look at a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stella_mteb.judge.contradiction import contradict
from stella_mteb.judge.inputs import Candidate
from stella_mteb.judge.judge import ReadText, TextVectors
from stella_mteb.judge.order import Cosines
from stella_mteb.judge.similarity import over_references, score_pair, sentence_cosines

CHANCE = 0.9
"""A sentence is unmatched where it comes no closer than this share of sentences does to another clip's text.

Of the sentences of YouCook2-Fact that is so of 59 % of those that people marked wrong, and of 23 % of the others.
"""


@dataclass(frozen=True)
class Matches:
    """Sentences of one summary and of the reference that it is held against, by their positions from 0.

    Attributes:
        reference: Which of the clip's references.
        best: For each sentence of the candidate, the closest one of the reference.
        cosines: Of these.
        displaced: Sentences of the candidate that match less well where matches may not go back: told out of order.
        contradicting: Sentences of the candidate that contradict their closest one, as far as words show it.
        recalled: For each sentence of the reference, the cosine with the closest one of the candidate.
    """

    reference: int
    best: NDArray[np.intp]
    cosines: NDArray[np.float32]
    displaced: NDArray[np.intp]
    contradicting: NDArray[np.intp]
    recalled: NDArray[np.float32]


def match_all(
    vectors: TextVectors, references: Mapping[str, Sequence[str]], candidates: Sequence[Candidate]
) -> dict[str, dict[str, Matches]]:
    """The matches of every summary, by candidate model and clip; of several references, with the best."""
    read = {clip: [vectors.read(text) for text in texts] for clip, texts in references.items()}
    return {
        one.slug: {clip: _match(read[clip], vectors.read(text)) for clip, text in one.texts.items()}
        for one in candidates
    }


def chance_level(
    vectors: TextVectors, references: Mapping[str, Sequence[str]], candidates: Sequence[Candidate]
) -> float | None:
    """The cosine from which on a sentence is matched; None for a single clip, which has nothing to be held against.

    Every summary is held against the reference of the next clip, in which its sentences have no match: `CHANCE` of
    their best cosines are below the level. It is another for each judge, as cosines are.
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
    """For each row's sentence its match in the best alignment whose matches never go back.

    Args:
        cosines: [sentences of one side, sentences of the other].
    """
    sums = np.empty_like(cosines)  # of the best alignment of the rows so far that ends in this column
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


def _match(references: Sequence[ReadText], candidate: ReadText) -> Matches:
    scores = [score_pair(reference.vectors, candidate.vectors) for reference in references]
    which = over_references(scores, "best").reference or 0
    cosines = sentence_cosines(references[which].vectors, candidate.vectors)
    rows = np.arange(len(cosines))
    best = cosines.argmax(axis=1)
    kept = cosines[rows, monotone_alignment(cosines)]
    pairs = [(own, references[which].cues[other]) for own, other in zip(candidate.cues, best, strict=True)]
    return Matches(
        reference=which,
        best=best,
        cosines=cosines[rows, best],
        displaced=np.flatnonzero(kept < cosines[rows, best]),
        contradicting=np.flatnonzero([contradict(*pair) for pair in pairs]),
        recalled=cosines.max(axis=0),
    )
