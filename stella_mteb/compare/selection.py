"""Selection of the tasks to compare, and of the splits and subsets that count in each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stella_mteb.compare.alike import AGGREGATES
from stella_mteb.compare.records import Score
from stella_mteb.errors import ConfigError
from stella_mteb.files.tables import listed

_LANGUAGE = re.compile(r"[a-z]{3}(-[A-Z][a-z]{3})?")


@dataclass(frozen=True)
class Wanted:
    """The splits and subsets of a task that a benchmark scores.

    Attributes:
        splits: Their names.
        subsets: Their names; None for all of the task.
        cells: The number of (split, subset) pairs of a complete score.
    """

    splits: tuple[str, ...]
    subsets: tuple[str, ...] | None
    cells: int


@dataclass(frozen=True)
class Selection:
    """The tasks to compare; by default every task that was found.

    Attributes:
        benchmark: Its name in MTEB.
        types: Task types to keep; empty for all.
        tasks: Names of tasks to keep; empty for all.
        languages: Codes, `eng` or `eng-Latn`; a subset counts if all its languages are among them.
        exclude: Names of tasks to leave out.
        required: The tasks of the means; None for those that more than half of all systems have.
        wanted: The splits and subsets that count, by task. For a task without an entry, all in the files count.
    """

    benchmark: str | None = None
    types: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    required: tuple[str, ...] | None = None
    wanted: Mapping[str, Wanted] = field(default_factory=dict, hash=False)

    def takes(self, task: str, task_type: str) -> bool:
        """Whether a task is compared."""
        return (
            (self.required is None or task in self.required)
            and (not self.types or task_type in self.types)
            and task not in self.exclude
        )

    def reads(self, task: str, task_type: str) -> bool:
        """Whether a task is compared, or is a part of one that is."""
        return self.takes(task, task_type) or any(
            task in parts and self.takes(whole, task_type) for whole, parts in AGGREGATES.items()
        )

    def narrow(self, score: Score) -> Score | None:
        """Reduce a score to the subsets that count; None if all are in other languages.

        Raises:
            ConfigError: If it has none of the subsets, or does not state its languages; the text is the reason.
        """
        wanted = self.wanted.get(score.task)
        parts = score.parts
        if wanted and wanted.subsets is not None:
            parts = tuple(part for part in parts if part.subset in wanted.subsets)
            if not parts:
                has = listed(score.subsets, 8)
                raise ConfigError(f"has no subset {listed(wanted.subsets)}, which {self.benchmark} scores (has {has})")
        if self.languages:
            if not all(part.languages for part in parts):
                raise ConfigError("does not state its languages")
            parts = tuple(
                part
                for part in parts
                if all({name, name.partition("-")[0]} & set(self.languages) for name in part.languages)
            )
        return score.made_of(parts) if parts else None


EVERYTHING = Selection()


def choose(
    facts: Mapping[str, Any],
    *,
    benchmark: str | None = None,
    types: Sequence[str] = (),
    tasks: Sequence[str] = (),
    languages: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Selection:
    """Build a selection from the options of `compare`.

    Args:
        facts: The table of MTEB's tasks and benchmarks.
        benchmark: A name or an alias.
        types: Task types; case is ignored.
        tasks: Names of tasks; with a benchmark, they must belong to it.
        languages: Language codes of MTEB.
        exclude: Names of tasks to leave out; with a benchmark, they must belong to it.

    Raises:
        ConfigError: If MTEB has no such benchmark or type, the benchmark has no such task, a language is not a code, or
            the selection is empty. For an unknown name the text lists the nearest ones.
    """
    known = facts["tasks"]
    for code in languages:
        if not _LANGUAGE.fullmatch(code):
            raise ConfigError(f"{code!r} is not a language code; MTEB's codes have three letters: eng, or eng-Latn")
    asked_types = tuple(_known(name, {task["type"] for task in known.values()}, "task type", "MTEB") for name in types)
    scope: Mapping[str, Any] = {}
    if benchmark is not None:
        benchmarks = {alias: name for name, one in facts["benchmarks"].items() for alias in (name, *one["aliases"])}
        benchmark = benchmarks[_known(benchmark, benchmarks, "benchmark", "MTEB")]
        scope = facts["benchmarks"][benchmark]["tasks"]
        for name in (*tasks, *exclude):
            _known(name, scope, "task", benchmark)
    required = tuple(tasks) or tuple(scope) or None
    if required is not None:
        kept = [task for task in required if task not in exclude]
        kept = [task for task in kept if not asked_types or task not in known or known[task]["type"] in asked_types]
        if not kept:
            raise ConfigError("the selection is empty: no task matches all of the options")
        required = tuple(dict.fromkeys(kept))
    wanted = {}
    for task in (required or ()) if scope else ():
        splits = tuple(scope[task].get("splits", known[task]["splits"]))
        subsets = tuple(scope[task]["subsets"]) if "subsets" in scope[task] else None
        cells = len(splits) * (len(subsets) if subsets is not None else known[task]["subsets"])
        wanted[task] = Wanted(splits, subsets, cells)
    return Selection(
        benchmark,
        asked_types,
        tuple(tasks),
        tuple(languages),
        tuple(exclude),
        required,
        wanted,
    )


def _known(name: str, names: Collection[str], noun: str, where: str) -> str:
    folded = {each.casefold(): each for each in names}
    if name.casefold() in folded:
        return folded[name.casefold()]
    near = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.4) or sorted(folded)[:8]
    raise ConfigError(f"{where} has no {noun} {name!r}; the nearest are {', '.join(folded[each] for each in near)}")
