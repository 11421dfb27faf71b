"""Speeds up MTEB outside the encoder where scores stay the same to the last bit.

Since `datasets` 4, `dataset["label"]` is a lazy column that decodes a row each time it is read. MTEB passes such
columns to scikit-learn, which iterates over them dozens of times, and reads single rows in loops. This module gives
those functions a list instead of the column, with the same values in the same order. docs/upstream.md has measurements
and the equivalent patches for MTEB.

Scores never depend on it: a function that MTEB has changed is left alone, and `warn_of_unknown` reports it once.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pkgutil import resolve_name
from typing import Any

import datasets
import mteb

from stella_mteb.harness.registry import CURE

logger = logging.getLogger(__name__)

# Functions that read a column row by row: where they are, their name, and their expected parameters.
_READERS = (
    ("mteb._create_dataloaders", "_create_dataloader_from_texts", "text batch_size num_proc kwargs"),
    (
        "mteb._evaluators.text.bitext_mining_evaluator",
        "_create_dataloader_from_texts",
        "text batch_size num_proc kwargs",
    ),
    ("mteb.abstasks.classification:AbsTaskClassification", "_calculate_scores", "self y_test y_pred"),
    ("mteb.abstasks.classification:AbsTaskClassification", "_undersample_data", "self dataset experiment_num idxs"),
    (
        "mteb.abstasks.multilabel_classification:AbsTaskMultilabelClassification",
        "_undersample_data_indices",
        "self y samples_per_label idxs",
    ),
    ("mteb.abstasks.regression:AbsTaskRegression", "_calculate_scores", "self y_test y_pred"),
)


@contextmanager
def columns_read_once() -> Iterator[None]:
    """Let MTEB read the columns of a task as lists within the block or the decorated function.

    Calls of `mteb.evaluate` outside it are not affected. A nested block has no effect.
    """
    with ExitStack() as undo:
        for place, name, parameters in _READERS:
            owner = _owner(place, name, parameters)
            if owner is not None:
                original = vars(owner)[name]
                undo.callback(setattr, owner, name, original)
                setattr(owner, name, _with_lists(original))
        yield


@functools.cache
def warn_of_unknown() -> None:
    """Warn once about each function that has changed in MTEB and is therefore not accelerated."""
    for place, name, parameters in _READERS:
        if _owner(place, name, parameters) is None:
            logger.warning(
                "mteb %s: %s.%s(%s) is missing or has other parameters, so columns are decoded row by row. Scores are "
                "the same, but some tasks take longer: %s",
                *(mteb.__version__, place.replace(":", "."), name, parameters.replace(" ", ", "), CURE),
            )


def _owner(place: str, name: str, parameters: str) -> Any:
    """Return the module or class that holds the function, or None if it has changed or is replaced already."""
    try:
        owner = resolve_name(place)
        found = " ".join(inspect.signature(vars(owner)[name], follow_wrapped=False).parameters)
    except (ImportError, AttributeError, KeyError, TypeError, ValueError):
        return None
    return owner if found == parameters else None


def _with_lists(function: Callable[..., Any]) -> Callable[..., Any]:
    # The wrapper's parameters are args and kwargs, by which a nested block sees that the function is replaced.
    @functools.wraps(function)
    def with_lists(*args: Any, **kwargs: Any) -> Any:
        return function(*map(_as_list, args), **{name: _as_list(value) for name, value in kwargs.items()})

    return with_lists


def _as_list(value: Any) -> Any:
    if isinstance(value, datasets.Column):
        # Decoding a slice is much faster than decoding row by row. With a format set it is not the same: `numpy` gives
        # float32 for a slice but float64 for a row.
        source = value.source
        return list(value[:] if isinstance(source, datasets.Dataset) and source.format["type"] is None else value)
    return _ListColumns(value) if isinstance(value, datasets.Dataset) else value


class _ListColumns:
    """A data set whose columns are lists."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        return _as_list(self._dataset[key])

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)
