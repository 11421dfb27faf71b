"""Scores equal those of unmodified MTEB to the last bit, and MTEB is restored afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import datasets
import numpy as np
import pytest
from mteb.abstasks import AbsTaskClassification
from mteb.abstasks.regression import AbsTaskRegression

from benchmarks.mteb_overhead import RandomVectors, all_tasks, evaluate, make, texts
from stella_mteb.harness import lazy_columns as mteb_speed
from stella_mteb.harness.lazy_columns import columns_read_once

SCALE = 0.03


def named(rows: int) -> datasets.DatasetDict:
    """Text labels, one of them with a single row."""
    words = ["yes", "no", "perhaps"]
    labels = ["rare", *(words[i * i % 3] for i in range(rows - 1))]
    return datasets.DatasetDict(
        {split: datasets.Dataset.from_dict({"text": texts(rows, seed), "label": labels})
         for split, seed in (("train", 1), ("test", 2))}
    )  # fmt: skip


def binary(rows: int) -> datasets.DatasetDict:
    """Two classes, for which MTEB also scores average precision, with names, in another order on disk."""
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["off", "on"]))
    return datasets.DatasetDict(
        {split: datasets.Dataset.from_dict(
            {"text": texts(rows, seed), "label": [i * i % 3 % 2 for i in range(rows)]}, features=features
        ).shuffle(seed=seed) for split, seed in (("train", 1), ("test", 2))}
    )  # fmt: skip


TASKS: dict[str, Callable[[], Any]] = {
    **all_tasks(SCALE),
    "words as labels": lambda: make(AbsTaskClassification, "Classification", "f1", named(60)),
    "two classes": lambda: make(AbsTaskClassification, "Classification", "ap", binary(60)),
    "cross-validation": lambda: make(
        AbsTaskClassification, "Classification", "f1", binary(60), is_cross_validation=True, train_split="test"
    ),
    "regression on a sample": lambda: make(
        AbsTaskRegression, "Regression", "r2", all_tasks(SCALE)["Regression"]().dataset, n_samples=20
    ),
}


def run(name: str) -> tuple[str, list[list[str]]]:
    encoder = RandomVectors(24, 500)
    return evaluate(TASKS[name](), encoder)[1], encoder.texts


@pytest.mark.parametrize("name", TASKS)
def test_every_score_and_every_text_is_the_same(name: str) -> None:
    as_it_is = run(name)
    with columns_read_once():
        changed = run(name)

    assert changed == as_it_is
    assert "'main_score': nan" not in as_it_is[0]
    assert run(name) == as_it_is


@pytest.fixture
def single_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[tuple[str, int]]]:
    """Record the rows decoded one by one, by name and length of their column."""
    read: Counter[tuple[str, int]] = Counter()
    get, walk = datasets.Column.__getitem__, datasets.Column.__iter__

    def counted_get(self: Any, key: Any) -> Any:
        read[self.column_name, len(self)] += isinstance(key, int | np.integer)
        return get(self, key)

    def counted_walk(self: Any) -> Iterator[Any]:
        for row in walk(self):
            read[self.column_name, len(self)] += 1
            yield row

    monkeypatch.setattr(datasets.Column, "__getitem__", counted_get)
    monkeypatch.setattr(datasets.Column, "__iter__", counted_walk)
    return read


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("Classification", {("label", 300): 10, ("label", 61): 100, ("text", 61): 1}),
        ("MultilabelClassification", {("label", 300): 10, ("text", 61): 1}),
        ("Regression", {("value", 61): 30, ("text", 61): 2}),
        ("PairClassification", {("text", 300): 2}),
        ("BitextMining", {("sentence1", 61): 1, ("sentence2", 61): 1}),
    ],
)
def test_columns_are_no_longer_read_row_by_row(
    name: str, columns: dict[tuple[str, int], int], single_rows: Counter[tuple[str, int]]
) -> None:
    """Return the columns and how often MTEB reads all of each, at least."""
    run(name)
    for (column, rows), times in columns.items():
        assert single_rows[column, rows] >= rows * times
    before = dict(single_rows)
    single_rows.clear()
    with columns_read_once():
        run(name)

    # The training rows of scikit-learn, a few of each class, remain a lazy column.
    left = {("value", 61): 10} if name == "Regression" else {}
    for column in columns:
        assert single_rows[column] <= column[1] * left.get(column, 0) < before[column]


@pytest.mark.parametrize(
    "column",
    [
        [1, 2, None, 4, 5],
        ["a", "b", None, "", "e"],
        [[1], [2, 3], [], None, [5]],
        [[["a"]], [], [["b", "c"]], [[]], []],
        [{"x": 1, "y": "a"}] * 5,
        [0.1, float("inf"), 1e-300, -0.0, 3.0],
    ],
)
@pytest.mark.parametrize("form", [None, "numpy"])
def test_a_list_has_the_values_of_its_column(column: list[Any], form: str | None) -> None:
    dataset = datasets.Dataset.from_dict({"x": column}).with_format(form)
    for rows in (dataset, dataset.select([4, 0, 0, 2]), dataset.select([])):
        lazy, listed = list(rows["x"]), mteb_speed._as_list(rows["x"])

        assert type(listed) is list
        assert repr(listed) == repr(lazy)


def originals() -> list[Any]:
    return [vars(mteb_speed.resolve_name(place)).get(name) for place, name, _ in mteb_speed._READERS]


def test_mteb_is_as_it_was_afterwards_and_a_block_within_a_block_changes_nothing() -> None:
    before = originals()
    with pytest.raises(RuntimeError), columns_read_once():
        once = originals()
        with columns_read_once():
            assert originals() == once
        assert originals() == once
        raise RuntimeError

    assert all(new is not old for new, old in zip(once, before, strict=True))
    assert originals() == before


def test_a_decorated_function_reads_columns_once_in_each_call() -> None:
    before = originals()
    decorated = columns_read_once()(originals)

    for _ in range(2):
        assert all(new is not old for new, old in zip(decorated(), before, strict=True))
        assert originals() == before


def test_a_run_reads_columns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from stella_mteb.harness import run as runs

    before, within = originals(), []

    def evaluate_nothing(*_: Any, **__: Any) -> None:
        within.extend(originals())
        raise RuntimeError

    monkeypatch.setattr(runs.mteb, "evaluate", evaluate_nothing)
    with pytest.raises(RuntimeError):
        runs._evaluate(
            MagicMock(), SimpleNamespace(seed=42, rng_state=None, np_rng=None, is_aggregate=False), MagicMock(), None
        )

    assert all(new is not old for new, old in zip(within, before, strict=True))
    assert originals() == before


def _other_parameters(patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    patch.setattr(owner, name, lambda self, scores: None)


def _not_a_function(patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    patch.setattr(owner, name, "gone")


def _gone(patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    patch.delattr(owner, name)


@pytest.mark.parametrize("change", [_other_parameters, _not_a_function, _gone])
@pytest.mark.parametrize("which", range(len(mteb_speed._READERS)))
def test_a_function_that_has_changed_in_mteb_is_left_alone(
    change: Callable[..., None], which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = originals()
    place, name, _ = mteb_speed._READERS[which]
    change(monkeypatch, mteb_speed.resolve_name(place), name)
    changed = originals()

    with columns_read_once():
        within = originals()

    assert [i for i, (new, old) in enumerate(zip(within, before, strict=True)) if new is old] == []
    assert within[which] is changed[which]
    assert originals() == changed


def test_a_module_or_class_that_is_gone_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = (("mteb.no_such_module", "f", "x"), ("mteb.abstasks.classification:NoSuchClass", "f", "x"))
    monkeypatch.setattr(mteb_speed, "_READERS", unknown)

    with columns_read_once():
        pass
