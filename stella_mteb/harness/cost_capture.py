"""Records what encoding cost: one entry for each run of a model that encoded texts which no store had.

<output>/details/<model>/cost.json    written by `run`, read by `compare`

An entry describes one run on one machine, including the effect of other load. Only entries of the same machine are
comparable, and entries with more tokens are more reliable.
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

import torch

import stella_mteb
from stella_mteb.engine.devices import peak_memory
from stella_mteb.files.atomic import write_json
from stella_mteb.files.locks import writing
from stella_mteb.outputs.costs import Cost, read_costs
from stella_mteb.outputs.layout import cost_path

if TYPE_CHECKING:
    from mteb import ResultCache

    from stella_mteb.engine.encoder import EncodeStats
    from stella_mteb.harness.adapter import Encoder

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def cost_recorded(family: Sequence[Encoder], cache: ResultCache) -> Iterator[None]:
    """Time what a model encodes within the block and write its cost at the end, even if the run is interrupted.

    Args:
        family: The model at one or more dimensions, computed in one pass; each gets the entry.
        cache: Cache of its results.
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
            except Exception as error:  # results are already saved and do not depend on the cost
                logger.warning("the cost of %s was not saved: %s", first.resolved.spec, error)


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
    """Return the name of the hardware: the GPU's name, or the processor with its usable cores and threads."""
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
    """Reset the peak memory of the GPUs and, on Linux, of this process; return the current peak of the process."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_memory()
