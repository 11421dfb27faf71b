"""Judge many candidate models in one pass: every text and sentence of all of them is encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stella_mteb.engine.encoder import Progress, TextEncoder
from stella_mteb.engine.pooling import FloatMatrix, unit
from stella_mteb.engine.store import VectorStore
from stella_mteb.judge.inputs import Candidate
from stella_mteb.judge.sentences import split_sentences, without_marks
from stella_mteb.judge.similarity import PairScore, Several, over_references, score_pair
from stella_mteb.models.resolve import ResolvedModel
from stella_mteb.prompts.profiles import PromptType, judge_prompt

SCORING = "2"
"""Raised by whoever changes what the judge makes of the same texts: results of another are not mixed in."""


@dataclass(frozen=True)
class Judgement:
    """One candidate model's scores, by clip id in the order of the references."""

    candidate: Candidate
    scores: dict[str, PairScore]


def load_judge(
    model: ResolvedModel, prompt_type: PromptType, texts: Sequence[str], *, device: str | None, cache: Path
) -> tuple[TextEncoder, str]:
    """Load a model as a judge of these texts.

    Returns:
        The engine, with the vectors of earlier runs, and the prompt before every text.

    Raises:
        ConfigError: If a text is one of the examples in the prompt.
        EnvironmentProblem: If weights or device are not to be had.
    """
    prompt = judge_prompt(model.prompts, model.config.prompts, prompt_type, model.spec.shots)
    prompt.refuse_leak(texts, "judge")
    encoder = model.load(device)
    encoder.store = VectorStore(cache, encoder.fingerprint)
    return encoder, prompt.text


def judge_all(
    encoder: TextEncoder,
    prompt: str,
    references: Mapping[str, Sequence[str]],
    candidates: Sequence[Candidate],
    progress: Progress | None = None,
    several: Several = "best",
) -> Iterator[Judgement]:
    """Score every prediction of every candidate against the references of its clip.

    All texts of all candidates go through the backbone together, each distinct text once; heads and cosines are
    computed candidate by candidate, so that memory holds one candidate's full vectors at a time.

    Args:
        encoder: The judge's engine. With a store attached, nothing is encoded twice across runs either.
        prompt: Put before every text and sentence, on both sides.
        references: The references of each clip by its id; a text by itself is one reference.
        candidates: From `stella_mteb.judge.inputs.read_candidates`.
        progress: Called after every batch of the encoding.
        several: Which score of a clip with several references counts: that of the best, or the mean.

    Yields:
        One judgement for each candidate, in order.
    """
    # A str is a sequence of str too: each of its characters would be a reference.
    references = {clip: [texts] if isinstance(texts, str) else texts for clip, texts in references.items()}
    vectors = TextVectors(encoder, prompt, distinct_texts(references, candidates), progress)
    reference_vectors = {clip: [vectors[text] for text in texts] for clip, texts in references.items()}
    for candidate in candidates:
        scores = {}
        for clip, text in candidate.texts.items():
            own = vectors[text]
            against = [score_pair(reference, own) for reference in reference_vectors[clip]]
            scores[clip] = over_references(against, several)
        yield Judgement(candidate, scores)


class TextVectors:
    """Unit vectors of texts and their sentences; all go through the backbone together, each distinct one once.

    Args:
        encoder: The engine.
        prompt: Put before every text and sentence.
        texts: All that will be asked for.
        progress: Called after every batch of the encoding.
    """

    def __init__(
        self, encoder: TextEncoder, prompt: str, texts: Iterable[str], progress: Progress | None = None
    ) -> None:
        self._parts = {text: text_and_sentences(text) for text in texts}
        parts = dict.fromkeys(part for own in self._parts.values() for part in own)
        self._rows = {text: row for row, text in enumerate(parts)}
        self._pooled = encoder.pool(list(parts), prompt, progress=progress)
        self._project = encoder.project

    def __getitem__(self, text: str) -> FloatMatrix:
        """float32 [1 + sentences, dimension]: the whole text first, then its sentences."""
        return unit(self._project(self._pooled[[self._rows[part] for part in self._parts[text]]]))


def distinct_texts(references: Mapping[str, Sequence[str]], candidates: Sequence[Candidate]) -> list[str]:
    """All references and predictions, each once."""
    given = [*references.values(), *(one.texts.values() for one in candidates)]
    return list(dict.fromkeys(text for texts in given for text in texts))


def text_and_sentences(text: str) -> list[str]:
    """The whole text, without the marks of a list, then its sentences; a text without any is its own sentence."""
    return [without_marks(text), *(split_sentences(text) or [text])]
