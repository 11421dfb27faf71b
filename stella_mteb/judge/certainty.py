"""The uncertainty of a ranking: intervals over clips, and tests of every two models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stella_mteb.files.tables import many
from stella_mteb.judge.ranking import RESAMPLES, RankedModel, Results, common_clips
from stella_mteb.statistics.correlation import Array, draws, interval
from stella_mteb.statistics.max_t import max_t, possible_ranks
from stella_mteb.statistics.paired import MIN_ITEMS

ALPHA = 0.05
_FLIPS = 9_999  # as in compare; among five judges one pair has p = .045, too close to ALPHA for 2 000 flips


@dataclass(frozen=True)
class Duel:
    """The difference between two models on the same clips: the first's mean HM-CF minus the second's.

    Attributes:
        first: The model with the higher rank.
        second: The model with the lower rank.
        difference: Mean over judges and clips.
        low: Lower end of the simultaneous interval over all duels; None if no difference could be significant.
        high: Upper end.
        p: Two-sided p-value of the null hypothesis that a clip's difference is symmetric around zero.
        p_adjusted: The p-value adjusted for all duels.
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
        """Whether the difference is not significant."""
        return self.p_adjusted >= ALPHA


@dataclass(frozen=True)
class Certainty:
    """The uncertainty of a ranking.

    Attributes:
        clips: Number of clips in the ranking.
        needed: Smallest number of clips with which a difference can be significant.
        intervals: The 95 % interval of each model's mean HM-CF, by resampling clips; empty for fewer clips than
            `stella_mteb.statistics.paired.MIN_ITEMS`.
        ranks: The best and the worst rank of each model that are compatible with the tests of all models.
        duels: Every two models, the one with the higher rank first.
    """

    clips: int
    needed: int
    intervals: dict[str, tuple[float | None, float | None]]
    ranks: dict[str, tuple[int, int]]
    duels: tuple[Duel, ...]


def certainty(results: Results, ranking: Sequence[RankedModel], seed: int = 0) -> Certainty | None:
    """Compute the uncertainty of a ranking.

    A clip's score is the mean of its HM-CF over the judges. The tests are paired by clip, since a hard clip is hard for
    every model, and share one correction for all duels (`stella_mteb.statistics.max_t`). The judges are taken as given:
    the figures describe the variation between clips, and not between judges.

    Args:
        results: The judges' results.
        ranking: From `stella_mteb.judge.ranking.rank_models`.
        seed: Seed of resamples and sign flips.

    Returns:
        None if scores by clip are unknown, or all ranked models have fewer than two clips in common.
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
    drawn = np.concatenate(
        [w @ scores.T / len(clips) for w in draws(np.arange(len(clips)), RESAMPLES, seed, len(clips))]
    )
    ranks = possible_ranks(len(models), [(place[winner], place[loser]) for winner, loser in decided])
    return Certainty(
        clips=len(clips),
        needed=needed,
        intervals=dict(zip(models, map(interval, drawn.T), strict=True)) if len(clips) >= MIN_ITEMS else {},
        ranks=dict(zip(models, ranks, strict=True)),
        duels=tuple(duels),
    )


def _duels(models: Sequence[str], scores: Array, seed: int) -> tuple[list[Duel], int]:
    """Test every two models on scores [models, clips]; also return how many clips a significant difference needs."""
    pairs = list(itertools.combinations(range(len(models)), 2))
    apart = np.array([scores[one] - scores[other] for one, other in pairs]).reshape(len(pairs), scores.shape[1])
    tested = max_t(apart, np.arange(scores.shape[1]), alpha=ALPHA, resamples=_FLIPS, seed=seed)
    bounds = [[float(end) if np.isfinite(end) else None for end in ends] for ends in (tested.low, tested.high)]
    figures = zip(tested.difference.tolist(), *bounds, tested.p.tolist(), tested.p_adjusted.tolist(), strict=True)
    return [
        Duel(models[one], models[other], *own) for (one, other), own in zip(pairs, figures, strict=True)
    ], tested.needed


def ties_in_words(found: Certainty) -> list[str]:
    """Describe the duels in sentences: one on all duels, then one for each model that ties with a lower one."""
    if not found.duels:
        return []
    clips = many(found.clips, "clip")
    if found.clips < found.needed:
        return [f"No difference can be significant on {clips}: a test of these models needs {found.needed}."]
    tied = [duel for duel in found.duels if duel.is_tie]
    sentences = [
        f"{len(found.duels) - len(tied)} of {len(found.duels)} pairs of models differ significantly (paired tests on "
        f"{clips}, adjusted for all pairs)."
    ]
    if len(found.duels) == 1:
        sentences = [] if tied else [f"The two models differ significantly (paired test on {clips})."]
    for first, own in itertools.groupby(tied, key=lambda duel: duel.first):
        others = ", ".join(
            f"{duel.second} (difference {_points(duel.difference)} points, {_points(duel.low)} to "
            f"{_points(duel.high)}, p = {duel.p_adjusted:.3f})"
            for duel in own
        )
        sentences.append(f"{first} cannot be told apart from {others}.")
    return sentences


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.2f}"
