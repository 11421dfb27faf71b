"""Strict YAML: records the line of every key, and reports every fault of a file at once with file, line and key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import read_text

MAX_YAML_BYTES = 1_000_000
MAX_YAML_DEPTH = 50
_HUGE = re.compile(r"[-+]?[0-9]{1000,}")

Lines = dict[tuple[str | int, ...], int]
"""The line, counted from 1, of each key in a YAML file: `("encoder", "path") -> 3`."""


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read a YAML mapping and the line of every key.

    Aliases, duplicate keys, tags, files of more than 1 MB and nesting of more than 50 levels are refused.

    Returns:
        The mapping, and the line of each key by its path of keys.

    Raises:
        ConfigError: If the file is missing or is not such a mapping; the text gives file and line.
    """
    text = read_text(path)
    if len(text.encode()) > MAX_YAML_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_YAML_BYTES} bytes; not a configuration file")
    try:
        loader = _StrictLoader(text, path)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{path}:1: must be a mapping of keys to values")
        return loader.construct(node, ()), loader.lines
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: character #x{error.character:04x} is not allowed in YAML") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {problem}") from None
    except OverflowError:  # "\\UFFFFFFFF"
        raise ConfigError(f"{path}:{loader.line + 1}: not valid YAML: invalid character escape") from None


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without YAML 1.1 booleans (`no` is Norway), octal and sexagesimal numbers, dates, tags and aliases.

    Attributes:
        lines: The line of each key that `construct` has visited.
    """

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path = path
        self.depth = 0
        self.lines: Lines = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse forbidden nodes before they are constructed."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        place = f"{self.path}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{place}: aliases are not allowed; write the value out")
        if event.tag is not None:
            raise ConfigError(f"{place}: tags are not allowed (got {event.tag!r})")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _HUGE.fullmatch(event.value):
            raise ConfigError(f"{place}: number too long ({len(event.value)} digits)")
        if self.depth > MAX_YAML_DEPTH:  # checked here, before deeper nesting exhausts the stack
            raise ConfigError(f"{place}: nested deeper than {MAX_YAML_DEPTH} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct(self, node: yaml.Node, at: tuple[str | int, ...]) -> Any:
        """Construct the value of a node at a path of keys."""
        if isinstance(node, yaml.SequenceNode):
            self.lines |= {(*at, i): value.start_mark.line + 1 for i, value in enumerate(node.value)}
            return [self.construct(value, (*at, i)) for i, value in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self.construct_object(node)
        mapping = {}
        for key, value in node.value:
            place = f"{self.path}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                got = f" (got {key.value}; put it in quotes)" if isinstance(key, yaml.ScalarNode) else ""
                raise ConfigError(f"{place}: a key must be plain text{got}")
            where = (*at, key.value)
            if where in self.lines:
                raise ConfigError(f"{place}: duplicate key {key.value!r} (first on line {self.lines[where]})")
            self.lines[where] = key.start_mark.line + 1
            mapping[key.value] = self.construct(value, where)
        return mapping


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in [
    ("bool", r"^(?:true|false|True|False)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?$", "-+0123456789"),
]:
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


COMMIT = r"[0-9a-f]{40}"
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
"""A name that is a valid file name on every system and cannot leave its folder."""
LONGEST_NAME = 100
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_SHOWN_NAMES = 30

Model = TypeVar("Model", bound=BaseModel)


class StrictModel(BaseModel):
    """A pydantic model that refuses unknown keys and never converts types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FaultAt(ValueError):
    """A fault that concerns several keys, reported at one of them."""

    def __init__(self, message: str, *key: str | int) -> None:
        super().__init__(message)
        self.key = key


def _no_device(name: str) -> str:
    if _DEVICES.fullmatch(name):
        raise ValueError("is the name of a device on Windows")
    return name


FileName = Annotated[str, Field(pattern=f"^{NAME}$", max_length=LONGEST_NAME), AfterValidator(_no_device)]
"""A name for a file of results."""


def file_name(text: str) -> str:
    """Turn any text, such as the name of a folder, into a similar `FileName`."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip("._-")[:LONGEST_NAME].rstrip(".") or "model"
    return f"model-{name}"[:LONGEST_NAME].rstrip(".") if _DEVICES.fullmatch(name) else name


def validate(
    model: type[Model], data: Mapping[str, Any], path: Path | str, lines: Lines, prefix: tuple[str, ...] = ()
) -> Model:
    """Validate a mapping that was read from a file.

    Args:
        model: A pydantic model.
        data: The mapping.
        path: The file, for messages.
        lines: Line of each key, from `read_yaml`; empty for a mapping given in Python.
        prefix: Keys under which the file has the mapping.

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
    """Return the keys of a nested model at a path of keys."""
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
    """Return the end of an error message: `; did you mean 'x'?`, or the known words."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not known:
        return ""
    shown = sorted(known)[:_SHOWN_NAMES]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return f"; known are {', '.join(shown)}{more}"
