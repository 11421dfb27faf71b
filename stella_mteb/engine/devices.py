"""Chooses device and dtype, and gives the default size of a batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stella_mteb.errors import ConfigError, EnvironmentProblem

Fetch = Callable[[], NDArray[np.float32]]
"""Waits for the device and returns the vectors of a batch."""

# Tokens of one forward pass, padding included. A GPU needs about 8 thousand to spend its time on arithmetic instead of
# launching kernels; on a CPU, more than a thousand do not fit in the caches.
TOKEN_BUDGET = {"cuda": 16_384, "mps": 4_096, "cpu": 1_024}


def resolve_device(device: str | None) -> torch.device:
    """Turn `auto`, None or a torch device string into a device that exists.

    Raises:
        ConfigError: If the string is not a device.
        EnvironmentProblem: If the device does not exist. There is no silent fallback to the CPU, on which a run for a
            GPU would take a hundred times as long.
    """
    if device in (None, "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(str(device))
    except RuntimeError:
        raise ConfigError(f"device {device!r} is not one of auto, cpu, cuda, cuda:N, mps") from None
    available = {
        "cpu": True,
        "cuda": (resolved.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(resolved.type, False):
        raise EnvironmentProblem(
            f"device {device!r} is not available here ({torch.cuda.device_count()} CUDA devices found); "
            "use device cpu or auto, or see `stella-mteb doctor`"
        )
    return resolved


def resolve_dtype(dtype: str | None, device: torch.device, refused: Mapping[Any, str]) -> torch.dtype:
    """Choose the dtype of the backbone, by default bfloat16 on CUDA and float32 elsewhere.

    Pooling, heads and results are always float32.

    Args:
        dtype: `bfloat16`, `float32`, `float16`, or None for the default of the device.
        device: Device of the backbone.
        refused: Dtypes with which this model gives wrong results, each with the reason.

    Raises:
        ConfigError: If the model refuses the dtype; the text gives the reason.
    """
    if dtype is None:
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bfloat16" if bf16 else "float32"
    if dtype in refused:
        raise ConfigError(f"dtype {dtype} is refused for this model: {refused[dtype]}")
    return {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}[dtype]


def is_out_of_memory(error: BaseException) -> bool:
    """Check whether an exception means that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU and MPS allocators and cuBLAS raise plain RuntimeErrors, recognisable only by their text.
    known = ("DefaultCPUAllocator", "MPS backend out of memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in known)


def to_device(values: NDArray[Any] | list[int], device: torch.device) -> torch.Tensor:
    """Copy to the device; for a GPU from pinned memory, so that neither side waits for the other."""
    tensor = torch.as_tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def fetch_later(pooled: torch.Tensor) -> Fetch:
    """Start copying vectors to the host; for a GPU without waiting for work in progress."""
    if pooled.device.type != "cuda":
        array: NDArray[np.float32] = pooled.cpu().numpy()
        return lambda: array
    on_host = torch.empty(pooled.shape, dtype=pooled.dtype, pin_memory=True)
    on_host.copy_(pooled, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    # On the device of the copy; by default an event is recorded on the current device, cuda:0, even for cuda:1.
    copied.record(torch.cuda.current_stream(pooled.device))

    def fetch() -> NDArray[np.float32]:
        copied.synchronize()
        return on_host.numpy()

    return fetch


def peak_memory(device: torch.device | str = "cpu") -> int:
    """Return the peak memory in bytes: that of torch's tensors on a CUDA device, else that of this process.

    The period starts with `torch.cuda.reset_peak_memory_stats` on CUDA, else with the process.
    """
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # On Linux, the value of getrusage starts with the peak of the parent process.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    own = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    if own is not None:
        return own * 1024
    import resource  # noqa: PLC0415 -- missing on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory() -> int | None:
    """Bytes of main memory that a process can still get without swapping; None where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
