"""Scores with where each is from, and the comparison that is made of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from stella_mteb.compare.selection import Selection

Provenance = Literal["measured here", "measured by others", "self-reported", "mixed"]


@dataclass(frozen=True)
class System:
    """One row of a leaderboard: a model, run in one way, reported by one source.

    Attributes:
        label: What people call it, unique within a comparison; for our own runs a spec (`all_minilm_l6_v2[bf16]`).
        model: `organisation/name`.
        provenance: Who measured.
        origin: The results folder, the repository at its revision, or the citation.
        revision: Of the model; None where the source does not say.
        settings: What else tells this row from others: embed_dim, dtype, prompts, max_length, shots, plugin, ...
    """

    label: str
    model: str
    provenance: Provenance
    origin: str
    revision: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def dimension(self) -> int | None:
        """Length of the vectors, where the source says it."""
        value = self.settings.get("embed_dim")
        return value if isinstance(value, int) else None


Cell = tuple[str, str]
"""A split and a subset."""


@dataclass(frozen=True)
class Part:
    """The main score of one split and subset of a task.

    Attributes:
        split: Name.
        subset: Name.
        value: From 0 to 1.
        languages: Sorted; empty where the source does not say.
    """

    split: str
    subset: str
    value: float
    languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """The main score of one task.

    Attributes:
        task: Name of the task.
        type: Its task type (`STS`, `Retrieval`, ...).
        value: Mean of the main score over splits and subsets, from 0 to 1.
        split: The splits that were evaluated, as text.
        subsets: Their subsets, sorted; scores over different ones are different quantities.
        languages: Of these subsets, sorted; empty where the source does not say.
        dataset_revision: None where the source does not say.
        metric: Name of the main score; None where the source does not say.
        mteb_version: Of the run; None where the source does not say.
        source: File or citation of this one figure.
        per_label: Rows per label, of tasks that have labels.
        parts: What the value is the mean of; empty where only the value is known.
    """

    task: str
    type: str
    value: float
    split: str
    subsets: tuple[str, ...]
    languages: tuple[str, ...] = ()
    dataset_revision: str | None = None
    metric: str | None = None
    mteb_version: str | None = None
    source: str = ""
    per_label: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    parts: tuple[Part, ...] = ()

    @property
    def cells(self) -> frozenset[Cell]:
        """The splits and subsets that the value is over."""
        if self.parts:
            return frozenset((part.split, part.subset) for part in self.parts)
        return frozenset({(self.split, ", ".join(self.subsets))})

    def over(self, cells: Collection[Cell]) -> Score:
        """The score over some of its cells."""
        if self.cells == cells:
            return self
        return self.made_of([part for part in self.parts if (part.split, part.subset) in cells])

    def made_of(self, parts: Sequence[Part]) -> Score:
        """The score that is the mean of these parts."""
        told = all(part.languages for part in parts)  # half a list would hide a language
        return replace(
            self,
            value=math.fsum(part.value for part in parts) / len(parts),
            split=", ".join(sorted({part.split for part in parts})),
            subsets=tuple(sorted({part.subset for part in parts})),
            languages=tuple(sorted({name for part in parts for name in part.languages})) if told else (),
            per_label=self.per_label if len(parts) == 1 else (),
            parts=tuple(parts),
        )


Scores = Mapping[System, Mapping[str, Score]]
"""By system, then by task."""


@dataclass(frozen=True)
class Gap:
    """Why a system has no comparable score on a task.

    Attributes:
        reason: As text.
        value: The score that it has on other data.
        estimate: What stands for it in means: the score that the system's and the task's other scores lead to expect.
    """

    reason: str
    value: float | None = None
    estimate: float | None = None


@dataclass(frozen=True)
class TaskRow:
    """One task over all systems, in the order of `Comparison.systems`.

    Attributes:
        task: Name.
        type: Task type.
        cells: A score, or the gap in its place.
        condition: Split, subsets and data revision that the scores share, as text; empty if there are fewer than two.
    """

    task: str
    type: str
    cells: tuple[Score | Gap, ...]
    condition: str


@dataclass(frozen=True)
class Standing:
    """One system's place.

    Attributes:
        system: The system.
        mean: Mean main score over `Comparison.common`, 0 to 1; None if that is empty.
        by_type: The same by task type.
        best_rank: 1 + the number of systems that are better beyond doubt (adjusted p < alpha); less where a system
            below has a better one.
        worst_rank: The number of systems - the number that are worse beyond doubt; more where one above has a worse
            one.
        tasks: How many of the tasks of the means it has a score for, comparable or not.
        mean_by_type: The mean of `by_type`.
        borda: Rank by Borda's count, as MTEB's leaderboard has it: of each task a point for every system that is worse.
        coverage: The share of the selection's tasks that it has a score for.
        estimated: How many of the tasks of the means stand as an estimate.
    """

    system: System
    mean: float | None
    by_type: Mapping[str, float]
    best_rank: int
    worst_rank: int
    tasks: int
    mean_by_type: float | None = None
    borda: int | None = None
    coverage: float = 1.0
    estimated: int = 0


@dataclass(frozen=True)
class Unranked:
    """A system with too few of the tasks to have a place.

    Attributes:
        system: The system.
        tasks: How many of the selection's tasks it has a score for.
        coverage: Their share.
        reason: What it lacks, as text, and what would answer.
        lacking: The tasks that it has no score for.
    """

    system: System
    tasks: int
    coverage: float
    reason: str
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class TaskDifference:
    """Two systems on one task whose items (pairs, queries) are known: first minus second.

    Attributes:
        task: Name.
        difference: Of the main scores, first minus second.
        low: Lower end of the interval.
        high: Upper end.
        p: Of the hypothesis that there is no difference; two-sided.
        p_adjusted: The same, adjusted for the number of tasks of this duel.
        items: How many pairs or queries.
        unit: `pairs`, `queries` or `texts`.
    """

    task: str
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    items: int
    unit: str


@dataclass(frozen=True)
class Duel:
    """Two systems over the tasks that both have, alike: first minus second. The first is the better placed one.

    Attributes:
        first: A system.
        second: Another.
        tasks: How many tasks.
        families: How many families these are: tasks on shared data are no independent evidence.
        difference: Mean difference of main scores; None without a common task.
        low: Lower end of its interval over tasks, for all duels together; None with too few families.
        high: Upper end.
        p: Of sign flips of families, two-sided; None without a common task.
        p_adjusted: The same, adjusted for all duels; below alpha exactly where the interval leaves out 0.
        wins: Tasks on which the first is better.
        ties: Tasks on which they are equal.
        losses: Tasks on which the second is better.
        verdict: A sentence, for people.
        by_task: Where items are known.
        items: How many items (pairs, queries, texts) the test is over, of all tasks, where these are too few for a test
            over tasks; 0 where it is over tasks.
    """

    first: System
    second: System
    tasks: int
    families: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    wins: int
    ties: int
    losses: int
    verdict: str
    by_task: Sequence[TaskDifference] = ()
    items: int = 0


@dataclass(frozen=True)
class Price:
    """The cost of a system in our own runs; None where it was not measured.

    Attributes:
        system: The system.
        machine: Processor or GPU, cores; figures of different machines are never put in one column unsaid.
        dtype: Of the backbone.
        tokens_per_second: Encoding only.
        texts_per_second: Encoding only.
        peak_memory_bytes: Of the process (CPU) or of the GPU.
        vector_bytes: Of one vector in float32.
        parameters: Of the backbone and the head.
    """

    system: System
    machine: str | None
    dtype: str | None
    tokens_per_second: float | None
    texts_per_second: float | None
    peak_memory_bytes: int | None
    vector_bytes: int | None
    parameters: int | None


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model beside its scores; None is unknown.

    Attributes:
        parameters: How many.
        max_tokens: Longest input.
        dimension: Length of its vectors.
        license: As the hub names it.
        open: Whether the weights are open.
        released: Date, YYYY-MM-DD.
        zero_shot: Share of the tasks of the means whose data it was not trained on, from 0 to 1.
    """

    parameters: int | None = None
    max_tokens: int | None = None
    dimension: int | None = None
    license: str | None = None
    open: bool | None = None
    released: str | None = None
    zero_shot: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Everything a report shows.

    Attributes:
        systems: In the order they were asked for.
        rows: Every task that any system has.
        common: The tasks that the means are over: those asked for, or else those that more than half of all systems
            have alike. Parts of a task that is itself among them are left out.
        standings: The systems that have enough of these tasks, best first.
        duels: Every two systems, over all tasks that the two have alike.
        needed: How many families of tasks a duel must have for any difference to be a finding.
        prices: Where our own runs measured them.
        per_label: Rows per label by task and system label.
        notes: What a reader must know: gaps, unstated revisions, different machines.
        alpha: Level of the tests; intervals are 1 - alpha.
        resamples: Of the bootstrap and the permutations.
        seed: Of both.
        unranked: The other systems.
        selection: What was asked for.
        coverage: The share of the tasks that a ranked system has at least.
        commit: Of MTEB's public results, where scores are from there.
        facts: Of the models, by label.
    """

    systems: tuple[System, ...]
    rows: tuple[TaskRow, ...]
    common: tuple[str, ...]
    standings: tuple[Standing, ...]
    duels: tuple[Duel, ...]
    needed: int
    prices: tuple[Price, ...] = ()
    per_label: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]] | None = None
    notes: tuple[str, ...] = ()
    alpha: float = 0.05
    resamples: int = 9_999
    seed: int = 0
    unranked: tuple[Unranked, ...] = ()
    selection: Selection | None = None
    coverage: float = 0.8
    commit: str | None = None
    facts: Mapping[str, ModelFacts] = field(default_factory=dict)
