"""Small texts, their judgements, and the published scores."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np

from stella_mteb.judge.inputs import Candidate
from stella_mteb.judge.judge import Judgement
from stella_mteb.judge.ratings import Rating
from stella_mteb.judge.reports import Result
from stella_mteb.judge.similarity import PairScore
from tests.conftest import SHARED

JUDGES = ("gte-qwen2-7b", "kalm", "nemo", "nv-embed", "qwen3-8b")
FIGURES = ("coarse", "precision", "recall", "f1", "hm_cf")
REFERENCES = {
    "001": "A man drives a car. A woman in the back seat reads a map aloud. They arrive at the harbour.",
    "002": "Two children build a tower of red bricks. The dog knocks it over before they finish.",
    "003": "Three boats leave the harbour. Nobody waves them goodbye.",
    "004": "A cook burns the soup!",
}
GIVEN = {clip: (text,) for clip, text in REFERENCES.items()}
"""The same as the judge takes them: each clip may have several."""
PREDICTIONS = {
    "good": {
        "001": "A man is driving. A woman behind him reads out a map. They reach the port.",
        "002": "Two kids stack red bricks into a tower. A dog ruins it.",
        "003": "Three boats leave the harbour. Nobody waves them goodbye.",
        "004": "The soup is burnt by a cook.",
    },
    "bad": {
        "001": "A cook burns the soup!",
        "002": "The stock market fell. Two children build a tower of red bricks.",
        "003": "A man is driving. A woman behind him reads out a map. They reach the port.",
    },
}


def candidates() -> list[Candidate]:
    return [candidate(slug, texts) for slug, texts in PREDICTIONS.items()]


def figures(score: PairScore) -> list[float]:
    return [getattr(score, name) for name in FIGURES]


def brute_force(reference: np.ndarray, other: np.ndarray) -> list[float]:
    """Compute the definition in plain Python, one number at a time."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))

    def harmonic(a: float, b: float) -> float:
        return 0.0 if a <= 0 or b <= 0 else 2 / (1 / a + 1 / b)

    precisions, recalls = [], []
    for mine in other[1:]:
        best = -2.0
        for theirs in reference[1:]:
            best = max(best, cosine(mine, theirs))
        precisions.append(best)
    for theirs in reference[1:]:
        best = -2.0
        for mine in other[1:]:
            best = max(best, cosine(mine, theirs))
        recalls.append(best)
    coarse = cosine(reference[0], other[0])
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    f1 = harmonic(precision, recall)
    return [coarse, precision, recall, f1, harmonic(coarse, f1)]


@cache
def published_pairs() -> list[dict[str, str]]:
    with (SHARED / "clip_cc/pair_scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def candidate(slug: str, texts: dict[str, str], **gaps: tuple[str, ...]) -> Candidate:
    return Candidate(slug, texts, **({"missing": (), "empty": (), "unknown": ()} | gaps))


# -------------------------------------------------------------------------------------------------------------- files


def some_scores(seed: int, clips: Iterable[str]) -> dict[str, PairScore]:
    generator = np.random.default_rng(seed)
    return {
        clip: PairScore(*map(float, generator.uniform(-0.1, 1, 5)), *map(int, generator.integers(1, 40, 2)))
        for clip in clips
    }


def of_means(hm_cf: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Result]]:
    """Build results with means only."""
    return {judge: {model: Result(mean) for model, mean in own.items()} for judge, own in hm_cf.items()}


def of_clips(clips: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, Result]]:
    """Build results with the scores of all clips."""
    return {
        judge: {model: Result(float(np.mean([*of.values()])), len(of), dict(of)) for model, of in own.items()}
        for judge, own in clips.items()
    }


def some_judgement(slug: str = "longva", seed: int = 0) -> Judgement:
    scores = some_scores(seed, [f"{number:03}" for number in range(17)])
    gaps = {"missing": ("126", "127"), "empty": ("128",), "unknown": ("x",)}
    return Judgement(candidate(slug, dict.fromkeys(scores, "a text"), **gaps), scores)


def made_up_ratings(seed: int = 0, clips: int = 40) -> tuple[list[Rating], np.ndarray]:
    """Ratings by three raters of three systems' texts, and the quality that they rate."""
    generator = np.random.default_rng(seed)
    ratings, values = [], []
    for clip in range(clips):
        for system in "abc":
            truth = generator.normal() + "abc".index(system)
            raters = tuple(float(np.clip(np.round(3 + truth + generator.normal()), 1, 5)) for _ in range(3))
            ratings.append(Rating(str(clip), "text", float(np.mean(raters)), raters, system))
            values.append(truth)
    return ratings, np.array(values)
