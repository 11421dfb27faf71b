"""Scores are read from each layout, and scores that are not comparable never share a row."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Any, get_args

import pytest

from stella_mteb.compare.alike import AGGREGATES
from stella_mteb.compare.comparison import compare
from stella_mteb.compare.folder import local_scores
from stella_mteb.compare.html import render_report
from stella_mteb.compare.published import published
from stella_mteb.compare.records import Gap, Score
from stella_mteb.compare.score_file import TaskFacts
from stella_mteb.compare.selection import Selection, choose
from stella_mteb.compare.sources import merge, select
from stella_mteb.compare.text import render_comparison
from stella_mteb.compare.words import unread
from stella_mteb.errors import ConfigError
from stella_mteb.files.tables import TableFormat
from stella_mteb.harness.mteb_facts import load_facts
from tests.support.result_folders import (
    BGE,
    MINILM,
    PINNED,
    RERUN,
    STELLA,
    entry,
    labelled,
    of_others,
    one,
    our_run,
    rerun_and_card,
    result,
)

ENGLISH = Selection(languages=("eng",))


def test_our_own_results_are_read_as_the_runner_writes_them() -> None:
    folder = Path(__file__).resolve().parents[2] / "results" / "sts"

    system, scores = one(local_scores(folder, facts=lambda _: TaskFacts("STS", ("test",))))

    assert (system.label, system.model, system.provenance) == ("all_minilm_l6_v2", MINILM, "measured here")
    assert (system.revision, system.dimension) == (PINNED[MINILM], 384)
    assert {task: score.value for task, score in scores.items()} == {
        "STSBenchmarkLocal": 0.8204,
        "STS13Local": 0.806002,
        "STS15Local": 0.853896,
        "VideoDescriptionSTS": 0.915703,
    }
    assert {(score.type, score.metric, score.mteb_version) for score in scores.values()} == {
        ("STS", "cosine_spearman", "2.26.24")
    }


def test_scores_by_label_are_read() -> None:
    folder = Path(__file__).resolve().parents[2] / "results" / "video_summary"

    _, scores = one(local_scores(folder))

    rows = {row["label"]: row["pairs"] for row in scores["VideoSummarySTS"].per_label}
    assert rows["negation"] == 24
    assert rows["paraphrase"] == 48


@pytest.mark.parametrize(
    ("model", "changed", "label"),
    [
        (MINILM, {}, "all_minilm_l6_v2"),
        (MINILM, {"dtype": "bfloat16"}, "all_minilm_l6_v2[bf16]"),
        (MINILM, {"max_length": 128}, "all_minilm_l6_v2[max_length=128]"),
        (STELLA, {}, "stella_en_1.5B_v5"),
        (STELLA, {"dtype": "float32"}, "stella_en_1.5B_v5"),  # the device decides, not the config
        (STELLA, {"embed_dim": 256, "prompts": "leaderboard"}, "stella_en_1.5B_v5@256[leaderboard]"),
        (STELLA, {"prompts": "own-1a2b3c4d"}, "stella_en_1.5B_v5[own-1a2b3c4d]"),
        (STELLA, {"normalize": False}, "stella_en_1.5B_v5 (normalize=False)"),
        (STELLA, {"loading": None}, "stella_en_1.5B_v5 (loading=none)"),
        (STELLA, {"revision": "local-0123456789ab"}, "stella_en_1.5B_v5 (revision=local-0123456789ab)"),
        ("local/mine", {}, "local/mine"),
    ],
)
def test_labels_of_our_runs_are_specs_with_the_settings_that_differ_from_the_config(
    tmp_path: Path, model: str, changed: dict[str, Any], label: str
) -> None:
    result(our_run(tmp_path, model, **changed), "STS12", 0.8)

    assert one(local_scores(tmp_path))[0].label == label


def test_two_pipelines_are_two_rows_with_two_labels(tmp_path: Path) -> None:
    result(our_run(tmp_path), "STS12", 0.8)
    result(our_run(tmp_path, pipeline="3"), "STS12", 0.7)

    assert labelled(local_scores(tmp_path)) == {
        "all_minilm_l6_v2 (pipeline=2)": {"STS12": 0.8},
        "all_minilm_l6_v2 (pipeline=3)": {"STS12": 0.7},
    }


def test_the_dtype_is_shown_if_rows_differ_in_nothing_else(tmp_path: Path) -> None:
    result(our_run(tmp_path, STELLA), "STS12", 0.8)
    result(our_run(tmp_path, STELLA, dtype="float32"), "STS12", 0.7)

    assert labelled(local_scores(tmp_path)) == {
        "stella_en_1.5B_v5[bf16]": {"STS12": 0.8},
        "stella_en_1.5B_v5[fp32]": {"STS12": 0.7},
    }


def test_two_revisions_are_two_rows_with_seven_digits_in_their_labels(tmp_path: Path) -> None:
    result(of_others(tmp_path), "STS12", 0.8)
    result(of_others(tmp_path, revision="0" * 40), "STS12", 0.7)

    assert labelled(local_scores(tmp_path)) == {
        f"{STELLA} (measured by others, revision=0000000)": {"STS12": 0.7},
        f"{STELLA} (measured by others, revision=d03be74)": {"STS12": 0.8},
    }


def test_a_run_without_settings_is_still_ours_with_a_note(tmp_path: Path) -> None:
    folder = our_run(tmp_path)
    result(folder, "STS12", 0.8)
    (folder / "model_meta.json").write_text('{"name": ')

    found = local_scores(tmp_path)

    system, scores = one(found)
    assert (system.provenance, scores["STS12"].value) == ("measured here", 0.8)
    assert folder.name[:40] in system.label
    assert re.search(r"settings are unknown: .*model_meta\.json: not valid JSON \(line 1", found.notes_on([system])[0])


@pytest.mark.parametrize("inside", [".", "results"])
def test_an_output_folder_and_its_results_folder_give_the_same_rows(tmp_path: Path, inside: str) -> None:
    result(our_run(tmp_path), "STS12", 0.8)

    assert labelled(local_scores(tmp_path / inside)) == {"all_minilm_l6_v2": {"STS12": 0.8}}


def test_a_folder_without_results_is_an_error_that_shows_the_layout(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()

    with pytest.raises(ConfigError, match=r"holds no results in MTEB's layout, results/<organisation>__<name>"):
        local_scores(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        local_scores(tmp_path / "absent")


def test_a_model_folder_without_organisation_is_read_as_mteb_reads_it(tmp_path: Path) -> None:
    """As all-MiniLM-L6-v2 stands in MTEB's public results, and a model that has no organisation."""
    import mteb

    for name, model in (("custom_model", "custom_model"), ("all-MiniLM-L6-v2", MINILM)):
        folder = tmp_path / "results" / name / "no_revision_available"
        result(folder, "STSBenchmark", 0.9)
        (folder / "model_meta.json").write_text(json.dumps({"name": model, "revision": "no_revision_available"}))
    result(of_others(tmp_path), "STSBenchmark", 0.7)

    found = local_scores(tmp_path)
    read_by_mteb = mteb.ResultCache(tmp_path).load_results(include_remote=False)

    assert {system.model: scores["STSBenchmark"].value for system, scores in found.scores.items()} == {
        each.model_name: each.task_results[0].get_score() for each in read_by_mteb
    }
    assert {system.revision for system in found.scores} == {None, RERUN}
    for spec in ("custom_model", "all_minilm_l6_v2", MINILM):
        assert len(local_scores(tmp_path, models=[spec]).rows) == 1


def test_a_model_meta_of_another_model_is_ignored_with_a_note(tmp_path: Path) -> None:
    folder = of_others(tmp_path)
    result(folder, "STS12", 0.8)
    (folder / "model_meta.json").write_text('{"name": "org/other"}')

    (row,) = local_scores(tmp_path).rows

    assert row.system.model == STELLA
    assert "model_meta.json states another model, org/other" in row.remarks


@pytest.mark.parametrize("described", [True, False])
def test_results_without_a_folder_of_the_revision_are_read(tmp_path: Path, described: bool) -> None:
    folder = tmp_path / "results" / ("here" if described else STELLA.replace("/", "__"))
    result(folder, "STS12", 0.8)
    if described:
        (folder / "model_meta.json").write_text(json.dumps({"name": STELLA, "revision": RERUN}))

    system, scores = one(local_scores(tmp_path))

    assert (system.model, system.revision) == (STELLA, RERUN if described else None)
    assert scores["STS12"].value == 0.8


@pytest.mark.fault(48, "the gap is shown with its reason")
def test_every_json_file_gives_a_score_a_gap_or_a_note(tmp_path: Path) -> None:
    folder = of_others(tmp_path)
    for place in ("", "a/", "a/b/", f"{folder.relative_to(tmp_path / 'results').as_posix()}/"):
        for name in ("STS12", "odd"):
            path = tmp_path / "results" / place / f"{name}.json"
            result(path.parent, name, 0.5) if name == "STS12" else path.write_text("{}")
    result(folder / "old", "STS13", 0.5)
    result(folder / "experiments", "STS14", 0.5)

    found = local_scores(tmp_path)

    gaps = {f"{row.system.model}@{row.system.revision}: {task}" for row in found.rows for task in row.gaps}
    assert gaps == {"a@None: odd", "a@b: odd", f"{STELLA}@{RERUN}: odd"}
    assert [list(row.scores) for row in found.rows] == [["STS12"]] * 3
    (note,) = found.notes
    for stray in ("old/STS13.json", "experiments/STS14.json", "STS12.json", "odd.json"):
        assert stray in note
    assert "because a result is at results/<organisation>__<name>/<revision>/<Task>.json" in note


def test_the_type_of_an_unknown_task_comes_from_the_run(tmp_path: Path) -> None:
    folder = our_run(tmp_path)
    result(folder, "OnceMine", 0.5)
    note = tmp_path / "details" / folder.relative_to(tmp_path / "results") / "OnceMine.json"
    note.parent.mkdir(parents=True)
    note.write_text('{"task": "OnceMine", "type": "Retrieval", "items": []}')

    assert one(local_scores(tmp_path))[1]["OnceMine"].type == "Retrieval"


# ---------------------------------------------------------------------------------------------- aggregates and parts


PARTS = sorted(AGGREGATES["CQADupstackRetrieval"])


def forums(root: Path, names: list[str], model: str = STELLA) -> None:
    for i, name in enumerate(names):
        result(of_others(root, model), name, 0.3 + i / 100)


def test_the_twelve_forums_are_compared_as_their_mean(tmp_path: Path) -> None:
    forums(tmp_path, PARTS)
    result(of_others(tmp_path, BGE), "CQADupstackRetrieval", 0.47)

    comparison = compare(local_scores(tmp_path, facts=lambda _: TaskFacts("Retrieval", ("test",))).scores)

    (row,) = [row for row in comparison.rows if row.task == "CQADupstackRetrieval"]
    values = [cell.value for cell in row.cells if isinstance(cell, Score)]
    assert sorted(values) == pytest.approx([sum(0.3 + i / 100 for i in range(12)) / 12, 0.47])
    assert comparison.mean_tasks == ("CQADupstackRetrieval",)


def test_forums_never_count_as_twelve_tasks(tmp_path: Path) -> None:
    for model in (STELLA, BGE):
        forums(tmp_path, PARTS, model)

    assert compare(local_scores(tmp_path).scores).mean_tasks == ("CQADupstackRetrieval",)


def test_incomplete_forums_are_named_and_give_no_mean(tmp_path: Path) -> None:
    forums(tmp_path, PARTS[:-1])
    result(of_others(tmp_path, BGE), "CQADupstackRetrieval", 0.47)

    comparison = compare(local_scores(tmp_path).scores)

    (row,) = [row for row in comparison.rows if row.task == "CQADupstackRetrieval"]
    assert [cell.reason for cell in row.cells if isinstance(cell, Gap)] == [
        "11 of its 12 parts, without CQADupstackWordpressRetrieval"
    ]


# ------------------------------------------------------------------------------------------------------ the known traps


def test_the_public_rerun_of_stella_never_shares_a_row_with_the_card(tmp_path: Path) -> None:
    rerun_and_card(tmp_path)

    found = merge(local_scores(tmp_path), published())

    rows = {system.label: (system.provenance, set(scores)) for system, scores in found.scores.items()}
    assert rows[f"{STELLA} (measured by others)"] == ("measured by others", {"ArguAna", "STS12"})
    reported = [label for label, (provenance, _) in rows.items() if provenance == "self-reported" and STELLA in label]
    assert len(reported) == 2
    assert {system.revision for system in found.scores if system.provenance == "self-reported"} == {None}
    assert sorted(len(rows[label][1]) for label in reported) == [1, 56]


def test_only_the_public_rerun_of_stella_has_a_warning(tmp_path: Path) -> None:
    rerun_and_card(tmp_path)
    result(of_others(tmp_path, revision="0" * 40), "STS12", 0.79)
    result(our_run(tmp_path, STELLA), "STS12", 0.80)

    found = local_scores(tmp_path)

    warned = {
        system.revision
        for system in found.scores
        for note in found.notes_on([system])
        if "made without template and head" in note and note.startswith(f"{system.label}: ")
    }
    assert warned == {RERUN}
    assert [system.provenance for system in found.scores if system.revision == RERUN] == [
        "measured by others",
        "measured here",
    ]


def test_the_registrys_dimension_is_not_taken_for_that_of_the_run(tmp_path: Path) -> None:
    rerun_and_card(tmp_path)  # 8960, which no head has, and 8192

    assert {system.dimension for system in local_scores(tmp_path).scores} == {None}


def test_languages_of_one_file_are_listed_and_english_can_be_selected(tmp_path: Path) -> None:
    languages = {"en": ("eng-Latn", 0.84513), "de": ("deu-Latn", 0.61), "sw": ("swa-Latn", 0.36)}
    entries = [entry(score, subset, language) for subset, (language, score) in languages.items()]
    result(of_others(tmp_path), "MassiveIntentClassification", {"test": entries})

    (mixed,) = one(local_scores(tmp_path))[1].values()
    (english,) = one(local_scores(tmp_path, selection=ENGLISH))[1].values()

    assert mixed.value == pytest.approx((0.84513 + 0.61 + 0.36) / 3)
    assert (mixed.subsets, mixed.languages) == (("de", "en", "sw"), ("deu-Latn", "eng-Latn", "swa-Latn"))
    assert (english.value, english.subsets, english.languages) == (0.84513, ("en",), ("eng-Latn",))
    card = {system.model: scores for system, scores in published().scores.items()}[STELLA]
    assert card["MassiveIntentClassification"].subsets == english.subsets != mixed.subsets


def test_an_incomplete_list_of_languages_is_ignored(tmp_path: Path) -> None:
    entries = [entry(0.9, "en"), {"main_score": 0.5, "hf_subset": "de"}]
    result(of_others(tmp_path), "STS22", {"test": entries})

    assert one(local_scores(tmp_path))[1]["STS22"].languages == ()


def test_a_benchmark_counts_its_own_subset_and_not_every_english_one(tmp_path: Path) -> None:
    entries = [entry(0.96229, "en-ext"), entry(0.94149, "en"), entry(0.75728, "de", "deu-Latn")]
    result(of_others(tmp_path), "AmazonCounterfactualClassification", {"test": entries})
    result(of_others(tmp_path), "STS17", {"test": [entry(0.9045, "en-en"), entry(0.1, "en-de")]})
    result(of_others(tmp_path), "STS22", {"test": [entry(0.5, "de", "deu-Latn")]})
    result(of_others(tmp_path), "BornholmBitextMining", {"test": [entry(0.4, "default", "dan-Latn")]})

    found = local_scores(tmp_path, selection=choose(load_facts(), benchmark="MTEB(eng, v1)"))

    system, scores = one(found)
    assert {task: score.value for task, score in scores.items()} == {
        "AmazonCounterfactualClassification": 0.94149,
        "STS17": 0.9045,
    }
    assert found.gaps[system] == {"STS22": "has no subset en, which MTEB(eng, v1) scores (has de)"}


def test_english_is_every_subset_in_english_alone(tmp_path: Path) -> None:
    crossed = {"main_score": 0.1, "hf_subset": "en-de", "languages": ["eng-Latn", "deu-Latn"]}
    result(of_others(tmp_path), "STS17", {"test": [entry(0.9, "en-en"), entry(0.5, "en-en2"), crossed]})
    result(of_others(tmp_path), "BornholmBitextMining", {"test": [entry(0.4, "default", "dan-Latn")]})
    result(of_others(tmp_path), "STS22", {"test": [{"main_score": 0.5, "hf_subset": "en"}]})

    found = local_scores(tmp_path, selection=ENGLISH)

    system, scores = one(found)
    assert {task: score.value for task, score in scores.items()} == {"STS17": 0.7}
    assert found.gaps[system] == {"STS22": "does not state its languages"}


def test_means_over_languages_equal_mtebs(tmp_path: Path) -> None:
    from mteb.results import TaskResult

    entries = [entry(0.9, "en"), entry(0.5, "de", "deu-Latn"), entry(0.1, "fr", "fra-Latn")]
    path = result(of_others(tmp_path), "MTOPDomainClassification", {"test": entries, "validation": [entry(0.95, "en")]})

    of_mteb = TaskResult.from_disk(path)

    (everything,) = one(local_scores(tmp_path))[1].values()
    (english,) = one(local_scores(tmp_path, selection=ENGLISH))[1].values()
    assert everything.value == pytest.approx(of_mteb.get_score(splits=["test"]))
    assert english.value == pytest.approx(of_mteb.get_score(splits=["test"], languages=["eng"]))


def test_two_dimensions_of_one_model_are_two_rows(tmp_path: Path) -> None:
    for dimension, score in ((256, 0.7), (1024, 0.8)):
        result(our_run(tmp_path, STELLA, embed_dim=dimension), "STS12", score)

    found = local_scores(tmp_path)

    assert labelled(found) == {"stella_en_1.5B_v5": {"STS12": 0.8}, "stella_en_1.5B_v5@256": {"STS12": 0.7}}
    assert [system.dimension for system in found.scores] == [1024, 256]


def test_two_dimensions_measured_by_others_are_two_rows(tmp_path: Path) -> None:
    base = of_others(tmp_path)
    result(base, "STS12", 0.75)
    for dimension, score in ((256, 0.7), (1024, 0.8)):
        folder = base / "experiments" / f"embed_dim_{dimension}"
        result(folder, "STS12", score)
        meta = {"name": STELLA, "revision": RERUN, "experiment_kwargs": {"embed_dim": dimension}}
        (folder / "model_meta.json").write_text(json.dumps(meta))

    assert labelled(local_scores(tmp_path)) == {
        f"{STELLA} (measured by others)": {"STS12": 0.75},
        f"{STELLA} (measured by others, embed_dim=1024)": {"STS12": 0.8},
        f"{STELLA} (measured by others, embed_dim=256)": {"STS12": 0.7},
    }
    (chosen,) = select(local_scores(tmp_path).scores, ["stella_en_1.5B_v5@256"])
    assert chosen.dimension == 256


def test_the_split_that_the_task_defines_is_the_one_that_is_scored(tmp_path: Path) -> None:
    result(of_others(tmp_path), "MSMARCO", {"test": [entry(0.9)], "dev": [entry(0.45)], "train": [entry(0.99)]})

    found = local_scores(tmp_path)

    system, scores = one(found)
    assert (scores["MSMARCO"].split, scores["MSMARCO"].value) == ("dev", 0.45)
    assert not any("MSMARCO" in note for note in [*found.notes_on([system]), *unread(found.gaps, [system])])


def test_a_chosen_split_is_always_noted(tmp_path: Path) -> None:
    result(of_others(tmp_path), "NoSuchTask", {"test": [entry(0.5)], "validation": [entry(0.9)]})
    result(of_others(tmp_path), "LEMBNeedleRetrieval", {"test_256": [entry(0.84)], "test_512": [entry(0.86)]})

    found = local_scores(tmp_path)

    system, scores = one(found)
    assert {task: (score.split, score.value) for task, score in scores.items()} == {"NoSuchTask": ("test", 0.5)}
    notes = [*found.notes_on([system]), *unread(found.gaps, [system])]
    assert any("scores are on the split test; other splits exist for NoSuchTask (validation)" in note for note in notes)
    assert any(
        "LEMBNeedleRetrieval: has the splits test_256, test_512, and the task does not define" in note for note in notes
    )


def test_a_lone_split_keeps_its_name_even_if_the_task_scores_another(tmp_path: Path) -> None:
    result(of_others(tmp_path), "MSMARCO", {"test": [entry(0.9)]})

    assert one(local_scores(tmp_path))[1]["MSMARCO"].split == "test"


def test_versions_and_revisions_are_those_of_each_file(tmp_path: Path) -> None:
    folder = of_others(tmp_path)
    result(folder, "STS12", 0.8, dataset_revision="r1")
    later = [entry(0.8, "en", mteb_version="2.1.7"), entry(0.6, "de", "deu-Latn")]
    result(folder, "STS22", {"test": later}, dataset_revision="r2")
    result(folder, "STS13", 0.8, mteb_version=None, dataset_revision="dataset revision not available")

    _, scores = one(local_scores(tmp_path))

    assert {task: (score.dataset_revision, score.mteb_version) for task, score in scores.items()} == {
        "STS12": ("r1", "1.18.0"),
        "STS13": (None, None),
        "STS22": ("r2", "1.18.0, 2.1.7"),
    }


@pytest.mark.parametrize(
    ("fields", "metric"),
    [
        ({"cosine_spearman": 0.8, "spearman": 0.8}, "cosine_spearman"),
        ({"cosine_spearman": 0.79, "pearson": 0.8}, None),
        ({}, None),
    ],
)
def test_a_metric_is_named_only_if_the_file_shows_it(
    tmp_path: Path, fields: dict[str, float], metric: str | None
) -> None:
    result(of_others(tmp_path), "STS12", {"test": [entry(0.8, **fields)]})

    assert one(local_scores(tmp_path))[1]["STS12"].metric == metric


# ------------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.fault(48, "the gap is shown with its reason")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not valid JSON (line 1"),
        ('{"task_name": "STS12",\n "scores": {"test": [', "not valid JSON (line 2"),
        ("[1, 2]", "not a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
        ('{"task_name": "STS12", "task_name": "STS12"}', "duplicate key 'task_name'"),
        ('{"task_name": "STS13", "scores": {}}', "the file is for another task, STS13"),
        ('{"test": {"cos_sim": {"spearman": 0.7}}}', "has no scores by split"),
        (
            '{"mteb_dataset_name": "STS12", "test": {"cos_sim": {"pearson": 0.7}}}',
            "has no main score (cosine_spearman)",
        ),
        ('{"scores": {"test": []}}', "a split has no entries"),
        ('{"scores": {"test": [0.5]}}', "an entry has no subset"),
        (
            '{"scores": {"test": [{"main_score": NaN, "hf_subset": "en"}]}}',
            "subset en has no finite main score",
        ),
        (
            '{"scores": {"test": [{"main_score": null, "hf_subset": "en"}]}}',
            "subset en has no finite main score",
        ),
        (
            '{"scores": {"test": [{"main_score": 1e999, "hf_subset": "en"}]}}',
            "subset en has no finite main score",
        ),
        (
            '{"scores": {"test": [{"main_score": "0.7", "hf_subset": "en"}]}}',
            "subset en has no finite main score",
        ),
        (
            '{"scores": {"test": [{"main_score": true, "hf_subset": "en"}]}}',
            "subset en has no finite main score",
        ),
        # As BGE-en-ICL's figures once stood in the public results.
        (
            '{"scores": {"test": [{"main_score": 70.073, "hf_subset": "en"}]}}',
            "70.073 is outside -1 to 1 (a perc",
        ),
        (
            f'{{"scores": {{"test": [{{"main_score": 1{"0" * 400}, "hf_subset": "en"}}]}}}}',
            "has no finite main score",
        ),
        (
            '{"scores": {"test": [{"main_score": 0.1, "hf_subset": "en"}, {"main_score": 0.9, "hf_subset": "en"}]}}',
            "duplicate subset en",
        ),
    ],
)
def test_a_damaged_file_is_a_gap_with_its_reason_and_affects_no_other_score(
    tmp_path: Path, content: str | bytes, reason: str
) -> None:
    folder = our_run(tmp_path)
    result(folder, "STS13", 0.8)
    (folder / "STS12.json").write_bytes(content if isinstance(content, bytes) else content.encode())

    found = local_scores(tmp_path)

    system, scores = one(found)
    assert {task: score.value for task, score in scores.items()} == {"STS13": 0.8}
    assert list(found.gaps[system]) == ["STS12"]
    assert reason in found.gaps[system]["STS12"]
    assert str(tmp_path) not in found.gaps[system]["STS12"]
    assert unread(found.gaps, [system]) == [f"all_minilm_l6_v2: STS12: {found.gaps[system]['STS12']}"]


def test_one_damaged_language_affects_the_mean_and_not_the_english_score(tmp_path: Path) -> None:
    entries = [entry(0.84513, "en"), entry(None, "de", "deu-Latn")]
    result(of_others(tmp_path), "MassiveIntentClassification", {"test": entries})

    assert one(local_scores(tmp_path))[1] == {}
    assert one(local_scores(tmp_path, selection=ENGLISH))[1]["MassiveIntentClassification"].value == 0.84513


def test_a_secondary_metric_that_is_nan_has_no_effect(tmp_path: Path) -> None:
    """As in LEMBNeedleRetrieval and others of the public rerun: the nAUC of a recall of 1 is NaN."""
    path = result(of_others(tmp_path), "NFCorpus", {"test": [entry(0.42, nauc_recall_at_100_max=float("nan"))]})

    assert "NaN" in path.read_text()
    assert one(local_scores(tmp_path))[1]["NFCorpus"].value == 0.42


@pytest.mark.fault(48, "the model stays in the table; each gap gives its reason")
def test_a_system_without_readable_files_is_listed(tmp_path: Path) -> None:
    (our_run(tmp_path) / "STS12.json").write_text("{")

    found = local_scores(tmp_path)

    system, scores = one(found)
    assert (system.label, scores) == ("all_minilm_l6_v2", {})
    assert select(found.scores, ["all_minilm_l6_v2"]) == {system: {}}


# ------------------------------------------------------------------------------------------------------- hostile names


HOSTILE = [
    "evil__<script>alert(1)<script>",
    "evil__\x1b[2J\x1b]8;;x\x07red[bold]",
    "evil__=cmd()|`rm`\n\r\u2028\u202egpj",
    "evil__{{7*7}}",
    "evil__..__..__..",
    "evil__" + "n" * 200,
    b"evil__\xff\xfe",
]


@pytest.mark.fault(46, "control characters become spaces")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_plain_text_in_every_view(tmp_path: Path, name: str | bytes) -> None:
    folder = tmp_path / "results" / os.fsdecode(name) / "rev\x1b[31m"
    result(folder, "STS12", 0.5)
    (folder / "STS\x07 12.json").write_text("{")
    kwargs = {"embed_dim\x1b[2J": "<b>\u202e", "long": "x" * 5000, "nested": {"a": [1]}}
    (folder / "model_meta.json").write_text(json.dumps({"name": "other/model", "experiment_kwargs": kwargs}))

    found = local_scores(tmp_path)

    system, _ = one(found)
    comparison = compare(found.scores, gaps=found.gaps, notes=found.notes_on([system]))
    for text in (*(render_comparison(comparison, form) for form in get_args(TableFormat)), render_report(comparison)):
        bad = {c for c in text if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} or c == "\u202e"}
        assert bad <= {"\n"}, sorted(bad)
        text.encode("utf-8")
    assert system.model != "other/model"  # a description cannot give results to another model
    assert len(system.label) < 600
    assert select(found.scores, [system.label]) == found.scores
