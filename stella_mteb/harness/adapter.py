"""The thin adapter between an engine and MTEB's EncoderProtocol.

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
    """An engine as MTEB sees it; the weights are loaded when the first text comes.

    Args:
        model: The model.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`; None is `auto`.
        engine: A cached function that loads the engine, where encoders share one (`family`).

    Attributes:
        resolved: The model.
        prompts_used: The prompt of every (task, side) encoded so far.
        on_progress: Called with tokens done and tokens to do while a call encodes; None for no display.
        calls: How often MTEB has asked for vectors.
        seconds: Wall time of these calls.
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
        """The engine, loaded on first use: a run whose tasks are all done loads nothing."""
        return self._engine()

    @property
    def loaded(self) -> bool:
        """Whether the engine has been loaded, by this encoder or by another of its family."""
        return self._engine.cache_info().currsize > 0

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """MTEB's description of this model and of this way of running it."""
        return self._meta

    @mteb_model_meta.setter
    def mteb_model_meta(self, meta: ModelMeta) -> None:
        # MTEB assigns a meta of its own after loading; the identity and the revision stay what was loaded.
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
            task_metadata: Chooses the prompt.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: `query` or `document` of an asymmetric task.
            **kwargs: `batch_size` is honoured; MTEB always gives one (32 unless told).

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
        """Compare every vector with every other, as sentence-transformers does for the model's folder.

        Args:
            embeddings1: [n, dimension].
            embeddings2: [m, dimension].

        Returns:
            [n, m]; larger is more alike.
        """
        by = self.resolved.similarity
        if by == self._meta.similarity_fn_name.value and by in {"cosine", "dot"}:
            return super().similarity(embeddings1, embeddings2)
        return SimilarityFunction.to_similarity_fn(by)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare vectors in pairs, as MTEB's description of the model says.

        Args:
            embeddings1: [n, dimension].
            embeddings2: [n, dimension].

        Returns:
            [n]; larger is more alike.
        """
        by = self._meta.similarity_fn_name.value
        if by in {"cosine", "dot"}:
            return super().similarity_pairwise(embeddings1, embeddings2)
        return SimilarityFunction.to_similarity_pairwise_fn(by)(embeddings1, embeddings2)  # MTEB itself has neither

    def prompt_for(self, task_metadata: TaskMetadata, prompt_type: PromptType | None) -> Prompt:
        """The prompt of one side of a task; a fallback is warned about once, and every choice is remembered."""
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
        """The prompts that a task was run with, for its result."""
        return {
            side: {"text": prompt.text, "source": prompt.source, "fallback": prompt.fallback}
            | ({} if prompt.normalized else {"normalized": False})
            for (name, side), prompt in self.prompts_used.items()
            if name == task
        }


def texts_of(inputs: Any, task_metadata: TaskMetadata) -> list[str]:
    """The texts that MTEB hands over in batches.

    Raises:
        ConfigError: If they have other media, of which MTEB only warns; the captions alone would be scored.
    """
    texts: list[str] = []
    for batch in inputs:
        if other := batch.keys() & {"image", "audio", "video"}:
            media = ", ".join(sorted(other))
            raise ConfigError(f"task {task_metadata.name} has {media}; this model reads text only")
        texts += batch["text"]
    return texts


def load_engine(model: ResolvedModel, device: str | None = None, cache: Path | None = None) -> TextEncoder:
    """Load a model, with the store of its vectors if there is a folder for it; see `ResolvedModel.load`."""
    engine = model.load(device)
    if cache is not None:
        engine.store = VectorStore(cache, engine.fingerprint)
    return engine


def family(
    model: ResolvedModel, dimensions: Sequence[int], *, device: str | None = None, cache: Path | None = None
) -> list[Encoder]:
    """One model at several dimensions; the weights are loaded once, and with a cache every text is encoded once.

    Args:
        model: The model.
        dimensions: Each on disk (`model.layout.dimensions`).
        device: See `load_encoder`.
        cache: Folder of the vector stores; None for no store.
    """
    engine = functools.cache(functools.partial(load_engine, model, device, cache))
    members = [replace(model, spec=replace(model.spec, dimension=dimension)) for dimension in dimensions]
    encoders = [Encoder(member, device, engine) for member in members or [model]]
    for encoder in encoders:
        encoder.prompts_used = encoders[0].prompts_used  # so that a fallback is warned about once
    return encoders


def load_encoder(
    spec: Spec | str, *, device: str | None = None, offline: bool | None = None, cache: Path | None = None
) -> Encoder:
    """Load a model for MTEB.

    Args:
        spec: For example `stella_en_1.5B_v5@1024[bf16,card]`; also a hub name, a folder or a YAML.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`.
        offline: Never ask the hub; None as HF_HUB_OFFLINE says.
        cache: Folder of the vector stores (`stella_mteb.engine.store`); None for none.

    Raises:
        ConfigError: If the spec names nothing, or nothing that exists.
        EnvironmentProblem: If the files or the device are not to be had.
    """
    (encoder,) = family(resolve(spec, offline=offline, registry=known_config), [], device=device, cache=cache)
    _ = encoder.text_encoder  # what is wrong with the weights shows here, not in the middle of an evaluation
    return encoder


def load_for_mteb(
    model_name: str, revision: str | None = None, *, device: str | None = None, **identity: Any
) -> Encoder:
    """The loader behind `mteb.get_model`.

    Args:
        model_name: `organisation/name`.
        revision: Must be that of the files that are found.
        device: See `load_encoder`.
        **identity: The settings of `stella_mteb.models.identity`. MTEB hands over the values that the model was
            registered with, with the caller's (`embed_dim=256`, say) in their place.

    Raises:
        ConfigError: If the model cannot be run as the identity says.
    """
    config = next((known for known in bundled_models() if known.full_name == model_name), None)
    if config is None:
        raise ConfigError(f"{model_name} is not a bundled model; use load_encoder")
    dtype, prompts = identity.get("dtype"), identity.get("prompts")
    spec, _ = with_settings(Spec(config.name), {**identity, "dtype": DTYPES.get(str(dtype), dtype)})
    if spec.prompts:
        spec = replace(spec, prompts=profile_of(spec.prompts))
    # By its config, not by its name: a folder of that name in the working folder must not stand in for the hub's.
    encoder = Encoder(resolve_config(config, spec), device)
    _ = encoder.text_encoder
    got = {"normalize": True, "loading": "", "revision": encoder.resolved.revision, **encoder.experiment}
    asked = {**identity, "revision": revision, "prompts": None if prompts == spec.prompts else prompts}
    for key, value in asked.items():
        if value is not None and value != got.get(key):
            raise ConfigError(f"{model_name} cannot be loaded with {key}={value!r}; it is {got.get(key)!r}")
    return encoder
