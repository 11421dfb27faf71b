"""Reads `modules.json`, the ordered modules of a sentence-transformers folder, without torch.

Supported are Transformer and Pooling, followed by any of Dense, LayerNorm, Dropout and Normalize. Other modules are
refused by name. Stella has one Dense for each dimension, in `2_Dense_<dimension>` next to the one that is listed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import read_json, read_json_object

WEIGHTS = "model.safetensors"
_BEHIND_POOLING = {"Dense", "Dropout", "LayerNorm", "Normalize"}


class Module(NamedTuple):
    """One step: a module of `modules.json`, or Cut, which truncates a vector."""

    kind: str
    folder: Path


Chain = tuple[Module, ...]
"""Modules in the order in which they are applied."""


def read_modules(folder: Path) -> Chain:
    """Read `modules.json`.

    Raises:
        ConfigError: If it is malformed, or has an unsupported module or order.
    """
    path = folder / "modules.json"
    content = read_json(path)
    try:
        entries = [(str(module["name"]), str(module["type"]), str(module["path"])) for module in content]
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{path}: must be a list of objects with name, type and path ({error!r})") from None
    if len({name for name, _, _ in entries}) < len(entries):
        raise ConfigError(f"{path}: duplicate module name; sentence-transformers would keep only one of the modules")
    modules = []
    for _, full_name, relative in entries:
        package, _, kind = full_name.rpartition(".")
        known = package.startswith("sentence_transformers")
        if not known or kind not in {"Transformer", "Pooling"} | _BEHIND_POOLING:
            raise ConfigError(
                f"{path}: module {kind if known else full_name} ({relative}) is not supported; supported are "
                f"{', '.join(sorted(_BEHIND_POOLING))}, Pooling, Transformer of sentence_transformers. "
                "`stella-mteb mteb run` runs such a model with MTEB's own wrapper"
            )
        if not (folder / relative).resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"{path}: path {relative!r} leaves the model folder")
        modules.append(Module(kind, folder / relative if relative else folder))
    kinds = [module.kind for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= _BEHIND_POOLING:
        raise ConfigError(
            f"{path}: the modules must be Transformer, Pooling, and then any of {', '.join(sorted(_BEHIND_POOLING))} "
            f"(are {', '.join(kinds)})"
        )
    if not (modules[1].folder / "config.json").is_file():
        raise ConfigError(f"{modules[1].folder / 'config.json'}: no such file, but modules.json names it")
    return tuple(modules)


def find_heads(chain: Chain, pooled: int) -> tuple[dict[int, Chain], int, dict[int, str]]:
    """Find the modules that give each dimension.

    Args:
        chain: The modules behind the pooling, without Dropout and without a final Normalize.
        pooled: Width of the pooled vector.

    Returns:
        The modules by dimension, the dimension of `chain` itself, and the names of folders without weights.

    Raises:
        ConfigError: If modules do not fit together, or none has weights.
    """
    variants = [chain]
    if chain and chain[-1].kind == "Dense":
        listed = chain[-1].folder
        form = re.escape(re.sub(r"_\d+$", "", listed.name)) + r"_\d+"
        for path in sorted(listed.parent.iterdir()):
            if path == listed or not re.fullmatch(form, path.name) or not (path / "config.json").is_file():
                continue
            if not path.resolve().is_relative_to(listed.parent.resolve()):
                raise ConfigError(f"{path}: leaves the model folder")
            variants.append((*chain[:-1], Module("Dense", path)))
    heads: dict[int, Chain] = {}
    lacking: dict[int, Path] = {}
    for variant in variants:
        dimension = _dimension(variant, pooled)
        bare = [one.folder for one in variant if one.kind != "Normalize" and not (one.folder / WEIGHTS).is_file()]
        if bare:
            lacking[dimension] = bare[0]
        else:
            heads.setdefault(dimension, variant)
    if not heads:
        names = ", ".join(sorted(path.name for path in lacking.values()))
        pickled = [str(file) for path in lacking.values() for file in sorted(path.glob("*.bin"))]
        cure = (
            f"{pickled[0]} is a pickle, which can run code when loaded, and is refused; convert it with safetensors"
            if pickled
            else "download them"
        )
        raise ConfigError(f"{chain[0].folder.parent}: no Dense folder has a {WEIGHTS} (found {names}); {cure}")
    return heads, _dimension(chain, pooled), {dimension: path.name for dimension, path in lacking.items()}


def _dimension(chain: Chain, width: int) -> int:
    """Return the dimension of the vectors that a chain makes of vectors with this width."""
    for module in chain:
        if module.kind == "Normalize":
            continue
        path = module.folder / "config.json"
        config = read_json_object(path)
        takes, gives = ("in_features", "out_features") if module.kind == "Dense" else ("dimension", "dimension")
        if not isinstance(config.get(gives), int):
            raise ConfigError(f"{path}: {gives} must be a whole number (got {config.get(gives)!r})")
        number = re.search(r"_Dense_(\d+)$", module.folder.name)
        if number and int(number[1]) != config[gives]:
            raise ConfigError(f"{path}: {gives} is {config[gives]}, but the folder is called {module.folder.name}")
        if config.get(takes) != width:
            raise ConfigError(f"{path}: {takes} is {config.get(takes)!r}, but the module before it gives {width}")
        for key in ("module_input_name", "module_output_name"):
            if config.get(key) not in (None, "sentence_embedding"):
                raise ConfigError(f"{path}: {key} {config[key]!r} is not supported; only sentence_embedding is")
        width = config[gives]
    return width
