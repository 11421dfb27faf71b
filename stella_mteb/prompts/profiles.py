"""Chooses the prompt of a text by profile, task and side.

    card         two prompts, chosen by task type: `card.yaml`
    leaderboard  an instruction for each task in the template of the card: `leaderboard.yaml`
    builtin      bit for bit what MTEB's own wrapper does for Stella: the instruction followed directly by the text
    own          by name of task, task type or side, in MTEB's order: from the config, or the model's own folder
    instruct     an instruction for each task in the config's template, like MTEB's wrapper for such models
    icl          BGE-en-ICL's: the task's examples, then its instruction: `icl.yaml`

If a profile has no prompt for a task, the closest one is used and marked (`Prompt.fallback`); the encoder warns and
records it. The module does not depend on MTEB's classes: `TaskInfo` has all it needs of a task.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from stella_mteb.errors import ConfigError
from stella_mteb.files.strict_yaml import StrictModel, read_yaml
from stella_mteb.prompts.examples import Example, find_examples, frame

PROFILES = ("card", "leaderboard", "builtin", "own", "instruct", "icl")
Side = Literal["query", "document"] | None
"""`query` or `document` of an asymmetric task, None for a symmetric one (MTEB's prompt_type)."""
PromptType = Literal["s2s", "s2p", "none"]
"""A prompt chosen without a task: by the judge, and by the in-house API."""


class PromptConfig(StrictModel):
    """The prompts of a model, and the profile that chooses among them.

    Attributes:
        profile: One of `PROFILES`.
        s2s: For symmetric tasks.
        s2p: For the queries of asymmetric tasks.
        document: For the documents of asymmetric tasks.
        own: Profile `own`: prompts by task name or task type, optionally with the suffix `-query` or `-document`, or by
            `query` and `document` alone.
        default: Profile `own`: name of the prompt to use if no other fits (`default_prompt_name`).
        template: Profile `instruct`: the prompt of queries, documents and texts of symmetric tasks (`both`), with
            `{instruction}` in it. A missing side gets no prompt.
        without_instruction: Profile `instruct`: the same for tasks without instruction.
        instructions: Profile `instruct`: by task name, task type or side; they override the task's own in MTEB.
        examples: Profile `icl`: folder of `<Task>.json` files, relative to the YAML, that override the published ones.
    """

    profile: Literal["card", "leaderboard", "builtin", "own", "instruct", "icl"] = "card"
    s2s: str = ""
    s2p: str = ""
    document: str = ""
    own: dict[str, str] = {}
    default: str | None = None
    template: dict[Literal["both", "query", "document"], str] = {}
    without_instruction: dict[Literal["both", "query", "document"], str] = {}
    instructions: dict[str, str | dict[Literal["query", "document"], str]] = {}
    examples: str | None = None


@dataclass(frozen=True)
class TaskInfo:
    """The facts of a task that determine its prompt.

    Attributes:
        name: Name of the task.
        type: MTEB's task type.
        instruction: The task's own instruction by side (None for both), if it has one.
        type_instruction: MTEB's default instruction for the task type.
        parents: Tasks that this one is a variant of, nearest first, each with its own instruction or None.
    """

    name: str
    type: str
    instruction: dict[Side, str] = field(default_factory=dict)
    type_instruction: str = ""
    parents: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True)
class Prompt:
    """A chosen prompt.

    Attributes:
        text: The text put before each text; may be empty.
        source: Description of its origin.
        fallback: Whether the profile has no prompt for this task.
        examples: Its examples that must not occur in the data, without the published ones.
        normalized: Whether vectors may get unit length, as in the computation of the published scores.
    """

    text: str
    source: str
    fallback: bool = False
    examples: tuple[Example, ...] = ()
    normalized: bool = True

    def refuse_leak(self, texts: Iterable[str], where: str) -> None:
        """Raise a ConfigError if an example of the prompt is among the scored texts."""
        scored = set(texts) if self.examples else set()
        for example in self.examples:
            if found := scored & {example.query, example.response}:
                raise ConfigError(
                    f"{where}: the example {found.pop()[:60]!r} is also in the scored data, so the model would see an "
                    "answer. Choose other examples, or run with [shots=0]"
                )


def choose(
    profile: str,
    prompts: PromptConfig,
    task: TaskInfo,
    side: Side,
    *,
    shots: int | None = None,
    offline: bool = False,
) -> Prompt:
    """Choose the prompt for one side of a task.

    Args:
        profile: One of `PROFILES`.
        prompts: The model's prompts.
        task: The task.
        side: The side.
        shots: Profile `icl`: maximum number of examples; None for all.
        offline: Profile `icl`: never download examples.

    Raises:
        ConfigError: If the profile is unknown, the config lacks its prompts, or examples are malformed.
        EnvironmentProblem: If examples are needed but unavailable.
    """
    require_profile(profile, prompts)
    if profile == "icl":
        prompt = _icl(prompts, task, side, shots, offline=offline)
        return replace(prompt, normalized=task.type not in table("icl")["not_normalized"])
    return _PROFILES[profile](prompts, task, side)


def judge_prompt(profile: str, prompts: PromptConfig, prompt_type: PromptType, shots: int | None = None) -> Prompt:
    """Choose the prompt of every text that is compared.

    `s2s`, `s2p` and `none` are the model's own prompts. For a model with prompts by task (profiles `icl`, `own` and
    `instruct`), `s2s` is the prompt of the task VideoSummarySTS, and `s2p` that of a query, without examples.

    Args:
        profile: The model's profile.
        prompts: The model's prompts.
        prompt_type: The prompt to choose.
        shots: Maximum number of examples; None for all.
    """
    if prompt_type == "s2s" and profile in {"icl", "own", "instruct"}:
        task = TaskInfo("VideoSummarySTS", "STS", type_instruction=table("leaderboard")["types"]["STS"])
        return choose(profile, prompts, task, None, shots=shots)
    if prompt_type == "s2p" and profile in {"own", "instruct"}:
        task = TaskInfo("", "Retrieval", type_instruction="Retrieve text based on user query.")
        return choose(profile, prompts, task, "query")
    text = {"s2s": prompts.s2s, "s2p": prompts.s2p, "none": ""}[prompt_type]
    return Prompt(text, f"judge: {prompt_type}")


def require_profile(profile: str, prompts: PromptConfig) -> None:
    """Raise a ConfigError unless the profile exists and the model has the prompts it needs."""
    if profile not in PROFILES:
        raise ConfigError(f"unknown prompt profile {profile!r}; the profiles are {', '.join(PROFILES)}")
    if profile == "own" and not prompts.own:
        raise ConfigError("prompt profile own needs prompts.own in the model's YAML: prompts by task or task type")
    if profile == "instruct" and not prompts.template:
        raise ConfigError("prompt profile instruct needs prompts.template in the model's YAML: query, document, both")


_CARD = {"s2s", "s2p", "document"}
_TEXTS = {
    "card": _CARD,
    "own": _CARD | {"own", "default"},
    "instruct": {"template", "without_instruction", "instructions", "own", "default"},
}


def prompts_id(profile: str, prompts: PromptConfig, bundled: Iterable[PromptConfig]) -> str:
    """Return the name of a set of prompts, for result folders and resuming; different prompts have different names.

    `leaderboard` and `builtin` do not use the config's prompts. `card` stands for the model's bundled prompts, `none`
    for empty ones. Other prompts, and `own`, have a digest of the texts.

    Args:
        profile: One of `PROFILES`.
        prompts: The model's prompts.
        bundled: The prompts that ship for this model.
    """
    if profile == "icl" and prompts.examples:
        files = sorted(Path(prompts.examples).glob("*.json"))
        return f"icl-{_digest([(file.name, file.read_text(encoding='utf-8')) for file in files])}"
    if profile in {"leaderboard", "builtin", "icl"}:
        return profile
    used = _TEXTS[profile]
    texts = prompts.model_dump(include=used)
    if profile == "card" and not any(texts.values()):
        return "none"
    if profile == "card" and any(texts == known.model_dump(include=used) for known in bundled):
        return "card"
    return f"{profile}-{_digest(texts)}"


def _digest(texts: Any) -> str:
    return hashlib.blake2b(json.dumps(texts, sort_keys=True).encode(), digest_size=4).hexdigest()


def profile_of(prompts_id: str) -> str:
    """Return the profile of a name from `prompts_id`."""
    return "card" if prompts_id == "none" else prompts_id.partition("-")[0]


@functools.cache
def table(name: str) -> dict[str, Any]:
    """Read `card.yaml`, `leaderboard.yaml` or `icl.yaml`."""
    path = Path(str(importlib.resources.files("stella_mteb.prompts"))) / f"{name}.yaml"
    return read_yaml(path)[0]


# ----------------------------------------------------------------------------------------------------- profiles


def _card(prompts: PromptConfig, task: TaskInfo, side: Side) -> Prompt:
    row = table("card").get(task.type)
    if row is None:
        # A type that is new in MTEB: the side still tells whether it is asymmetric.
        name = {"query": "s2p", "document": "none", None: "s2s"}[side]
        return Prompt(_named(prompts, name), f"card: {name}, task type {task.type} is not in the table", fallback=True)
    name = row.get("both") or row.get(side or "query")
    return Prompt(_named(prompts, name), f"card: {name}")


def _named(prompts: PromptConfig, name: str) -> str:
    return {"s2s": prompts.s2s, "s2p": prompts.s2p, "none": prompts.document}[name]


def _leaderboard(_prompts: PromptConfig, task: TaskInfo, side: Side) -> Prompt:
    if side == "document":
        return Prompt("", "leaderboard: no instruction for documents")
    instruction, source, fallback = _instruction(task, side)
    return Prompt(table("leaderboard")["template"].format(instruction=instruction), source, fallback=fallback)


def _instruction(task: TaskInfo, side: Side) -> tuple[str, str, bool]:
    rules = table("leaderboard")
    tasks, inherit = rules["tasks"], rules["inherit"]
    own = task.instruction.get(side) or task.instruction.get(None)
    if task.name in tasks:
        return tasks[task.name], "leaderboard: table", False
    if task.name in inherit:
        return tasks[inherit[task.name]], f"leaderboard: inherited from {inherit[task.name]}", False
    if own:
        return own, "leaderboard: the task's own instruction in MTEB", False
    for parent, instruction in task.parents:
        inherited = tasks.get(inherit.get(parent, parent)) or instruction
        if inherited:
            return inherited, f"leaderboard: inherited from {parent}", False
    if task.type in rules["types"]:
        return rules["types"][task.type], f"leaderboard: instruction for task type {task.type}", False
    return task.type_instruction, f"leaderboard: no instruction, MTEB's default for {task.type}", True


def _icl(prompts: PromptConfig, task: TaskInfo, side: Side, shots: int | None, *, offline: bool) -> Prompt:
    if side == "document":
        return Prompt("", "icl: no instruction for documents")
    instruction, source, fallback = _instruction(task, side)
    instruction = instruction.rstrip(".") + "."
    if shots == 0:
        return Prompt(frame(instruction, (), 0), f"icl: zero-shot, {source}", fallback=fallback)
    folder = Path(prompts.examples) if prompts.examples else None
    inherit = table("leaderboard")["inherit"]
    names = [task.name, inherit.get(task.name), *(inherit.get(parent, parent) for parent, _ in task.parents)]
    for name in filter(None, names):
        examples = find_examples(name, folder, offline=offline)
        if examples is not None:
            chosen = examples.rows[:shots]
            where = f"icl: {len(chosen)} of {len(examples.rows)} examples of {name} ({examples.source}), {source}"
            own = () if examples.published else chosen
            return Prompt(frame(instruction, examples.rows, shots), where, fallback=fallback, examples=own)
    return Prompt(frame(instruction, (), 0), f"icl: zero-shot, no examples for this task; {source}", fallback=True)


def _builtin(_prompts: PromptConfig, task: TaskInfo, side: Side) -> Prompt:
    if side == "document":
        return Prompt("", "builtin: no instruction for documents")
    return Prompt(*_as_mteb_asks({}, task, side, "builtin"))


def _instruct(prompts: PromptConfig, task: TaskInfo, side: Side) -> Prompt:
    where: Literal["both", "query", "document"] = side or "both"
    if where not in prompts.template:
        # MTEB passes None, for which sentence-transformers uses the default prompt.
        return Prompt(prompts.own.get(prompts.default or "", ""), f"instruct: no instruction for side {where}")
    instruction, source = _as_mteb_asks(prompts.instructions, task, side, "instruct")
    if not instruction:
        return Prompt(prompts.without_instruction.get(where, ""), f"instruct: no instruction for {task.name} ({where})")
    return Prompt(prompts.template[where].replace("{instruction}", instruction), source)


def _as_mteb_asks(
    instructions: Mapping[str, str | Mapping[Any, str]], task: TaskInfo, side: Side, profile: str
) -> tuple[str, str]:
    """Return the instruction of a task and its source, in the order of MTEB's `AbsEncoder.get_instruction`."""
    for key in filter(None, (task.name, task.type, side)):
        stated = instructions.get(key)
        if isinstance(stated, str) and stated:
            return stated, f"{profile}: {key}"
        if isinstance(stated, Mapping):
            return stated.get(side or "query", ""), f"{profile}: {key}"
        if stated is not None:
            return task.type_instruction, f"{profile}: MTEB's default for {task.type}"
    if task.instruction:
        # For a side without an instruction, MTEB uses an empty one and only warns.
        return task.instruction.get(side) or task.instruction.get(None, ""), f"{profile}: task metadata"
    return task.type_instruction, f"{profile}: MTEB's default for {task.type}"


def _own(prompts: PromptConfig, task: TaskInfo, side: Side) -> Prompt:
    suffixes = [f"-{side}", ""] if side else [""]
    names = [name + suffix for name in (task.name, task.type) for suffix in suffixes]
    # The last names are those of sentence-transformers' encode_document; MTEB itself only reads `document`.
    names += {"query": ["query"], "document": ["document", "passage", "corpus"], None: []}[side]
    for key in names:
        if key in prompts.own:
            unread = [name for name in names if key == "document" and not prompts.own[key] and prompts.own.get(name)]
            if unread:
                source = f"own: no prompt; MTEB and sentence-transformers read the prompt document, not {unread[0]}"
                return Prompt("", source, fallback=True)
            return Prompt(prompts.own[key], f"own: {key}")
    if prompts.default is not None:
        return Prompt(prompts.own.get(prompts.default, ""), f"own: {prompts.default}, the default")
    card = _card(prompts, task, side)
    if not any((prompts.s2s, prompts.s2p, prompts.document)):
        return Prompt("", f"own: no prompt for {task.name} or {task.type}")
    return Prompt(card.text, f"own: no prompt for {task.name} or {task.type}; used: {card.source}", fallback=True)


_PROFILES: dict[str, Callable[[PromptConfig, TaskInfo, Side], Prompt]] = {
    "card": _card,
    "leaderboard": _leaderboard,
    "builtin": _builtin,
    "own": _own,
    "instruct": _instruct,
}
