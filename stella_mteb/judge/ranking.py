"""From several judges' means to one ranking of the candidate models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.stats import rankdata


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
