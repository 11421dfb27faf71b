"""From several judges' means to one ranking of the candidate models."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata, spearmanr


@dataclass(frozen=True)
class RankedModel:
    """One row of a ranking.

    Attributes:
        slug: The candidate model.
        borda: Sum over judges of the number of candidates minus the rank (ties share the mean of their ranks).
        mean_hm_cf: Mean over judges of mean HM-CF.
        rank: From 1; models that are equal in both share a rank.
    """

    slug: str
    borda: float
    mean_hm_cf: float
    rank: int


def rank_models(hm_cf: Mapping[str, Mapping[str, float]]) -> tuple[list[RankedModel], list[str]]:
    """Rank by Borda, then by mean HM-CF, at full precision.

    Args:
        hm_cf: Mean HM-CF by judge and candidate model.

    Returns:
        The ranking of the models that every judge has scored, and the names of those that some have not: a sum
        over fewer judges cannot be compared.
    """
    judges = list(hm_cf.values())
    every = sorted(set().union(*judges))
    models = [model for model in every if all(model in judge for judge in judges)]
    borda = dict.fromkeys(models, 0.0)
    for judge in judges:
        for model, place in zip(models, rankdata([-judge[model] for model in models]), strict=True):
            borda[model] += len(models) - float(place)
    mean = {model: math.fsum(judge[model] for judge in judges) / len(judges) for model in models}
    ordered = sorted(models, key=lambda model: (-borda[model], -mean[model]))
    rows: list[RankedModel] = []
    for place, model in enumerate(ordered, start=1):
        before = rows[-1] if rows else None
        tied = before is not None and (before.borda, before.mean_hm_cf) == (borda[model], mean[model])
        rows.append(RankedModel(model, borda[model], mean[model], before.rank if tied and before else place))
    return rows, [model for model in every if model not in models]


RESAMPLES = 2_000
_LEVEL = 0.95


@dataclass(frozen=True)
class Agreement:
    """Two judges' mean HM-CF of the candidate models that both have scored, compared.

    Attributes:
        first: A judge.
        second: Another.
        models: How many candidate models.
        kendall: Kendall's tau-b of the two orders; None for fewer than two models, or if a judge ties all of them.
        spearman: Likewise Spearman's correlation.
        low: Lower end of tau's 95 % interval; None where the scores per clip are not known.
        high: Upper end.
        clips: How many clips were resampled for it.
    """

    first: str
    second: str
    models: int
    kendall: float | None
    spearman: float | None
    low: float | None = None
    high: float | None = None
    clips: int = 0


Clips = Mapping[str, Mapping[str, Mapping[str, float]]]
"""HM-CF by judge, candidate model and clip."""


def agreements(means: Mapping[str, Mapping[str, float]], clips: Clips, seed: int = 0) -> Iterator[Agreement]:
    """Compare every two judges.

    The interval is a percentile bootstrap over clips: the same drawn clips for both judges and all models, since a clip
    that is hard to summarise is so for all of them. It says what other clips would have changed, not other models.

    Args:
        means: Mean HM-CF by judge and candidate model.
        clips: The scores behind the means, of those judges for which they are known.
        seed: Of the resampling.
    """
    for first, second in itertools.combinations(means, 2):
        models = sorted(means[first].keys() & means[second].keys())
        found = _correlations([[means[judge][model] for model in models] for judge in (first, second)])
        tables = [clips.get(judge, {}).get(model, {}).keys() for judge in (first, second) for model in models]
        shared = sorted(set.intersection(*map(set, tables))) if tables else []
        low, high = (
            _interval(clips, (first, second), models, shared, seed) if len(shared) > 1 and found else (None, None)
        )
        kendall, spearman = found or (None, None)
        yield Agreement(first, second, len(models), kendall, spearman, low, high, len(shared) if low is not None else 0)


def _correlations(pair: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    if any(len(set(side)) < 2 for side in pair):
        return None
    return float(kendalltau(*pair).statistic), float(spearmanr(*pair).statistic)


def _interval(
    clips: Clips, judges: Sequence[str], models: Sequence[str], shared: Sequence[str], seed: int
) -> tuple[float | None, float | None]:
    scores = np.array([[[clips[judge][model][clip] for clip in shared] for model in models] for judge in judges])
    drawn = np.random.default_rng(seed).multinomial(len(shared), np.full(len(shared), 1 / len(shared)), RESAMPLES)
    means: NDArray[np.float64] = scores @ drawn.T / len(shared)  # [2 judges, models, resamples]
    taus = [found[0] for sample in np.moveaxis(means, -1, 0) if (found := _correlations(sample.tolist()))]
    if not taus:
        return None, None
    low, high = np.quantile(taus, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)
