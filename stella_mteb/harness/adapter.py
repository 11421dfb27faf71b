"""The encoder that MTEB runs, a thin adapter around the engine.

encoder = load_encoder("stella_en_1.5B_v5@1024")
mteb.evaluate(encoder, mteb.get_tasks(["STSBenchmark"]))
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.types import PromptType
from numpy.typing import NDArray
from sentence_transformers import SimilarityFunction

from stella_mteb.engine.encoder import Progress, TextEncoder
from stella_mteb.engine.store import VectorStore
from stella_mteb.errors import ConfigError
from stella_mteb.harness import registry
from stella_mteb.harness.known_models import known_config
from stella_mteb.models.config import bundled_models
from stella_mteb.models.identity import identity as identity_of
from stella_mteb.models.identity import with_settings
from stella_mteb.models.resolve import ResolvedModel, resolve, resolve_config
from stella_mteb.models.spec import DTYPES, Spec
from stella_mteb.prompts.profiles import Prompt, choose, profile_of

logger = logging.getLogger(__name__)


class Encoder(AbsEncoder):  # type: ignore[misc]
    """An engine behind MTEB's encoder protocol. The weights are loaded with the first text.

    Args:
        model: The model.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`; None is `auto`.
        engine: A cached function that loads the engine, shared by the encoders of a `family`.

    Attributes:
        resolved: The model.
        prompts_used: The prompt of every (task, side) encoded so far.
        on_progress: Called during encoding with the tokens done and the total; None for no display.
        calls: Number of calls of `encode`.
        seconds: Wall time spent in them.
    """

    def __init__(
        self,
        model: ResolvedModel,
        device: str | None = None,
        engine: functools._lru_cache_wrapper[TextEncoder] | None = None,
    ) -> None:
        registry.keep_runs_apart()
        self.resolved = model
        self._engine = engine or functools.cache(functools.partial(load_engine, model, device))
        self.experiment = identity_of(model, model.dtype(device))
        self.prompts_used: dict[tuple[str, str], Prompt] = {}
        self.on_progress: Progress | None = None
        self.calls = 0
        self.seconds = 0.0
        self.mteb_model_meta = registry.model_meta(
            model.config,
            revision=model.revision,
            dimensions=model.layout.dimensions,
            experiment=self.experiment,
            similarity=model.similarity,
            loader=load_for_mteb,
        )

    @property
    def text_encoder(self) -> TextEncoder:
        """The engine, loaded on first use. A run without open tasks never loads it."""
        return self._engine()

    @property
    def loaded(self) -> bool:
        """Whether the engine has been loaded, by this encoder or another one of its family."""
        return self._engine.cache_info().currsize > 0

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """MTEB's description of this model with the settings of this run."""
        return self._meta

    @mteb_model_meta.setter
    def mteb_model_meta(self, meta: ModelMeta) -> None:
        # MTEB assigns its own description after loading; identity and revision must stay those of the loaded model.
        self._meta = meta.model_copy(
            update={
                "revision": self.resolved.revision,
                "embed_dim": self.resolved.dimension,
                "experiment_kwargs": dict(self.experiment),
            }
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Encode the texts of one side of a task; see `mteb.models.EncoderProtocol.encode`.

        Args:
            inputs: Batches with a key `text`.
            task_metadata: Determines the prompt.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: `query` or `document` of an asymmetric task.
            **kwargs: `batch_size` is used; MTEB always passes one (32 by default).

        Returns:
            float32 [texts, dimension].

        Raises:
            ConfigError: If `precision` asks for quantised vectors.
        """
        if kwargs.get("precision") not in (None, "float32"):
            raise ConfigError(f"precision {kwargs['precision']!r} is not supported; vectors are float32")
        self.calls += 1
        texts = texts_of(inputs, task_metadata)
        prompt = self.prompt_for(task_metadata, prompt_type)
        prompt.refuse_leak(texts, f"task {task_metadata.name}")
        started = time.perf_counter()
        vectors = self.text_encoder.encode(
            texts,
            prompt.text,
            dimension=self.resolved.dimension,
            batch_size=kwargs.get("batch_size"),
            progress=self.on_progress,
            normalize=None if prompt.normalized else False,
        )
        self.seconds += time.perf_counter() - started
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare every vector with every other, with the similarity function of the model folder.

        Args:
            embeddings1: [n, dimension].
            embeddings2: [m, dimension].

        Returns:
            [n, m]; larger is more similar.
        """
        by = self.resolved.similarity
        if by == self._meta.similarity_fn_name.value and by in {"cosine", "dot"}:
            return super().similarity(embeddings1, embeddings2)
        return SimilarityFunction.to_similarity_fn(by)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare vectors in pairs, with the similarity function of MTEB's description.

        Args:
            embeddings1: [n, dimension].
            embeddings2: [n, dimension].

        Returns:
            [n]; larger is more similar.
        """
        by = self._meta.similarity_fn_name.value
        if by in {"cosine", "dot"}:
            return super().similarity_pairwise(embeddings1, embeddings2)
        # MTEB has no pairwise form of the others.
        return SimilarityFunction.to_similarity_pairwise_fn(by)(embeddings1, embeddings2)

    def prompt_for(self, task_metadata: TaskMetadata, prompt_type: PromptType | None) -> Prompt:
        """Choose the prompt for one side of a task, record it, and warn once if it is a fallback."""
        side = registry.side_of(prompt_type)
        key = (task_metadata.name, side or "both")
        if key not in self.prompts_used:
            prompt = choose(
                self.resolved.prompts,
                self.resolved.config.prompts,
                registry.task_info(task_metadata),
                side,
                shots=self.resolved.spec.shots,
                offline=self.resolved.offline,
            )
            if prompt.fallback:
                logger.warning("task %s (%s): %s; prompt %r", *key, prompt.source, prompt.text)
            self.prompts_used[key] = prompt
        return self.prompts_used[key]

    def prompt_notes(self, task: str) -> dict[str, dict[str, Any]]:
        """Return the prompts that a task was run with, for its result."""
        return {
            side: {"text": prompt.text, "source": prompt.source, "fallback": prompt.fallback}
            | ({} if prompt.normalized else {"normalized": False})
            for (name, side), prompt in self.prompts_used.items()
            if name == task
        }


def texts_of(inputs: Any, task_metadata: TaskMetadata) -> list[str]:
    """Collect the texts of MTEB's batches.

    Raises:
        ConfigError: If a batch has images, audio or video. MTEB only warns, and would score the captions alone.
    """
    texts: list[str] = []
    for batch in inputs:
        if other := batch.keys() & {"image", "audio", "video"}:
            media = ", ".join(sorted(other))
            raise ConfigError(f"task {task_metadata.name} has {media}; this model reads text only")
        texts += batch["text"]
    return texts


def load_engine(model: ResolvedModel, device: str | None = None, cache: Path | None = None) -> TextEncoder:
    """Load a model, with a vector store if a cache folder is given; see `ResolvedModel.load`."""
    engine = model.load(device)
    if cache is not None:
        engine.store = VectorStore(cache, engine.fingerprint)
    return engine


def family(
    model: ResolvedModel, dimensions: Sequence[int], *, device: str | None = None, cache: Path | None = None
) -> list[Encoder]:
    """Create the encoders of one model at several dimensions, which share the weights and, with a cache, the vectors.

    Args:
        model: The model.
        dimensions: Dimensions on disk (`model.layout.dimensions`).
        device: See `load_encoder`.
        cache: Folder of the vector stores; None for no store.
    """
    engine = functools.cache(functools.partial(load_engine, model, device, cache))
    members = [replace(model, spec=replace(model.spec, dimension=dimension)) for dimension in dimensions]
    encoders = [Encoder(member, device, engine) for member in members or [model]]
    for encoder in encoders:
        encoder.prompts_used = encoders[0].prompts_used  # warn once about a fallback
    return encoders


def load_encoder(
    spec: Spec | str, *, device: str | None = None, offline: bool | None = None, cache: Path | None = None
) -> Encoder:
    """Load a model for MTEB.

    Args:
        spec: For example `stella_en_1.5B_v5@1024[bf16,card]`; also a hub name, a folder or a YAML.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`.
        offline: Never access the hub; by default HF_HUB_OFFLINE decides.
        cache: Folder of the vector stores (`stella_mteb.engine.store`), or None.

    Raises:
        ConfigError: If the spec is invalid or the model does not exist.
        EnvironmentProblem: If the files or the device are unavailable.
    """
    (encoder,) = family(resolve(spec, offline=offline, registry=known_config), [], device=device, cache=cache)
    _ = encoder.text_encoder  # report faults of the weights now, not in the middle of an evaluation
    return encoder


def load_for_mteb(
    model_name: str, revision: str | None = None, *, device: str | None = None, **identity: Any
) -> Encoder:
    """Load a model for `mteb.get_model`.

    Args:
        model_name: `organisation/name`.
        revision: Must match the revision of the files.
        device: See `load_encoder`.
        **identity: The settings of `stella_mteb.models.identity`, as registered. The caller's settings
            (`embed_dim=256`, for example) override them.

    Raises:
        ConfigError: If the model cannot be run with these settings.
    """
    config = next((known for known in bundled_models() if known.full_name == model_name), None)
    if config is None:
        raise ConfigError(f"{model_name} is not a bundled model; use load_encoder")
    dtype, prompts = identity.get("dtype"), identity.get("prompts")
    spec, _ = with_settings(Spec(config.name), {**identity, "dtype": DTYPES.get(str(dtype), dtype)})
    if spec.prompts:
        spec = replace(spec, prompts=profile_of(spec.prompts))
    # Resolve by config, not by name: a folder of this name in the working folder must not replace the hub's model.
    encoder = Encoder(resolve_config(config, spec), device)
    _ = encoder.text_encoder
    got = {"normalize": True, "loading": "", "revision": encoder.resolved.revision, **encoder.experiment}
    asked = {**identity, "revision": revision, "prompts": None if prompts == spec.prompts else prompts}
    for key, value in asked.items():
        if value is not None and value != got.get(key):
            raise ConfigError(f"{model_name} cannot be loaded with {key}={value!r}; it is {got.get(key)!r}")
    return encoder
