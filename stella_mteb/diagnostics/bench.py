"""Measures the rate of a device, ratios of interleaved runs, memory, and the fastest token budget.

A single figure of speed is unreliable: clock rates, other load and warm caches change it by tens of per cent. So
variants are run in turns, A B C A B C, and the result is the median of the ratios within a round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stella_mteb.engine import packing
from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.engine.pooling import unit

Times = dict[str, list[float]]
"""Seconds of each variant, one value for each round."""

SMALLEST_BUDGET = 256
LARGEST_BUDGET = {"cuda": 65_536, "mps": 16_384, "cpu": 8_192}
_GOOD_ENOUGH = 1.03


@dataclass(frozen=True)
class Ratio:
    """A ratio measured in several rounds.

    Attributes:
        median: Median of the rounds.
        low: Minimum of the rounds.
        high: Maximum of the rounds.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Difference:
    """The difference between two sets of vectors at unit length.

    Attributes:
        max_difference: Largest difference of any component.
        min_cosine: Smallest cosine.
    """

    max_difference: float
    min_cosine: float


@dataclass(frozen=True)
class MatmulRate:
    """Floating-point operations per second of matrix products.

    Attributes:
        burst: The best of some runs of milliseconds; on a GPU, before power and heat lower its clock.
        sustained: The rate over a second, with which an encoder can be compared.
    """

    burst: float
    sustained: float


@dataclass(frozen=True)
class Budgets:
    """The result of `recommend_budget`.

    Attributes:
        tokens_per_second: The median of the rounds for each token budget that fits in memory.
        recommended: The smallest budget within three per cent of the fastest.
        out_of_memory: The first budget that did not fit, or None.
    """

    tokens_per_second: dict[int, float]
    recommended: int
    out_of_memory: int | None


# --------------------------------------------------------------------------------------------------------- timing


def synchronise(device: torch.device | str | None) -> None:
    """Wait until a device has finished its work."""
    kind = torch.device(device or "cpu").type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


def interleave(
    variants: Mapping[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    *,
    device: torch.device | str | None = None,
    warm_up: bool = True,
) -> Times:
    """Time variants in turns: each once untimed, then A B C A B C.

    Args:
        variants: Functions to time, by name.
        repeats: Rounds.
        clock: Returns seconds.
        device: Synchronised before the clock is read; None for the CPU.
        warm_up: Whether to run each once before the first round.

    Returns:
        Seconds by name, in the order of the rounds.
    """
    times: Times = {name: [] for name in variants}
    for turn in range(repeats + warm_up):
        for name, variant in variants.items():
            synchronise(device)
            started = clock()
            variant()
            synchronise(device)
            if turn >= warm_up:
                times[name].append(clock() - started)
    return times


def ratio(times: Mapping[str, Sequence[float]], of: str, to: str) -> Ratio:
    """Divide the times of `of` by those of `to`, round by round: how many times as fast `to` is.

    Args:
        times: From `interleave`.
        of: Name of a variant.
        to: Name of the variant to compare with.
    """
    rounds = [a / b for a, b in zip(times[of], times[to], strict=True)]
    return Ratio(statistics.median(rounds), min(rounds), max(rounds))


def time_heads(encoder: TextEncoder, texts: Sequence[str], repeats: int) -> Times:
    """Time one pass of texts through the backbone and the default head (`one`) or all heads (`all`)."""

    def run(dimensions: Sequence[int]) -> None:
        pooled = encoder.pool(texts)
        for dimension in dimensions:
            encoder.project(pooled, dimension)

    variants = {"one": lambda: run([encoder.dimension]), "all": lambda: run(encoder.dimensions)}
    return interleave(variants, repeats, device=encoder.device)


# --------------------------------------------------------------------------------------------------------- limits


def matmul_rate(
    device: torch.device | str,
    dtype: torch.dtype,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> MatmulRate:
    """Measure the floating-point operations per second of matrix products on a device, a practical upper limit.

    It uses the shapes of Stella's feed-forward layers and a square one, with random numbers (a GPU is faster on zeros).

    Args:
        device: The device.
        dtype: Dtype of both matrices.
        seconds: Duration of the measurement of the sustained rate.
        clock: Returns seconds.
    """
    large = torch.device(device).type != "cpu"
    rows, launches = (16_384, 10) if large else (512, 1)
    shapes = [(rows, 1536, 8960), (rows, 8960, 1536), (8_192, 8_192, 8_192) if large else (2_048, 2_048, 1_024)]
    burst = sustained = 0.0
    for m, k, n in shapes:
        a, b = torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype)

        def product(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            for _ in range(launches):
                torch.mm(a, b)

        operations = 2 * m * k * n * launches
        burst = max(burst, operations / min(interleave({"": product}, 5, clock, device=device)[""]))
        started, done = clock(), 0
        while clock() - started < seconds / len(shapes):
            product()
            synchronise(device)
            done += operations
        sustained = max(sustained, done / (clock() - started))
    return MatmulRate(burst, sustained)


def flops_per_token(backbone: torch.nn.Module, length: float = 0.0) -> float:
    """Count the floating-point operations for one token: two for each weight of a matrix product.

    Args:
        backbone: A transformers model, which may be on the `meta` device. Embeddings, which are looked up, and the
            pooler, which is not used, do not count.
        length: Tokens that a token attends to, itself included; 0 ignores attention. For texts of several lengths, the
            mean over their tokens (`attended_length`).
    """
    weights = sum(
        module.weight.numel()
        for name, module in backbone.named_modules()
        if isinstance(module, torch.nn.Linear) and "pooler" not in name
    )
    config: Any = backbone.config
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    # Queries by keys, then weights by values; a causal token sees half of its text on average.
    attention = 4 * width * config.num_hidden_layers * length * (0.5 if packing.is_causal(config) else 1.0)
    return float(2 * weights + attention)


def attended_length(lengths: Sequence[int]) -> float:
    """Return the mean length of a token's text, over the tokens of texts of these lengths."""
    return float(sum(length * length for length in lengths) / max(1, sum(lengths)))


# --------------------------------------------------------------------------------------------------- token budgets


def recommend_budget(
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Budgets:
    """Measure the fastest token budget for a model on its device.

    Budgets are doubled from 256 up to 65 536 on a GPU and 8 192 on a CPU, as long as they fit in memory and the texts
    fill at least two batches. The encoder's settings are restored; its store is not used.

    Args:
        encoder: The loaded model.
        texts: Texts of typical lengths.
        repeats: Rounds.
        clock: Returns seconds.
    """
    distinct = list(dict.fromkeys(texts))
    tokens = sum(map(len, encoder.tokenise(distinct)))
    largest = LARGEST_BUDGET.get(encoder.device.type, LARGEST_BUDGET["cpu"])
    before = encoder.store, encoder.batch_size, encoder.token_budget

    def encode(budget: int) -> None:
        encoder.token_budget = budget
        encoder.pool(distinct)

    try:
        encoder.store, encoder.batch_size = None, None
        fit: list[int] = []
        too_large, budget = None, SMALLEST_BUDGET
        while too_large is None and budget <= largest and (not fit or 2 * budget <= tokens):
            encode(budget)
            if encoder.token_budget == budget:
                fit.append(budget)
            else:  # the encoder halves a budget that does not fit
                fit, too_large = fit or [encoder.token_budget], budget
            budget *= 2
        variants = {str(one): partial(encode, one) for one in fit}
        times = interleave(variants, repeats, clock, device=encoder.device, warm_up=False)
    finally:
        encoder.store, encoder.batch_size, encoder.token_budget = before
    fastest = min(times, key=lambda name: statistics.median(times[name]))
    good = [one for one in fit if ratio(times, str(one), fastest).median <= _GOOD_ENOUGH]
    speeds = {one: tokens / statistics.median(times[str(one)]) for one in fit}
    return Budgets(speeds, good[0], too_large)


# --------------------------------------------------------------------------------------------------------- vectors


def differences(vectors: NDArray[Any], reference: NDArray[Any]) -> Difference:
    """Compare two sets of vectors at unit length.

    Args:
        vectors: [texts, dimension].
        reference: [texts, dimension], in the same order.
    """
    a, b = (unit(np.asarray(rows, dtype=np.float64)) for rows in (vectors, reference))
    return Difference(float(np.abs(a - b).max()), float((a * b).sum(axis=1).min()))
