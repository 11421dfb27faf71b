"""Take out what MTEB wastes outside the encoder, where scores stay the same to the last bit.

Since `datasets` 4, `dataset["label"]` is a lazy column that decodes a row anew each time it is read. MTEB hands such
columns to scikit-learn, which walks them dozens of times, and picks single rows out of them in loops. Here the
functions that do so get a list in place of the column: the same values in the same order. Figures, and the same as
patches for MTEB itself: docs/upstream.md.

Scores never depend on it: a function that MTEB has changed is left alone, and `warn_of_unknown` says so once.
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

# Where a function stands that reads a column row by row, its name, and the parameters it is known to have.
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
    """Within it (or in a function that it decorates), MTEB reads the columns of a task as lists.

    Only there: `mteb.evaluate` called by anybody else runs as MTEB wrote it. Inside another such block it does
    nothing.
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
    """Warn, once, of each function that is not as it is known: only speed suffers."""
    for place, name, parameters in _READERS:
        if _owner(place, name, parameters) is None:
            logger.warning(
                "mteb %s: %s.%s(%s) is gone, or has other parameters; the columns that it reads are decoded "
                "row by row. Scores are the same, some tasks take longer: %s",
                *(mteb.__version__, place.replace(":", "."), name, parameters.replace(" ", ", "), CURE),
            )


def _owner(place: str, name: str, parameters: str) -> Any:
    """The module or class that holds the function, or None if that is to be left alone (changed, replaced already)."""
    try:
        owner = resolve_name(place)
        found = " ".join(inspect.signature(vars(owner)[name], follow_wrapped=False).parameters)
    except (ImportError, AttributeError, KeyError, TypeError, ValueError):
        return None
    return owner if found == parameters else None


def _with_lists(function: Callable[..., Any]) -> Callable[..., Any]:
    # Its own parameters, args and kwargs, are how a second block sees that nothing is left to do.
    @functools.wraps(function)
    def with_lists(*args: Any, **kwargs: Any) -> Any:
        return function(*map(_as_list, args), **{name: _as_list(value) for name, value in kwargs.items()})

    return with_lists


def _as_list(value: Any) -> Any:
    if isinstance(value, datasets.Column):
        # A slice is decoded in one go, many times faster than row by row. Not where a format is set: `numpy` makes
        # float32 of a slice, and float64 of a row.
        source = value.source
        return list(value[:] if isinstance(source, datasets.Dataset) and source.format["type"] is None else value)
    return _ListColumns(value) if isinstance(value, datasets.Dataset) else value


class _ListColumns:
    """A dataset whose columns are lists."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        return _as_list(self._dataset[key])

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)
