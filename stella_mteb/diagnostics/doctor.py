"""Checks what this machine can run, and how to fix what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stella_mteb.errors import EnvironmentProblem, StellaMtebError
from stella_mteb.files.folders import cache_folder, hub_cache_folder, mteb_cache_folder, require_writable_cache
from stella_mteb.models.config import bundled_configs
from stella_mteb.models.resolve import is_offline, resolve

PACKAGES = ("torch", "transformers", "sentence-transformers", "mteb", "datasets", "huggingface-hub", "numpy")
_HUB = ("huggingface.co", 443)
_TIMEOUT = 3.0


@dataclass(frozen=True)
class Fact:
    """A fact about the machine.

    Attributes:
        what: Its subject.
        status: `ok`, `note` (works, with a limit), or `lacking`.
        detail: The fact, and how to fix it.
    """

    what: str
    status: Literal["ok", "note", "lacking"]
    detail: str


def examine() -> Iterator[Fact]:
    """Check packages, device, memory, disk, network and models, one after the other."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    yield Fact("python", "ok", f"{platform.python_version()}; {versions}")
    yield device()
    yield memory()
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    short = "; the weights of Stella 1.5B are 6.3 GB" if free < 10 else ""
    yield Fact("disk", "note" if short else "ok", f"{free:.0f} GiB free here{short}")
    yield caches()
    yield network()
    for name in bundled_configs():
        try:
            model = resolve(name, offline=True)
        except StellaMtebError as error:
            yield Fact(name, "lacking", str(error))
        else:
            dimensions = ", ".join(map(str, model.layout.dimensions))
            yield Fact(name, "ok", f"{dimensions} dimensions, {model.folder}")


def device() -> Fact:
    """Describe the device and its default dtype."""
    import torch  # noqa: PLC0415 -- takes seconds

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        shown = ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in names)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Fact("device", "ok", f"CUDA: {shown}; Stella runs in {'bf16' if bf16 else 'fp32 (no bf16 here)'}")
    if torch.backends.mps.is_available():
        return Fact("device", "ok", "Apple GPU (mps), fp32")
    return Fact(
        "device",
        "note",
        f"no GPU; {torch.get_num_threads()} CPU threads, fp32: MiniLM is quick, Stella 1.5B takes hours a benchmark",
    )


def memory() -> Fact:
    """Check the size of the memory."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return Fact("memory", "note", "its size is unknown on this system")
    if total < 8:
        return Fact("memory", "lacking", f"{total:.0f} GiB; Stella 1.5B in fp32 needs 8, MiniLM 2")
    return Fact("memory", "ok", f"{total:.0f} GiB (Stella 1.5B in fp32 needs 8)")


def caches() -> Fact:
    """Check that the caches of this project, MTEB and the hub's libraries are writable."""
    lacking = []
    for folder, variable in (
        (cache_folder, "STELLA_MTEB_CACHE"),
        (mteb_cache_folder, "MTEB_CACHE"),
        (hub_cache_folder, "HF_HOME"),
    ):
        try:
            require_writable_cache(folder(), variable)
        except EnvironmentProblem as error:
            lacking.append(str(error))
    if lacking:
        return Fact("caches", "lacking", "; ".join(lacking))
    return Fact("caches", "ok", f"{cache_folder()}, {mteb_cache_folder()} and {hub_cache_folder()} are writable")


def network() -> Fact:
    """Check whether the hub answers."""
    if is_offline():
        return Fact("network", "note", "switched off (HF_HUB_OFFLINE or --offline)")
    try:
        socket.create_connection(_HUB, timeout=_TIMEOUT).close()
    except OSError as error:
        return Fact(
            "network",
            "lacking",
            f"the Hugging Face hub cannot be reached ({error}); copy models as folders and data as files to this "
            "machine, and give --offline to avoid the wait",
        )
    token = "set" if os.environ.get("HF_TOKEN") else "not set; these models do not need it"
    return Fact("network", "ok", f"the Hugging Face hub answers; HF_TOKEN is {token}")
