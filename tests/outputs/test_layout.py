"""Path rules of an output folder are those of mteb."""

from __future__ import annotations

from pathlib import Path

import pytest

from stella_mteb.outputs.layout import cost_path, details_path, result_path, results_folder


@pytest.mark.parametrize("experiment", [None, "dtype_float32__embed_dim_256"])
def test_a_result_is_written_where_mteb_looks_for_it(tmp_path: Path, experiment: str | None) -> None:
    import mteb

    cache = mteb.ResultCache(tmp_path)
    for model in ("organisation/a model", "local/x", "plain"):
        theirs = cache.get_task_result_path("STS12", model, "abc", experiment_name=experiment)
        assert result_path(tmp_path, model, "abc", experiment, "STS12") == theirs


def test_items_and_costs_have_the_same_path_below_details(tmp_path: Path) -> None:
    for experiment in (None, "x"):
        path = result_path(tmp_path, "a/b", "abc", experiment, "STS12")
        assert details_path(path) == tmp_path / "details" / path.relative_to(tmp_path / "results")
        assert cost_path(path) == tmp_path / "details" / path.relative_to(tmp_path / "results").with_name("cost.json")
    assert details_path(tmp_path / "elsewhere" / "a" / "STS12.json") is None


def test_a_results_folder_is_found_from_outside_and_from_inside(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()

    assert results_folder(tmp_path) == tmp_path / "results"
    assert results_folder(tmp_path / "results") == tmp_path / "results"
