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
from pathlib import Path
from typing import TYPE_CHECKING

import stella_mteb
from stella_mteb.engine.devices import peak_memory
from stella_mteb.files.atomic import write_json
from stella_mteb.files.locks import writing
from stella_mteb.outputs.costs import Cost, read_costs
from stella_mteb.outputs.layout import cost_path

if TYPE_CHECKING:
    import torch
    from mteb import ResultCache

    from stella_mteb.engine.encoder import EncodeStats
    from stella_mteb.harness.adapter import Encoder

logger = logging.getLogger(__name__)


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
        head = engine.heads[encoder.resolved.dimension].load()
        cost = Cost(
            machine=machine(engine.device),
            dtype=str(engine.dtype).removeprefix("torch."),
            dimension=encoder.resolved.dimension,
            texts=texts,
            tokens=tokens,
            seconds=round(seconds, 3),
            peak_memory_bytes=peak if engine.device.type == "cuda" or peak > peak_before else None,
            parameters=sum(
                parameter.numel() for module in (engine.backbone, head) for parameter in module.parameters()
            ),
            plugin=stella_mteb.__version__,
            torch=importlib.metadata.version("torch"),
            date=datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
        )
        with writing(cache.cache_path, path.parent):
            write_json(path, [dataclasses.asdict(one) for one in (*read_costs(path), cost)])


def machine(device: torch.device) -> str:
    """Name the hardware: a GPU by its name, a processor with the cores that this process may use and its threads."""
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


def _reset_peak_memory() -> int:
    """Begin anew with the peaks of the GPUs and, on Linux, of this process; gives what the process has now."""
    import torch  # noqa: PLC0415

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_memory()
