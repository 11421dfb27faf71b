"""The judge's page: one HTML file with the ranking and every model's clips, worst first, sentence by sentence."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Template
from markupsafe import Markup

from stella_mteb.files.atomic import atomic_write
from stella_mteb.files.tables import many, plain
from stella_mteb.judge.certainty import Certainty, certainty, ties_in_words
from stella_mteb.judge.judge import Judgement, text_and_sentences
from stella_mteb.judge.matches import CHANCE, DISPUTED, Matches
from stella_mteb.judge.ranking import Apart, RankedModel, Results, rank_models
from stella_mteb.judge.similarity import PairScore
from stella_mteb.pages import svg
from stella_mteb.pages.page import template, typeset


@dataclass(frozen=True)
class JudgedClips:
    """The clips of one judge.

    Attributes:
        judge: The judge's spec.
        references: The references of each clip, by clip id.
        judgements: The judgements of all candidate models.
        matches: Matches by candidate model and clip, from `stella_mteb.judge.matches.match_all`.
        level: The cosine from which a sentence counts as matched; None if unknown.
    """

    judge: str
    references: Mapping[str, Sequence[str]]
    judgements: Sequence[Judgement]
    matches: Mapping[str, Mapping[str, Matches]]
    level: float | None


def write_page(path: Path, results: Results, clips: JudgedClips) -> None:
    """Write one self-contained HTML file, atomically.

    Args:
        path: The file; an existing one is replaced.
        results: Results of all judges, for the ranking.
        clips: The clips of one judge.

    Raises:
        StorageProblem: If the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(render_page(results, clips))


def render_page(results: Results, clips: JudgedClips) -> str:
    """Render the page as text; the same results give the same bytes."""
    ranking, apart = rank_models(results)
    sure = certainty(results, ranking)
    by_slug = {one.candidate.slug: one for one in clips.judgements}
    rows: list[RankedModel | Apart] = [*ranking, *apart]
    models = [_model(row, by_slug.get(row.slug), clips) for row in rows]
    data = _data([by_slug[one.slug] for one in models if one.clips], clips)
    as_json = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    axis, strips = _strips(ranking, sure) if sure and sure.intervals else (None, {})
    return _template().render(
        headline=_headline(ranking, apart, sure, len(results)),
        sure=sure,
        ties=ties_in_words(sure) if sure else [],
        axis=axis,
        strips=strips,
        judges=list(results),
        judge=clips.judge,
        models=models,
        apart=apart,
        level=clips.level,
        chance=_share(CHANCE),
        disputed=_share(DISPUTED) if any(one.nli is not None for one in models) else None,
        # Inside a script element only "<" can end the element or begin a comment.
        data=Markup(as_json.replace("<", "\\u003c")),  # noqa: S704
    )


@cache
def _template() -> Template:
    return template("stella_mteb.judge", {"figure": _figure, "interval": _interval, "ranks": _ranks, "share": _share})


def _figure(value: float | None) -> str:
    return "-" if value is None else typeset(f"{value:.3f}")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}\N{NO-BREAK SPACE}%"


def _headline(ranking: Sequence[RankedModel], apart: Sequence[Apart], sure: Certainty | None, judges: int) -> str:
    if not ranking:
        return f"None of {many(len(apart), 'model')} can be ranked"
    first = ranking[0]
    where = f" on {many(first.clips, 'clip')}" if first.clips else ""
    where += f", by {judges} judges" if judges > 1 else ""
    if len(ranking) == 1:
        return f"Only {first.slug} of {1 + len(apart)} models can be ranked,{where}" if apart else first.slug + where
    tied = [duel.second for duel in sure.duels if duel.first == first.slug and duel.is_tie] if sure else []
    doubt = f"; a tie with {' and '.join(tied) if len(tied) < 3 else f'{len(tied)} others'}" if tied else ""
    return f"{first.slug} comes first of {len(ranking)} models{where}{doubt}"


def _strips(ranking: Sequence[RankedModel], sure: Certainty) -> tuple[Markup, dict[str, Markup]]:
    """Draw the axis for the column head, and each model's mean with its interval; hollow if it ties with the first."""
    ends = [end for pair in sure.intervals.values() for end in pair if end is not None]
    room = max(0.05 * (max(ends) - min(ends)), 0.005)
    x, axis = svg.strip_axis(min(ends) - room, max(ends) + room)
    tied = {duel.second for duel in sure.duels if duel.first == ranking[0].slug and duel.is_tie}
    drawn = {}
    for row in ranking:
        low, high = sure.intervals[row.slug]
        parts = [svg.line(x(low), 11, x(high), 11, "bar even")] if low is not None and high is not None else []
        colour = "s0" if row is ranking[0] else "s0 hollow" if row.slug in tied else "s5"
        told = f"{row.mean_hm_cf:.3f}; {_interval(sure, row.slug)}"
        drawn[row.slug] = svg.strip(svg.STRIP, 22, told, [*parts, svg.mark(0, x(row.mean_hm_cf), 11, 4.5, colour)])
    return axis, drawn


def _interval(sure: Certainty | None, slug: str) -> str:
    low, high = sure.intervals.get(slug, (None, None)) if sure else (None, None)
    return "-" if low is None or high is None else typeset(f"{low:.3f} to {high:.3f}")


def _ranks(sure: Certainty, model: _Model) -> str:
    best, worst = sure.ranks.get(model.slug, (None, None))
    return plain(best) if best == worst else f"{best}\N{EN DASH}{worst}"


@dataclass(frozen=True)
class _Model:
    """A row of the ranking; a model that this run did not judge has 0 `clips`, and None for its other figures."""

    slug: str
    rank: int | None
    mean: float
    precision: float | None
    recall: float | None
    order: float | None
    consistency: float | None
    nli: float | None
    unmatched: float | None
    clips: int
    worst: float | None


def _model(row: RankedModel | Apart, judgement: Judgement | None, clips: JudgedClips) -> _Model:
    rank = row.rank if isinstance(row, RankedModel) else None
    if judgement is None:
        return _Model(row.slug, rank, row.mean_hm_cf, None, None, None, None, None, None, 0, None)
    scores = list(judgement.scores.values())
    cosines = np.concatenate([own.cosines for own in clips.matches[row.slug].values()])
    beside = {
        name: statistics.fmean(values)
        if (values := [v for score in scores if (v := getattr(score, name)) is not None])
        else None
        for name in ("order", "consistency", "nli")
    }
    return _Model(
        slug=row.slug,
        rank=rank,
        mean=row.mean_hm_cf,
        precision=statistics.fmean(score.precision for score in scores),
        recall=statistics.fmean(score.recall for score in scores),
        **beside,
        unmatched=None if clips.level is None else float((cosines < clips.level).mean()),
        clips=len(scores),
        worst=min(score.hm_cf for score in scores),
    )


def _data(judgements: Sequence[Judgement], clips: JudgedClips) -> dict[str, Any]:
    """Collect the data of the page's script: texts without repetition, and the figures of each summary.

    A clip's reference is stored once for all models. Cosines are stored as whole hundredths.
    """
    numbers: dict[tuple[str, int], int] = {}
    models = []
    for one in judgements:
        found = clips.matches[one.candidate.slug]
        worst_first = [clip for _, clip in sorted((score.hm_cf, clip) for clip, score in one.scores.items())]
        models.append(
            [
                _clip(clip, one.candidate.texts[clip], one.scores[clip], found[clip], clips.level)
                | {"reference": numbers.setdefault((clip, found[clip].reference), len(numbers))}
                for clip in worst_first
            ]
        )
    references = [
        {"of": len(clips.references[clip]), "number": number + 1, "texts": _sentences(clips.references[clip][number])}
        for clip, number in numbers
    ]
    return {"models": models, "references": references}


def _clip(clip: str, text: str, score: PairScore, found: Matches, level: float | None) -> dict[str, Any]:
    unmatched = np.flatnonzero(found.cosines < (level or -1))
    missed = np.flatnonzero(found.recalled < (level or -1))
    marks = {
        "unmatched": unmatched,
        "contradicting": np.setdiff1d(found.contradicting, unmatched),
        "disputed": np.setdiff1d(found.disputed, unmatched),
        "displaced": np.setdiff1d(found.displaced, unmatched),
    }
    return {
        "clip": plain(clip),
        "figures": [
            _figure(value) for value in (score.hm_cf, score.coarse, score.precision, score.recall, score.order)
        ],
        "texts": _sentences(text),
        "best": found.best.tolist(),
        "cosines": _hundredths(found.cosines),
        "marks": {kind: rows.tolist() for kind, rows in marks.items() if len(rows)},
        "missed": missed.tolist(),
        "recalled": _hundredths(found.recalled[missed]),
    }


def _hundredths(cosines: np.ndarray) -> list[int]:
    return [round(100 * float(cosine)) for cosine in cosines]


def _sentences(text: str) -> list[str]:
    return [plain(sentence) for sentence in text_and_sentences(text)[1:]]
