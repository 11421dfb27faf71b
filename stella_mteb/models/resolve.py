"""Resolves a spec to a model: finds its config and its files, and loads them with native classes.

spec ► config (`stella_mteb.models.config`) ► folder (`locate`) ► layout (`layout`) ► TextEncoder (`loading`)
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stella_mteb.errors import ConfigError
from stella_mteb.models.config import ModelConfig, bundled_configs, load_config
from stella_mteb.models.declared import Similarity
from stella_mteb.models.layout import Layout, read_layout
from stella_mteb.models.locate import Registry, find_config, find_folder, recognise
from stella_mteb.models.spec import Spec
from stella_mteb.prompts.profiles import require_profile

if TYPE_CHECKING:
    from stella_mteb.engine.encoder import TextEncoder

__all__ = ["ResolvedModel", "bundled_configs", "load_config", "resolve", "resolve_config"]


def is_offline() -> bool:
    """Check the two environment variables with which huggingface_hub disables access to the hub."""
    switch = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return switch.upper() in {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True)
class ResolvedModel:
    """A model whose files have been found but not loaded.

    Attributes:
        spec: The requested spec.
        config: Its configuration.
        folder: Folder with the files.
        revision: Commit on the hub, or `local-…`, a fingerprint of the files.
        layout: The parts of the folder.
        offline: Whether nothing else may be downloaded for it (few-shot examples).
    """

    spec: Spec
    config: ModelConfig
    folder: Path
    revision: str
    layout: Layout
    offline: bool = False

    @property
    def dimension(self) -> int:
        """Dimension of the vectors, from the spec, the config or the folder."""
        return self.spec.dimension or self.config.dimension or self.layout.default_dimension

    @property
    def normalize(self) -> bool:
        """Whether vectors get unit length, from the config or the folder.

        Truncated vectors are normalised like the full ones, except those that the folder itself truncates
        (`truncate_dim`), which sentence-transformers does not normalise.
        """
        if self.config.normalize is not None:
            return self.config.normalize
        own = self.dimension == self.layout.default_dimension
        return self.layout.normalize and not (own and self.layout.is_cut(self.dimension))

    @property
    def similarity(self) -> Similarity:
        """How vectors are compared, from the config or the folder."""
        return self.config.similarity or self.layout.declared.similarity

    @property
    def max_length(self) -> int:
        """Longest input in tokens, from the spec, the config or the folder."""
        return self.spec.max_length or self.config.max_length or self.layout.max_length

    @property
    def prompts(self) -> str:
        """Name of the prompt profile."""
        return self.spec.prompts or self.config.prompts.profile

    def dtype(self, device: str | None = None) -> str:
        """Return the dtype of the backbone on a device; see `engine.devices.resolve_dtype`."""
        from stella_mteb.engine.devices import resolve_device, resolve_dtype  # noqa: PLC0415 -- imports torch

        asked = self.spec.dtype or self.config.dtype
        return str(resolve_dtype(asked, resolve_device(device), self.config.refused_dtypes)).removeprefix("torch.")

    def load(self, device: str | None = None) -> TextEncoder:
        """Load the weights.

        Args:
            device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`; None is `auto`.

        Raises:
            ConfigError: If dimension or dtype are unavailable, or the folder is invalid.
            EnvironmentProblem: If weights are damaged, or the device is missing or lacks memory.
        """
        from stella_mteb.models.loading import load_text_encoder  # noqa: PLC0415 -- imports torch and transformers

        return load_text_encoder(self, device)


def resolve(spec: Spec | str, *, offline: bool | None = None, registry: Registry | None = None) -> ResolvedModel:
    """Find the model of a spec without loading weights. Downloads its files if needed and allowed.

    Args:
        spec: The spec, for example `stella_en_1.5B_v5@1024`.
        offline: Never access the hub; by default HF_HUB_OFFLINE decides.
        registry: Returns MTEB's config of a hub name (`stella_mteb.harness.known_models.known_config`).

    Raises:
        ConfigError: If there is no such model, or it has no such dimension.
        EnvironmentProblem: If its files are unavailable.
    """
    spec = Spec.parse(spec) if isinstance(spec, str) else spec
    return resolve_config(find_config(spec.name, registry, spec.registered_as), spec, offline=offline)


def resolve_config(config: ModelConfig, spec: Spec | None = None, *, offline: bool | None = None) -> ResolvedModel:
    """Find the model of a config without loading weights; see `resolve`."""
    spec = spec or Spec(config.name)
    offline = is_offline() if offline is None else offline
    folder, revision = find_folder(config, offline=offline)
    layout = read_layout(folder)
    config = recognise(folder, config, layout.declared)
    asked = [spec.dimension] if spec.cut and spec.dimension else []
    layout = layout.with_cuts([*config.matryoshka, *asked])
    model = ResolvedModel(spec, config, folder, revision, layout, offline)
    if spec.cut and not (spec.dimension and layout.is_cut(spec.dimension)):
        raise ConfigError(
            f"model spec {str(spec)!r}: cut needs a dimension without a head of its own, for example @128"
            + (f" (heads: {', '.join(map(str, layout.dimensions))})" if spec.dimension else "")
        )
    if spec.shots is not None and model.prompts != "icl":
        raise ConfigError(f"model spec {str(spec)!r}: shots needs a model with few-shot prompts (profile icl)")
    require_profile(model.prompts, config.prompts)
    if model.prompts == "icl" and not config.few_shot:
        raise ConfigError(f"prompt profile icl is made for BGE-en-ICL; {config.name} does not declare few_shot")
    known = model.layout.dimensions
    if model.dimension not in known:
        lacking = model.layout.without_weights.get(model.dimension)
        hint = f" ({lacking} exists, but without model.safetensors)" if lacking else ""
        raise ConfigError(
            f"{spec.name} has no head of dimension {model.dimension}{hint}; "
            f"the heads on disk are {', '.join(map(str, known))} in {folder}"
            + (
                ". @ selects a head and never truncates a vector. If the model was trained for it (Matryoshka), "
                f"{replace(spec, dimension=model.dimension, cut=True)} keeps the first {model.dimension} numbers"
                if len(known) == 1 and model.dimension < layout.width
                else ""
            )
        )
    return model
