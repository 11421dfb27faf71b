"""Costs of encoding: one entry for every run of a model in which texts were encoded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_mteb.errors import ConfigError
from stella_mteb.files.atomic import read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """The cost of one run of a model.

    Attributes:
        machine: The processor with its cores and threads, or the GPU.
        dtype: Dtype of the backbone.
        dimension: Dimension of the vectors.
        texts: Texts that went through the backbone.
        tokens: Their tokens, without padding.
        seconds: Wall time in tokeniser and backbone.
        peak_memory_bytes: Peak memory of the process, or of torch's tensors on CUDA; None if an earlier model of the
            same process has used more.
        parameters: Parameters of backbone and head.
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


def read_costs(path: Path) -> list[Cost]:
    """Read the entries of a `cost.json`, oldest first; none if the file is missing or damaged."""
    if not path.exists():
        return []
    try:
        return [_cost(entry) for entry in read_json(path)]
    except (ConfigError, TypeError, ValueError) as error:
        logger.warning("%s: not a list of costs (%s); ignored", path, error)
        return []


def _cost(entry: Any) -> Cost:
    cost = Cost(**entry)
    if not (cost.tokens > 0 and cost.seconds > 0):
        raise ValueError("tokens and seconds must be more than 0")
    return cost
