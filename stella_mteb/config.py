"""A model's configuration: `configs/*.yaml`, a user's own YAML, or the in-house `encoders_config` form.

Every fault is an error that names file, line and key, all faults of a file at once.
"""

from __future__ import annotations

import difflib
import importlib.resources
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from stella_mteb.errors import ConfigError
from stella_mteb.files import Lines, read_yaml

COMMIT = r"[0-9a-f]{40}"
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
"""A name that can be that of a file on every system, and stays in the folder where it is put."""
LONGEST_NAME = 100
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_SHOWN_NAMES = 30
MAX_LENGTH = 131_072
"""No model here reads more tokens than this."""

Model = TypeVar("Model", bound=BaseModel)


class StrictModel(BaseModel):
    """Unknown keys and wrong types are errors; nothing is converted behind the user's back."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FaultAt(ValueError):
    """A fault between keys, told at one of them."""

    def __init__(self, message: str, *key: str | int) -> None:
        super().__init__(message)
        self.key = key


def _no_device(name: str) -> str:
    if _DEVICES.fullmatch(name):
        raise ValueError("is the name of a device on Windows")
    return name


FileName = Annotated[str, Field(pattern=f"^{NAME}$", max_length=LONGEST_NAME), AfterValidator(_no_device)]
"""A name that results are filed under."""


def file_name(text: str) -> str:
    """The nearest `FileName` to any text, such as the name of a folder."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip("._-")[:LONGEST_NAME].rstrip(".") or "model"
    return f"model-{name}"[:LONGEST_NAME].rstrip(".") if _DEVICES.fullmatch(name) else name


class Hub(StrictModel):
    """A repository of the Hugging Face hub at one commit."""

    name: str = Field(pattern=f"^{NAME}/{NAME}$", max_length=2 * LONGEST_NAME)
    aliases: list[str] = []
    revision: str | None = Field(default=None, pattern=f"^{COMMIT}$")


class Package(StrictModel):
    """Weights that ship inside an installed Python package."""

    module: str
    folder: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class PromptConfig(StrictModel):
    """The prompts of a model, and which profile chooses among them.

    Attributes:
        profile: `card`, `leaderboard`, `builtin` or `own`.
        s2s: For symmetric tasks.
        s2p: For the queries of asymmetric ones.
        document: For the documents of asymmetric ones.
        own: Prompts by task name or task type, each optionally with `-query` or `-document` appended.
        examples: Profile `icl`: folder of `<Task>.json` files, relative to the YAML, that stand before the published.
    """

    profile: Literal["card", "leaderboard", "builtin", "own", "icl"] = "card"
    s2s: str = ""
    s2p: str = ""
    document: str = ""
    own: dict[str, str] = {}
    examples: str | None = None


class TokenGolden(StrictModel):
    """A text and the token ids it must give."""

    text: str
    ids: list[int]


class Goldens(StrictModel):
    """Published values that a copy of the model must reproduce (`stella-mteb verify`).

    Attributes:
        source: Who published them, and how they were made.
        dimension: Of the vectors.
        tolerance: Largest difference in float32; ten times that in half precision.
        query_prompt: `s2s` or `s2p`, or the prompt itself; None for none.
        queries: Texts that get the prompt.
        documents: Texts that get the documents' prompt.
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
    """One model: where it is, how it is loaded, how it is run.

    Attributes:
        name: The name in specs.
        hub: Repository and commit.
        path: A local folder, which then stands before package and hub; relative to the YAML.
        package: Weights in an installed Python package, which stand before the hub.
        attention: `bidirectional` or `causal` where the files do not say; None leaves it to the files.
        bos_token_id: The token that must open every text.
        eos_token_id: The token that must close every text.
        pooling: How token states become one vector, where the files do not say.
        few_shot: Whether prompts are BGE-en-ICL's, and how they are assembled: `compat` as FlagEmbedding does it,
            `clean` without its decoding and tokenising again (`stella_mteb.models.icl`).
        dimensions: The published dimensions, for listings before the files are there; those on disk decide.
        dimension: The head that is used when none is asked for; None for the only one, or the folder's own.
        max_length: Longest input in tokens; None for the folder's own.
        batch_size: See `stella_mteb.engine.TextEncoder`.
        token_budget: Likewise; `stella-mteb bench` recommends one.
        normalize: Whether vectors get unit length; None for what the folder does.
        dtype: Of the backbone; None for the default of the device.
        refused_dtypes: Dtypes that give wrong results, with the reason.
        trust_remote_code: Consent to run Python code of the repository at the pinned revision.
        prompts: The prompts.
        goldens: What `verify` checks.
    """

    name: FileName
    hub: Hub | None = None
    path: str | None = None
    package: Package | None = None
    attention: Literal["bidirectional", "causal"] | None = None
    bos_token_id: int | None = Field(default=None, ge=0)
    eos_token_id: int | None = Field(default=None, ge=0)
    pooling: Literal["cls", "mean", "lasttoken"] | None = None
    few_shot: Literal["compat", "clean"] | None = None
    dimensions: list[int] = []
    dimension: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=8, le=MAX_LENGTH)
    batch_size: int | None = Field(default=None, ge=1)
    token_budget: int | None = Field(default=None, ge=64)
    normalize: bool | None = None
    dtype: Literal["bfloat16", "float32", "float16"] | None = None
    refused_dtypes: dict[Literal["bfloat16", "float32", "float16"], str] = {}
    trust_remote_code: bool = False
    prompts: PromptConfig = PromptConfig()
    goldens: Goldens | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.hub is None and self.path is None and self.package is None:
            raise ValueError("one of hub, path and package must say where the model is")
        if self.trust_remote_code and not (self.hub and self.hub.revision):
            raise FaultAt(
                "trust_remote_code needs hub.revision, the full 40-digit commit whose code you have read",
                "trust_remote_code",
            )
        if self.prompts.profile == "icl" and not self.few_shot:
            raise FaultAt("prompts.profile icl needs few_shot: compat, or clean", "prompts", "profile")
        if self.prompts.profile == "own" and not self.prompts.own:
            raise FaultAt("prompts.profile is own, but prompts.own is empty", "prompts", "profile")
        return self

    @property
    def full_name(self) -> str:
        """`organisation/name`, as MTEB wants it."""
        return self.hub.name if self.hub else f"local/{self.name}"

    @property
    def loading(self) -> str:
        """What the config changes in the way the files are loaded, and so in every vector; empty for nothing."""
        parts = [
            self.attention,
            f"eos{self.eos_token_id}" if self.eos_token_id is not None else None,
            self.pooling,
            f"icl-{self.few_shot}" if self.few_shot else None,
            "remote-code" if self.trust_remote_code else None,
        ]
        return "+".join(part for part in parts if part)


def bundled_configs() -> dict[str, Path]:
    """The configs that ship with the package, by name, in alphabetical order."""
    folder = Path(str(importlib.resources.files("stella_mteb.configs")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


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


def validate(
    model: type[Model], data: Mapping[str, Any], path: Path | str, lines: Lines, prefix: tuple[str, ...] = ()
) -> Model:
    """Validate a mapping that was read from a file.

    Args:
        model: A pydantic model.
        data: The mapping.
        path: Where it is from, for the messages.
        lines: Line of each key, from `read_yaml`; empty if the mapping was given in Python.
        prefix: Keys under which the mapping stands in the file.

    Raises:
        ConfigError: Lists every fault.
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        faults = [_fault(model, dict(fault), path, lines, prefix) for fault in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(faults))) from None


def _fault(
    model: type[BaseModel], fault: dict[str, Any], path: Path | str, lines: Lines, prefix: tuple[str, ...]
) -> str:
    loc = fault["loc"] or getattr(fault.get("ctx", {}).get("error"), "key", ())
    where = (*prefix, *loc)
    line = next((lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in lines), None)
    key = ".".join(map(str, loc)) or "the file"
    place = f"{path}:{line}" if line else str(path)
    if fault["type"] == "extra_forbidden":
        known = known_keys(model, fault["loc"][:-1])
        return f"{place}: unknown key {key!r}{did_you_mean(str(fault['loc'][-1]), known)}"
    if fault["type"] == "missing":
        return f"{place}: key {key!r} is missing"
    got = "" if isinstance(fault["input"], dict | BaseModel) else f" (got {fault['input']!r})"
    if fault["type"] == "string_pattern_mismatch":
        rule = "a full commit of 40 hexadecimal digits" if COMMIT in fault["ctx"]["pattern"] else "a plain name"
        return f"{place}: {key}: must be {rule}, {fault['ctx']['pattern']}{got}"
    return f"{place}: {key}: {fault['msg'].removeprefix('Value error, ')}{got}"


def known_keys(model: type[BaseModel], at: tuple[Any, ...]) -> list[str]:
    """The keys that a nested model knows at a path of keys."""
    for step in at:
        if isinstance(step, int):  # an entry of a list of the model
            continue
        field = model.model_fields.get(str(step))
        candidates = getattr(field.annotation, "__args__", (field.annotation,)) if field else ()
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)


def did_you_mean(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?`, or what is known, for the end of an error message."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not known:
        return ""
    shown = sorted(known)[:_SHOWN_NAMES]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return f"; known are {', '.join(shown)}{more}"
