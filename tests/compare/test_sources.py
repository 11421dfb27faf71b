"""Scores are read from the layouts they stand in, and nothing that is unlike shares a row.

Result files are written here in the layout and with the figures of MTEB's public results.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.compare.naming import labels
from stella_mteb.compare.records import Score, System
from stella_mteb.compare.sources import Found, local_scores, merge, published, published_scores, remote_scores, select
from stella_mteb.errors import ConfigError, EnvironmentProblem
from tests.conftest import SHARED, needs_shared

STELLA, BGE, MINILM = (
    "NovaSearch/stella_en_1.5B_v5",
    "BAAI/bge-en-icl",
    "sentence-transformers/all-MiniLM-L6-v2",
)
RERUN = "d03be74b361d4eb24f42a2fe5bd2e29917df4604"
PINNED = {STELLA: RERUN, MINILM: "8b3219a92973c328a8e22fadcfa821b5dc75636a"}
OURS: dict[str, dict[str, Any]] = {
    STELLA: {
        "dtype": "bfloat16",
        "embed_dim": 1024,
        "loading": "bidirectional+eos151643",
        "max_length": 512,
        "pipeline": "2",
        "prompts": "card",
    },
    MINILM: {"dtype": "float32", "embed_dim": 384, "max_length": 256, "pipeline": "2", "prompts": "none"},
}
"""The settings of a run with the defaults of the bundled config."""


def entry(score: float | None, subset: str = "default", language: str = "eng-Latn", **more: Any) -> dict[str, Any]:
    return {"main_score": score, "hf_subset": subset, "languages": [language], **more}


def result(folder: Path, task: str, scores: dict[str, list[dict[str, Any]]] | float, **more: Any) -> Path:
    """A result file as MTEB writes it."""
    by_split = {"test": [entry(scores)]} if isinstance(scores, float) else scores
    content = {"dataset_revision": "abc", "task_name": task, "mteb_version": "1.18.0", "scores": by_split}
    content |= {"evaluation_time": 13.2, "kg_co2_emissions": None, **more}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{task}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def of_others(root: Path, model: str = STELLA, revision: str = RERUN, **meta: Any) -> Path:
    folder = root / "results" / model.replace("/", "__") / revision
    folder.mkdir(parents=True, exist_ok=True)
    described = {"name": model, "revision": revision, "embed_dim": 8960, "loader": "instruct_wrapper", **meta}
    (folder / "model_meta.json").write_text(json.dumps(described))
    return folder


def our_run(root: Path, model: str = MINILM, revision: str | None = None, **changed: Any) -> Path:
    """Folder of a run of this plug-in, with settings other than the defaults."""
    kwargs = {key: value for key, value in {**OURS.get(model, OURS[MINILM]), **changed}.items() if value is not None}
    experiment = "__".join(f"{key}_{value}" for key, value in sorted(kwargs.items()))
    revision = revision or PINNED.get(model, "local-0123456789ab")
    folder = root / "results" / model.replace("/", "__") / revision / "experiments" / experiment
    folder.mkdir(parents=True, exist_ok=True)
    described = {"name": model, "revision": revision, "embed_dim": 384, "experiment_kwargs": kwargs}
    (folder / "model_meta.json").write_text(json.dumps(described))
    return folder


def one(found: Found) -> tuple[System, dict[str, Score]]:
    ((system, scores),) = found.scores.items()
    return system, dict(scores)


def labelled(found: Found) -> dict[str, dict[str, float]]:
    return {
        system.label: {task: score.value for task, score in scores.items()} for system, scores in found.scores.items()
    }


# -------------------------------------------------------------------------------------------------- published scores


def test_published_means_are_those_of_the_model_cards() -> None:
    means = {
        system.model: mean(score.value for score in scores.values()) for system, scores in published_scores().items()
    }

    assert {model: round(100 * value, 2) for model, value in means.items()} == {STELLA: 71.20, BGE: 71.68}


def test_published_means_by_type_are_those_of_the_model_cards() -> None:
    table = {
        "Classification": (12, 87.63, 88.95),
        "Clustering": (11, 57.69, 57.89),
        "PairClassification": (3, 88.18, 88.16),
        "Reranking": (4, 61.21, 59.85),
        "Retrieval": (15, 61.01, 62.16),
        "STS": (10, 84.51, 84.25),
        "Summarization": (1, 31.49, 30.77),
    }
    for place, scores in enumerate(published_scores().values()):
        assert Counter(score.type for score in scores.values()) == {kind: row[0] for kind, row in table.items()}
        for kind, row in table.items():
            values = [score.value for score in scores.values() if score.type == kind]
            assert 100 * mean(values) == pytest.approx(row[1 + place], abs=0.00501)  # 62.165 is printed as 62.16


def test_published_scores_say_that_the_authors_report_them_and_what_they_leave_out() -> None:
    found = published()

    assert [system.label for system in found.scores] == [
        f"{STELLA} (self-reported)",
        f"{BGE} (self-reported)",
    ]
    stella, bge = found.notes_on(found.scores)
    assert "which head, prompts, dtype and mteb version" in stella
    assert "few-shot" in bge
    for system, scores in found.scores.items():
        assert (system.revision, system.dimension, system.settings) == (None, None, {})
        assert all(score.source and score.mteb_version is None for score in scores.values())


def test_published_splits_and_subsets_are_what_mteb_scores_in_that_benchmark() -> None:
    import mteb

    tasks = {task.metadata.name: task for task in mteb.get_benchmark("MTEB(eng, v1)").tasks}

    for scores in published_scores().values():
        assert scores.keys() == tasks.keys()
        for name, score in scores.items():
            metadata = tasks[name].metadata
            assert (score.type, [score.split]) == (metadata.type, list(tasks[name].eval_splits))
            assert list(score.subsets) == list(tasks[name].hf_subsets)
            assert set(score.languages) == {
                language for subset in score.subsets for language in metadata.hf_subsets_to_langscripts[subset]
            }


@needs_shared
def test_published_scores_are_those_that_were_collected() -> None:
    with (SHARED / "published_mteb_eng_v1.csv").open() as file:
        lines = list(csv.DictReader(file))
    scores = {system.model: of_model for system, of_model in published_scores().items()}

    for line in lines:
        stella, bge = scores[STELLA][line["task"]], scores[BGE][line["task"]]
        assert (stella.value, bge.value) == (float(line["stella"]), float(line["bge_icl"]))
        assert f"stella: {stella.source}; bge_icl: {bge.source}" == line["source"]


# ----------------------------------------------------------------------------------------------------- our own results


def test_our_own_results_are_read_as_the_runner_writes_them() -> None:
    folder = Path(__file__).resolve().parents[2] / "results" / "sts"

    system, scores = one(local_scores(folder))

    assert (system.label, system.model, system.provenance) == ("all_minilm_l6_v2", MINILM, "measured here")
    assert (system.revision, system.dimension) == (PINNED[MINILM], 384)
    assert {task: score.value for task, score in scores.items()} == {
        "STSBenchmarkLocal": 0.8204,
        "STS13Local": 0.806002,
        "STS15Local": 0.853896,
        "VideoDescriptionSTS": 0.915701,
    }
    assert {(score.type, score.metric, score.mteb_version) for score in scores.values()} == {
        ("STS", "cosine_spearman", "2.26.24")
    }


def test_scores_by_label_come_along() -> None:
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
def test_our_runs_are_called_by_a_spec_that_shows_what_is_not_as_the_config_has_it(
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


def test_the_dtype_is_shown_where_two_rows_differ_in_nothing_else(tmp_path: Path) -> None:
    result(our_run(tmp_path, STELLA), "STS12", 0.8)
    result(our_run(tmp_path, STELLA, dtype="float32"), "STS12", 0.7)

    assert labelled(local_scores(tmp_path)) == {
        "stella_en_1.5B_v5[bf16]": {"STS12": 0.8},
        "stella_en_1.5B_v5[fp32]": {"STS12": 0.7},
    }


def test_the_same_run_in_two_folders_is_told_apart_by_the_folder(tmp_path: Path) -> None:
    for name, score in (("one", 0.8), ("two", 0.7)):
        result(our_run(tmp_path / name), "STS12", score)

    found = merge(local_scores(tmp_path / "one"), local_scores(tmp_path / "two"))

    (first, of_one), (second, of_two) = labelled(found).items()
    assert (of_one, of_two) == ({"STS12": 0.8}, {"STS12": 0.7})
    assert re.fullmatch(r"all_minilm_l6_v2 \(origin=.*/one\)", first)
    assert re.fullmatch(r"all_minilm_l6_v2 \(origin=.*/two\)", second)


def test_two_revisions_are_two_rows_told_apart_by_seven_digits(tmp_path: Path) -> None:
    result(of_others(tmp_path), "STS12", 0.8)
    result(of_others(tmp_path, revision="0" * 40), "STS12", 0.7)

    assert labelled(local_scores(tmp_path)) == {
        f"{STELLA} (measured by others, revision=0000000)": {"STS12": 0.7},
        f"{STELLA} (measured by others, revision=d03be74)": {"STS12": 0.8},
    }


def test_what_is_given_twice_stands_once(tmp_path: Path) -> None:
    result(our_run(tmp_path), "STS12", 0.8)

    assert labelled(merge(local_scores(tmp_path), local_scores(tmp_path), published(), published())).keys() == {
        "all_minilm_l6_v2",
        f"{STELLA} (self-reported)",
        f"{BGE} (self-reported)",
    }


def test_runs_of_one_system_in_several_folders_are_one_row(tmp_path: Path) -> None:
    result(our_run(tmp_path / "sts"), "STS12", 0.8)
    result(our_run(tmp_path / "video"), "STS13", 0.7)

    found = merge(local_scores(tmp_path / "sts"), local_scores(tmp_path / "video"))

    system, scores = one(found)
    assert {task: score.value for task, score in scores.items()} == {"STS12": 0.8, "STS13": 0.7}
    assert system.origin == f"{tmp_path / 'sts'}; {tmp_path / 'video'}"


def test_two_experiments_that_claim_the_same_settings_and_differ_both_stay(tmp_path: Path) -> None:
    first = our_run(tmp_path)
    result(first, "STS12", 0.8)
    copy = Path(shutil.copytree(first, first.with_name("copy")))
    result(copy, "STS12", 0.7)

    names = list(labelled(merge(local_scores(tmp_path))))

    assert names == ["all_minilm_l6_v2", "all_minilm_l6_v2 #2"]


def test_a_run_without_its_settings_stays_ours_and_says_so(tmp_path: Path) -> None:
    folder = our_run(tmp_path)
    result(folder, "STS12", 0.8)
    (folder / "model_meta.json").write_text('{"name": ')

    found = local_scores(tmp_path)

    system, scores = one(found)
    assert (system.provenance, scores["STS12"].value) == ("measured here", 0.8)
    assert folder.name[:40] in system.label
    assert re.search(
        r"settings are not known: .*model_meta\.json: not valid JSON \(line 1", found.notes_on([system])[0]
    )


@pytest.mark.parametrize("inside", [".", "results"])
def test_an_output_folder_and_its_results_folder_are_the_same(tmp_path: Path, inside: str) -> None:
    result(our_run(tmp_path), "STS12", 0.8)

    assert labelled(local_scores(tmp_path / inside)) == {"all_minilm_l6_v2": {"STS12": 0.8}}


def test_a_folder_that_holds_no_results_is_an_error_that_shows_the_layout(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()

    with pytest.raises(ConfigError, match=r"holds no results in MTEB's layout, results/<organisation>__<name>"):
        local_scores(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        local_scores(tmp_path / "absent")


def test_types_of_known_tasks_need_no_mteb(tmp_path: Path) -> None:
    result(our_run(tmp_path), "VideoSummaryRetrieval", 0.9)
    result(our_run(tmp_path), "MSMARCO", 0.4)
    result(our_run(tmp_path), "MineSTS", 0.5)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(
        "name: MineSTS\ntype: STS\ndata: p.csv\ncolumns: {sentence1: a, sentence2: b, score: c}\n"
    )
    (tmp_path / "other.yaml").write_text("not: a task\n")
    code = (
        "import sys; from pathlib import Path; from stella_mteb.compare.sources import local_scores\n"
        f"found = local_scores(Path({str(tmp_path)!r}))\n"
        "print({name: score.type for scores in found.scores.values() for name, score in scores.items()})\n"
        "print(sorted({'mteb', 'torch', 'transformers'} & set(sys.modules)))"
    )

    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    types, heavy = printed.splitlines()
    assert types == str({"MSMARCO": "Retrieval", "MineSTS": "STS", "VideoSummaryRetrieval": "Retrieval"})
    assert heavy == "[]"


def test_the_type_of_a_task_that_is_not_known_any_more_is_as_the_run_noted_it(tmp_path: Path) -> None:
    folder = our_run(tmp_path)
    result(folder, "OnceMine", 0.5)
    note = tmp_path / "details" / folder.relative_to(tmp_path / "results") / "OnceMine.json"
    note.parent.mkdir(parents=True)
    note.write_text('{"task": "OnceMine", "type": "Retrieval", "items": []}')

    assert one(local_scores(tmp_path))[1]["OnceMine"].type == "Retrieval"


def test_other_types_are_asked_of_mteb_and_else_unknown(tmp_path: Path) -> None:
    result(our_run(tmp_path), "BornholmBitextMining", 0.4)
    result(our_run(tmp_path), "NoSuchTask", 0.4)

    _, scores = one(local_scores(tmp_path))

    assert {task: score.type for task, score in scores.items()} == {
        "BornholmBitextMining": "BitextMining",
        "NoSuchTask": "unknown",
    }


# ------------------------------------------------------------------------------------------------------ the known traps


def rerun_and_card(root: Path) -> None:
    """Stella as MTEB's public results have it: figures of the authors, and a rerun made in another way."""
    rerun = of_others(root)
    result(rerun, "ArguAna", 0.5706)
    result(rerun, "STS12", 0.78558)
    card = of_others(root, revision="external", embed_dim=8192)
    result(card, "BIOSSES", 0.83107, mteb_version=None)


def test_the_public_rerun_of_stella_never_shares_a_row_with_the_card(tmp_path: Path) -> None:
    rerun_and_card(tmp_path)

    found = merge(local_scores(tmp_path), published())

    rows = {system.label: (system.provenance, set(scores)) for system, scores in found.scores.items()}
    assert rows[f"{STELLA} (measured by others)"] == ("measured by others", {"ArguAna", "STS12"})
    reported = [label for label, (provenance, _) in rows.items() if provenance == "self-reported" and STELLA in label]
    assert len(reported) == 2
    assert {system.revision for system in found.scores if system.provenance == "self-reported"} == {None}
    assert sorted(len(rows[label][1]) for label in reported) == [1, 56]


def test_the_public_rerun_of_stella_carries_a_warning_and_only_that_one(tmp_path: Path) -> None:
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


def test_the_dimension_that_a_registry_gives_is_not_taken_for_that_of_the_run(tmp_path: Path) -> None:
    rerun_and_card(tmp_path)  # 8960, which no head has, and 8192

    assert {system.dimension for system in local_scores(tmp_path).scores} == {None}


def test_languages_of_one_file_are_told_and_english_can_be_had_alone(tmp_path: Path) -> None:
    languages = {"en": ("eng-Latn", 0.84513), "de": ("deu-Latn", 0.61), "sw": ("swa-Latn", 0.36)}
    entries = [entry(score, subset, language) for subset, (language, score) in languages.items()]
    result(of_others(tmp_path), "MassiveIntentClassification", {"test": entries})

    (mixed,) = one(local_scores(tmp_path))[1].values()
    (english,) = one(local_scores(tmp_path, subsets="eng"))[1].values()

    assert mixed.value == pytest.approx((0.84513 + 0.61 + 0.36) / 3)
    assert (mixed.subsets, mixed.languages) == (("de", "en", "sw"), ("deu-Latn", "eng-Latn", "swa-Latn"))
    assert (english.value, english.subsets, english.languages) == (0.84513, ("en",), ("eng-Latn",))
    card = {system.model: scores for system, scores in published_scores().items()}[STELLA]
    assert card["MassiveIntentClassification"].subsets == english.subsets != mixed.subsets


def test_half_a_list_of_languages_is_none(tmp_path: Path) -> None:
    entries = [entry(0.9, "en"), {"main_score": 0.5, "hf_subset": "de"}]
    result(of_others(tmp_path), "STS22", {"test": entries})

    assert one(local_scores(tmp_path))[1]["STS22"].languages == ()


def test_english_alone_is_the_subset_of_the_benchmark_and_not_every_english_one(tmp_path: Path) -> None:
    entries = [entry(0.96229, "en-ext"), entry(0.94149, "en"), entry(0.75728, "de", "deu-Latn")]
    result(of_others(tmp_path), "AmazonCounterfactualClassification", {"test": entries})
    result(of_others(tmp_path), "STS17", {"test": [entry(0.9045, "en-en"), entry(0.1, "en-de")]})
    result(of_others(tmp_path), "STS22", {"test": [entry(0.5, "de", "deu-Latn")]})
    result(of_others(tmp_path), "BornholmBitextMining", {"test": [entry(0.4, "default", "dan-Latn")]})

    found = local_scores(tmp_path, subsets="eng")

    system, scores = one(found)
    assert {task: score.value for task, score in scores.items()} == {
        "AmazonCounterfactualClassification": 0.94149,
        "STS17": 0.9045,
        "BornholmBitextMining": 0.4,
    }
    assert found.gaps[system] == {"STS22": "has no subset en, which MTEB(eng, v1) scores (has de)"}


def test_means_over_languages_are_those_of_mteb_itself(tmp_path: Path) -> None:
    from mteb.results import TaskResult

    entries = [entry(0.9, "en"), entry(0.5, "de", "deu-Latn"), entry(0.1, "fr", "fra-Latn")]
    path = result(of_others(tmp_path), "MTOPDomainClassification", {"test": entries, "validation": [entry(0.95, "en")]})

    of_mteb = TaskResult.from_disk(path)

    (everything,) = one(local_scores(tmp_path))[1].values()
    (english,) = one(local_scores(tmp_path, subsets="eng"))[1].values()
    assert everything.value == pytest.approx(of_mteb.get_score(splits=["test"]))
    assert english.value == pytest.approx(of_mteb.get_score(splits=["test"], languages=["eng"]))


def test_two_dimensions_of_one_model_are_two_rows(tmp_path: Path) -> None:
    for dimension, score in ((256, 0.7), (1024, 0.8)):
        result(our_run(tmp_path, STELLA, embed_dim=dimension), "STS12", score)

    found = local_scores(tmp_path)

    assert labelled(found) == {"stella_en_1.5B_v5": {"STS12": 0.8}, "stella_en_1.5B_v5@256": {"STS12": 0.7}}
    assert [system.dimension for system in found.scores] == [1024, 256]


def test_two_dimensions_that_others_measured_are_two_rows_too(tmp_path: Path) -> None:
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
    assert not any("MSMARCO" in note for note in found.notes_on([system]))


def test_the_split_of_ones_own_task_is_that_of_its_yaml(tmp_path: Path) -> None:
    text = "name: MineSTS\ntype: STS\ndata: p.csv\nsplit: gold\ncolumns: {sentence1: a, sentence2: b, score: c}\n"
    (tmp_path / "mine.yaml").write_text(text)
    result(our_run(tmp_path), "MineSTS", {"gold": [entry(0.4)], "test": [entry(0.9)]})

    assert one(local_scores(tmp_path))[1]["MineSTS"].split == "gold"


def test_a_split_is_never_chosen_without_a_word(tmp_path: Path) -> None:
    result(of_others(tmp_path), "NoSuchTask", {"test": [entry(0.5)], "validation": [entry(0.9)]})
    result(of_others(tmp_path), "LEMBNeedleRetrieval", {"test_256": [entry(0.84)], "test_512": [entry(0.86)]})

    found = local_scores(tmp_path)

    system, scores = one(found)
    assert {task: (score.split, score.value) for task, score in scores.items()} == {"NoSuchTask": ("test", 0.5)}
    notes = found.notes_on([system])
    assert any("split test is shown; there are others of NoSuchTask (validation)" in note for note in notes)
    assert any("LEMBNeedleRetrieval: has the splits test_256, test_512, and nothing says" in note for note in notes)


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
def test_a_metric_is_named_only_where_the_file_shows_it(
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
        ('{"task_name": "STS12", "task_name": "STS12"}', "key 'task_name' stands twice"),
        ('{"task_name": "STS13", "scores": {}}', "the file says that it is of task STS13"),
        (
            '{"mteb_dataset_name": "STS12", "test": {"cos_sim": {"spearman": 0.7}}}',
            "a file of mteb before 1.11",
        ),
        ('{"scores": {"test": []}}', "its split has no entries"),
        ('{"scores": {"test": [0.5]}}', "an entry names no subset"),
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
            "70.073 is not from -1 to 1 (a perc",
        ),
        (
            f'{{"scores": {{"test": [{{"main_score": 1{"0" * 400}, "hf_subset": "en"}}]}}}}',
            "has no finite main score",
        ),
        (
            '{"scores": {"test": [{"main_score": 0.1, "hf_subset": "en"}, {"main_score": 0.9, "hf_subset": "en"}]}}',
            "subset en stands twice",
        ),
    ],
)
def test_a_damaged_file_is_a_gap_with_its_reason_and_costs_nothing_else(
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
    assert f"all_minilm_l6_v2: STS12: {found.gaps[system]['STS12']}" in found.notes_on([system])


def test_one_bad_language_spoils_the_mean_and_not_the_english_score(tmp_path: Path) -> None:
    entries = [entry(0.84513, "en"), entry(None, "de", "deu-Latn")]
    result(of_others(tmp_path), "MassiveIntentClassification", {"test": entries})

    assert one(local_scores(tmp_path))[1] == {}
    assert one(local_scores(tmp_path, subsets="eng"))[1]["MassiveIntentClassification"].value == 0.84513


def test_a_secondary_metric_that_is_not_a_number_costs_nothing(tmp_path: Path) -> None:
    """As in LEMBNeedleRetrieval and others of the public rerun: the nAUC of a recall of 1 is NaN."""
    path = result(of_others(tmp_path), "NFCorpus", {"test": [entry(0.42, nauc_recall_at_100_max=float("nan"))]})

    assert "NaN" in path.read_text()
    assert one(local_scores(tmp_path))[1]["NFCorpus"].value == 0.42


@pytest.mark.fault(48, "the model stays in the table, its gaps with their reasons")
def test_a_system_of_which_nothing_can_be_read_is_still_there(tmp_path: Path) -> None:
    (our_run(tmp_path) / "STS12.json").write_text("{")

    found = local_scores(tmp_path)

    system, scores = one(found)
    assert (system.label, scores) == ("all_minilm_l6_v2", {})
    assert select(found.scores, ["all_minilm_l6_v2"]) == {system: {}}


# -------------------------------------------------------------------------------------------------------- hostile names

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
def test_hostile_names_become_one_line_of_plain_text(tmp_path: Path, name: str | bytes) -> None:
    folder = tmp_path / "results" / os.fsdecode(name) / "rev\x1b[31m"
    result(folder, "STS12", 0.5)
    (folder / "STS\x07 12.json").write_text("{")
    kwargs = {"embed_dim\x1b[2J": "<b>\u202e", "long": "x" * 5000, "nested": {"a": [1]}}
    (folder / "model_meta.json").write_text(json.dumps({"name": "other/model", "experiment_kwargs": kwargs}))

    found = local_scores(tmp_path)

    system, scores = one(found)
    texts = [
        system.label,
        system.model,
        system.revision or "",
        scores["STS12"].source,
        *found.notes_on([system]),
    ]
    for text in (*texts, *found.gaps[system]):
        assert not [c for c in text if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} or c == "\u202e"], repr(text)
        text.encode("utf-8")
    assert system.model != "other/model"  # a description cannot give results to another model
    assert len(system.label) < 600
    assert select(found.scores, [system.label]) == found.scores


OWN = st.fixed_dictionaries(
    {
        "embed_dim": st.sampled_from([256, 1024, 8192, True, "x", -1, None]),
        "dtype": st.sampled_from(["bfloat16", "float32", "\x1bevil"]),
        "prompts": st.sampled_from(["card", "leaderboard", "own-12345678", "no spec, this", 7]),
        "max_length": st.sampled_from([512, 256, 0]),
        "pipeline": st.sampled_from(["2", "3"]),
    }
)
SYSTEMS = st.lists(
    st.builds(
        System,
        label=st.just(""),
        model=st.sampled_from([STELLA, "a/b", "a/b #2"]),
        provenance=st.sampled_from(["measured here", "measured by others", "self-reported"]),
        origin=st.sampled_from(["one", "two"]),
        revision=st.sampled_from([RERUN, "0" * 40, "0" * 7 + "1" * 33, None]),
        settings=OWN,
    ),
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(SYSTEMS)
def test_no_two_rows_are_ever_called_the_same(systems: list[System]) -> None:
    names = labels(systems)

    assert len(names) == len(systems)
    assert len(set(names)) == len(names)
    assert all(name.isprintable() for name in names)


# ------------------------------------------------------------------------------------------------------------ selection


@pytest.fixture
def many(tmp_path: Path) -> Found:
    for changed in (
        {},
        {"embed_dim": 256},
        {"embed_dim": 256, "prompts": "leaderboard"},
        {"dtype": "float32"},
    ):
        result(our_run(tmp_path, STELLA, **changed), "STS12", 0.8)
    result(our_run(tmp_path), "STS12", 0.7)
    result(our_run(tmp_path, dtype="bfloat16"), "STS12", 0.7)
    rerun_and_card(tmp_path)
    return merge(local_scores(tmp_path), published())


BF16, FP32 = "stella_en_1.5B_v5[bf16]", "stella_en_1.5B_v5[fp32]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("stella_en_1.5B_v5@256", ["stella_en_1.5B_v5@256"]),
        ("stella_en_1.5B_v5@256[leaderboard]", ["stella_en_1.5B_v5@256[leaderboard]"]),
        ("stella_en_1.5B_v5@1024", [BF16, FP32]),
        (f"{STELLA}@1024[fp32]", [FP32]),
        ("dunzhang/stella_en_1.5B_v5[fp32]", [FP32]),
        ("all_minilm_l6_v2", ["all_minilm_l6_v2", "all_minilm_l6_v2[bf16]"]),
        ("all_minilm_l6_v2@384", ["all_minilm_l6_v2"]),
        ("all_minilm_l6_v2[card]", ["all_minilm_l6_v2"]),
        (f"{STELLA} (measured by others)", [f"{STELLA} (measured by others)"]),
        (BGE, [f"{BGE} (self-reported)"]),
    ],
)
def test_a_spec_means_exactly_its_settings_and_a_bare_name_every_row(
    many: Found, spec: str, expected: list[str]
) -> None:
    assert sorted(system.label for system in select(many.scores, [spec])) == sorted(expected)


@pytest.mark.parametrize("name", ["stella_en_1.5B_v5", STELLA, "dunzhang/stella_en_1.5B_v5"])
def test_a_bare_name_means_every_row_of_the_model_whoever_measured_it(many: Found, name: str) -> None:
    chosen = select(many.scores, [name])

    assert Counter(system.provenance for system in chosen) == {
        "measured here": 4,
        "measured by others": 1,
        "self-reported": 2,
    }
    assert {system.model for system in chosen} == {STELLA}


def test_every_label_selects_its_own_row(many: Found) -> None:
    for system in many.scores:
        assert system in select(many.scores, [system.label])


def test_systems_come_in_the_order_of_the_specs_and_once(many: Found) -> None:
    chosen = select(many.scores, [BGE, "all_minilm_l6_v2[bf16]", "all_minilm_l6_v2", BGE])

    assert [system.label for system in chosen] == [
        f"{BGE} (self-reported)",
        "all_minilm_l6_v2[bf16]",
        "all_minilm_l6_v2",
    ]
    assert all(chosen[system] == many.scores[system] for system in chosen)


def test_a_yaml_of_ones_own_means_the_results_of_its_model(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\npath: .\n")
    result(our_run(tmp_path, "local/mine", embed_dim=32), "STS12", 0.5)
    scores = local_scores(tmp_path).scores

    assert select(scores, [str(tmp_path / "mine.yaml")]) == scores
    assert select(scores, [f"{tmp_path / 'mine.yaml'}@32"]) == scores
    with pytest.raises(ConfigError, match="of this model there are local/mine"):
        select(scores, [f"{tmp_path / 'mine.yaml'}@64"])


def test_a_spec_that_matches_nothing_is_an_error_with_what_comes_nearest_and_where_it_was_sought(
    many: Found,
) -> None:
    with pytest.raises(
        ConfigError, match=r"no results of 'all_minilm_l6_v3'; the nearest are all_minilm_l6_v2"
    ) as error:
        select(many.scores, ["all_minilm_l6_v3"])
    assert "published scores that ship with stella-mteb" in str(error.value)
    assert all(origin in str(error.value) for origin in {system.origin for system in many.scores})

    with pytest.raises(ConfigError, match=r"of this model there are .*stella_en_1\.5B_v5@256; .*Searched: here, there"):
        select(many.scores, ["stella_en_1.5B_v5@8192"], searched=["here", "there"])
    with pytest.raises(ConfigError, match=r"there are no results at all\. Searched: nothing"):
        select({}, ["stella_en_1.5B_v5"])
    with pytest.raises(ConfigError, match="is not understood"):
        select(many.scores, ["a[b"])


def test_only_the_models_that_are_asked_for_are_read(tmp_path: Path) -> None:
    result(our_run(tmp_path), "STS12", 0.7)
    (of_others(tmp_path, "someone/else") / "STS12.json").write_text("{")

    found = local_scores(tmp_path, models=["all_minilm_l6_v2@384", "sentence-transformers/all-MiniLM-L12-v2"])

    assert labelled(found) == {"all_minilm_l6_v2": {"STS12": 0.7}}
    (note,) = found.notes
    assert (
        "no results of sentence-transformers/all-MiniLM-L12-v2; the nearest are sentence-transformers/all-Min" in note
    )


# ---------------------------------------------------------------------------------------------- MTEB's public results


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def public(tmp_path: Path) -> tuple[Path, str, str]:
    """A repository like MTEB's public results, and two commits of it: ArguAna is 0.5 in the first, then 0.6."""
    repository = tmp_path / "public"
    repository.mkdir()
    git(repository, "init", "--quiet")
    commits = []
    for score in (0.5, 0.6):
        result(of_others(repository), "ArguAna", score)
        result(of_others(repository, "someone/else"), "ArguAna", 0.1)
        git(repository, "add", "--all")
        git(repository, "commit", "--quiet", "-m", "results")
        commits.append(git(repository, "rev-parse", "HEAD"))
    return repository, *commits


@pytest.mark.parametrize("place", [0, 1])
def test_public_results_are_those_of_the_pinned_commit(
    tmp_path: Path, public: tuple[Path, str, str], place: int
) -> None:
    repository, *commits = public

    found = remote_scores([STELLA], tmp_path / "cache", revision=commits[place], remote=str(repository))

    system, scores = one(found)
    assert scores["ArguAna"].value == (0.5, 0.6)[place]
    assert (system.provenance, system.revision) == ("measured by others", RERUN)
    assert system.origin == f"{repository}@{commits[place]}"
    assert "made without template and head" in found.notes_on([system])[0]


def test_another_commit_is_fetched_and_the_same_one_asks_no_network(
    tmp_path: Path, public: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, first, second = public
    monkeypatch.setenv("STELLA_MTEB_CACHE", str(tmp_path / "own-cache"))

    def score(revision: str) -> float:
        return one(remote_scores(["stella_en_1.5B_v5"], revision=revision, remote=str(repository)))[1]["ArguAna"].value

    assert [score(first), score(second), score(first)] == [0.5, 0.6, 0.5]
    repository.rename(tmp_path / "away")
    assert score(first) == 0.5


def test_nothing_that_a_clone_prints_goes_to_stdout(
    tmp_path: Path, public: tuple[Path, str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    repository, first, second = public

    for revision in (first, second):
        remote_scores([STELLA], tmp_path / "cache", revision=revision, remote=str(repository))

    assert capfd.readouterr().out == ""


def test_a_newer_git_clones_the_pinned_commit_at_once(
    tmp_path: Path, public: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mteb

    repository, first, _ = public
    asked = []

    def download(self: Any, remote: str, download_latest: bool = True, revision: str | None = None) -> None:
        asked.append((remote, revision))
        git(tmp_path, "clone", "--quiet", remote, str(self.remote_repo_path))
        git(self.remote_repo_path, "checkout", "--quiet", str(revision))

    monkeypatch.setattr(mteb.ResultCache, "download_from_remote", download)
    monkeypatch.setattr("stella_mteb.compare.sources._git_version", lambda: (2, 49))

    found = remote_scores([STELLA], tmp_path / "cache", revision=first, remote=str(repository))

    assert asked == [(str(repository), first)]
    assert one(found)[1]["ArguAna"].value == 0.5


def test_runs_of_this_plugin_in_the_public_results_were_not_measured_here(
    tmp_path: Path, public: tuple[Path, str, str]
) -> None:
    repository, *_ = public
    result(our_run(repository), "STS12", 0.8)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "ours")

    system, _ = one(
        remote_scores(
            [MINILM],
            tmp_path / "cache",
            revision=git(repository, "rev-parse", "HEAD"),
            remote=str(repository),
        )
    )

    assert system.provenance == "measured by others"
    assert "embed_dim=384" in system.label


@pytest.mark.parametrize("revision", ["main", "f4cc6c8", "", "A" * 40, "0" * 41, "0" * 39 + "\n"])
def test_public_results_are_never_read_at_a_floating_revision(tmp_path: Path, revision: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a full commit of 40 hexadecimal digits; `git ls-remote"):
        remote_scores([STELLA], tmp_path / "cache", revision=revision)

    assert not (tmp_path / "cache").exists()


def test_what_cannot_be_fetched_is_an_environment_problem_with_its_cure(
    tmp_path: Path, public: tuple[Path, str, str]
) -> None:
    repository, first, _ = public
    cure = "check the network, or clone .* on a machine that has one, .* give that folder as a results folder"

    with pytest.raises(EnvironmentProblem, match=f"{'0' * 40} could not be fetched: .*; {cure}"):
        remote_scores([STELLA], tmp_path / "cache", revision="0" * 40, remote=str(repository))
    with pytest.raises(EnvironmentProblem, match=cure):
        remote_scores([STELLA], tmp_path / "other", revision=first, remote=str(tmp_path / "absent"))
    with pytest.raises(EnvironmentProblem, match=r"is a clone of .*public; remove it, or give another cache"):
        remote_scores([STELLA], tmp_path / "cache", revision=first, remote=str(tmp_path / "absent"))


def test_a_token_in_the_address_is_in_no_message_and_no_origin(
    tmp_path: Path, public: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, first, _ = public
    address = "https://me:s3cret@example.invalid/results"
    git(tmp_path, "clone", "--quiet", str(repository), str(tmp_path / "cache" / "remote"))
    git(tmp_path / "cache" / "remote", "checkout", "--quiet", first)
    git(tmp_path / "cache" / "remote", "config", "remote.origin.url", address)
    monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")

    system, _ = one(remote_scores([STELLA], tmp_path / "cache", revision=first, remote=address))
    with pytest.raises(EnvironmentProblem) as fault:
        remote_scores([STELLA], tmp_path / "cache", revision="0" * 40, remote=address)

    assert system.origin == f"https://example.invalid/results@{first}"
    assert "s3cret" not in str(fault.value)


def test_a_missing_git_and_an_unwritable_cache_are_environment_problems(
    tmp_path: Path, public: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, first, _ = public
    (tmp_path / "file").write_text("")

    with pytest.raises(EnvironmentProblem, match="file"):
        remote_scores([STELLA], tmp_path / "file", revision=first, remote=str(repository))

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match=r"git is needed for .* and is not installed"):
        remote_scores([STELLA], tmp_path / "cache", revision=first, remote=str(repository))


def test_a_clone_of_ones_own_can_be_given_as_a_results_folder(public: tuple[Path, str, str]) -> None:
    repository, *_ = public

    found = local_scores(repository, models=[STELLA])

    assert labelled(found) == {f"{STELLA} (measured by others)": {"ArguAna": 0.6}}
