"""Heads: what stands between the pooled vector and the vector a user gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Head:
    """One published dimension: a map from the pooled vector, loaded when it is first used.

    Stella trains a Linear of its own for each dimension; a head is never a slice of a longer one.

    Attributes:
        dimension: Length of the vectors it gives.
        load: Makes the module; float32 [texts, width] in, float32 [texts, dimension] out.
    """

    dimension: int
    load: Callable[[], torch.nn.Module]
