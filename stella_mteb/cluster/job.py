"""What driver and workers say to each other: plain values, so that a process on any node can read them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import stella_mteb

if TYPE_CHECKING:  # of seconds, which a worker that cannot serve should not take to say so
    from stella_mteb.engine.tokenising import Tokeniser
    from stella_mteb.harness.run import Outcome


@dataclass(frozen=True)
class Job:
    """One `run`, as a worker must know it to do what the driver would.

    Attributes:
        specs: The models; prompts that were asked for are in the spec.
        revisions: Of each model, as the driver found it.
        dimensions: Of each model; none for the spec's own.
        tasks: As on the command line (`harness.find_tasks`).
        benchmarks: Likewise.
        max_bad_rows: Likewise.
        output: The output folder, absolute.
        cache: Folder of the vector stores, absolute; None for no store.
        device: `cpu`, `cuda`, or None for a GPU where the cluster has one.
        folder: The driver's working folder: relative names of models and tasks begin there.
        threads: Of torch. As many as the driver has: on a CPU the last bits of a vector depend on their number.
        probes: Files that a worker must see; those of another machine's disk it does not.
    """

    specs: tuple[str, ...]
    revisions: tuple[str, ...]
    dimensions: tuple[tuple[int, ...], ...]
    tasks: tuple[str, ...]
    benchmarks: tuple[str, ...]
    max_bad_rows: int | None
    output: Path
    cache: Path | None
    device: str | None
    folder: Path
    threads: int = 1
    probes: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a worker is.

    Attributes:
        node: Name of the machine.
        device: What computes there.
        process: Its number on that machine.
        versions: Of what changes results.
    """

    node: str
    device: str
    process: int
    versions: dict[str, str]


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model as its worker describes it to the driver, which cuts corpora where the engine ends a batch.

    Attributes:
        fingerprint: Names the store (`VectorStore`).
        tokenise: Its tokeniser.
        budget: Tokens of one batch.
        padded: Whether batches are padded.
        whole_windows: Whether what the texts of a window begin with is computed once, so that no window can be cut.
        keeps: Whether its store can be written.
    """

    fingerprint: dict[str, str]
    tokenise: Tokeniser
    budget: int
    padded: bool
    whole_windows: bool
    keeps: bool


@dataclass(frozen=True)
class Report:
    """What a worker has done in one unit.

    Attributes:
        encoded: `texts` that went through the backbone, their `tokens`, how many are `at_limit`, and `milliseconds`.
        outcomes: Of a task, at each dimension.
        missing: Of a look at a model: places of the tasks that have no result yet.
        model: Of a look at a model that has such tasks.
        warnings: What it would have said on a terminal.
    """

    encoded: Counter[str] = field(default_factory=Counter)
    outcomes: tuple[Outcome, ...] = ()
    missing: tuple[int, ...] = ()
    model: LoadedModel | None = None
    warnings: tuple[str, ...] = ()


def versions() -> dict[str, str]:
    """Of what changes results: the same everywhere, or a worker's results would be another run's."""
    packages = {name: version(name) for name in ("torch", "transformers", "mteb")}
    return {"stella-mteb": stella_mteb.__version__, **packages}
