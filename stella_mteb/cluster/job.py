"""The messages between driver and workers: plain values that a process on any node can read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import stella_mteb

if TYPE_CHECKING:  # these imports take seconds, which a worker that only reports an error should not need
    from stella_mteb.engine.tokenising import Tokeniser
    from stella_mteb.harness.run import Outcome


@dataclass(frozen=True)
class Job:
    """One `run`, with everything that a worker needs to do the same as the driver.

    Attributes:
        specs: The models; requested prompts are in the spec.
        revisions: Revision of each model on the driver's machine.
        dimensions: Dimensions of each model; none for the spec's own.
        tasks: Arguments of `harness.find_tasks`.
        benchmarks: Arguments of `harness.find_tasks`.
        max_bad_rows: Argument of `harness.find_tasks`.
        output: The output folder, absolute.
        cache: Folder of the vector stores, absolute; None for no store.
        device: `cpu`, `cuda`, or None for a GPU if the cluster has one.
        folder: The driver's working folder, in which relative names of models and tasks start.
        threads: Threads of torch, as many as the driver has: on a CPU the last bits of a vector depend on them.
        probes: Files that a worker must see, which shows that it has the same shared folders.
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
    """Description of a worker's process.

    Attributes:
        node: Name of the machine.
        device: The hardware that computes.
        process: Process id.
        versions: Versions of packages that change results.
    """

    node: str
    device: str
    process: int
    versions: dict[str, str]


@dataclass(frozen=True)
class LoadedModel:
    """Description of a loaded model, with which the driver splits corpora at the ends of batches.

    Attributes:
        fingerprint: Fingerprint of the store (`VectorStore`).
        tokenise: Its tokeniser.
        budget: Tokens of one batch.
        padded: Whether batches are padded.
        whole_windows: Whether the texts of a window share a computed prefix, so that no window can be split.
        keeps: Whether its store is writable.
    """

    fingerprint: dict[str, str]
    tokenise: Tokeniser
    budget: int
    padded: bool
    whole_windows: bool
    keeps: bool


@dataclass(frozen=True)
class Report:
    """The work of a worker in one unit.

    Attributes:
        encoded: `texts` that went through the backbone, their `tokens`, how many are `at_limit`, and `milliseconds`.
        outcomes: Of a task: one for each dimension.
        missing: Of a look at a model: indices of the tasks without results.
        model: Of a look at a model that has such tasks.
        warnings: Its log messages, which the driver prints.
    """

    encoded: Counter[str] = field(default_factory=Counter)
    outcomes: tuple[Outcome, ...] = ()
    missing: tuple[int, ...] = ()
    model: LoadedModel | None = None
    warnings: tuple[str, ...] = ()


def versions() -> dict[str, str]:
    """Return the versions of packages that change results, which must be the same on all nodes."""
    packages = {name: version(name) for name in ("torch", "transformers", "mteb")}
    return {"stella-mteb": stella_mteb.__version__, **packages}
