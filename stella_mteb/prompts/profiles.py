"""Which prompt a text gets, by profile, task and side.

    card         two prompts, chosen by task type: `card.yaml`
    leaderboard  an instruction for each task in the frame of the card: `leaderboard.yaml`
    builtin      bit for bit what MTEB's own wrapper gives Stella: the bare instruction glued to the text
    own          the user's, from `prompts.own` of the config
    icl          BGE-en-ICL's: the task's examples, then its instruction: `icl.yaml`

A task for which the profile has nothing gets the next best, and the choice says so (`Prompt.fallback`); the
encoder warns and records it. Knows nothing of MTEB's classes: `TaskInfo` is all it needs of a task.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from stella_mteb.errors import ConfigError
from stella_mteb.files.strict_yaml import StrictModel, read_yaml
from stella_mteb.prompts.examples import Example, find_examples, frame

PROFILES = ("card", "leaderboard", "builtin", "own", "icl")
Side = Literal["query", "document"] | None
"""`query` or `document` of an asymmetric task, None for a symmetric one (MTEB's prompt_type)."""
PromptType = Literal["s2s", "s2p", "none"]
"""A choice without a task: the judge's, and that of the in-house API."""


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


@dataclass(frozen=True)
class TaskInfo:
    """What a task brings along for choosing its prompt.

    Attributes:
        name: Name of the task.
        type: MTEB's task type.
        instruction: The task's own instruction by side (`None` for both), as far as it has one.
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
        text: What is put before the text; empty for none.
        source: Where it is from, in words.
        fallback: Whether the profile had nothing for this task.
        examples: Those in it that must not occur in the data; the published ones are the authors' affair.
        normalized: Whether vectors may get unit length; part of the profile, as the published scores were made.
    """

    text: str
    source: str
    fallback: bool = False
    examples: tuple[Example, ...] = ()
    normalized: bool = True

    def refuse_leak(self, texts: Iterable[str], where: str) -> None:
        """Raise a ConfigError if an example of the prompt stands among the texts that are scored."""
        scored = set(texts) if self.examples else set()
        for example in self.examples:
            if found := scored & {example.query, example.response}:
                raise ConfigError(
                    f"{where}: the example {found.pop()[:60]!r} also stands in the scored data; the model would be "
                    "shown what it is asked. Choose other examples, or run with [shots=0]"
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
        side: Which texts.
        shots: Profile `icl`: how many examples at most; None for all.
        offline: Profile `icl`: never fetch examples.

    Raises:
        ConfigError: If the profile is unknown, or is `own` and the config has none, or examples are not well-formed.
        EnvironmentProblem: If examples are needed and not to be had.
    """
    require_profile(profile, prompts)
    if profile == "icl":
        prompt = _icl(prompts, task, side, shots, offline=offline)
        return replace(prompt, normalized=task.type not in table("icl")["not_normalized"])
    return _PROFILES[profile](prompts, task, side)


def judge_prompt(profile: str, prompts: PromptConfig, prompt_type: PromptType, shots: int | None = None) -> Prompt:
    """The prompt before every text that is compared.

    `s2s`, `s2p` and `none` are the model's own prompts. With few-shot prompts (profile `icl`), `s2s` is what the task
    VideoSummarySTS gets: its examples, then the instruction.

    Args:
        profile: Of the model; only `icl` makes a difference.
        prompts: The model's.
        prompt_type: Which.
        shots: How many examples at most; None for all.
    """
    if profile == "icl" and prompt_type == "s2s":
        return choose(profile, prompts, TaskInfo("VideoSummarySTS", "STS"), None, shots=shots)
    text = {"s2s": prompts.s2s, "s2p": prompts.s2p, "none": ""}[prompt_type]
    return Prompt(text, f"judge: {prompt_type}")


def require_profile(profile: str, prompts: PromptConfig) -> None:
    """Raise a ConfigError unless a profile of that name exists and the model has what it needs."""
    if profile not in PROFILES:
        raise ConfigError(f"unknown prompt profile {profile!r}; known are {', '.join(PROFILES)}")
    if profile == "own" and not prompts.own:
        raise ConfigError("prompt profile own needs prompts.own in the model's YAML: prompts by task or task type")


def prompts_id(profile: str, prompts: PromptConfig, bundled: Iterable[PromptConfig]) -> str:
    """The name that tells a set of prompts from every other, for result folders and resume.

    `leaderboard` and `builtin` do not use the config's prompts. `card` is the bundled ones of the model, `none` if
    they are all empty, and else, like `own`, has a digest of the texts.

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
    texts = prompts.model_dump(exclude={"profile"} if profile == "own" else {"profile", "own"})
    if profile == "card" and not any(texts.values()):
        return "none"
    if profile == "card" and any(texts == known.model_dump(exclude={"profile", "own"}) for known in bundled):
        return "card"
    return f"{profile}-{_digest(texts)}"


def _digest(texts: Any) -> str:
    return hashlib.blake2b(json.dumps(texts, sort_keys=True).encode(), digest_size=4).hexdigest()


def profile_of(prompts_id: str) -> str:
    """The profile that a name from `prompts_id` was made of."""
    return "card" if prompts_id == "none" else prompts_id.partition("-")[0]


@functools.cache
def table(name: str) -> dict[str, Any]:
    """`card` or `leaderboard`, as read from the YAML beside this file."""
    path = Path(str(importlib.resources.files("stella_mteb.prompts"))) / f"{name}.yaml"
    return read_yaml(path)[0]


# ----------------------------------------------------------------------------------------------------- profiles


def _card(prompts: PromptConfig, task: TaskInfo, side: Side) -> Prompt:
    row = table("card").get(task.type)
    if row is None:
        # A type that MTEB has added since: the side tells at least whether it is asymmetric.
        name = {"query": "s2p", "document": "none", None: "s2s"}[side]
        return Prompt(_named(prompts, name), f"card: {name}, task type {task.type} is not in the table", fallback=True)
    name = row.get("both") or row.get(side or "query")
    return Prompt(_named(prompts, name), f"card: {name}")


def _named(prompts: PromptConfig, name: str) -> str:
    return {"s2s": prompts.s2s, "s2p": prompts.s2p, "none": prompts.document}[name]


def _leaderboard(_prompts: PromptConfig, task: TaskInfo, side: Side) -> Prompt:
    if side == "document":
        return Prompt("", "leaderboard: documents stay bare")
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
        return rules["types"][task.type], f"leaderboard: all tasks of type {task.type}", False
    return task.type_instruction, f"leaderboard: no instruction, MTEB's default for {task.type}", True


def _icl(prompts: PromptConfig, task: TaskInfo, side: Side, shots: int | None, *, offline: bool) -> Prompt:
    if side == "document":
        return Prompt("", "icl: documents stay bare")
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
    return Prompt(frame(instruction, (), 0), f"icl: no examples for this task, so zero-shot; {source}", fallback=True)


def _builtin(_prompts: PromptConfig, task: TaskInfo, side: Side) -> Prompt:
    if side == "document":
        return Prompt("", "builtin: no instruction on documents")
    if task.instruction:
        # MTEB gives a side that the task's instructions leave out an empty one, and only warns.
        return Prompt(task.instruction.get(side) or task.instruction.get(None, ""), "builtin: task metadata")
    return Prompt(task.type_instruction, f"builtin: MTEB's default for {task.type}")


def _own(prompts: PromptConfig, task: TaskInfo, side: Side) -> Prompt:
    suffixes = [f"-{side}", ""] if side else [""]
    for key in [name + suffix for name in (task.name, task.type) for suffix in suffixes]:
        if key in prompts.own:
            return Prompt(prompts.own[key], f"own: {key}")
    card = _card(prompts, task, side)
    return Prompt(card.text, f"own: nothing for {task.name} or {task.type}, so {card.source}", fallback=True)


_PROFILES: dict[str, Callable[[PromptConfig, TaskInfo, Side], Prompt]] = {
    "card": _card,
    "leaderboard": _leaderboard,
    "builtin": _builtin,
    "own": _own,
}
