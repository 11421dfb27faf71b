"""Tables of MTEB's public results, compared with MTEB's own reader and its own benchmark table."""

from __future__ import annotations

from typing import Any

import mteb
import numpy as np
import pytest
from scipy.stats import rankdata

from stella_mteb.compare.comparison import compare
from stella_mteb.compare.folder import local_scores
from stella_mteb.compare.records import Comparison, Score
from stella_mteb.compare.score_file import TaskFacts
from stella_mteb.compare.selection import choose
from stella_mteb.compare.sources import Found, join
from stella_mteb.harness.mteb_facts import load_facts
from tests.conftest import SHARED, needs_shared
from tests.support.made_scores import assert_ranks_follow_from_duels
from tests.support.result_folders import entry, of_others, one, result

RESULTS = SHARED / "mteb_results"
STELLA, BGE = "NovaSearch/stella_en_1.5B_v5", "BAAI/bge-en-icl"
CASES = [("complete", "MTEB(eng, v2)", 24), ("famous", "MTEB(eng, v2)", 14), ("famous", "MTEB(eng, v1)", 11)]


def found_in(folder: str, benchmark: str, *models: str) -> tuple[Found, Any]:
    known = load_facts()["tasks"]
    selection = choose(load_facts(), benchmark=benchmark)

    def facts(task: str) -> TaskFacts:
        wanted = selection.wanted.get(task)
        return TaskFacts(known[task]["type"], wanted.splits if wanted else (), known[task]["main_score"])

    found = local_scores(RESULTS / folder, models=models or None, selection=selection, facts=facts)
    return join(found, {name: one["revision"] for name, one in load_facts()["models"].items()}), selection


def table(folder: str, benchmark: str, *models: str, **options: Any) -> Comparison:
    found, selection = found_in(folder, benchmark, *models)
    return compare(found.scores, gaps=found.gaps, selection=selection, resamples=199, **options)


def of_mteb(folder: str, benchmark: str) -> Any:
    results = mteb.ResultCache(RESULTS / folder).load_results(
        tasks=mteb.get_benchmark(benchmark), include_remote=False, require_model_meta=False, validate_and_filter=True
    )
    return results.join_revisions()


@needs_shared
@pytest.mark.parametrize(("folder", "benchmark", "complete"), CASES)
def test_means_of_complete_models_equal_those_of_mtebs_table(folder: str, benchmark: str, complete: int) -> None:
    theirs = of_mteb(folder, benchmark).get_benchmark_result().set_index("Model")

    ours = table(folder, benchmark, any_data_revision=True)

    whole = [standing for standing in ours.standings if not standing.estimated]
    assert len(whole) == complete == theirs["Mean (Task)"].notna().sum()
    for standing in whole:
        row = theirs.loc[standing.system.model]
        assert standing.mean == pytest.approx(row["Mean (Task)"], abs=1e-12)
        assert standing.mean_by_type == pytest.approx(row["Mean (TaskType)"], abs=1e-12)
        for kind, mean in standing.by_type.items():
            assert mean == pytest.approx(row[kind], abs=1e-12)


@needs_shared
def test_borda_ranks_of_complete_models_equal_mtebs() -> None:
    found, selection = found_in("complete", "MTEB(eng, v2)")
    scores = {system: of for system, of in found.scores.items() if len(of) == 41}
    frame = of_mteb("complete", "MTEB(eng, v2)").to_dataframe().set_index("task_name")[[s.model for s in scores]]
    points = (len(scores) - rankdata(-frame.to_numpy(), axis=1)).sum(axis=0)

    ours = compare(scores, selection=selection, any_data_revision=True, resamples=199)

    expected = dict(zip(frame.columns, rankdata(-points, method="min"), strict=True))
    assert {standing.system.model: standing.borda for standing in ours.standings} == expected


@needs_shared
@pytest.mark.parametrize(("folder", "benchmark", "complete"), CASES)
def test_every_shown_cell_equals_the_one_that_mteb_joins(folder: str, benchmark: str, complete: int) -> None:
    theirs = of_mteb(folder, benchmark).to_dataframe().set_index("task_name")

    ours = table(folder, benchmark)

    cells = [
        (cell.value, theirs.at[row.task, system.model])
        for row in ours.rows
        for system, cell in zip(ours.systems, row.cells, strict=True)
        if isinstance(cell, Score)
    ]
    assert len(cells) > 0.9 * complete * len(ours.rows)
    assert np.array(cells)[:, 0] == pytest.approx(np.array(cells)[:, 1], abs=1e-12)


@needs_shared
def test_stella_or_bge_is_answered_from_the_public_files() -> None:
    first = table("famous", "MTEB(eng, v1)", STELLA, BGE)
    second = table("famous", "MTEB(eng, v2)", STELLA, BGE)

    assert {one.system.model: (one.tasks, one.coverage) for one in first.standings} == {BGE: (56, 1), STELLA: (56, 1)}
    assert first.duels[0].tasks == 56
    assert [one.system.model for one in second.standings] == [STELLA]
    assert [(one.system.model, one.tasks) for one in second.unranked] == [(BGE, 25)]
    assert second.duels[0].tasks == 25


@needs_shared
@pytest.mark.parametrize(("folder", "benchmark", "complete"), CASES)
def test_no_range_of_ranks_contradicts_a_duel_of_real_rows(folder: str, benchmark: str, complete: int) -> None:
    comparison = table(folder, benchmark)

    assert len(comparison.standings) >= complete
    assert_ranks_follow_from_duels(comparison)
    assert not any("outside the range" in note for note in comparison.notes)


@needs_shared
def test_an_incomplete_row_names_join_if_joining_completes_it() -> None:
    selection = choose(load_facts(), benchmark="MTEB(eng, v1)")
    found = local_scores(RESULTS / "famous", models=["stella_en_1.5B_v5"], selection=selection)

    comparison = compare(found.scores, selection=selection, resamples=99)

    assert [(one.tasks, one.reason.partition("; ")[2]) for one in comparison.unranked] == [
        (35, "--join combines its 2 rows: 56 of 56 tasks"),
        (21, "--join combines its 2 rows: 56 of 56 tasks"),
    ]


@needs_shared
def test_more_than_half_of_the_duels_of_forty_rows_separate() -> None:
    complete, selection = found_in("complete", "MTEB(eng, v2)")
    famous, _ = found_in("famous", "MTEB(eng, v2)")
    scores = {**complete.scores, **famous.scores}
    families = {name: task["family"] for name, task in load_facts()["tasks"].items()}

    comparison = compare(scores, selection=selection, families=families)

    assert len(scores) == 40
    separate = sum(duel.p_adjusted is not None and duel.p_adjusted < 0.05 for duel in comparison.duels)
    assert separate > len(comparison.duels) / 2


def test_the_mean_is_over_every_split_that_mteb_evaluates(tmp_path: Any) -> None:
    splits = mteb.get_task("ATEC").eval_splits
    path = result(
        of_others(tmp_path),
        "ATEC",
        {name: [entry(0.2 + i)] for i, name in enumerate(sorted(splits)) if i < 1}
        | {name: [entry(0.6)] for name in sorted(splits)[1:]}
        | {"train": [entry(0.9)]},
    )

    known = load_facts()["tasks"]["ATEC"]
    score = one(local_scores(tmp_path, facts=lambda _: TaskFacts("STS", tuple(known["splits"]))))[1]["ATEC"]

    of_mteb = mteb.TaskResult.from_disk(path).validate_and_filter_scores().get_score()
    assert len(splits) > 1
    assert score.value == pytest.approx(of_mteb) == pytest.approx(0.4)
    assert score.split == ", ".join(sorted(splits))


def test_the_main_revision_takes_precedence_over_self_reported_scores(tmp_path: Any) -> None:
    main = load_facts()["models"][STELLA]["revision"]
    folder = tmp_path / "results" / STELLA.replace("/", "__")
    result(folder / main, "STS12", 0.5)
    result(folder / "external", "STS12", 0.6)
    result(folder / "external", "STS13", 0.7)

    (row,) = join(local_scores(tmp_path), {STELLA: main}).rows

    assert {task: score.value for task, score in row.scores.items()} == {"STS12": 0.5, "STS13": 0.7}
    assert row.system.provenance == "mixed"
    assert row.remarks[0] == (
        f"its scores are combined from several rows: 1 measured by others (revision {main[:7]}), 1 self-reported"
    )
