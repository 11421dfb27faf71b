"""The in-house module's API on top of the engine: `StellaModel`, `StellaEvaluator`, and the same for BGE-en-ICL.

    evaluator = StellaEvaluator("encoders_config.yaml")  # or BgeIclEvaluator: nothing else changes
    evaluator.initialize()
    result = evaluator.evaluate_single(gt_text, pred_text, video_id)
    result.similarity_score.normalized_cosine

A failed evaluation has `success` False, the reason in `error`, and no score.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.pooling import FloatMatrix, unit
from stella_mteb.errors import ConfigError, StellaMtebError
from stella_mteb.inhouse.config import EncoderSettings, model_config, read_inhouse
from stella_mteb.models.config import ModelConfig
from stella_mteb.models.resolve import resolve_config
from stella_mteb.models.spec import Spec
from stella_mteb.prompts.profiles import Prompt, PromptType, judge_prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimilarityScore:
    """The similarity of two texts.

    Attributes:
        cosine_similarity: From -1 to 1.
        normalized_cosine: (cosine + 1) / 2, from 0 to 1.
        metadata: Model, revision, dimension, prompt, device and dtype of the score.
    """

    cosine_similarity: float
    normalized_cosine: float
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationResult:
    """The outcome for one video.

    Attributes:
        video_id: As given.
        success: Whether there is a score.
        similarity_score: The score, or None.
        error: Reason of a failure.
    """

    video_id: str
    success: bool
    similarity_score: SimilarityScore | None = None
    error: str | None = None


class StellaModel:
    """An embedding model, by default Stella 1.5B.

    Args:
        model_path: A local folder, the name of a bundled config or its hub name, or a model's YAML.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`.
        batch_size: Limits a batch to the tokens of this many texts of `max_length`; None for a fast value.
        max_length: Longest input in tokens; None for the model's own (512 for Stella).
        embedding_dimension: One of the published heads; None for the model's default (1024 for Stella).
        normalize_embeddings: Whether vectors get unit length.
        prompt_type: `s2s` for comparing texts, `s2p` for search queries, `none` for documents.
        shots: For models with few-shot prompts: maximum number of examples; None for all.
    """

    default: ClassVar[str] = "stella_en_1.5B_v5"

    def __init__(
        self,
        model_path: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        embedding_dimension: int | None = None,
        normalize_embeddings: bool = True,
        prompt_type: PromptType = "s2s",
        shots: int | None = None,
    ) -> None:
        given = {
            "path": model_path,
            "batch_size": batch_size,
            "max_length": max_length,
            "embedding_dimension": embedding_dimension,
            "normalize_embeddings": normalize_embeddings,
            "prompt_type": prompt_type,
            "shots": shots,
        }
        settings, base = read_inhouse({"encoder": given, "processing": {"device": device}})
        self._use(settings.encoder, base, settings.device)

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | Path | str) -> StellaModel:
        """Create a model from the in-house configuration form.

        Raises:
            ConfigError: Lists every fault, with file and line if there is a file.
        """
        settings, base = read_inhouse(config)
        model = cls.__new__(cls)
        model._use(settings.encoder, base, settings.device)
        return model

    def _use(self, settings: EncoderSettings, base: Path, device: str | None) -> None:
        self._config, self.settings = self._find(settings, base)
        self.device = device
        self._encoder: TextEncoder | None = None
        self._metadata: dict[str, Any] = {}

    @classmethod
    def _find(cls, settings: EncoderSettings, base: Path) -> tuple[ModelConfig, EncoderSettings]:
        return model_config(settings, base, cls.default), settings

    def load_model(self) -> None:
        """Load the weights; a second call does nothing.

        Raises:
            ConfigError: If there is no head of this dimension, or the folder is not a model.
            EnvironmentProblem: If weights or device are unavailable.
        """
        if self._encoder is not None:
            return
        model = resolve_config(self._config, Spec(self._config.name, shots=self.settings.shots))
        self._encoder = model.load(self.device)
        self._metadata = {
            "model": self._config.full_name,
            "revision": model.revision,
            "embedding_dimension": model.dimension,
            "max_length": model.max_length,
            "prompt_type": self.settings.prompt_type,
            "examples": len(self._prompt.examples),
            "device": str(self._encoder.device),
            "dtype": self._encoder.fingerprint["dtype"],
        }

    @property
    def encoder(self) -> TextEncoder:
        """The engine.

        Raises:
            ConfigError: If the model has not been loaded.
        """
        if self._encoder is None:
            raise ConfigError("the model is not loaded; call load_model() (initialize() of an evaluator) first")
        return self._encoder

    @property
    def prompt(self) -> str:
        """The text of the prompt for `prompt_type`."""
        return self._prompt.text

    @property
    def _prompt(self) -> Prompt:
        prompts = self._config.prompts
        return judge_prompt(prompts.profile, prompts, self.settings.prompt_type, self.settings.shots)

    def encode_texts(self, texts: Sequence[str]) -> FloatMatrix:
        """Encode texts with the prompt of `prompt_type`.

        Returns:
            float32 [texts, dimension], at unit length if `normalize_embeddings`.

        Raises:
            ConfigError: If the model is not loaded, or a text is one of the examples in the prompt.
        """
        self._prompt.refuse_leak(texts, type(self).__name__)
        return self.encoder.encode(texts, self.prompt)

    def compute_similarity(self, text1: str, text2: str) -> SimilarityScore:
        """Compute the similarity of two texts, with the prompt of `prompt_type` before both."""
        return self.similarities([(text1, text2)])[0]

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> list[SimilarityScore]:
        """Compute the similarities of many pairs, encoded together, each distinct text once."""
        vectors = unit(self.encode_texts([text for pair in pairs for text in pair]))
        cosines = np.sum(vectors[0::2] * vectors[1::2], axis=1, dtype=np.float64).clip(-1, 1)
        return [SimilarityScore(float(c), (float(c) + 1) / 2, dict(self._metadata)) for c in cosines]


class BgeIclModel(StellaModel):
    """BGE-en-ICL with the interface of `StellaModel`.

    It accepts a configuration for Stella: the keys that name Stella (`path`, `name`, `type`, `embedding_dimension`) are
    ignored with a warning.

    Args:
        model_path: See `StellaModel`; by default `bge_en_icl`.
        device: See `StellaModel`.
        batch_size: See `StellaModel`.
        max_length: Longest text with its instruction, without examples.
        embedding_dimension: 4096, the only one.
        normalize_embeddings: See `StellaModel`.
        prompt_type: `s2s` for comparing texts (with examples), `s2p` for search queries (without), `none`.
        shots: Maximum number of examples; None for all.
    """

    default: ClassVar[str] = "bge_en_icl"

    @classmethod
    def _find(cls, settings: EncoderSettings, base: Path) -> tuple[ModelConfig, EncoderSettings]:
        # Only the last part of the path, because any model may be in a folder such as `stella-mteb`.
        named = [Path(settings.path or "").name, settings.name or "", settings.type or ""]
        if any("stella" in name.casefold() for name in named):
            logger.warning("the configuration is Stella's (%s); %s runs %s", settings.path, cls.__name__, cls.default)
            settings = settings.model_copy(update=dict.fromkeys(("path", "name", "type", "embedding_dimension")))
        config = model_config(settings, base, cls.default)
        if not config.few_shot:
            raise ConfigError(f"{config.name} is not BGE-en-ICL: no few-shot prompts; use StellaModel for other models")
        return config, settings


class StellaEvaluator:
    """Scores predicted summaries against reference texts.

    Args:
        config: A mapping or the path of a YAML, in the in-house `encoders_config` form.
    """

    model_class: ClassVar[type[StellaModel]] = StellaModel

    def __init__(self, config: Mapping[str, Any] | Path | str) -> None:
        self.model = self.model_class.from_config(config)

    def initialize(self) -> None:
        """Load the model; see `StellaModel.load_model`."""
        self.model.load_model()

    def evaluate_single(self, gt_text: str, pred_text: str, video_id: str) -> EvaluationResult:
        """Score one prediction.

        Returns:
            A result with a score or, if a text is missing or encoding fails, with the reason.
        """
        return self.evaluate_batch([(gt_text, pred_text, video_id)])[0]

    def evaluate_batch(self, pairs: Iterable[tuple[str, str, str]]) -> list[EvaluationResult]:
        """Score many predictions in one pass.

        Args:
            pairs: (ground truth, prediction, video id).

        Returns:
            One result for each, in order. A pair that cannot be scored does not affect the others.
        """
        pairs = list(pairs)
        reasons = [_unusable(gt, "ground truth") or _unusable(pred, "prediction") for gt, pred, _ in pairs]
        usable = [i for i, reason in enumerate(reasons) if reason is None]
        scores: dict[int, SimilarityScore] = {}
        try:
            texts = [(pairs[i][0], pairs[i][1]) for i in usable]
            scores = dict(zip(usable, self.model.similarities(texts), strict=True)) if texts else {}
        except ConfigError:
            raise  # the model is not loaded: a mistake of the calling program, not a fault of a text
        except StellaMtebError as error:
            if len(usable) > 1:
                # One faulty text fails the whole batch; encoded alone, only its own pair fails.
                return [self.evaluate_batch([pair])[0] for pair in pairs]
            reasons = [reason or str(error) for reason in reasons]
        return [
            EvaluationResult(video_id, True, scores[i])
            if i in scores
            else EvaluationResult(video_id, False, None, reasons[i])
            for i, (_, _, video_id) in enumerate(pairs)
        ]


class BgeIclEvaluator(StellaEvaluator):
    """Scores with BGE-en-ICL; see `BgeIclModel`."""

    model_class: ClassVar[type[StellaModel]] = BgeIclModel


def _unusable(text: object, what: str) -> str | None:
    if not isinstance(text, str):
        return f"the {what} is not text (got {text!r})"
    return None if text.strip() else f"the {what} is empty"
