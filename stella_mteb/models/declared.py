"""Reads the settings files of a sentence-transformers folder as sentence-transformers 6.2 does.

`config_sentence_transformers.json` belongs to the folder (`SentenceTransformer._load_config_modules`);
`sentence_bert_config.json`, or a file with an older name, to its Transformer module (`Transformer.load_config`). A key
that changes vectors or scores is applied or refused by name. Other keys, such as `__version__`, are ignored.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import read_json_object
from stella_mteb.prompts.profiles import PromptConfig

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
"""How two vectors are compared if MTEB leaves it to the model; see `SimilarityFunction` of sentence-transformers."""

FOLDER_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILES = [
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
"""Files that may hold the input limit; the first one with content is used."""


@dataclass(frozen=True)
class Declared:
    """The content of `config_sentence_transformers.json`.

    prompts: Prompts by name. `query` and `document` are always present, as in sentence-transformers.
    default_prompt: Name of the prompt for texts that are neither queries nor documents.
    similarity: How vectors are compared.
    truncate_dim: Dimension that vectors are truncated to.
    matryoshka: Other dimensions that vectors may be truncated to.
    """

    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: Similarity = "cosine"
    truncate_dim: int | None = None
    matryoshka: tuple[int, ...] = ()

    @property
    def prompt_config(self) -> PromptConfig | None:
        """The prompts in the form of a model YAML, or None if no text gets a prompt."""
        if not any(self.prompts.values()):
            return None
        return PromptConfig(profile="own", own=self.prompts, default=self.default_prompt)


def read_declared(folder: Path) -> Declared:
    """Read `config_sentence_transformers.json`; a missing file declares nothing.

    Raises:
        ConfigError: If a key has an unsupported value.
        EnvironmentProblem: If the model requires another version of a package.
    """
    path = folder / FOLDER_FILE
    content = optional(path)
    kind = content.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ConfigError(f"{path}: model_type {kind} is not supported; the model must give one vector for each text")
    _require_versions(content.get("requirements") or {}, path)
    prompts = content.get("prompts") or {}
    if not isinstance(prompts, dict):
        raise ConfigError(f"{path}: prompts must be an object of texts by name (got {prompts!r})")
    if strange := [name for name, prompt in prompts.items() if not isinstance(prompt, str | None)]:
        raise ConfigError(f"{path}: prompts.{strange[0]} must be text (got {prompts[strange[0]]!r})")
    default = content.get("default_prompt_name")
    named = {"query": "", "document": "", **{name: prompt or "" for name, prompt in prompts.items()}}
    if default is not None and (not isinstance(default, str) or default not in named):
        raise ConfigError(f"{path}: default_prompt_name {default!r} is not one of the prompts ({', '.join(named)})")
    similarity: Any = content.get("similarity_fn_name") or "cosine"
    if similarity not in get_args(Similarity):
        known = ", ".join(get_args(Similarity))
        raise ConfigError(f"{path}: similarity_fn_name {similarity!r} is not supported; supported are {known}")
    truncate = content.get("truncate_dim")
    return Declared(
        prompts=named,
        default_prompt=default,
        similarity=similarity,
        truncate_dim=None if truncate is None else positive(truncate, path, "truncate_dim"),
        matryoshka=matryoshka_dims(content, path),
    )


def matryoshka_dims(content: dict[str, Any], path: Path) -> tuple[int, ...]:
    """Return the dimensions that a file allows vectors to be truncated to, under either of the usual names."""
    for key in ("matryoshka_dims", "matryoshka_dimensions"):
        if key in content:
            if not isinstance(content[key], list):
                raise ConfigError(f"{path}: {key} must be a list of dimensions (got {content[key]!r})")
            return tuple(positive(dimension, path, key) for dimension in content[key])
    return ()


def read_transformer_settings(transformer: Path) -> tuple[int | None, bool]:
    """Read the input limit in tokens (None if absent) and whether texts are lower-cased.

    Raises:
        ConfigError: If a key has an unsupported value.
    """
    path = next((path for name in TRANSFORMER_FILES if optional(path := transformer / name)), None)
    content = read_json_object(path) if path else {}
    wrong = _not_supported(content)
    if wrong:
        raise ConfigError(f"{path}: {wrong} {content[wrong]!r} is not supported")
    tokenizer = content.get("processor_kwargs", content.get("tokenizer_args")) or {}
    length = tokenizer.get("model_max_length", content.get("max_seq_length"))
    limit = None if length is None or path is None else positive(length, path, "max_seq_length")
    return limit, bool(content.get("do_lower_case", False))


def _not_supported(content: dict[str, Any]) -> str | None:
    """Return the first key whose value would change vectors in an unsupported way."""
    # These change how weights are computed, not the result; device and command line choose dtype and attention.
    harmless = {
        "model_kwargs": {"dtype", "torch_dtype", "attn_implementation", "trust_remote_code", "device_map"},
        "processor_kwargs": {"model_max_length", "padding_side", "trust_remote_code"},
        "config_kwargs": {"use_cache", "trust_remote_code"},
    }
    old_names = {"model_kwargs": "model_args", "processor_kwargs": "tokenizer_args", "config_kwargs": "config_args"}
    for name, keys in harmless.items():
        for key in (name, old_names[name]):
            if set(content.get(key) or {}) - keys:
                return key
    modalities = content.get("modality_config") or {}
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    if "message" in modalities or modalities.get("text", text) != text:
        return "modality_config"
    usual = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
    refused = ("processing_kwargs", "query_length", "document_length", "query_expansion", "tokenizer_name_or_path")
    wrong = [key for key, value in usual.items() if content.get(key, value) != value]
    return next(iter([*wrong, *(key for key in refused if content.get(key))]), None)


def _require_versions(requirements: Any, path: Path) -> None:
    if not isinstance(requirements, dict):
        raise ConfigError(f"{path}: requirements must be an object of version specifiers (got {requirements!r})")
    for name, stated in requirements.items():
        asked = stated.get("specifier") if isinstance(stated, dict) else stated
        package = "torch" if name == "pytorch" else name
        try:
            specifier = SpecifierSet(str(asked), prereleases=True)
            if package == "python" or specifier.contains(importlib.metadata.version(package)):
                continue
            found = f"{importlib.metadata.version(package)} is installed"
        except InvalidSpecifier:
            raise ConfigError(f"{path}: requirements.{name} is not a version specifier ({asked!r})") from None
        except importlib.metadata.PackageNotFoundError:
            found = "it is not installed"
        raise EnvironmentProblem(
            f"{path}: the model requires {package}{asked}, but {found}; run pip install '{package}{asked}'"
        )


def positive(value: Any, path: Path, key: str) -> int:
    """Convert a number from a JSON file to a positive integer. 1e30, which stands for no limit, is allowed.

    Raises:
        ConfigError: If it is anything else.
    """
    whole = isinstance(value, float) and value.is_integer()
    if isinstance(value, bool) or not (isinstance(value, int) or whole) or value < 1:
        raise ConfigError(f"{path}: {key} must be a positive whole number (got {value!r})")
    return int(value)


def optional(path: Path) -> dict[str, Any]:
    """Read a JSON object; a missing file gives an empty one."""
    return read_json_object(path) if path.is_file() else {}
