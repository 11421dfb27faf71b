"""Judges' scores of texts that people rated, and their agreement with these ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from stella_mteb.engine.encoder import Progress, TextEncoder
from stella_mteb.judge.agreement import Mode, Scores, accuracies, agreement_rows, ceiling, differences, reasons
from stella_mteb.judge.judge import TextVectors, score
from stella_mteb.judge.nli import NliModel
from stella_mteb.judge.ratings import Rated
from stella_mteb.judge.similarity import MEASURES, PairScore, over_references


class Validation:
    """A comparison of judges' scores of candidate texts with people's ratings and preferences.

    Args:
        references: The references of each clip.
        rated: People's ratings of texts, and their preferences between two texts.
    """

    def __init__(self, references: Mapping[str, Sequence[str]], rated: Rated) -> None:
        self.references, self.rated = references, rated
        self._of_ratings: dict[str, Scores] = {}
        self._of_preferences: dict[str, Scores] = {}

    @property
    def texts(self) -> list[str]:
        """The distinct texts that a judge must read."""
        items = self._items()
        references = (text for clip in dict.fromkeys(clip for clip, _ in items) for text in self.references[clip])
        return list(dict.fromkeys([*references, *(text for _, text in items)]))

    def _items(self) -> list[tuple[str, str]]:
        pairs = [(one.clip, text) for one in self.rated.preferences for text in one.candidates]
        return [*((one.clip, one.candidate) for one in self.rated.ratings), *pairs]

    def judge(
        self,
        name: str,
        encoder: TextEncoder,
        prompt: str,
        progress: Progress | None = None,
        nli: NliModel | None = None,
    ) -> None:
        """Score all texts with one judge."""
        scores = score_items(TextVectors(encoder, prompt, self.texts, progress), self.references, self._items(), nli)
        number = len(self.rated.ratings)
        for place, own in ((slice(number), self._of_ratings), (slice(number, None), self._of_preferences)):
            own[name] = {mode: {m: values[place] for m, values in of.items()} for mode, of in scores.items()}

    def as_json(self) -> dict[str, Any]:
        """Return `rows`, `preferences`, `differences`, `ceiling`, `sizes` and `reasons` (of gaps) as JSON values."""
        clips = dict.fromkeys(clip for clip, _ in self._items())
        return {
            "rows": [
                row.as_json()
                for name, scores in self._of_ratings.items()
                for row in agreement_rows(name, scores, self.rated.ratings)
                if self.rated.same_raters or row.against != "each"
            ],
            "preferences": [
                row
                for name, scores in self._of_preferences.items()
                for row in accuracies(name, scores, self.rated.preferences)
            ],
            "differences": [asdict(one) for one in differences(self._of_ratings, self.rated.ratings)],
            "ceiling": ceiling(self.rated.ratings) if self.rated.same_raters else None,
            "sizes": {
                "texts": len(self.rated.ratings),
                "preferences": len(self.rated.preferences),
                "clips": len(clips),
                "references": max(len(self.references[clip]) for clip in clips),
            },
            "reasons": [
                *self.rated.left_out,
                *reasons(self._of_ratings, self.rated),
            ],
        }


def score_items(
    vectors: TextVectors,
    references: Mapping[str, Sequence[str]],
    items: Sequence[tuple[str, str]],
    nli: NliModel | None = None,
) -> Scores:
    """Score candidate texts, each against the references of its clip.

    Args:
        vectors: Vectors of all texts.
        references: The references of each clip.
        items: Clip and candidate text of each item.
        nli: A model that scores contradictions between matched sentences.
    """
    places: dict[str, list[int]] = {}
    for place, (clip, _) in enumerate(items):
        places.setdefault(clip, []).append(place)
    modes: Sequence[Mode] = (
        ("best", "mean", "first") if any(len(references[clip]) > 1 for clip in places) else ("best",)
    )
    found: Scores = {mode: {measure: np.full(len(items), np.nan) for measure in MEASURES} for mode in modes}
    for clip, own in places.items():
        of_references = [vectors.read(text) for text in references[clip]]
        for place in own:
            candidate = vectors.read(items[place][1])
            against = [score(reference, candidate, nli) for reference in of_references]
            for mode in modes:
                counted = against[0] if mode == "first" else over_references(against, mode)
                for measure in MEASURES:
                    found[mode][measure][place] = _value(counted, measure)
    return found


def _value(score: PairScore, measure: str) -> float:
    value = getattr(score, measure)
    return np.nan if value is None else float(value)
