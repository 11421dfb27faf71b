"""Reads a sentence-transformers folder without torch: pooling, heads, truncation, lengths, normalisation.

A folder without `modules.json` is pooled as sentence-transformers pools a plain transformers folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import read_json_object
from stella_mteb.models.declared import (
    FOLDER_FILE,
    Declared,
    matryoshka_dims,
    optional,
    positive,
    read_declared,
    read_transformer_settings,
)
from stella_mteb.models.modules import Chain, Module, find_heads, read_modules

_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_NO_LIMIT = 131_072
# These models count positions from the padding id on: 512 of RoBERTa's 514 are usable.
_OFFSET_POSITIONS = re.compile("roberta|camembert|mpnet|longformer|data2vec-text|ibert|xmod|luke")


@dataclass(frozen=True)
class Layout:
    """The parts of a model folder.

    Attributes:
        transformer: Folder with config.json, tokenizer and backbone weights.
        config: Content of that config.json.
        pooling_modes: Names as in `stella_mteb.engine.Pooling`.
        include_prompt: Whether prompt tokens are pooled.
        heads: By dimension, the modules behind the pooling, without a final Normalize.
        width: Dimension of the vectors of `modules.json`.
        normalize: Whether `modules.json` ends with Normalize.
        max_length: Longest input in tokens.
        lower_case: Whether texts are lower-cased.
        declared: Prompts, similarity, and the dimension that vectors are truncated to.
        without_weights: Head folders without model.safetensors, by dimension.
    """

    transformer: Path
    config: dict[str, Any]
    pooling_modes: tuple[str, ...]
    include_prompt: bool
    heads: dict[int, Chain]
    width: int
    normalize: bool
    max_length: int
    lower_case: bool
    declared: Declared = field(default_factory=Declared)
    without_weights: dict[int, str] = field(default_factory=dict)

    @property
    def dimensions(self) -> list[int]:
        """The available dimensions, in ascending order."""
        return sorted(self.heads)

    @property
    def default_dimension(self) -> int:
        """Dimension of the vectors that sentence-transformers returns."""
        return min(self.declared.truncate_dim or self.width, self.width)

    @property
    def pooled_width(self) -> int:
        """Dimension of the pooled vectors before any head; these are stored."""
        return int(setting(self.config, "hidden_size")) * len(self.pooling_modes)

    def is_cut(self, dimension: int) -> bool:
        """Check whether vectors of a dimension are truncated longer vectors."""
        return any(module.kind == "Cut" for module in self.heads[dimension])

    def with_cuts(self, dimensions: Iterable[int]) -> Layout:
        """Add heads that truncate the vectors, except for dimensions that have a head.

        Raises:
            ConfigError: If a dimension is larger than that of the vectors.
        """
        heads = dict(self.heads)
        for dimension in dimensions:
            if dimension > self.width:
                raise ConfigError(f"{self.transformer}: vectors of {self.width} numbers cannot be cut to {dimension}")
            if self.width in heads and dimension not in heads:
                closing = [Module("Normalize", self.transformer)] if self.normalize else []
                heads[dimension] = (*heads[self.width], *closing, Module("Cut", self.transformer))
        return replace(self, heads=heads)


def read_layout(folder: Path) -> Layout:
    """Read a model folder.

    Raises:
        ConfigError: If it is not a model folder, or uses something that is not supported.
        EnvironmentProblem: If it requires other versions of packages, or lacks weights.
    """
    if (folder / "modules.json").is_file():
        transformer, pooling_module, *behind = read_modules(folder)
        declared, pooling = read_declared(folder), read_json_object(pooling_module.folder / "config.json")
        limit, lower_case = read_transformer_settings(transformer.folder)
    else:
        _require_plain(folder)
        transformer, behind = Module("Transformer", folder), []
        declared, pooling, limit, lower_case = Declared(), {}, None, False
    _refuse_adapter(transformer.folder)
    path = transformer.folder / "config.json"
    config = read_json_object(path)
    hidden = setting(config, "hidden_size")
    if not isinstance(hidden, int):
        raise ConfigError(f"{path}: has no hidden_size; not a text backbone")
    if not pooling:  # as in SentenceTransformer._load_default_modules
        architecture = next(iter(config.get("architectures") or []), "")
        decoder = architecture.endswith("ForCausalLM") and config.get("is_causal", True)
        pooling = {"pooling_mode": "lasttoken" if decoder else "mean"}
    modes = _pooling_modes(pooling, folder)
    normalize = bool(behind) and behind[-1].kind == "Normalize"
    chain = tuple(module for module in behind[: len(behind) - normalize] if module.kind != "Dropout")
    heads, width, without_weights = find_heads(chain, hidden * len(modes))
    layout = Layout(
        transformer=transformer.folder,
        config=config,
        pooling_modes=modes,
        include_prompt=bool(pooling.get("include_prompt", True)),
        heads=heads,
        width=width,
        normalize=normalize,
        max_length=_max_length(transformer.folder, limit, config),
        lower_case=lower_case,
        declared=declared,
        without_weights=without_weights,
    )
    return layout.with_cuts([layout.default_dimension, *declared.matryoshka, *matryoshka_dims(config, path)])


def _refuse_adapter(folder: Path) -> None:
    # Next to base weights, transformers silently ignores an adapter unless peft is installed.
    path = folder / "adapter_config.json"
    if path.is_file():
        base = read_json_object(path).get("base_model_name_or_path")
        raise ConfigError(
            f"{path}: the folder has a PEFT adapter (LoRA) for {base}; adapters are not supported, merge it: "
            "peft.PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(new_folder)"
        )


def _require_plain(folder: Path) -> None:
    """Raise an error if sentence-transformers would not run a folder without modules.json as a plain text model."""
    _refuse_adapter(folder)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is not a model folder: it has neither modules.json nor config.json")
    if (folder / FOLDER_FILE).is_file():
        raise ConfigError(
            f"{folder}: has {FOLDER_FILE} but no modules.json, so sentence-transformers would ignore its prompts, "
            "pooling and heads; download modules.json and the folders that it names"
        )
    if optional(folder / "tokenizer_config.json").get("chat_template") or any(folder.glob("*chat_template*")):
        raise ConfigError(
            f"{folder}: has a chat template but no modules.json, so sentence-transformers would put every text into a "
            "chat, which is not supported. A modules.json with Transformer and Pooling makes it a plain text model"
        )


def _pooling_modes(config: dict[str, Any], folder: Path) -> tuple[str, ...]:
    modes = config.get("pooling_mode", [name for key, name in _LEGACY_MODES.items() if config.get(key)] or "mean")
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    unknown = [mode for mode in modes if mode not in _LEGACY_MODES.values()]
    if unknown or not modes:
        raise ConfigError(f"{folder}: pooling mode {unknown[0] if unknown else '[]'!r} is not supported")
    return modes


def _max_length(transformer: Path, stated: int | None, config: dict[str, Any]) -> int:
    path = transformer / "tokenizer_config.json"
    limit = stated or positive(optional(path).get("model_max_length") or _NO_LIMIT, path, "model_max_length")
    # sentence-transformers fails on a longer text if the limit is stated, and truncates it if it is not.
    learned = stated is None or _OFFSET_POSITIONS.search(str(config.get("model_type")))
    return min(limit, (positions(config) if learned else None) or limit, _NO_LIMIT)


def positions(config: dict[str, Any]) -> int | None:
    """Return the number of tokens that a backbone has positions for, or None if its config.json does not say."""
    count = setting(config, "max_position_embeddings")
    if not isinstance(count, int) or count < 1:
        return None
    offset = config.get("pad_token_id", 1) + 1 if _OFFSET_POSITIONS.search(str(config.get("model_type"))) else 0
    return count - offset


def setting(config: dict[str, Any], name: str) -> Any:
    """Return a setting by the name that transformers uses: for DistilBERT, `hidden_size` is the file's `dim`."""
    if name in config:
        return config[name]
    from transformers import CONFIG_MAPPING  # noqa: PLC0415 -- takes seconds, and few files need it

    kind = config.get("model_type")
    return getattr(CONFIG_MAPPING[kind].from_dict(config), name, None) if kind in CONFIG_MAPPING else None
