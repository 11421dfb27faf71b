"""Copies between host and device, with a simulated GPU whose streams run when they are waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stella_mteb.engine import devices
from stella_mteb.engine.devices import fetch_later


class Gpus:
    """One stream per device; queued work runs when the stream is waited for. The current device is cuda:0."""

    def __init__(self) -> None:
        self.streams: dict[int, list[Callable[[], object]]] = {0: [], 1: []}

    def current_stream(self, device: torch.device | None = None) -> int:
        return (device.index or 0) if device is not None else 0

    def event(self) -> Any:
        """Like `torch.cuda.Event`: recorded on the current device's stream by default."""
        marked: list[tuple[int, int]] = []

        def record(stream: int | None = None) -> None:
            stream = self.current_stream() if stream is None else stream
            marked.append((stream, len(self.streams[stream])))

        def synchronize() -> None:
            ((stream, until),) = marked
            for action in self.streams[stream][:until]:
                action()

        return SimpleNamespace(record=record, synchronize=synchronize)

    def tensor(self, values: Any, index: int) -> Any:
        return SimpleNamespace(
            values=values, device=torch.device("cuda", index), shape=values.shape, dtype=values.dtype
        )

    def pinned(self, shape: Any, *, dtype: torch.dtype, pin_memory: bool) -> Any:
        assert pin_memory, "a copy from pageable memory makes the host wait"
        host = torch.full(shape, 7.0).to(dtype)  # of an earlier batch, as pinned memory is used again

        def copy_(source: Any, *, non_blocking: bool) -> None:
            assert non_blocking
            self.streams[source.device.index].append(lambda: host.copy_(source.values))

        return SimpleNamespace(copy_=copy_, numpy=host.numpy)


@pytest.mark.parametrize("index", [0, 1])
def test_the_vectors_of_a_batch_are_complete_when_they_are_fetched_on_every_gpu(
    monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    gpus = Gpus()
    monkeypatch.setattr(torch.cuda, "Event", gpus.event)
    monkeypatch.setattr(torch.cuda, "current_stream", gpus.current_stream)
    monkeypatch.setattr(devices, "torch", SimpleNamespace(cuda=torch.cuda, empty=gpus.pinned))
    vectors = torch.arange(6.0).reshape(2, 3)

    fetch = fetch_later(gpus.tensor(vectors, index))

    assert gpus.streams[index], "nothing is copied before somebody waits"
    np.testing.assert_array_equal(fetch(), vectors.numpy())


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux")
def test_free_memory_is_between_zero_and_what_the_machine_has() -> None:
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    assert 10_000_000 < (devices.free_memory() or 0) < has
