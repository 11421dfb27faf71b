"""Measuring: the rate of a device, ratios of interleaved runs, memory, and the token budget that is fastest here.

A figure of speed means little by itself: clocks, neighbours and the warmth of a cache move it by tens of per cent.
So variants take turns, A B C A B C, and what is reported is the median of the ratios within a round.
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
"""Seconds of each variant, one for each round."""

SMALLEST_BUDGET = 256
LARGEST_BUDGET = {"cuda": 65_536, "mps": 16_384, "cpu": 8_192}
_GOOD_ENOUGH = 1.03


@dataclass(frozen=True)
class Ratio:
    """A ratio measured in several rounds.

    Attributes:
        median: Of the rounds.
        low: The smallest.
        high: The largest.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Difference:
    """How far vectors are from others, both at unit length.

    Attributes:
        max_difference: The largest, of any component.
        min_cosine: The smallest.
    """

    max_difference: float
    min_cosine: float


@dataclass(frozen=True)
class MatmulRate:
    """Floating-point operations per second of matrix products.

    Attributes:
        burst: The best of some runs of milliseconds; on a GPU before power and heat lower its clock.
        sustained: Over a second of nothing else, which is what an encoder can be held against.
    """

    burst: float
    sustained: float


@dataclass(frozen=True)
class Budgets:
    """What `recommend_budget` found.

    Attributes:
        tokens_per_second: For each token budget that fits in memory, the median of the rounds.
        recommended: The smallest budget that is within three per cent of the fastest.
        out_of_memory: The first budget that did not fit, or None.
    """

    tokens_per_second: dict[int, float]
    recommended: int
    out_of_memory: int | None


# --------------------------------------------------------------------------------------------------------- timing


def synchronise(device: torch.device | str | None) -> None:
    """Wait until a device has done what it was given."""
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
        variants: What to time, by name.
        repeats: Rounds.
        clock: Gives seconds.
        device: Waited for before the clock is read; None for the CPU.
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
    """How many times as long `of` takes as `to`, round by round: how much faster `to` is.

    Args:
        times: From `interleave`.
        of: Name of a variant.
        to: Name of the variant that is the measure.
    """
    rounds = [a / b for a, b in zip(times[of], times[to], strict=True)]
    return Ratio(statistics.median(rounds), min(rounds), max(rounds))


def time_heads(encoder: TextEncoder, texts: Sequence[str], repeats: int) -> Times:
    """One pass of texts through the backbone and the encoder's own head (`one`), or all its heads (`all`)."""

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
    """The floating-point operations per second that matrix products reach on a device.

    Over the shapes of Stella's feed-forward layers and a square one, on random numbers (on zeros a GPU is faster): a
    measured ceiling, not a datasheet's.

    Args:
        device: Where.
        dtype: Of both matrices.
        seconds: How long the sustained rate is measured.
        clock: Gives seconds.
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
    """Floating-point operations that one token costs: two for each weight that takes part in a matrix product.

    Args:
        backbone: A transformers model, which may be on the `meta` device. Its embeddings are looked up and its pooler
            is not used; neither counts.
        length: Tokens that a token attends to, itself included; 0 leaves attention out. For texts of several
            lengths the mean over their tokens (`attended_length`).
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
    """The length of a token's text, on average over the tokens of texts of these lengths."""
    return float(sum(length * length for length in lengths) / max(1, sum(lengths)))


# --------------------------------------------------------------------------------------------------- token budgets


def recommend_budget(
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Budgets:
    """Measure which token budget is fastest with this model on this device.

    Budgets are doubled from 256 on, up to 65 536 on a GPU and 8 192 on a CPU, as long as they fit in memory and the
    texts make at least two batches of them. The encoder is left as it was; its store is neither read nor filled.

    Args:
        encoder: The loaded model.
        texts: Of the lengths that matter to the user.
        repeats: Rounds.
        clock: Gives seconds.
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
            else:  # the encoder halves what does not fit, and remembers
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
    """How far vectors are from others, both at unit length.

    Args:
        vectors: [texts, dimension].
        reference: [texts, dimension], in the same order.
    """
    a, b = (unit(np.asarray(rows, dtype=np.float64)) for rows in (vectors, reference))
    return Difference(float(np.abs(a - b).max()), float((a * b).sum(axis=1).min()))
