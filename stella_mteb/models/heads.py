"""Torch modules that follow the pooling, from float32 [texts, width] to float32 [texts, new width]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import read_json_object
from stella_mteb.models.modules import WEIGHTS, Chain


class _Dense(torch.nn.Module):
    """`sentence_transformers.base.modules.Dense`."""

    def __init__(self, config: dict[str, Any], activation: torch.nn.Module) -> None:
        super().__init__()
        takes, gives = config["in_features"], config["out_features"]
        self.linear, self.activation = torch.nn.Linear(takes, gives, bias=config.get("bias", True)), activation
        self.adds = bool(config.get("use_residual"))
        self.residual = (
            torch.nn.Linear(takes, gives, bias=False) if takes != gives and self.adds else torch.nn.Identity()
        )

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.activation(self.linear(vectors))
        return out + self.residual(vectors) if self.adds else out


class _LayerNorm(torch.nn.Module):
    """`sentence_transformers.sentence_transformer.modules.LayerNorm`."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(config["dimension"])

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.norm(vectors)  # type: ignore[no-any-return]


class _Normalize(torch.nn.Module):
    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(vectors, dim=-1)


class _Cut(torch.nn.Module):
    """`sentence_transformers.util.truncate_embeddings`."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors[:, : self.dimension]


def load_head(chain: Chain, dimension: int) -> torch.nn.Module:
    """Load the modules of a head.

    Raises:
        ConfigError: If a module has an activation that torch does not have.
        EnvironmentProblem: If weights are damaged, or have another shape than the module's config says.
    """
    loaded: list[torch.nn.Module] = []
    for kind, folder in chain:
        if kind == "Cut":
            loaded.append(_Cut(dimension))
        elif kind == "Normalize":
            loaded.append(_Normalize())
        else:
            config = read_json_object(folder / "config.json")
            module = _Dense(config, _activation(config, folder)) if kind == "Dense" else _LayerNorm(config)
            loaded.append(_with_weights(module, folder / WEIGHTS))
    return torch.nn.Sequential(*loaded)


def _activation(config: dict[str, Any], folder: Path) -> torch.nn.Module:
    name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    found = getattr(torch.nn, str(name).rpartition(".")[2], None) if str(name).startswith("torch.nn.") else None
    try:
        if isinstance(found, type) and issubclass(found, torch.nn.Module):
            return found()
    except TypeError:  # a layer that needs a size
        pass
    raise ConfigError(f"{folder / 'config.json'}: activation {name!r} is not supported; only those of torch.nn are")


def _with_weights(module: torch.nn.Module, path: Path) -> torch.nn.Module:
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise EnvironmentProblem(f"{path}: damaged ({error}); download it again") from error
    found = {name: tuple(value.shape) for name, value in weights.items()}
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if found != expected:
        raise EnvironmentProblem(f"{path}: the weights are {found} instead of {expected}; download it again")
    module.load_state_dict({name: value.float() for name, value in weights.items()})
    return module
