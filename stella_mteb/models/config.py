"""Model configurations: `configs/*.yaml`, a user's own YAML, or the in-house `encoders_config` form.

Faults are reported with file, line and key, all faults of a file at once.
"""

from __future__ import annotations

import functools
import importlib.resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stella_mteb.errors import ConfigError
from stella_mteb.files.strict_yaml import (
    COMMIT,
    LONGEST_NAME,
    NAME,
    FaultAt,
    FileName,
    StrictModel,
    read_yaml,
    validate,
)
from stella_mteb.models.declared import Similarity
from stella_mteb.prompts.profiles import PromptConfig

MAX_LENGTH = 131_072
"""Upper limit of `max_length`, in tokens."""


class Hub(StrictModel):
    """A repository of the Hugging Face hub at a commit."""

    name: str = Field(pattern=f"^{NAME}/{NAME}$", max_length=2 * LONGEST_NAME)
    aliases: list[str] = []
    revision: str | None = Field(default=None, pattern=f"^{COMMIT}$")


class Package(StrictModel):
    """Weights that ship inside an installed Python package."""

    module: str
    folder: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class TokenGolden(StrictModel):
    """A text and its expected token ids."""

    text: str
    ids: list[int]


class Goldens(StrictModel):
    """Published values that a copy of the model must reproduce (`stella-mteb verify`).

    Attributes:
        source: Their publisher, and how they were computed.
        dimension: Dimension of the vectors.
        tolerance: Largest difference allowed in float32; in half precision it is ten times that.
        query_prompt: `s2s` or `s2p`, or the prompt itself; None for no prompt.
        queries: Texts with the query prompt.
        documents: Texts with the document prompt.
        similarity: Cosine of each query with each document.
        tokens: Texts with their token ids.
    """

    source: str
    dimension: int
    tolerance: float
    query_prompt: str | None = None
    queries: list[str] = []
    documents: list[str] = []
    similarity: list[list[float]] = []
    tokens: list[TokenGolden] = []


class ModelConfig(StrictModel):
    """The configuration of a model: where it is, and how it is loaded and run.

    Attributes:
        name: The name in specs.
        hub: Repository and commit.
        registered_as: A model in MTEB's registry whose prompts, lengths and dtype are used, unless this config
            overrides them.
        path: A local folder, relative to the YAML; has priority over package and hub.
        package: Weights in an installed Python package; has priority over the hub.
        attention: `bidirectional` or `causal` if the files do not say; None leaves it to the files.
        bos_token_id: The token with which every text must begin.
        eos_token_id: The token with which every text must end.
        add_bos_token: Whether the tokenizer adds a beginning token; None uses the tokenizer's files.
        add_eos_token: Whether the tokenizer adds an end token; None uses the tokenizer's files.
        pooling: How token states are pooled, if the files do not say.
        few_shot: Whether prompts have BGE-en-ICL's form, and how they are assembled: `compat` like FlagEmbedding,
            `clean` without its decoding and second tokenisation (`stella_mteb.models.icl`).
        dimensions: The published dimensions, for listings before the download; the heads on disk decide.
        dimension: The default dimension; None for the only head or the folder's own.
        max_length: Longest input in tokens; None for the folder's own.
        batch_size: See `stella_mteb.engine.TextEncoder`.
        token_budget: See `stella_mteb.engine.TextEncoder`; `stella-mteb bench` recommends a value.
        normalize: Whether vectors get unit length; None follows the folder.
        similarity: How vectors are compared; None follows the folder.
        matryoshka: Dimensions that vectors may be truncated to, for a model that was trained for it.
        include_prompt: Whether the prompt's tokens are pooled; None follows the folder.
        dtype: Dtype of the backbone; None for the default of the device.
        refused_dtypes: Dtypes that give wrong results, with the reason.
        trust_remote_code: Consent to run Python code of the repository at the pinned revision.
        prompts: The prompts.
        goldens: Values that `verify` checks.
    """

    name: FileName
    hub: Hub | None = None
    registered_as: str | None = Field(default=None, pattern=f"^{NAME}/{NAME}$", max_length=2 * LONGEST_NAME)
    path: str | None = None
    package: Package | None = None
    attention: Literal["bidirectional", "causal"] | None = None
    bos_token_id: int | None = Field(default=None, ge=0)
    eos_token_id: int | None = Field(default=None, ge=0)
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    pooling: Literal["cls", "mean", "lasttoken"] | None = None
    few_shot: Literal["compat", "clean"] | None = None
    dimensions: list[int] = []
    dimension: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=8, le=MAX_LENGTH)
    batch_size: int | None = Field(default=None, ge=1)
    token_budget: int | None = Field(default=None, ge=64)
    normalize: bool | None = None
    similarity: Similarity | None = None
    matryoshka: list[Annotated[int, Field(ge=1)]] = []
    include_prompt: bool | None = None
    dtype: Literal["bfloat16", "float32", "float16"] | None = None
    refused_dtypes: dict[Literal["bfloat16", "float32", "float16"], str] = {}
    trust_remote_code: bool = False
    prompts: PromptConfig = PromptConfig()
    goldens: Goldens | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.hub is None and self.path is None and self.package is None:
            raise ValueError("one of hub, path and package must give the model's location")
        if self.trust_remote_code and not (self.hub and self.hub.revision):
            raise FaultAt(
                "trust_remote_code needs hub.revision, the full 40-digit commit whose code you have read",
                "trust_remote_code",
            )
        if self.prompts.profile == "icl" and not self.few_shot:
            raise FaultAt("prompts.profile icl needs few_shot: compat, or clean", "prompts", "profile")
        if self.prompts.profile == "own" and not self.prompts.own:
            raise FaultAt("prompts.profile is own, but prompts.own is empty", "prompts", "profile")
        if self.prompts.profile == "instruct" and not self.prompts.template:
            raise FaultAt("prompts.profile is instruct, but prompts.template is empty", "prompts", "profile")
        if self.prompts.default is not None and self.prompts.default not in self.prompts.own:
            raise FaultAt(f"prompts.default {self.prompts.default!r} is not in prompts.own", "prompts", "default")
        return self

    @property
    def full_name(self) -> str:
        """`organisation/name`, the form that MTEB requires."""
        return self.registered_as or (self.hub.name if self.hub else f"local/{self.name}")

    @property
    def loading(self) -> str:
        """The settings that override how the files are loaded and so change every vector; empty for none."""
        parts = [
            self.attention,
            f"eos{self.eos_token_id}" if self.eos_token_id is not None else None,
            {None: None, True: "opened", False: "not-opened"}[self.add_bos_token],
            {None: None, True: "closed", False: "not-closed"}[self.add_eos_token],
            self.pooling,
            {None: None, True: "prompt-in", False: "prompt-out"}[self.include_prompt],
            f"icl-{self.few_shot}" if self.few_shot else None,
            "remote-code" if self.trust_remote_code else None,
        ]
        return "+".join(part for part in parts if part)


def bundled_configs() -> dict[str, Path]:
    """Return the paths of the bundled configs by name, in alphabetical order."""
    folder = Path(str(importlib.resources.files("stella_mteb.configs")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


@functools.cache
def bundled_models() -> tuple[ModelConfig, ...]:
    """Read the bundled configs."""
    return tuple(map(load_config, bundled_configs().values()))


def load_config(path: Path) -> ModelConfig:
    """Read a model's YAML.

    Raises:
        ConfigError: Lists every fault with file, line and key.
    """
    data, lines = read_yaml(path)
    config = validate(ModelConfig, data, path, lines)
    if config.path is not None:
        folder = (path.parent / Path(config.path).expanduser()).resolve()
        config = config.model_copy(update={"path": str(folder)})
    if config.prompts.examples is not None:
        examples = (path.parent / Path(config.prompts.examples).expanduser()).resolve()
        if not examples.is_dir():
            line = lines.get(("prompts", "examples"))
            raise ConfigError(f"{path}{f':{line}' if line else ''}: prompts.examples: {examples} is not a folder")
        prompts = config.prompts.model_copy(update={"examples": str(examples)})
        config = config.model_copy(update={"prompts": prompts})
    return config
