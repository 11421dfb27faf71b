"""What a sentence-transformers folder holds, read without torch: pooling, heads, lengths, normalisation.

Covered: Transformer, Pooling, Dense, Normalize, and Stella's extra `2_Dense_<dimension>` folders beside the
one that `modules.json` names. Not covered, and refused by name: other modules (CNN, LSTM, WordWeights, ...).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import read_json, read_json_object

_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_DEFAULT_MAX_LENGTH = 512


@dataclass(frozen=True)
class Layout:
    """The parts of a model folder.

    Attributes:
        transformer: Folder of config.json, tokenizer and backbone weights.
        config: Content of that config.json.
        pooling_modes: As `stella_mteb.engine.Pooling` names them.
        include_prompt: Whether prompt tokens are pooled.
        heads: For each dimension the chain of Dense folders that gives it; empty for no Dense at all.
        default_dimension: What `modules.json` chooses.
        normalize: Whether the folder ends with Normalize.
        max_length: `max_seq_length` of the folder.
        lower_case: Whether texts are lower-cased first.
        without_weights: Head folders that lack model.safetensors, by dimension.
    """

    transformer: Path
    config: dict[str, Any]
    pooling_modes: tuple[str, ...]
    include_prompt: bool
    heads: dict[int, tuple[Path, ...]]
    default_dimension: int
    normalize: bool
    max_length: int
    lower_case: bool
    without_weights: dict[int, str] = field(default_factory=dict)

    @property
    def dimensions(self) -> list[int]:
        """The dimensions on disk, ascending."""
        return sorted(self.heads)


def read_layout(folder: Path) -> Layout:
    """Read a folder.

    Raises:
        ConfigError: If it is no model folder, or uses a module that is not covered.
    """
    modules = _modules(folder)
    transformer = _only(folder, modules, "Transformer")
    config = read_json_object(transformer / "config.json")
    if not isinstance(config.get("hidden_size"), int):
        raise ConfigError(f"{transformer / 'config.json'}: has no hidden_size; not a text backbone")
    modes, include_prompt, width = _pooling(folder, modules, config["hidden_size"])
    heads, default, without_weights = _heads([path for kind, path in modules if kind == "Dense"], width)
    sentence = _optional(transformer / "sentence_bert_config.json")
    return Layout(
        transformer=transformer,
        config=config,
        pooling_modes=modes,
        include_prompt=include_prompt,
        heads=heads,
        default_dimension=default,
        normalize=modules[-1][0] == "Normalize",
        max_length=_max_length(transformer, sentence, config),
        lower_case=bool(sentence.get("do_lower_case", False)),
        without_weights=without_weights,
    )


def _modules(folder: Path) -> list[tuple[str, Path]]:
    if not (folder / "modules.json").is_file():
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{folder} is not a model folder: it has neither modules.json nor config.json")
        # A plain transformers folder: mean pooling, as sentence-transformers does with one.
        return [("Transformer", folder), ("Pooling", folder / "1_Pooling")]
    content = read_json(folder / "modules.json")
    try:
        ordered = sorted(content, key=lambda entry: int(entry["idx"]))
        named = [(str(module["type"]), str(module["path"])) for module in ordered]
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(
            f"{folder / 'modules.json'}: must be a list of objects with idx, type and path ({error!r})"
        ) from None
    modules = [(_kind(folder, name, path), _inside(folder, path)) for name, path in named]
    order = "".join(kind[0] for kind, _ in modules)
    if not re.fullmatch("TPD*N?", order):
        raise ConfigError(
            f"{folder / 'modules.json'}: the modules must be Transformer, Pooling, any Dense, perhaps Normalize "
            f"(are {', '.join(kind for kind, _ in modules)})"
        )
    if not (modules[1][1] / "config.json").is_file():
        raise ConfigError(f"{modules[1][1] / 'config.json'}: no such file, though modules.json names it")
    return modules


def _kind(folder: Path, name: str, path: str) -> str:
    package, _, kind = name.rpartition(".")
    known = {"Transformer", "Pooling", "Dense", "Normalize"}
    if kind not in known or not package.startswith("sentence_transformers"):
        shown = kind if package.startswith("sentence_transformers") else name
        raise ConfigError(
            f"{folder / 'modules.json'}: module {shown} ({path}) is not supported; "
            f"supported are {', '.join(sorted(known))} of sentence_transformers"
        )
    return kind


def _inside(folder: Path, relative: str) -> Path:
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ConfigError(f"{folder / 'modules.json'}: path {relative!r} leaves the model folder")
    return folder / relative if relative else folder


def _only(folder: Path, modules: list[tuple[str, Path]], kind: str) -> Path:
    found = [path for name, path in modules if name == kind]
    if len(found) != 1:
        raise ConfigError(f"{folder / 'modules.json'}: needs exactly one {kind} (has {len(found)})")
    return found[0]


def _pooling(folder: Path, modules: list[tuple[str, Path]], hidden: int) -> tuple[tuple[str, ...], bool, int]:
    config = _optional(_only(folder, modules, "Pooling") / "config.json")
    modes = config.get("pooling_mode") or [name for key, name in _LEGACY_MODES.items() if config.get(key)]
    modes = (modes,) if isinstance(modes, str) else tuple(modes) or ("mean",)
    if unknown := set(modes) - set(_LEGACY_MODES.values()):
        raise ConfigError(f"{folder}: pooling mode {unknown.pop()!r} is not supported")
    return modes, bool(config.get("include_prompt", True)), hidden * len(modes)


def _heads(chain: list[Path], width: int) -> tuple[dict[int, tuple[Path, ...]], int, dict[int, str]]:
    if not chain:
        return {width: ()}, width, {}
    *before, last = chain
    found: dict[int, tuple[Path, ...]] = {}
    without_weights: dict[int, str] = {}
    default = _out_features(last)
    stem = re.sub(r"_\d+$", "", last.name)
    siblings = [last, *sorted(last.parent.glob(f"{stem}_*"))]
    for path in siblings:
        number = re.fullmatch(rf"{re.escape(stem)}_(\d+)", path.name)
        if (path != last and number is None) or not (path / "config.json").is_file():
            continue
        _inside(path.parent, path.name)
        dimension = _out_features(path)
        if number and int(number[1]) != dimension:
            raise ConfigError(
                f"{path / 'config.json'}: out_features is {dimension}, but the folder is called {path.name}"
            )
        if (path / "model.safetensors").is_file():
            first = (before[0] if before else path) / "config.json"
            given = read_json_object(first).get("in_features")
            if given != width:
                raise ConfigError(f"{first}: in_features is {given!r}, but the pooled vector has {width}")
            found.setdefault(dimension, (*before, path))
        else:
            without_weights[dimension] = path.name
    if not found:
        raise ConfigError(
            f"{last.parent}: no Dense folder holds a model.safetensors "
            f"(found {', '.join(sorted(without_weights.values())) or 'none'}); download them"
        )
    return found, default, without_weights


def _out_features(path: Path) -> int:
    dimension = read_json_object(path / "config.json").get("out_features")
    if not isinstance(dimension, int):
        raise ConfigError(f"{path / 'config.json'}: out_features must be a whole number (got {dimension!r})")
    return dimension


def _max_length(transformer: Path, sentence: dict[str, Any], config: dict[str, Any]) -> int:
    if own := sentence.get("max_seq_length"):
        return _positive(own, transformer / "sentence_bert_config.json", "max_seq_length")
    path = transformer / "tokenizer_config.json"
    limit = _positive(_optional(path).get("model_max_length") or _DEFAULT_MAX_LENGTH, path, "model_max_length")
    return min(limit, positions(config) or limit)


def _positive(value: Any, path: Path, key: str) -> int:
    whole = isinstance(value, float) and value.is_integer()  # 1e30 stands for no limit
    if isinstance(value, bool) or not (isinstance(value, int) or whole) or value < 1:
        raise ConfigError(f"{path}: {key} must be a positive whole number (got {value!r})")
    return int(value)


def positions(config: dict[str, Any]) -> int | None:
    """How many tokens a backbone has positions for, by its config.json; None if it does not say."""
    count = config.get("max_position_embeddings")
    if not isinstance(count, int):
        return None
    # RoBERTa counts positions from the padding id on: of its 514, 512 can be used.
    offset = config.get("pad_token_id", 1) + 1 if "roberta" in str(config.get("model_type")) else 0
    return count - offset


def _optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}
