"""Scores, and where each is from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Provenance = Literal["measured here", "measured by others", "self-reported"]


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


@dataclass(frozen=True)
class Score:
    """The main score of one task.

    Attributes:
        task: Name of the task.
        type: Its task type (`STS`, `Retrieval`, ...).
        value: Mean of the main score over the subsets, from 0 to 1.
        split: The split that was evaluated.
        subsets: Its subsets, sorted; scores over different ones are different quantities.
        languages: Of these subsets, sorted; empty where the source does not say.
        dataset_revision: None where the source does not say.
        metric: Name of the main score; None where the source does not say.
        mteb_version: Of the run; None where the source does not say.
        source: File or citation of this one figure.
        per_label: Rows per label, of tasks that have labels.
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


Scores = Mapping[System, Mapping[str, Score]]
"""By system, then by task."""
