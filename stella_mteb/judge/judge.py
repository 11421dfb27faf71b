"""Judge many candidate models in one pass: every text and sentence of all of them is encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stella_mteb.config import PromptConfig
from stella_mteb.engine import TextEncoder
from stella_mteb.engine.encoder import FloatMatrix, Progress
from stella_mteb.judge.inputs import Candidate
from stella_mteb.judge.scores import PairScore, score_pair
from stella_mteb.judge.sentences import split_sentences
from stella_mteb.prompts import Prompt, TaskInfo, choose

PromptType = Literal["s2s", "s2p", "none"]
_TASK = TaskInfo("VideoSummarySTS", "STS")


def judge_prompt(profile: str, prompts: PromptConfig, prompt_type: PromptType, shots: int | None = None) -> Prompt:
    """The prompt before every text that is compared.

    `s2s`, `s2p` and `none` are the model's own prompts. With few-shot prompts (profile `icl`), `s2s` is what the task
    VideoSummarySTS gets: its examples, then the instruction.

    Args:
        profile: Of the model; only `icl` makes a difference.
        prompts: The model's.
        prompt_type: Which.
        shots: How many examples at most; None for all.
    """
    if profile == "icl" and prompt_type == "s2s":
        return choose(profile, prompts, _TASK, None, shots=shots)
    text = {"s2s": prompts.s2s, "s2p": prompts.s2p, "none": ""}[prompt_type]
    return Prompt(text, f"judge: {prompt_type}")


@dataclass(frozen=True)
class Judgement:
    """One candidate model's scores, by clip id in the order of the references."""

    candidate: Candidate
    scores: dict[str, PairScore]


def judge(
    encoder: TextEncoder,
    prompt: str,
    references: dict[str, str],
    candidates: Sequence[Candidate],
    progress: Progress | None = None,
) -> Iterator[Judgement]:
    """Score every prediction of every candidate against its reference.

    All texts of all candidates go through the backbone together, each distinct text once; heads and cosines are
    computed candidate by candidate, so that memory holds one candidate's full vectors at a time.

    Args:
        encoder: The judge's engine. With a store attached, nothing is encoded twice across runs either.
        prompt: Put before every text and sentence, on both sides.
        references: Reference by clip id.
        candidates: From `stella_mteb.judge.inputs.read_candidates`.
        progress: Called after every batch of the encoding.

    Yields:
        One judgement for each candidate, in order.
    """
    parts: dict[str, list[str]] = {}
    for text in [*references.values(), *(text for one in candidates for text in one.texts.values())]:
        parts.setdefault(text, text_and_sentences(text))
    rows = {text: row for row, text in enumerate(dict.fromkeys(part for own in parts.values() for part in own))}
    pooled = encoder.pool(list(rows), prompt, progress=progress)

    def vectors(text: str) -> FloatMatrix:
        return unit(encoder.project(pooled[[rows[part] for part in parts[text]]]))

    reference_vectors = {clip: vectors(text) for clip, text in references.items()}
    for candidate in candidates:
        scores = {clip: score_pair(reference_vectors[clip], vectors(text)) for clip, text in candidate.texts.items()}
        yield Judgement(candidate, scores)


def text_and_sentences(text: str) -> list[str]:
    """The whole text, then its sentences; a text in which the splitter finds none is its own sentence."""
    return [text, *(split_sentences(text) or [text])]


def unit(vectors: FloatMatrix) -> FloatMatrix:
    """Rows at unit length, whether or not the encoder normalises."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows: FloatMatrix = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return rows
