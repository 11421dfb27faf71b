"""Scoring of many candidate models in one pass, which encodes every distinct text and sentence once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stella_mteb.engine.encoder import Progress, TextEncoder
from stella_mteb.engine.pooling import FloatMatrix, unit
from stella_mteb.engine.store import VectorStore
from stella_mteb.judge.contradiction import Cues, consistency, cues_of, matched
from stella_mteb.judge.inputs import Candidate
from stella_mteb.judge.lexical import rouge_1_recall, words_of
from stella_mteb.judge.nli import NliModel
from stella_mteb.judge.sentences import split_sentences, without_marks
from stella_mteb.judge.similarity import PairScore, Several, over_references, score_pair, sentence_cosines
from stella_mteb.models.resolve import ResolvedModel
from stella_mteb.prompts.profiles import PromptType, judge_prompt

SCORING = "3"
"""Version of the scoring. Increase it with every change of scores: results of different versions are never mixed."""


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
        The engine, with the stored vectors of earlier runs, and the prompt that precedes every text.

    Raises:
        ConfigError: If a text is one of the examples in the prompt.
        EnvironmentProblem: If weights or device are unavailable.
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
    nli: NliModel | None = None,
) -> Iterator[Judgement]:
    """Score every prediction of every candidate against the references of its clip.

    All texts of all candidates go through the backbone together, each distinct text once; heads and cosines are
    computed candidate by candidate, so that memory holds one candidate's full vectors at a time.

    Args:
        encoder: The judge's engine. With a store attached, texts of earlier runs are not encoded again.
        prompt: Prefix of every text and sentence, on both sides.
        references: The references of each clip, by clip id; a str is a single reference.
        candidates: From `stella_mteb.judge.inputs.read_candidates`.
        progress: Called after every batch of the encoding.
        several: For clips with several references, whether the best reference's score counts, or the mean.
        nli: A model that scores contradictions between matched sentences.

    Yields:
        One judgement for each candidate, in order.
    """
    # A str is a sequence of str too: each of its characters would be a reference.
    references = {clip: [texts] if isinstance(texts, str) else texts for clip, texts in references.items()}
    vectors = TextVectors(encoder, prompt, distinct_texts(references, candidates), progress)
    read = {clip: [vectors.read(text) for text in texts] for clip, texts in references.items()}
    for candidate in candidates:
        scores = {}
        for clip, text in candidate.texts.items():
            own = vectors.read(text)
            scores[clip] = over_references([score(reference, own, nli) for reference in read[clip]], several)
        yield Judgement(candidate, scores)


@dataclass(frozen=True)
class ReadText:
    """A text with its vectors and words.

    Attributes:
        vectors: float32 [1 + sentences, dimension]: the whole text first, then its sentences.
        sentences: The sentences of the text, in order.
        cues: The words of each sentence that may contradict another.
        words: Counts of the words of the whole text.
    """

    vectors: FloatMatrix
    sentences: Sequence[str]
    cues: Sequence[Cues]
    words: Counter[str]


def score(reference: ReadText, candidate: ReadText, nli: NliModel | None = None) -> PairScore:
    """Compute all measures of a candidate against one reference, from vectors and from words."""
    cosines = sentence_cosines(reference.vectors, candidate.vectors)
    by_nli = None
    if nli:
        pairs = [(reference.sentences[theirs], candidate.sentences[own]) for own, theirs in matched(cosines)]
        by_nli = 1 - float(nli.contradiction(pairs).max())
    return replace(
        score_pair(reference.vectors, candidate.vectors),
        consistency=consistency(cosines, candidate.cues, reference.cues),
        nli=by_nli,
        rouge_1_recall=rouge_1_recall(reference.words, candidate.words),
    )


class TextVectors:
    """Unit vectors of texts and their sentences; one pass of the backbone encodes each distinct one once.

    Args:
        encoder: The engine.
        prompt: Prefix of every text and sentence.
        texts: All texts that will be looked up.
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
        """Return float32 [1 + sentences, dimension]: the whole text first, then its sentences."""
        return unit(self._project(self._pooled[[self._rows[part] for part in self._parts[text]]]))

    def read(self, text: str) -> ReadText:
        """Return a text with its vectors, its sentences and their cues."""
        sentences = self._parts[text][1:]
        return ReadText(self[text], sentences, [cues_of(sentence) for sentence in sentences], words_of(text))


def distinct_texts(references: Mapping[str, Sequence[str]], candidates: Sequence[Candidate]) -> list[str]:
    """Return all references and predictions without duplicates."""
    given = [*references.values(), *(one.texts.values() for one in candidates)]
    return list(dict.fromkeys(text for texts in given for text in texts))


def text_and_sentences(text: str) -> list[str]:
    """Return the whole text without list markers, then its sentences; a text without sentences is its own sentence."""
    return [without_marks(text), *(split_sentences(text) or [text])]
