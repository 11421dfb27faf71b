"""What encoding cost: one entry for every run of a model in which texts were encoded and not read from the cache.

<output>/details/<model>/cost.json    written by `run`, read by `compare`

The figures of an entry are of one run on one machine: of the texts of its tasks, beside whatever else ran there. Only
figures of the same machine can be set side by side, and those of more tokens are the steadier ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import logging
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stella_mteb
from stella_mteb.bench import peak_memory
from stella_mteb.details import details_path
from stella_mteb.errors import ConfigError
from stella_mteb.files import read_json, write_json
from stella_mteb.locks import writing

if TYPE_CHECKING:
    import torch
    from mteb import ResultCache

    from stella_mteb.encoder import Encoder
    from stella_mteb.engine import TextEncoder
    from stella_mteb.engine.encoder import EncodeStats

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """What one run of one model cost.

    Attributes:
        machine: The processor with its cores and threads, or the GPU.
        dtype: Of the backbone.
        dimension: Of the vectors.
        texts: Texts that went through the backbone.
        tokens: Tokens of these, padding not counted.
        seconds: Wall time in tokeniser and backbone.
        peak_memory_bytes: Of the process, or on CUDA of torch's tensors; None where an earlier model of the same
            process had used more.
        parameters: Of the backbone and the head.
        plugin: Version of this package.
        torch: Version of torch.
        date: When the run ended, UTC.
    """

    machine: str
    dtype: str
    dimension: int
    texts: int
    tokens: int
    seconds: float
    peak_memory_bytes: int | None
    parameters: int
    plugin: str
    torch: str
    date: str


@contextlib.contextmanager
def cost_recorded(family: Sequence[Encoder], cache: ResultCache) -> Iterator[None]:
    """Within it, what a model encodes is timed; at the end, also of an interrupted run, its cost is on disk.

    Args:
        family: The model at one or more dimensions, from one pass; each gets the entry.
        cache: Where its results go.
    """
    first = family[0]
    before = dataclasses.replace(first.text_encoder.stats) if first.loaded else None
    peak = _reset_peak_memory()
    try:
        yield
    finally:
        if first.loaded:
            try:
                _record(family, cache, before, peak)
            except Exception as error:  # results stand, and nothing depends on this
                logger.warning("what %s cost is not kept: %s", first.resolved.spec, error)


def read_costs(path: Path) -> list[Cost]:
    """The entries of a `cost.json`, oldest first; none if there is no such file, or it is damaged."""
    if not path.exists():
        return []
    try:
        return [_cost(entry) for entry in read_json(path)]
    except (ConfigError, TypeError, ValueError) as error:
        logger.warning("%s: not a list of costs (%s); left out", path, error)
        return []


def cost_path(result: Path) -> Path | None:
    """Where the costs of the model of a result are kept; None for a path that is not in MTEB's layout."""
    path = details_path(result)
    return path and path.with_name("cost.json")


def _cost(entry: Any) -> Cost:
    cost = Cost(**entry)
    if not (cost.tokens > 0 and cost.seconds > 0):
        raise ValueError("tokens and seconds must be more than 0")
    return cost


def _record(family: Sequence[Encoder], cache: ResultCache, before: EncodeStats | None, peak_before: int) -> None:
    engine = family[0].text_encoder
    texts, tokens, seconds = (
        getattr(engine.stats, name) - (getattr(before, name) if before else 0)
        for name in ("encoded", "tokens", "seconds")
    )
    if not texts:
        return
    peak = peak_memory(engine.device)
    for encoder in family:
        path = cost_path(cache.get_task_result_path("any", encoder.mteb_model_meta))
        if path is None:
            continue
        cost = Cost(
            machine=machine(engine.device),
            dtype=str(engine.dtype).removeprefix("torch."),
            dimension=encoder.resolved.dimension,
            texts=texts,
            tokens=tokens,
            seconds=round(seconds, 3),
            peak_memory_bytes=peak if engine.device.type == "cuda" or peak > peak_before else None,
            parameters=_parameters(engine, encoder.resolved.dimension),
            plugin=stella_mteb.__version__,
            torch=importlib.metadata.version("torch"),
            date=datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
        )
        with writing(cache.cache_path, path.parent):
            write_json(path, [dataclasses.asdict(one) for one in (*read_costs(path), cost)])


def machine(device: torch.device) -> str:
    """What computes there: a GPU by its name, a processor with the cores that this process may use and its threads."""
    import torch  # noqa: PLC0415 -- seconds, and a reader of costs does without

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU, {platform.machine()}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, cores: {cores}, threads: {torch.get_num_threads()}"


def _parameters(engine: TextEncoder, dimension: int) -> int:
    modules = (engine.backbone, engine.heads[dimension].load())
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _reset_peak_memory() -> int:
    """Begin anew with the peaks of the GPUs and, on Linux, of this process; gives what the process has now."""
    import torch  # noqa: PLC0415

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_memory()
