"""Judge many candidate models in one pass: every text and sentence of all of them is encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stella_mteb.engine.encoder import Progress, TextEncoder
from stella_mteb.engine.pooling import FloatMatrix, unit
from stella_mteb.judge.inputs import Candidate
from stella_mteb.judge.sentences import split_sentences, without_marks
from stella_mteb.judge.similarity import PairScore, score_pair


@dataclass(frozen=True)
class Judgement:
    """One candidate model's scores, by clip id in the order of the references."""

    candidate: Candidate
    scores: dict[str, PairScore]


def judge_all(
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
    """The whole text, without the marks of a list, then its sentences; a text without any is its own sentence."""
    return [without_marks(text), *(split_sentences(text) or [text])]
