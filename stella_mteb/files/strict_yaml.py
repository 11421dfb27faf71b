"""Strict YAML: every key with its line, and every fault of a file at once, with file, line and key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
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
"""The line, counted from 1, at which each key of a YAML file stands: `("encoder", "path") -> 3`."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader less what surprises: YAML 1.1 booleans (`no` is Norway), octal, sexagesimal, dates."""


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


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read a YAML mapping and the line of every key.

    Aliases, duplicate keys, tags, files of more than 1 MB and nesting of more than 50 levels are refused.

    Args:
        path: The file.

    Returns:
        The mapping, and the line of each key by its path of keys.

    Raises:
        ConfigError: If the file is missing or is not such a mapping; the text gives file and line.
    """
    text = read_text(path)
    if len(text.encode()) > MAX_YAML_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_YAML_BYTES} bytes, which no configuration is")
    lines: Lines = {}
    try:
        _refuse_what_surprises(path, text)
        loader = _StrictLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{path}:1: must be a mapping of keys to values")
        _collect_lines(path, node, (), lines)
        data = loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: character #x{error.character:04x} is not allowed in YAML") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{path}:{line}: not valid YAML: {problem}") from None
    return data, lines


def _refuse_what_surprises(path: Path, text: str) -> None:
    # On the event stream, which is flat: composing a deeply nested file would exhaust the stack.
    depth = 0
    for event in _events(path, text):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if (tag := getattr(event, "tag", None)) is not None:
            raise ConfigError(f"{path}:{line}: tags are not allowed (got {tag!r})")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _HUGE.fullmatch(event.value):
            raise ConfigError(f"{path}:{line}: a number of {len(event.value)} digits")
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{path}:{line}: aliases are not allowed; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise ConfigError(f"{path}:{line}: nested deeper than {MAX_YAML_DEPTH} levels")


def _events(path: Path, text: str) -> Iterator[yaml.Event]:
    loader = _StrictLoader(text)
    try:
        while loader.check_event():
            yield loader.get_event()  # type: ignore[no-untyped-call]
    except OverflowError:  # "\\UFFFFFFFF"
        raise ConfigError(f"{path}:{loader.line + 1}: not valid YAML: there is no such character") from None


def _collect_lines(path: Path, node: yaml.Node, at: tuple[str | int, ...], lines: Lines) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                got = f" (got {key.value}; put it in quotes)" if isinstance(key, yaml.ScalarNode) else ""
                raise ConfigError(f"{path}:{line}: a key must be plain text{got}")
            where = (*at, key.value)
            if where in lines:
                raise ConfigError(f"{path}:{line}: key {key.value!r} stands twice (first on line {lines[where]})")
            lines[where] = line
            _collect_lines(path, value, where, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*at, i)] = value.start_mark.line + 1
            _collect_lines(path, value, (*at, i), lines)


COMMIT = r"[0-9a-f]{40}"
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
"""A name that can be that of a file on every system, and stays in the folder where it is put."""
LONGEST_NAME = 100
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_SHOWN_NAMES = 30

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
