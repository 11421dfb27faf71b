"""The ranking of candidate models over several judges, and the agreement of the judges."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata, spearmanr

from stella_mteb.files.tables import many
from stella_mteb.judge.reports import Result
from stella_mteb.statistics.correlation import draws, interval

MIN_COVERAGE = 0.8
"""The smallest share of scored clips for a model to be ranked; otherwise a model that skips hard clips would win."""

Results = Mapping[str, Mapping[str, Result]]
"""Results by judge and candidate model."""


@dataclass(frozen=True)
class RankedModel:
    """One row of a ranking.

    Attributes:
        slug: The candidate model.
        borda: Sum over judges of the number of candidates minus the rank (ties share their mean rank).
        mean_hm_cf: Mean over judges of mean HM-CF.
        rank: Rank from 1; models with equal borda and mean_hm_cf share a rank.
        clips: Number of clips in the means, the same for all ranked models; None if unknown.
    """

    slug: str
    borda: float
    mean_hm_cf: float
    rank: int
    clips: int | None = None


@dataclass(frozen=True)
class Apart:
    """A candidate model that cannot be ranked with the others.

    Attributes:
        slug: The candidate model.
        mean_hm_cf: Mean HM-CF over the judges that scored it.
        clips: Number of clips in the mean; None if unknown.
        reason: Why the model is not ranked.
    """

    slug: str
    mean_hm_cf: float
    clips: int | None
    reason: str


def rank_models(results: Results) -> tuple[list[RankedModel], list[Apart]]:
    """Rank models by Borda, then by mean HM-CF, at full precision, over the clips that all ranked models share.

    In-house files have only means, so common clips are unknown; there only models with the highest count are ranked.

    Returns:
        The ranking, and the unranked models: those that some judge has not scored, and those that were scored on less
        than `MIN_COVERAGE` of the clips of the most complete model.
    """
    models = sorted(set().union(*results.values()))
    counts = {model: _count(results, model) for model in models}
    whole = max((count for count in counts.values() if count is not None), default=0)
    least = whole if common_clips(results, models) is None else MIN_COVERAGE * whole
    reasons = {}
    for model, count in counts.items():
        if any(model not in judge for judge in results.values()):
            reasons[model] = "not every judge has scored it"
        elif count is not None and count < least:
            reasons[model] = f"scored on {count} of {many(whole, 'clip')}"
    common = common_clips(results, [model for model in models if model not in reasons])
    if common == []:
        reasons = dict.fromkeys(models, "no clip is common to all models") | reasons
    ranked = {model: counts[model] if common is None else len(common) for model in models if model not in reasons}
    means = {judge: {model: own[model].mean_over(common) for model in ranked} for judge, own in results.items()}
    apart = [
        Apart(model, statistics.fmean(own[model].mean for own in results.values() if model in own), counts[model], why)
        for model, why in reasons.items()
    ]
    return _by_borda(means, ranked), sorted(apart, key=lambda one: (-(one.clips or 0), -one.mean_hm_cf, one.slug))


def means_beside(results: Results, model: str) -> dict[str, float]:
    """Average a model's other measures over the judges, for the measures that all judges have, over its own clips."""
    own = [judge[model].means for judge in results.values() if model in judge]
    return {name: statistics.fmean(means[name] for means in own) for name in own[0] if all(name in o for o in own)}


def common_clips(results: Results, models: Sequence[str]) -> list[str] | None:
    """Return the clips that every judge has scored for all these models, in order; None if some judge's are unknown."""
    tables = [judge[model].clips for judge in results.values() for model in models if model in judge]
    known = [set(table) for table in tables if table is not None]
    return sorted(set.intersection(*known)) if known and len(known) == len(tables) else None


def _count(results: Results, model: str) -> int | None:
    clips = common_clips(results, [model])
    counts = [judge[model].count for judge in results.values() if model in judge]
    return len(clips) if clips is not None else min((count for count in counts if count is not None), default=None)


def _by_borda(means: Mapping[str, Mapping[str, float]], models: Mapping[str, int | None]) -> list[RankedModel]:
    judges = list(means.values())
    borda = dict.fromkeys(models, 0.0)
    for judge in judges:
        for model, place in zip(models, rankdata([-judge[model] for model in models]), strict=True):
            borda[model] += len(models) - float(place)
    mean = {model: math.fsum(judge[model] for judge in judges) / len(judges) for model in models}
    rows: list[RankedModel] = []
    for place, model in enumerate(sorted(models, key=lambda model: (-borda[model], -mean[model])), start=1):
        before = rows[-1] if rows else None
        tied = before is not None and (before.borda, before.mean_hm_cf) == (borda[model], mean[model])
        rank = before.rank if tied and before else place
        rows.append(RankedModel(model, borda[model], mean[model], rank, models[model]))
    return rows


RESAMPLES = 2_000


@dataclass(frozen=True)
class Agreement:
    """The agreement of two judges on the mean HM-CF of the candidate models that both have scored.

    Attributes:
        first: The first judge's folder name.
        second: The second judge's folder name.
        models: Number of candidate models.
        kendall: Kendall's tau-b of the two orders; None for fewer than two models, or if a judge ties all of them.
        spearman: Spearman's rho of the two orders; None in the same cases.
        low: Lower end of tau's 95 % interval; None if scores by clip are unknown.
        high: Upper end.
        clips: Number of clips that were resampled for the interval.
    """

    first: str
    second: str
    models: int
    kendall: float | None
    spearman: float | None
    low: float | None = None
    high: float | None = None
    clips: int = 0


def agreements(results: Results, seed: int = 0) -> Iterator[Agreement]:
    """Compare every two judges.

    The interval is a percentile bootstrap over clips. Both judges and all models share each draw, since a clip that is
    hard to summarise is hard for all of them. It describes the variation between clips, and not between models.

    Args:
        results: The judges' results. An interval needs the scores of two or more clips.
        seed: Seed of the resampling.
    """
    for first, second in itertools.combinations(results, 2):
        pair = {judge: results[judge] for judge in (first, second)}
        models = sorted(pair[first].keys() & pair[second].keys())
        found = _correlations([[own[model].mean for model in models] for own in pair.values()])
        shared = common_clips(pair, models) or []
        low, high = _interval(pair, models, shared, seed) if len(shared) > 1 and found else (None, None)
        kendall, spearman = found or (None, None)
        yield Agreement(first, second, len(models), kendall, spearman, low, high, len(shared) if low is not None else 0)


def _correlations(pair: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    if any(len(set(side)) < 2 for side in pair):
        return None
    return float(kendalltau(*pair).statistic), float(spearmanr(*pair).statistic)


def _interval(
    pair: Results, models: Sequence[str], shared: Sequence[str], seed: int
) -> tuple[float | None, float | None]:
    scores = np.array([[own[model].values(shared) for model in models] for own in pair.values()])
    drawn = np.concatenate([*draws(np.arange(len(shared)), RESAMPLES, seed, len(shared))])
    means: NDArray[np.float64] = scores @ drawn.T / len(shared)  # [2 judges, models, resamples]
    taus = [found[0] for sample in np.moveaxis(means, -1, 0) if (found := _correlations(sample.tolist()))]
    return interval(np.array(taus))
