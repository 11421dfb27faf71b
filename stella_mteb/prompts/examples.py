"""Reads few-shot examples: one file `<Task>.json` for each task, a list of {"query": ..., "response": ...}.

An example may have its own `instruct`, as in FlagEmbedding; otherwise it uses the task's instruction.

The search order is the folder in the model's YAML, the examples that ship with a bundled task, and those published by
BGE-en-ICL's authors, which are downloaded one by one at a fixed commit, verified by checksum, and kept.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.atomic import atomic_write, read_json
from stella_mteb.files.folders import cache_folder
from stella_mteb.files.strict_yaml import read_yaml

_SECONDS = 30
TOKENS = ("<instruct>", "<query>", "<response>")
"""Tokens that BGE-en-ICL adds to Mistral's tokenizer; `frame` uses them."""


@dataclass(frozen=True)
class Example:
    """A query and its answer, with an instruction of its own or None for the task's."""

    query: str
    response: str
    instruct: str | None = None


@dataclass(frozen=True)
class Examples:
    """The examples of one task.

    Attributes:
        rows: In the order of the file; `shots=n` uses the first n.
        source: Description of their origin.
        published: Whether the published scores were computed with them.
    """

    rows: tuple[Example, ...]
    source: str
    published: bool = False


def find_examples(task: str, folder: Path | None, *, offline: bool) -> Examples | None:
    """Find the examples of a task, or None if there are none.

    Args:
        task: Name of the task.
        folder: The user's folder, which has precedence, or None.
        offline: Never download.

    Raises:
        ConfigError: If a file is not a list of examples.
        EnvironmentProblem: If a published file is not on this machine and cannot be downloaded.
    """
    if folder is not None and (folder / f"{task}.json").is_file():
        return Examples(read_examples(folder / f"{task}.json"), f"{folder / task}.json")
    bundled = Path(str(importlib.resources.files("stella_mteb.tasks"))).glob(f"*/icl_examples/{task}.json")
    for path in bundled:
        return Examples(read_examples(path), "bundled with the task")
    checksum = published()["sha256"].get(task)
    if checksum is None:
        return None
    return Examples(read_examples(_fetched(task, checksum, offline=offline)), "FlagEmbedding", published=True)


def read_examples(path: Path) -> tuple[Example, ...]:
    """Read one file.

    Raises:
        ConfigError: If it is not a list of `{"query": text, "response": text}`, each with an optional `instruct`;
            states the place.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{path}: must be a list of examples, each with query and response")
    for number, row in enumerate(rows, 1):
        wrong = not isinstance(row, dict) or any(not isinstance(row.get(key), str) for key in ("query", "response"))
        if wrong or not row["query"].strip():
            raise ConfigError(f"{path}: example {number}: must have a query and a response, both texts")
        if unknown := sorted(row.keys() - {"query", "response", "instruct"}):
            known = "query, response and instruct"
            raise ConfigError(f"{path}: example {number}: unknown key {unknown[0]!r}; the keys are {known}")
        if not isinstance(row.get("instruct", ""), str):
            raise ConfigError(f"{path}: example {number}: instruct must be text (got {row['instruct']!r})")
    return tuple(Example(**row) for row in rows)


def published() -> Any:
    """Return repository, commit, folder and checksums of the published examples (`icl.yaml`)."""
    return read_yaml(Path(str(importlib.resources.files("stella_mteb.prompts"))) / "icl.yaml")[0]["examples"]


def _fetched(task: str, checksum: str, *, offline: bool) -> Path:
    source = published()
    path: Path = cache_folder() / "icl_examples" / source["commit"] / f"{task}.json"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum:
        return path
    url = f"{source['base']}/{source['commit']}/{source['folder']}/{task}.json"
    cure = (
        f"run `stella-mteb fetch -m bge_en_icl -t {task}` on a machine with network and copy its cache, or "
        f"download {url} elsewhere and set prompts.examples in the model's YAML to its folder, or run with [shots=0]"
    )
    if offline:
        raise EnvironmentProblem(f"the examples of {task} are not on this machine, and it is offline; {cure}")
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 -- https, from icl.yaml
            content = answer.read()
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise EnvironmentProblem(f"the examples of {task} could not be downloaded ({error}); {cure}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        raise EnvironmentProblem(f"{url}: sha256 is {found}, not {checksum}; the file is discarded. {cure}")
    with atomic_write(path, "wb") as file:
        file.write(content)
    return path


def frame(instruction: str, examples: tuple[Example, ...], shots: int | None) -> str:
    """Build the prompt of a text from examples and instruction; see `stella_mteb.models.icl`.

    Args:
        instruction: The task's, with its final full stop; also for examples without their own.
        examples: Examples of the task.
        shots: Number of examples to use; None for all.
    """
    chosen = examples if shots is None else examples[:shots]
    parts = [
        f"<instruct>{instruction if one.instruct is None else one.instruct}\n<query>{one.query}\n"
        f"<response>{one.response}\n\n"
        for one in chosen
    ]
    return "".join(parts) + f"<instruct>{instruction}\n<query>"
