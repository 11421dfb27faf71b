"""The identity of a run: the settings that distinguish one way of running a model from another.

They are written into each result and into its path (`experiments/<settings>/`, MTEB's own layout), and read back by
`run`, `compare` and `submit`; this module does both. The package's version is not part of them, so results on disk
stay valid after a release. `PIPELINE` is part of them, and is raised when vectors or scores change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import stella_mteb
from stella_mteb.models.config import ModelConfig, bundled_models
from stella_mteb.models.resolve import ResolvedModel
from stella_mteb.models.spec import DTYPES, Spec
from stella_mteb.prompts.profiles import profile_of, prompts_id

Settings = Mapping[str, Any]
"""`dtype`, `embed_dim`, `max_length`, `pipeline`, `prompts`; `shots` with few-shot prompts; `cut`, `loading`,
`normalize` and `similarity` if they differ from `_UNSAID`."""

IN_SPEC = ("embed_dim", "dtype", "prompts", "max_length", "shots", "cut")
"""The settings that a spec can state."""
_UNSAID = {"shots": "all", "loading": "", "normalize": True, "cut": False, "similarity": ""}


# ------------------------------------------------------------------------------------------------------------ writing


def identity(model: ResolvedModel, dtype: str) -> dict[str, Any]:
    """Return the settings of a model whose files have been found.

    Args:
        model: The model.
        dtype: Dtype of the backbone, which depends on the device.
    """
    return _settings(
        model.config,
        model.dimension,
        model.max_length,
        dtype,
        model.prompts,
        model.spec,
        normalizes=model.normalize,
    )


def default_identity(config: ModelConfig) -> dict[str, Any]:
    """Return the settings of a bundled model with its defaults on this machine, before its files are located."""
    from stella_mteb.engine.devices import resolve_device, resolve_dtype  # noqa: PLC0415 -- imports torch

    dtype = str(resolve_dtype(config.dtype, resolve_device(None), config.refused_dtypes)).removeprefix("torch.")
    return _settings(
        config,
        config.dimension,
        config.max_length,
        dtype,
        config.prompts.profile,
        Spec(config.name),
        normalizes=config.normalize,
    )


def expected(config: ModelConfig, spec: Spec) -> dict[str, Any]:
    """Return the settings that a run of a spec will have, without those that the device or the files determine."""
    settings = _settings(
        config,
        spec.dimension or config.dimension,
        spec.max_length or config.max_length,
        spec.dtype or config.dtype,
        spec.prompts or config.prompts.profile,
        spec,
        normalizes=config.normalize,
    )
    decided = {key: value for key, value in {**_UNSAID, **settings}.items() if value is not None}
    if config.normalize is None:
        del decided["normalize"]
    return decided


def _settings(
    config: ModelConfig,
    dimension: int | None,
    max_length: int | None,
    dtype: str | None,
    profile: str,
    spec: Spec,
    *,
    normalizes: bool | None,
) -> dict[str, Any]:
    # A local folder has no hub name; a Stella folder is recognised by its prompts.
    same = [known.prompts for known in bundled_models() if config.hub is None or known.full_name == config.full_name]
    settings = {
        "dtype": dtype,
        "embed_dim": dimension,
        "max_length": max_length,
        "pipeline": stella_mteb.PIPELINE,
        "prompts": prompts_id(profile, config.prompts, same),
    }
    if profile == "icl":
        settings["shots"] = "all" if spec.shots is None else spec.shots
    if spec.cut:
        settings["cut"] = True
    if config.similarity:
        settings["similarity"] = config.similarity
    if config.loading:
        settings["loading"] = config.loading
    if normalizes is False:
        settings["normalize"] = False
    return settings


# ------------------------------------------------------------------------------------------------------------ reading


def is_ours(settings: Settings) -> bool:
    """Check whether this project wrote the settings. Before 0.2 they had a version instead of the pipeline."""
    name = str(settings.get("experiment"))
    versioned = settings.keys() & {"pipeline", "plugin"}
    return (
        bool(versioned and settings.keys() >= {"embed_dim", "prompts"}) or "__pipeline_" in name or "__plugin_" in name
    )


def stated(settings: Settings, key: str) -> Any:
    """Return a setting of a run, or its usual value if the settings omit it."""
    return {**_UNSAID, **settings}.get(key)


def unusual(settings: Settings, config: ModelConfig) -> set[str]:
    """Return the names of the settings that differ from the config's."""
    usual = expected(config, Spec(config.name))
    return {key for key, value in usual.items() if key != "pipeline" and stated(settings, key) != value}


def fits(settings: Settings, spec: Spec, config: ModelConfig | None = None) -> bool:
    """Check whether a spec describes a run with these settings.

    Args:
        settings: Settings of the run.
        spec: All that it states must be equal.
        config: The model's config, for results of this project: settings that the spec does not state must equal the
            config's. None if only the spec counts.
    """
    asked = {key: value for key in IN_SPEC if (value := getattr(spec, _FIELD[key])) is not None}
    for key, value in asked.items():
        has = settings.get(key)
        if value != has and not (key == "prompts" and isinstance(has, str) and value == profile_of(has)):
            return False
    unasked = expected(config, spec).keys() - asked.keys() - {"pipeline"} if config else ()
    return config is None or all(stated(settings, key) == expected(config, spec)[key] for key in unasked)


def with_settings(spec: Spec, settings: Settings) -> tuple[Spec, dict[str, Any]]:
    """Move settings into a spec.

    Returns:
        The spec with every setting that it can state, and the remaining settings.
    """
    rest = dict(settings)
    for key in IN_SPEC:
        if key in rest and _can_state(key, rest[key]):
            spec = replace(spec, **{_FIELD[key]: rest.pop(key)})
    return spec, rest


_FIELD = {"embed_dim": "dimension"} | {key: key for key in IN_SPEC[1:]}


def _can_state(key: str, value: Any) -> bool:
    if key == "dtype":
        return value in DTYPES.values()
    if key == "prompts":
        return re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,60}", str(value)) is not None
    if key == "cut":
        return value is True
    return type(value) is int and value >= (0 if key == "shots" else 1)
