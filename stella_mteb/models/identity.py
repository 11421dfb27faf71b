"""Make and read what tells one way of running a model from another."""

from __future__ import annotations

from typing import Any

import stella_mteb
from stella_mteb.engine.devices import resolve_device, resolve_dtype
from stella_mteb.models.config import ModelConfig, bundled_configs, load_config
from stella_mteb.models.resolve import ResolvedModel
from stella_mteb.prompts.profiles import prompts_id


def experiment(model: ResolvedModel, dtype: str) -> dict[str, Any]:
    """What tells one way of running a model from another; it is in the path of every result.

    Args:
        model: The model.
        dtype: Of the backbone.
    """
    return _experiment(
        model.config, model.dimension, model.max_length, dtype, model.prompts, model.layout.normalize, model.spec.shots
    )


def default_experiment(config: ModelConfig) -> dict[str, Any]:
    """The same for a bundled model run with its defaults on this machine, before its files are looked for."""
    dtype = str(resolve_dtype(config.dtype, resolve_device(None), config.refused_dtypes)).removeprefix("torch.")
    return _experiment(config, config.dimension, config.max_length, dtype, config.prompts.profile, True, None)


def _experiment(
    config: ModelConfig,
    dimension: int | None,
    max_length: int | None,
    dtype: str,
    profile: str,
    folder_normalizes: bool,
    shots: int | None,
) -> dict[str, Any]:
    bundled = [load_config(path) for path in bundled_configs().values()]
    # A local folder has no hub name; a Stella checkout is known by its prompts.
    same = [known.prompts for known in bundled if config.hub is None or known.full_name == config.full_name]
    identity = {
        "dtype": dtype,
        "embed_dim": dimension,
        "max_length": max_length,
        "plugin": stella_mteb.__version__,
        "prompts": prompts_id(profile, config.prompts, same),
    }
    normalizes = folder_normalizes if config.normalize is None else config.normalize
    if profile == "icl":
        identity["shots"] = "all" if shots is None else shots
    if config.loading:
        identity["loading"] = config.loading
    return identity if normalizes else {**identity, "normalize": False}
