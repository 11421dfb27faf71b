"""Reads the in-house configuration form (`encoders_config.yaml`) into a ModelConfig.

The sections are `encoder:` (with `additional_params:`) and `processing:`. Their settings for the model are validated
and used. Keys of the old pipeline without a meaning here are accepted and reported once; unknown keys are errors.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from stella_mteb.errors import ConfigError
from stella_mteb.files.strict_yaml import Lines, StrictModel, read_yaml, validate
from stella_mteb.models.config import MAX_LENGTH, ModelConfig
from stella_mteb.models.locate import find_config, known_names
from stella_mteb.prompts.profiles import PromptType

logger = logging.getLogger(__name__)

# The in-house file has a third prompt whose text was never published.
_PROMPT_ALIASES = {"discriminative": "s2s"}
_NO_MEANING_NOW = ("trust_remote_code", "device_map", "type")


class EncoderSettings(StrictModel):
    """Section `encoder:`; its keys are accepted directly and under `additional_params:`."""

    path: str | None = None
    name: str | None = None
    type: str | None = None
    batch_size: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=8, le=MAX_LENGTH)
    embedding_dimension: int | None = Field(default=None, ge=1)
    prompt_type: PromptType = "s2s"
    normalize_embeddings: bool = True
    shots: int | None = Field(default=None, ge=0)
    device_map: str | None = None
    trust_remote_code: bool | None = None


class ProcessingSettings(StrictModel):
    """Section `processing:`; only the device is used."""

    device: str | None = None
    use_gpu: bool = True
    clear_cache_interval: int | None = None
    force_gc_interval: int | None = None
    save_intermediate_results: bool | None = None
    progress_interval: int | None = None


class InHouseConfig(StrictModel):
    """The whole file. Sections of the old pipeline that do not describe the model are accepted without validation."""

    encoder: EncoderSettings
    processing: ProcessingSettings = ProcessingSettings()
    data_paths: dict[str, Any] | None = None
    models_to_evaluate: list[str] | None = None
    logging: dict[str, Any] | None = None
    embedding: dict[str, Any] | None = None
    metrics: list[str] | None = None

    @property
    def device(self) -> str | None:
        """The device to use."""
        return self.processing.device if self.processing.use_gpu else "cpu"


def read_inhouse(source: Mapping[str, Any] | Path | str) -> tuple[InHouseConfig, Path]:
    """Read the in-house form.

    Args:
        source: A mapping, or the path of a YAML.

    Returns:
        The settings, and the base folder of relative paths.

    Raises:
        ConfigError: Lists every fault, with file and line if there is a file.
    """
    if isinstance(source, Mapping):
        data, lines, path, base = dict(source), Lines(), Path("config"), Path.cwd()
    else:
        path = Path(source).expanduser()
        data, lines = read_yaml(path)
        base = path.parent
    return validate(InHouseConfig, _flattened(data, path, lines), path, lines), base


def _flattened(data: dict[str, Any], path: Path, lines: Lines) -> dict[str, Any]:
    encoder = data.get("encoder")
    if not isinstance(encoder, Mapping):
        return data
    extra = encoder.get("additional_params") or {}
    if not isinstance(extra, Mapping):
        line = lines.get(("encoder", "additional_params"))
        raise ConfigError(f"{path}{f':{line}' if line else ''}: encoder.additional_params must be a mapping")
    for key in extra:
        # Faults are reported at the line where the key is in the file.
        if ("encoder", "additional_params", key) in lines:
            lines["encoder", key] = lines["encoder", "additional_params", key]
        if key in encoder:
            line = lines.get(("encoder", "additional_params", key))
            place = f"{path}:{line}" if line else path
            raise ConfigError(f"{place}: {key} is both in encoder and in encoder.additional_params; remove one")
    flat = {**{key: value for key, value in encoder.items() if key != "additional_params"}, **extra}
    alias = _PROMPT_ALIASES.get(str(flat.get("prompt_type")))
    if alias:
        logger.warning(
            "%s: prompt_type %r has no published text; %s is used (s2s is the prompt for comparing summaries)",
            path, flat["prompt_type"], alias,
        )  # fmt: skip
        flat["prompt_type"] = alias
    if ignored := [key for key in _NO_MEANING_NOW if key in flat]:
        logger.info("%s: %s: no longer needed and ignored", path, ", ".join(ignored))
    return {**data, "encoder": flat}


def model_config(settings: EncoderSettings, base: Path, default: str) -> ModelConfig:
    """Create the ModelConfig of the settings.

    Args:
        settings: Section `encoder:`.
        base: Base folder of a relative `path`; the working folder is tried too, as in-house.
        default: The model to use without a `path`.

    Raises:
        ConfigError: If `path` does not name a model.
    """
    path = settings.path or default
    folders = [root / Path(path).expanduser() for root in (base, Path.cwd())]
    found = next((str(folder) for folder in folders if folder.is_dir()), None)
    if found is None and path not in known_names() and not path.endswith((".yaml", ".yml")):
        # Not looked up on the hub: `encoder_models/stella` looks like a repository but is a missing folder.
        raise ConfigError(
            f"encoder.path {path!r}: no such folder ({folders[0]}) and no such model; "
            f"models by name are {', '.join(known_names())}"
        )
    update = {
        "batch_size": settings.batch_size,
        "normalize": settings.normalize_embeddings,
        "dimension": settings.embedding_dimension,
        "max_length": settings.max_length,
    }
    config = find_config(found or path)
    return config.model_copy(update={key: value for key, value in update.items() if value is not None})
