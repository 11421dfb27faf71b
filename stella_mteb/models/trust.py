"""Decides which files of a model may be read and whose code may run: safetensors and native classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import read_json_object

if TYPE_CHECKING:
    from stella_mteb.models.resolve import ResolvedModel


def require_plain_weights(model: ResolvedModel) -> None:
    """Require that the backbone's weights are safetensors in the model's own folder, without quantisation.

    Raises:
        ConfigError: If the files refer to other files, or change the weights.
        EnvironmentProblem: If weights or shards are missing, or only pickled ones exist.
    """
    folder = model.layout.transformer
    for key in ("quantization_config", "transformers_weights"):
        if model.layout.config.get(key):
            raise ConfigError(f"{folder / 'config.json'}: {key} is not supported; use the plain weights")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        raise EnvironmentProblem(
            f"{folder}: has {', '.join(pickled)} but no *.safetensors; pickled weights can run code when loaded and "
            "are refused. Convert them with safetensors, or download model.safetensors"
            if pickled
            else f"{folder}: has no *.safetensors; download the weights"
        )
    # transformers opens any file that the index names, even a pickle or a file in another folder.
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return
    shards = read_json_object(index).get("weight_map")
    named = set(map(str, shards.values())) if isinstance(shards, dict) else set()
    if strange := sorted(name for name in named if Path(name).name != name or not name.endswith(".safetensors")):
        raise ConfigError(f"{index}: names {strange[0]!r}; shards must be *.safetensors in the same folder")
    if absent := sorted(name for name in named if not (folder / name).is_file()):
        raise EnvironmentProblem(f"{folder}: lacks {', '.join(absent[:3])} of {len(named)} shards; download them")


def remote_model(model: ResolvedModel) -> str:
    """Return the repository's own model class, `file.Class`, from its config.json; empty for none."""
    return str(model.layout.config.get("auto_map", {}).get("AutoModel", ""))


def require_known_code(model: ResolvedModel) -> None:
    """Require an architecture that transformers has, or the user's consent to run the code at this commit."""
    from transformers import CONFIG_MAPPING  # noqa: PLC0415

    config, folder = model.layout.config, model.layout.transformer
    if model.config.trust_remote_code:
        read = model.config.hub.revision if model.config.hub else None
        if model.revision != read:
            raise ConfigError(
                f"{model.folder}: trust_remote_code is consent to the code of commit {read}, but these files are "
                f"{model.revision}; remove `path` and use the files from the hub or its cache"
            )
        for path in (folder / "config.json", folder / "tokenizer_config.json"):
            named = read_json_object(path).get("auto_map") if path.is_file() else None
            if "--" in str(named):
                raise ConfigError(f"{path}: auto_map names code of another repository, which is not pinned ({named})")
    elif config.get("model_type") in CONFIG_MAPPING:
        own = remote_model(model)
        if own and not own.startswith("modeling_qwen.") and model.config.attention is None:
            raise ConfigError(
                f"{folder / 'config.json'}: names its own model class ({own}); the native {config['model_type']!r} may "
                "attend differently. State `attention: bidirectional` or `attention: causal` in a model YAML"
            )
    else:
        files = sorted({str(value).partition(".")[0] + ".py" for value in config.get("auto_map", {}).values()})
        raise ConfigError(
            f"{folder}: model_type {config.get('model_type')!r} is not part of transformers and would run code of "
            f"the repository ({', '.join(files) or 'none named'}). If you have read that code, say so in a model "
            "YAML: trust_remote_code: true, with hub.revision set to the commit you read"
        )
