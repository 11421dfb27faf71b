"""A judgement of small texts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from stella_mteb.judge.inputs import Candidate
from stella_mteb.judge.judge import Judgement
from stella_mteb.judge.similarity import PairScore


def candidate(slug: str, texts: dict[str, str], **gaps: tuple[str, ...]) -> Candidate:
    return Candidate(slug, texts, **({"missing": (), "empty": (), "unknown": ()} | gaps))


# -------------------------------------------------------------------------------------------------------------- files


def some_scores(seed: int, clips: Iterable[str]) -> dict[str, PairScore]:
    generator = np.random.default_rng(seed)
    return {
        clip: PairScore(*map(float, generator.uniform(-0.1, 1, 5)), *map(int, generator.integers(1, 40, 2)))
        for clip in clips
    }


def some_judgement(slug: str = "longva", seed: int = 0) -> Judgement:
    scores = some_scores(seed, [f"{number:03}" for number in range(17)])
    gaps = {"missing": ("126", "127"), "empty": ("128",), "unknown": ("x",)}
    return Judgement(candidate(slug, dict.fromkeys(scores, "a text"), **gaps), scores)
