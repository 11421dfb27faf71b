"""Detection of contradictions between matched sentences by their words: a negation on one side, or opposite words.

The cosine barely changes under negation: "He opens the door" and "He does not open the door" are close. docs/judge.md
lists the contradictions that words cannot reveal: exchanged agents ("the dog bites the man"), wrong numbers, an outcome
in other words.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from stella_mteb.judge.order import Cosines

_NEGATION = re.compile(
    r"\b(?:no|not(?!\ (?:only|just|merely)\b)|never|nobody|none|nothing|nowhere|neither|nor|without|cannot|unable|"
    r"fail(?:s|ed|ing)?|refus(?:e|es|ed|ing)|hardly|barely|scarcely)\b|n['\u2019]t\b",
    re.IGNORECASE | re.VERBOSE,
)
_SHARED = 0.5
"""The smallest share of common words (Jaccard) for which opposite words count: "up" and "down" in unrelated sentences
mean little."""


@dataclass(frozen=True)
class Cues:
    """The words of a sentence that may contradict another sentence.

    Attributes:
        negated: Whether the sentence contains a negation.
        words: All its words, in lower case.
        opposites: The opposites of these words, from opposites.csv.
    """

    negated: bool
    words: frozenset[str]
    opposites: frozenset[str]


def cues_of(sentence: str) -> Cues:
    """Extract the cues of a sentence."""
    words = frozenset(re.findall(r"[^\W\d_]+", sentence.lower()))
    opposites = frozenset().union(*(known for word in words if (known := _opposites().get(word))))
    return Cues(_NEGATION.search(sentence) is not None, words, opposites)


def contradict(one: Cues, other: Cues) -> bool:
    """Return whether only one of two sentences has a negation, or they differ by opposite words."""
    if one.negated != other.negated:
        return True
    if one.opposites.isdisjoint(other.words) or one.opposites.isdisjoint(other.words - one.words):
        return False
    if other.opposites.isdisjoint(one.words - other.words):
        return False
    return len(one.words & other.words) >= _SHARED * len(one.words | other.words)


def consistency(cosines: Cosines, candidate: Sequence[Cues], reference: Sequence[Cues]) -> float:
    """Compute 1 minus the highest cosine of two matched sentences that contradict each other; 1 if there are none.

    Args:
        cosines: [candidate's sentences, reference's sentences].
        candidate: Cues of the candidate's sentences.
        reference: Cues of the reference's sentences.
    """
    found = [cosines[one, other] for one, other in matched(cosines) if contradict(candidate[one], reference[other])]
    return 1 - max(0.0, *map(float, found)) if found else 1.0


def matched(cosines: Cosines) -> list[tuple[int, int]]:
    """Return the pairs of a candidate's and a reference's sentence in which one is the closest to the other."""
    rows = enumerate(cosines.argmax(axis=1).tolist())
    columns = ((row, column) for column, row in enumerate(cosines.argmax(axis=0).tolist()))
    return list(dict.fromkeys([*rows, *columns]))


@cache
def _opposites() -> Mapping[str, frozenset[str]]:
    text = resources.files("stella_mteb.judge").joinpath("opposites.csv").read_text(encoding="utf-8")
    found = defaultdict[str, set[str]](set)
    for sides in csv.reader(text.splitlines()):
        one, other = (side.split() for side in sides)
        for word in one:
            found[word].update(other)
        for word in other:
            found[word].update(one)
    return {word: frozenset(opposites) for word, opposites in found.items()}
