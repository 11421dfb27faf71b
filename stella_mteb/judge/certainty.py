"""How sure a ranking is: what other clips would have changed, and which models the clips tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stella_mteb.judge.ranking import RESAMPLES, RankedModel, Results, common_clips
from stella_mteb.statistics.correlation import Array, draws, interval
from stella_mteb.statistics.max_t import max_t, possible_ranks
from stella_mteb.statistics.paired import MIN_ITEMS

ALPHA = 0.05
_FLIPS = 9_999  # as in compare; of five judges one pair has p = .045, and 2 000 flips would blur it


@dataclass(frozen=True)
class Duel:
    """Two models on the same clips: the first's mean HM-CF minus the second's.

    Attributes:
        first: The model that is ranked higher.
        second: The other.
        difference: Mean over judges and clips.
        low: Lower end of the interval that holds for all duels together; None where no difference could be a finding.
        high: Upper end.
        p: Two-sided, of the hypothesis that the difference of a clip is as likely as its negative.
        p_adjusted: The same, adjusted for all duels.
    """

    first: str
    second: str
    difference: float
    low: float | None
    high: float | None
    p: float
    p_adjusted: float

    @property
    def is_tie(self) -> bool:
        """Whether the clips cannot tell the two apart."""
        return self.p_adjusted >= ALPHA


@dataclass(frozen=True)
class Certainty:
    """How sure a ranking is.

    Attributes:
        clips: Number of clips behind it.
        needed: Number of clips from which on a difference can be a finding.
        intervals: By model, the 95 % interval of its mean HM-CF, by resampling clips; empty for fewer clips than
            `stella_mteb.statistics.paired.MIN_ITEMS`.
        ranks: By model, the best and the worst rank that the tests leave it, for all models together.
        duels: Every two models, the higher ranked first.
    """

    clips: int
    needed: int
    intervals: dict[str, tuple[float | None, float | None]]
    ranks: dict[str, tuple[int, int]]
    duels: tuple[Duel, ...]


def certainty(results: Results, ranking: Sequence[RankedModel], seed: int = 0) -> Certainty | None:
    """Say how sure a ranking is.

    A clip's score is the mean of its HM-CF over the judges. All models are tested on the same clips, with one
    correction for all duels (`stella_mteb.statistics.max_t`): a clip that is hard is so for every model. The judges are
    taken as given; the figures say what other clips would have changed, not what other judges would say.

    Args:
        results: What the judges said.
        ranking: From `stella_mteb.judge.ranking.rank_models`.
        seed: Of resamples and sign flips.

    Returns:
        None where scores by clip are not known, or fewer than two clips are common to all ranked models.
    """
    models = [row.slug for row in ranking]
    clips = common_clips(results, models) or []
    if len(clips) < 2:
        return None
    scores = np.mean([[judge[model].values(clips) for model in models] for judge in results.values()], axis=0)
    duels, needed = _duels(models, scores, seed)
    place = {model: i for i, model in enumerate(models)}
    decided = [
        (duel.first, duel.second) if duel.difference > 0 else (duel.second, duel.first)
        for duel in duels
        if not duel.is_tie
    ]
    ranks = possible_ranks(len(models), [(place[winner], place[loser]) for winner, loser in decided])
    return Certainty(
        clips=len(clips),
        needed=needed,
        intervals=_intervals(models, scores, seed) if len(clips) >= MIN_ITEMS else {},
        ranks=dict(zip(models, ranks, strict=True)),
        duels=tuple(duels),
    )


def _duels(models: Sequence[str], scores: Array, seed: int) -> tuple[list[Duel], int]:
    """Every two models, from scores [models, clips], and how many clips a finding takes."""
    pairs = list(itertools.combinations(range(len(models)), 2))
    apart = np.array([scores[one] - scores[other] for one, other in pairs]).reshape(len(pairs), scores.shape[1])
    tested = max_t(apart, np.arange(scores.shape[1]), alpha=ALPHA, resamples=_FLIPS, seed=seed)
    bounds = [[float(end) if np.isfinite(end) else None for end in ends] for ends in (tested.low, tested.high)]
    figures = zip(tested.difference.tolist(), *bounds, tested.p.tolist(), tested.p_adjusted.tolist(), strict=True)
    return [
        Duel(models[one], models[other], *own) for (one, other), own in zip(pairs, figures, strict=True)
    ], tested.needed


def _intervals(models: Sequence[str], scores: Array, seed: int) -> dict[str, tuple[float | None, float | None]]:
    clips = scores.shape[1]
    drawn = np.concatenate([w @ scores.T / clips for w in draws(np.arange(clips), RESAMPLES, seed, clips)])
    return {model: interval(of_model) for model, of_model in zip(models, drawn.T, strict=True)}


def ties_in_words(found: Certainty) -> list[str]:
    """One sentence for each model that the clips cannot tell from one below it, after one on all duels."""
    if not found.duels:
        return []
    if found.clips < found.needed:
        return [f"No finding is possible on {found.clips} clips: a test needs {found.needed} to tell two models apart."]
    tied = [duel for duel in found.duels if duel.is_tie]
    sentences = [
        f"{len(found.duels) - len(tied)} of {len(found.duels)} pairs of models differ beyond doubt "
        f"(paired tests on {found.clips} clips, adjusted for all pairs)."
    ]
    for first, own in itertools.groupby(tied, key=lambda duel: duel.first):
        others = ", ".join(
            f"{duel.second} (difference {_points(duel.difference)} points, {_points(duel.low)} to "
            f"{_points(duel.high)}, p = {duel.p_adjusted:.3f})"
            for duel in own
        )
        sentences.append(f"A tie: {first} cannot be told apart from {others}.")
    return sentences


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.2f}"
