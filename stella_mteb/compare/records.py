"""Data classes for scores with their sources, and for a comparison of them."""

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
        label: Display name, unique within a comparison; for our own runs a spec (`all_minilm_l6_v2[bf16]`).
        model: `organisation/name`.
        provenance: Who measured the scores.
        origin: The results folder, the repository at its revision, or the citation.
        revision: Revision of the model; None if the source does not state it.
        settings: Other settings of the run: embed_dim, dtype, prompts, max_length, shots, plugin, ...
        joined: If `--join` combined several rows, the number, provenance and revision of each row's scores.
    """

    label: str
    model: str
    provenance: Provenance
    origin: str
    revision: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    joined: tuple[str, ...] = ()

    @property
    def dimension(self) -> int | None:
        """Length of the vectors; None if the source does not state it."""
        value = self.settings.get("embed_dim")
        return value if isinstance(value, int) else None


Cell = tuple[str, str]
"""A split and a subset."""


@dataclass(frozen=True)
class Part:
    """The main score of one split and subset of a task.

    Attributes:
        split: Name of the split.
        subset: Name of the subset.
        value: Main score, from 0 to 1.
        languages: Language codes, sorted; empty if the source does not state them.
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
        split: Names of the evaluated splits, joined by commas.
        subsets: Names of their subsets, sorted; scores over different subsets are different quantities.
        languages: Language codes of these subsets, sorted; empty if the source does not state them.
        dataset_revision: Revision of the data set; None if the source does not state it.
        metric: Name of the main score; None if the source does not state it.
        mteb_version: Version of mteb that made the score; None if the source does not state it.
        source: File or citation of this figure.
        per_label: One row per label, for tasks that have labels.
        parts: The parts whose mean is the value; empty if only the value is known.
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
        """The splits and subsets that the value averages over."""
        if self.parts:
            return frozenset((part.split, part.subset) for part in self.parts)
        return frozenset({(self.split, ", ".join(self.subsets))})

    def over(self, cells: Collection[Cell]) -> Score:
        """Restrict the score to some of its cells."""
        if self.cells == cells:
            return self
        return self.made_of([part for part in self.parts if (part.split, part.subset) in cells])

    def made_of(self, parts: Sequence[Part]) -> Score:
        """Replace the value with the mean of these parts."""
        told = all(part.languages for part in parts)  # a partial list would hide a language
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
    """The lack of a comparable score of a system on a task.

    Attributes:
        reason: The reason, as text.
        value: The system's score on other data; None without one.
        estimate: The value used in means, predicted from the system's and the task's other scores; None if unused.
        by_revision: Whether the score is left out for its data revision alone.
    """

    reason: str
    value: float | None = None
    estimate: float | None = None
    by_revision: bool = False


@dataclass(frozen=True)
class TaskRow:
    """One task over all systems, in the order of `Comparison.systems`.

    Attributes:
        task: Name of the task.
        type: Task type.
        cells: One score or gap per system.
        condition: Split, subsets and data revision that the scores share, as text; empty with fewer than two scores.
    """

    task: str
    type: str
    cells: tuple[Score | Gap, ...]
    condition: str


@dataclass(frozen=True)
class Standing:
    """The place of one system on the leaderboard.

    Attributes:
        system: The ranked system.
        mean: Mean main score over `Comparison.mean_tasks`, 0 to 1; None if that is empty.
        by_type: Mean main score by task type, 0 to 1.
        best_rank: 1 + the number of ranked systems that are significantly better (adjusted p < alpha).
        worst_rank: The number of ranked systems - the number that are significantly worse.
        tasks: The number of selected tasks on which it has a score, comparable or not.
        mean_by_type: The mean of `by_type`.
        borda: Rank by Borda's count, as on MTEB's leaderboard: one point per task for every system that is worse.
        coverage: The same as a share of the selected tasks.
        estimated: The number of tasks of the means on which its score is an estimate.
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
    """A system with scores on too few tasks to be ranked.

    Attributes:
        system: The unranked system.
        tasks: The number of selected tasks on which it has a score.
        coverage: The same as a share of the selected tasks.
        reason: The missing scores, as text, and an option that would supply them.
        lacking: The tasks without a score.
    """

    system: System
    tasks: int
    coverage: float
    reason: str
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class TaskDifference:
    """The difference of two systems on one task whose items (pairs, queries, texts) are known.

    Attributes:
        task: Name of the task.
        difference: Main score of the first system minus that of the second.
        low: Lower end of the interval.
        high: Upper end of the interval.
        p: Two-sided p-value of no difference.
        p_adjusted: The p-value adjusted for the number of tasks in this duel.
        items: The number of items.
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
    """The difference of two systems over the tasks on which both have comparable scores.

    Attributes:
        first: The system that is placed higher; differences are first minus second.
        second: The system that is placed lower.
        tasks: The number of these tasks.
        families: The number of task families; tasks on shared data are not independent evidence.
        difference: Mean difference of main scores; None without a common task.
        low: Lower end of its interval over tasks, adjusted for all duels; None with too few families.
        high: Upper end of the interval.
        p: Two-sided p-value from sign flips of families; None without a common task.
        p_adjusted: The p-value adjusted for all duels; below alpha exactly if the interval excludes 0.
        wins: The number of tasks on which the first is better.
        ties: The number of tasks on which they are equal.
        losses: The number of tasks on which the second is better.
        verdict: The result as a sentence.
        by_task: The differences on tasks whose items are known.
        items: The number of items (pairs, queries, texts) under test if there are too few tasks for a test over tasks;
            0 if the test is over tasks.
        first_mean: Mean main score of the first over the common tasks; None without one.
        second_mean: The same of the second.
        lacking: The number of tasks that are left out because one of the two has no score.
        apart: The number of tasks that are left out because the two were measured on other data, splits or subsets.
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
    first_mean: float | None = None
    second_mean: float | None = None
    lacking: int = 0
    apart: int = 0


@dataclass(frozen=True)
class Price:
    """The cost of a system in our own runs; a figure is None if it was not measured.

    Attributes:
        system: The measured system.
        machine: Processor or GPU, and cores; a report that mixes machines says so.
        dtype: Data type of the backbone.
        tokens_per_second: Encoding speed in tokens.
        texts_per_second: Encoding speed in texts.
        peak_memory_bytes: Peak memory of the process (CPU) or of the GPU.
        vector_bytes: Size of one vector in float32.
        parameters: Number of parameters of the backbone and the head.
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
    """The facts about a model other than its scores; None if unknown.

    Attributes:
        parameters: Number of parameters.
        max_tokens: Longest input in tokens.
        dimension: Length of its vectors.
        license: Name of the license on the hub.
        open: Whether the weights are open.
        released: Release date, YYYY-MM-DD.
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
    """The result of a comparison, with everything that a report shows.

    Attributes:
        systems: The compared systems, in the order of the request.
        rows: One row for every task on which any system has a score.
        selected: The tasks that decide who is ranked: the requested ones, or else those on which more than half of all
            systems have comparable scores. If a task is the mean of other tasks, those are left out.
        mean_tasks: The selected tasks of the means. Those on which a ranked system was measured on other data are left
            out if enough others remain (see `standings.tasks_of_means`).
        standings: The systems with scores on enough of these tasks, best mean first.
        duels: One duel for every two systems.
        needed: The number of task families that a duel must have for any difference to be significant.
        prices: The costs, for systems that our own runs measured.
        per_label: Rows per label, by task and system label.
        notes: Caveats for the reader: gaps, unstated revisions, different machines.
        alpha: Level of the tests; intervals have level 1 - alpha.
        resamples: Number of bootstrap and permutation resamples.
        seed: Seed of both.
        unranked: The systems with scores on too few of the tasks.
        selection: The request.
        coverage: The minimum share of the tasks that a ranked system has.
        commit: The commit of MTEB's public results, if scores come from there.
        facts: Facts about the models, by label.
    """

    systems: tuple[System, ...]
    rows: tuple[TaskRow, ...]
    selected: tuple[str, ...]
    mean_tasks: tuple[str, ...]
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
