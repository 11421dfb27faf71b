"""The identity of a run: the settings that tell one way of running a model from every other.

They are written into each result and into the path of its folder (`experiments/<settings>/`, MTEB's own layout), and
read back by `run`, `compare` and `submit`. Both directions stand in this module. The version of the package is no part
of them, so that a release keeps the results on disk; `PIPELINE` is, and is raised when vectors or scores change.
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
`normalize` and `similarity` where they are not as in `_UNSAID`."""

IN_SPEC = ("embed_dim", "dtype", "prompts", "max_length", "shots", "cut")
"""The settings that a spec can state."""
_UNSAID = {"shots": "all", "loading": "", "normalize": True, "cut": False, "similarity": ""}


# ------------------------------------------------------------------------------------------------------------ written


def identity(model: ResolvedModel, dtype: str) -> dict[str, Any]:
    """Give the settings of a model whose files have been found.

    Args:
        model: The model.
        dtype: Of the backbone, which depends on the device.
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
    """Give the settings of a bundled model with its defaults on this machine, before its files are looked for."""
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
    """Give the settings that a run of a spec will have, without those that the device or the files decide.

    Args:
        config: The model's config.
        spec: A spec of this model.
    """
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
    # A local folder has no hub name; a Stella checkout is known by its prompts.
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


# --------------------------------------------------------------------------------------------------------------- read


def is_ours(settings: Settings) -> bool:
    """Tell whether settings were written by this project; before 0.2 they had its version in place of the pipeline."""
    name = str(settings.get("experiment"))
    versioned = settings.keys() & {"pipeline", "plugin"}
    return (
        bool(versioned and settings.keys() >= {"embed_dim", "prompts"}) or "__pipeline_" in name or "__plugin_" in name
    )


def stated(settings: Settings, key: str) -> Any:
    """Read one setting; one that results do not write down where it is the usual one included."""
    return {**_UNSAID, **settings}.get(key)


def unusual(settings: Settings, config: ModelConfig) -> set[str]:
    """Name the settings that are not as the config has them."""
    usual = expected(config, Spec(config.name))
    return {key for key, value in usual.items() if key != "pipeline" and stated(settings, key) != value}


def fits(settings: Settings, spec: Spec, config: ModelConfig | None = None) -> bool:
    """Tell whether a run with these settings is meant by a spec.

    Args:
        settings: Of the run.
        spec: Whatever it states must be so.
        config: The model's config, for results that were written by this project: whatever the spec does not state is
            as the config has it. None if only the spec counts.
    """
    asked = {key: value for key in IN_SPEC if (value := getattr(spec, _FIELD[key])) is not None}
    for key, value in asked.items():
        has = settings.get(key)
        if value != has and not (key == "prompts" and isinstance(has, str) and value == profile_of(has)):
            return False
    unasked = expected(config, spec).keys() - asked.keys() - {"pipeline"} if config else ()
    return config is None or all(stated(settings, key) == expected(config, spec)[key] for key in unasked)


def with_settings(spec: Spec, settings: Settings) -> tuple[Spec, dict[str, Any]]:
    """Put settings into a spec.

    Returns:
        The spec with all that a spec can state, and the settings that it cannot.
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
