"""Compares two systems on the same items with the function for many."""

from __future__ import annotations

import numpy as np

from stella_mteb.statistics.paired import Array, Difference, Kind, Part, paired_differences


def paired_difference(
    kind: Kind, gold: Array | None, first: Array, second: Array, *, alpha: float, resamples: int, seed: int
) -> Difference | None:
    part = Part(kind, gold, np.stack([first, second]))
    return paired_differences([part], alpha=alpha, resamples=resamples, seed=seed)[0, 1]
