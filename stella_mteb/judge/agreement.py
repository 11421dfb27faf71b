"""The agreement of scores with people's ratings: over all items, within clips, over systems; and with preferences."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from stella_mteb.files.tables import many
from stella_mteb.judge.ratings import Preference, Rated, Rating
from stella_mteb.judge.similarity import SHOWN_AS
from stella_mteb.statistics.correlation import (
    Array,
    Correlations,
    Groups,
    correlate,
    correlate_within,
    draws,
    interval,
    resampled_spearman,
)
from stella_mteb.statistics.paired import MIN_ITEMS

Mode = Literal["best", "mean", "first"]
Level = Literal["item", "clip", "system"]
Against = Literal["rater", "each", "mean"]
Scores = dict[Mode, dict[str, Array]]
"""By mode and measure: float64 [rated items], NaN for an undefined value."""

RESAMPLES = 500
_LEAST_SYSTEMS = 3
_WHY = {
    "order": " (it needs two sentences on both sides)",
    "consistency": ", as no matched sentences contradict each other by their words",
}
_SEED = 0


@dataclass(frozen=True)
class Row:
    """The agreement of one measure with people.

    Attributes:
        judge: The judge's spec.
        measure: One of `stella_mteb.judge.similarity.MEASURES`.
        level: `item` for all items, `clip` for the mean of the correlations within clips, `system` for the means of
            systems.
        against: `rater` treats each rater's score as its own item, as Flickr8k-Expert is reported; `each` averages the
            correlations with each rater, as VATEX-EVAL is reported; `mean` uses the mean of the raters.
        references: The score that counts if a clip has several references.
        correlations: The correlations; `n` is the number of items, clips or systems.
        low: Lower end of the 95 % interval of Spearman's rho, by resampling clips.
        high: Upper end.
    """

    judge: str
    measure: str
    level: Level
    against: Against
    references: Mode
    correlations: Correlations
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the row as one flat object."""
        own = asdict(self)
        correlations = own.pop("correlations")
        return {
            **{k: v for k, v in own.items() if k not in {"low", "high"}},
            **correlations,
            "low": self.low,
            "high": self.high,
        }


@dataclass(frozen=True)
class MeasureDifference:
    """The difference between two measures' rho on the same items, against the raters' mean: first minus second.

    Attributes:
        first: The first judge and measure.
        second: The second judge and measure; either the judge or the measure is the same.
        difference: Difference of Spearman's rho over all items.
        low: Lower end of the 95 % interval, by resampling clips.
        high: Upper end.
        p: Two-sided p-value from the same resamples.
        p_adjusted: The p-value adjusted for all reported differences.
    """

    first: tuple[str, str]
    second: tuple[str, str]
    difference: float
    low: float | None
    high: float | None
    p: float
    p_adjusted: float


def agreement_rows(judge: str, scores: Scores, ratings: Sequence[Rating]) -> Iterator[Row]:
    """Compute the agreement of each measure of one judge with people, at every level.

    Args:
        judge: The judge's spec.
        scores: From `score_items`, for the ratings' clips and candidates in the same order.
        ratings: People's ratings.
    """
    gold = np.array([rating.score for rating in ratings])
    clips = numbered(rating.clip for rating in ratings)
    table = rater_table(ratings)
    given = np.isfinite(table)
    systems = None if any(rating.system is None for rating in ratings) else numbered(str(one.system) for one in ratings)
    for mode, measures in scores.items():
        for measure, values in measures.items():
            there = np.isfinite(values)
            if there.sum() < 2:
                continue
            rows = partial(Row, judge, measure)
            x, y, groups = values[there], gold[there], np.unique(clips[there], return_inverse=True)[1]
            yield rows("item", "mean", mode, *_over_items(x, y[None], groups))
            yield rows("clip", "mean", mode, *_within_clips(x, y, groups))
            if systems is not None and systems.max() + 1 >= _LEAST_SYSTEMS:
                yield rows("system", "mean", mode, *_over_systems(x, y, groups, systems[there]))
            if table.size and given.all():
                yield rows("item", "each", mode, *_over_items(x, table[there].T, groups))
            rated, _ = places = np.nonzero(given & there[:, None])
            if len(rated) > 1:
                x, y, groups = values[rated], table[places], np.unique(clips[rated], return_inverse=True)[1]
                yield rows("item", "rater", mode, *_over_items(x, y[None], groups))
                yield rows("clip", "rater", mode, *_within_clips(x, y, groups))


def rater_table(ratings: Sequence[Rating]) -> Array:
    """Return the raters' scores [texts, raters], NaN for missing ones."""
    table = np.full((len(ratings), max((len(one.raters) for one in ratings), default=0)), np.nan)
    for row, one in zip(table, ratings, strict=True):
        row[: len(one.raters)] = one.raters
    return table


Found = tuple[Correlations, float | None, float | None]
"""Correlations, and the ends of the 95 % interval of Spearman's rho."""


def _over_items(x: Array, raters: Array, groups: Groups) -> Found:
    """Average the correlations with each row of `raters` [rows, items]; a resample draws the same clips for all."""
    found = mean_of([correlate(x, rater) for rater in raters])
    if found.spearman is None or groups.max() + 1 < MIN_ITEMS:
        return found, None, None
    return found, *interval(resampled_spearman(x, raters, groups, resamples=RESAMPLES, seed=_SEED).mean(axis=0))


def _within_clips(x: Array, y: Array, groups: Groups) -> Found:
    found, by_clip = correlate_within(x, y, groups)
    defined = by_clip[np.isfinite(by_clip)]
    if len(defined) < MIN_ITEMS:
        return found, None, None
    every = np.arange(len(defined))
    drawn = np.concatenate([weights @ defined / len(defined) for weights in draws(every, RESAMPLES, _SEED, len(every))])
    return found, *interval(drawn)


def _over_systems(x: Array, y: Array, clips: Groups, systems: Groups) -> Found:
    from scipy.stats import spearmanr  # noqa: PLC0415

    systems = np.unique(systems, return_inverse=True)[1]  # of those that have a value
    shape = (int(clips.max()) + 1, int(systems.max()) + 1)
    sums = np.zeros((3, *shape))
    for total, values in zip(sums, (x, y, np.ones_like(x)), strict=True):
        np.add.at(total, (clips, systems), values)
    means = sums[:2].sum(axis=1) / sums[2].sum(axis=0)
    if len(sums[0]) < MIN_ITEMS:
        return correlate(*means), None, None
    drawn = []
    for weights in draws(clips, RESAMPLES, _SEED, len(x)):
        of_x, of_y, count = weights @ sums
        whole = np.all(count > 0, axis=1)
        drawn += [
            spearmanr(a, b).statistic
            for a, b in zip(of_x[whole] / count[whole], of_y[whole] / count[whole], strict=True)
            if np.ptp(a) > 0 and np.ptp(b) > 0
        ]
    return correlate(*means), *interval(np.array(drawn))


def differences(scores: Mapping[str, Scores], ratings: Sequence[Rating]) -> list[MeasureDifference]:
    """Test every two measures of a judge, and the same measure of every two judges.

    Scores are those of the best reference, against the raters' mean. Measures that are undefined for some items (order,
    for single sentences) are left out.
    """
    if not ratings:
        return []
    gold = np.array([rating.score for rating in ratings])
    clips = numbered(rating.clip for rating in ratings)
    names = [
        (judge, measure)
        for judge, own in scores.items()
        for measure, values in own["best"].items()
        if np.isfinite(values).all() and np.ptp(values) > 0
    ]
    pairs = [
        (a, b)
        for a, b in itertools.combinations(range(len(names)), 2)
        if (names[a][0] == names[b][0]) != (names[a][1] == names[b][1])
    ]
    if not pairs or np.ptp(gold) == 0 or clips.max() + 1 < MIN_ITEMS:
        return []
    values = np.stack([scores[judge]["best"][measure] for judge, measure in names])
    drawn = resampled_spearman(gold, values, clips, resamples=RESAMPLES, seed=_SEED)
    first, second = np.transpose(pairs)
    apart = drawn[first] - drawn[second]
    rho = np.array([correlate(row, gold).spearman for row in values])
    observed = rho[first] - rho[second]
    p, adjusted = _max_t_of_resamples(observed, apart[:, np.isfinite(apart).all(axis=0)])
    return [
        MeasureDifference(names[a], names[b], float(observed[i]), *interval(apart[i]), float(p[i]), float(adjusted[i]))
        for i, (a, b) in enumerate(pairs)
    ]


def _max_t_of_resamples(observed: Array, drawn: Array) -> tuple[Array, Array]:
    """Compute p-values of differences from resamples [differences, resamples], plain and adjusted for all differences.

    Source: Westfall and Young (1993), single-step maxT, over the bootstrap. Holm's method would multiply the smallest
    possible p-value of the resamples by the number of differences, and so find nothing among many.
    """
    spread = drawn.std(axis=1, keepdims=True)
    spread[spread == 0] = np.inf  # a measure and its copy have no spread
    null = np.abs(drawn - drawn.mean(axis=1, keepdims=True)) / spread
    reached = np.abs(observed[:, None]) / spread
    total = 1 + drawn.shape[1]
    return (1 + (null >= reached).sum(axis=1)) / total, (1 + (null.max(axis=0) >= reached).sum(axis=1)) / total


def ceiling(ratings: Sequence[Rating]) -> dict[str, Any] | None:
    """Compute the agreement of one rater with the mean of the others, averaged over raters.

    Raters are told apart by their position; a text counts for those who rated it with another rater.

    Returns:
        None unless a text has two raters or more.
    """
    table = rater_table(ratings)
    given = np.isfinite(table)
    number = int(given.sum(axis=1).max(initial=0))
    if number < 2:
        return None
    found = []
    for one in range(table.shape[1]):
        others, there = np.delete(table, one, axis=1), given[:, one] & (given.sum(axis=1) > 1)
        found.append(correlate(table[there, one], np.nanmean(others[there], axis=1)))
    return {**asdict(mean_of(found)), "raters": number}


def mean_of(found: Sequence[Correlations]) -> Correlations:
    """Average each figure over the correlations that have it; `n` is the first's."""

    def mean(name: str) -> float | None:
        values = [getattr(one, name) for one in found if getattr(one, name) is not None]
        return float(np.mean(values)) if values else None

    return Correlations(mean("spearman"), mean("kendall_b"), mean("kendall_c"), mean("pearson"), found[0].n)


def reasons(scores: Mapping[str, Scores], rated: Rated) -> list[str]:
    """Say why figures are missing, one sentence for each reason."""
    found, ratings = [], rated.ratings
    clips = len({one.clip for one in ratings} | {one.clip for one in rated.preferences})
    if clips < MIN_ITEMS:
        found.append(f"No intervals and no tests: they need {MIN_ITEMS} clips, and these are {clips}.")
    if not ratings:
        return found
    golds = {one.score for one in ratings}
    if len(golds) == 1:
        found.append(f"No correlations: every text is rated {golds.pop():g}.")
    if len({one.clip for one in ratings}) == len(ratings):
        found.append("No figures within clips: every clip has one text.")
    nameless, systems = sum(one.system is None for one in ratings), {one.system for one in ratings} - {None}
    if systems and nameless:
        found.append(f"No figures over systems: {nameless} of {len(ratings)} rows name no system.")
    elif len(systems) < _LEAST_SYSTEMS:
        found.append(
            f"No figures over systems: they need {_LEAST_SYSTEMS}, and the ratings name {len(systems) or 'none'}."
        )
    given = np.isfinite(rater_table(ratings))
    if lacking := int((~given).any(axis=1).sum()) if rated.same_raters and given.any() else 0:
        found.append(
            f"No figures against each rater: {lacking} of {many(len(ratings), 'text')} lack one of the "
            f"{given.shape[1]} raters."
        )
    for judge, of in scores.items():
        for measure, values in of["best"].items():
            defined = values[np.isfinite(values)]
            told, why = SHOWN_AS.get(measure, measure) + f" of {judge}" * (len(scores) > 1), _WHY.get(measure, "")
            if 1 < len(defined) == len(values) and np.ptp(defined) == 0:
                found.append(f"No correlations of {told}: it is {defined[0]:g} for every text{why}.")
            elif len(defined) < len(values) and measure != "nli":
                found.append(f"{told} is defined for {len(defined)} of {len(values)} texts{why}.")
    return found


def accuracies(judge: str, scores: Scores, preferences: Sequence[Preference]) -> list[dict[str, Any]]:
    """Compute the share of preferences in which a measure scores the preferred text higher; ties count half.

    Args:
        judge: The judge's spec.
        scores: Scores of the first and the second text of each preference, interleaved.
        preferences: People's preferences.
    """
    preferred = np.array([one.preferred for one in preferences])
    clips = numbered(one.clip for one in preferences)
    rows = []
    for mode, measures in scores.items():
        for measure, values in measures.items():
            apart = values[1::2] - values[0::2]
            there = np.isfinite(apart)
            if not there.any():
                continue
            right = (np.sign(apart[there]) * np.where(preferred[there] == 1, 1, -1) + 1) / 2
            groups = np.unique(clips[there], return_inverse=True)[1]
            low, high = None, None
            if groups.max() + 1 >= MIN_ITEMS:
                drawn = [
                    (weights[:, groups] @ right) / weights[:, groups].sum(axis=1)
                    for weights in draws(groups, RESAMPLES, _SEED, len(right))
                ]
                low, high = interval(np.concatenate(drawn))
            of = {"judge": judge, "measure": measure, "level": "pair", "references": mode}
            rows.append({**of, "accuracy": float(right.mean()), "n": len(right), "low": low, "high": high})
    return rows


def numbered(names: Iterable[str]) -> Groups:
    """Number names from 0 in the order of their first occurrence."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.intp)
