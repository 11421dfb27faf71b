"""Tasks from YAML: refused files, their scores, and their use in MTEB."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from stella_mteb.errors import ConfigError
from stella_mteb.files.rows import digest
from stella_mteb.harness.task_classes import per_label, task_class
from stella_mteb.harness.task_yaml import TaskFile, bundled_tasks, load_task_file
from tests.conftest import SHARED, needs_shared
from tests.support.bags import bag_vector, cosine, evaluate

STS = """\
name: MyVideoSTS
type: STS
data: pairs.jsonl
columns: {sentence1: reference, sentence2: candidate, score: rating, label: fault}
score_range: [0, 5]
"""
RETRIEVAL = """\
name: MyRetrieval
type: Retrieval
data: pairs.jsonl
columns: {query: candidate, document: reference, score: rating}
positive_from: 3
"""
PAIRS = RETRIEVAL.replace("Retrieval", "PairClassification").replace(
    "query: candidate, document: reference", "sentence1: reference, sentence2: candidate"
)
ROWS = [
    ("a red boat leaves the harbour", "a red boat leaves the harbour at dawn", 5.0, "paraphrase"),
    ("a red boat leaves the harbour", "a blue boat leaves the harbour", 3.5, "attribute"),
    ("a red boat leaves the harbour", "two cooks in the harbour argue about salt", 0.0, "unrelated"),
    ("the dog knocks the tower over", "the dog knocks over the tower", 4.5, "paraphrase"),
    ("the dog knocks the tower over", "the child knocks the tower over", 2.0, "agent"),
    ("the dog knocks the tower over", "rain falls on the empty street", 0.5, "unrelated"),
]


def write_rows(path: Path, rows: list[tuple[str, str, float, str]], **layout: Any) -> Path:
    keys = ("reference", "candidate", "rating", "fault")
    path.write_text("\n".join(json.dumps(dict(zip(keys, row, strict=True)), **layout) for row in rows))
    return path


def task(folder: Path, text: str, rows: list[tuple[str, str, float, str]] = ROWS) -> TaskFile:
    write_rows(folder / "pairs.jsonl", rows)
    path = folder / "task.yaml"
    path.write_text(text)
    return load_task_file(path)


def fault(folder: Path, text: str) -> str:
    path = folder / "task.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_task_file(path)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "")


# -------------------------------------------------------------------------------------------------------- YAML


def test_the_documented_yaml_gives_the_rows_of_its_file(tmp_path: Path) -> None:
    pairs = task(tmp_path, STS).pairs

    assert list(zip(pairs.first, pairs.second, pairs.scores, pairs.labels, strict=True)) == ROWS


def test_the_hub_form_of_the_documented_yaml_loads(tmp_path: Path) -> None:
    commit = "b0fddb56ed78048fa8b90373c8a3cfc37b684831"
    hub = f"hub: {{path: org/set, revision: {commit}, name: en, split: dev}}\n"
    file = task(tmp_path, STS.replace("data: pairs.jsonl\n", hub))

    assert file.spec.hub.model_dump() == {
        "path": "org/set",
        "revision": commit,
        "name": "en",
        "split": "dev",
    }


@pytest.mark.parametrize("path", ["{folder}/elsewhere/pairs.jsonl", "../elsewhere/pairs.jsonl"])
def test_data_may_be_absolute_or_relative_to_the_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for name in ("elsewhere", "tasks"):
        (tmp_path / name).mkdir()
    write_rows(tmp_path / "elsewhere" / "pairs.jsonl", ROWS)
    yaml = tmp_path / "tasks" / "task.yaml"
    yaml.write_text(STS.replace("pairs.jsonl", path.format(folder=tmp_path)))
    monkeypatch.chdir(tmp_path)

    assert len(load_task_file(Path("tasks/task.yaml")).pairs.first) == len(ROWS)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (STS + "langages: [eng-Latn]\n", 6, "unknown key 'langages'; did you mean 'languages'?"),
        (STS.replace("columns:", "colums:"), 4, "unknown key 'colums'; did you mean 'columns'?"),
        (STS.replace("type: STS", "type: Sts"), 2, "'STS', 'Retrieval' or 'PairClassification' (got 'Sts')"),
        (STS.replace("MyVideoSTS", "../x"), 1, "(got '../x')"),
        (STS.replace("MyVideoSTS", "a/b"), 1, "(got 'a/b')"),
        (STS.replace("MyVideoSTS", "x" * 101), 1, "at most 100 characters"),
        (STS.replace("[0, 5]", "[0, 'x']"), 5, "(got 'x')"),
        (STS.replace("[0, 5]", "[0]"), 5, "score_range"),
        (STS.replace("[0, 5]", "[0, .nan]"), 5, "(got '.nan')"),
        (STS.replace("score: rating", "score: 0"), 4, "columns.score: must be the name of a column, or its position"),
        (
            STS.replace("score: rating", "score: [a]"),
            4,
            "columns: score has one column; only references and raters of STS",
        ),
        (STS.replace("score: rating", "score: 3"), 4, "columns must be all names, or all positions"),
        (STS + "max_bad_rows: -1\n", 6, "greater than or equal to 0 (got -1)"),
        (STS + "split: a/b\n", 6, "(got 'a/b')"),
        (STS + "layout: clipcc\n", 6, "(got 'clipcc')"),
        (STS + "where: {year: 2012}\n", 6, "where.year"),
        (STS + "hub: {path: a/b, revision: main}\n", 6, "hub.revision"),
        (STS + "hub: {path: a/b}\n", 6, "key 'hub.revision' is missing"),
    ],
)
def test_a_faulty_key_is_refused_with_its_line(tmp_path: Path, text: str, line: int, reason: str) -> None:
    message = fault(tmp_path, text)

    assert f"task.yaml:{line}: " in message
    assert reason in message


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (STS.replace("sentence1: reference, ", ""), 4, "columns must name sentence1 for a task of type STS"),
        (STS.replace(", score: rating", ""), 4, "columns must name score for a task of type STS"),
        (STS.replace("label: fault", "query: fault"), 4, "columns has query, but a task of type STS allows"),
        (RETRIEVAL.replace("document: reference, ", ""), 4, "columns must name document"),
        (RETRIEVAL.replace("score: rating", "label: fault"), 4, "columns has label"),
        (PAIRS.replace("sentence1:", "query:"), 4, "columns must name sentence1"),
        (RETRIEVAL.replace("positive_from: 3\n", ""), 4, "positive_from must give"),
        (PAIRS.replace("positive_from: 3\n", ""), 4, "positive_from must give"),
        (STS.replace("[0, 5]", "[5, 0]"), 5, "score_range must be [lowest, highest]"),
        (STS.replace("[0, 5]", "[3, 3]"), 5, "score_range must be [lowest, highest]"),
        (STS + "languages: [english]\n", 6, "'english' must be ISO 639-3 and script, such as eng-Latn"),
        (STS + "languages: [eng-Latn, de]\n", 6, "'de' must be ISO 639-3 and script"),
        (STS + "languages: [eng_Latn]\n", 6, "'eng_Latn' must be ISO 639-3 and script"),
        (STS + "languages: [ENG-latn]\n", 6, "'ENG-latn' must be ISO 639-3 and script"),
        (STS + "languages: [123-4567]\n", 6, "'123-4567' must be ISO 639-3 and script"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(tmp_path: Path, text: str, line: int, reason: str) -> None:
    message = fault(tmp_path, text)

    assert reason in message
    assert message.startswith(f"task.yaml:{line}: ")


@pytest.mark.parametrize("code", ["zzz-Latn", "eng-Xxxx", "ger-Latn"])
def test_a_language_that_does_not_exist_is_refused_with_its_line(tmp_path: Path, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task_class(task(tmp_path, STS + f"languages:\n- eng-Latn\n- {code}\n"))
    assert str(caught.value) == f"{tmp_path}/task.yaml:8: languages.1: unknown language or script: {code!r}"


def test_languages_of_other_scripts_are_known(tmp_path: Path) -> None:
    made = task_class(task(tmp_path, STS + "languages: [cmn-Hans, hin-Deva]\n"))

    assert made.metadata.eval_langs == ["cmn-Hans", "hin-Deva"]


def test_a_task_without_any_language_is_refused(tmp_path: Path) -> None:
    """MTEB would evaluate it on nothing."""
    assert fault(tmp_path, STS + "languages: []\n").startswith("task.yaml:6: languages")


def test_all_faults_of_a_task_are_named_at_once(tmp_path: Path) -> None:
    text = STS.replace("type: STS", "type: Sts").replace("MyVideoSTS", "../x") + "splt: x\nmax_bad_rows: many\n"

    lines = fault(tmp_path, text).split("\n")
    assert sorted(line.split(": ")[0] for line in lines) == [f"task.yaml:{n}" for n in (1, 2, 6, 7)]


def test_a_task_without_data_says_how_to_give_them(tmp_path: Path) -> None:
    file = task(tmp_path, STS.replace("data: pairs.jsonl\n", ""))

    with pytest.raises(ConfigError, match="-t MyVideoSTS=PATH"):
        _ = file.pairs


@pytest.mark.fault(35, "fewer than two rows are refused")
@pytest.mark.fault(33, "scores that are all equal are refused")
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "0 usable rows; at least two are needed"),
        (ROWS[:1], "1 usable row"),
        ([(a, b, 2.5, c) for a, b, _, c in ROWS], "every score is 2.5; a correlation needs scores that differ"),
    ],
)
def test_data_without_a_correlation_is_refused(
    tmp_path: Path, rows: list[tuple[str, str, float, str]], reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        _ = task(tmp_path, STS, rows).pairs
    assert str(caught.value).startswith("task MyVideoSTS: ")
    assert reason in str(caught.value)


@pytest.mark.fault(33, "scores that are all equal are refused")
@pytest.mark.parametrize("text", [RETRIEVAL, PAIRS])
@pytest.mark.parametrize(("limit", "reason"), [("4", "no pair is"), ("1", "every pair is")])
def test_data_whose_pairs_are_all_positive_or_all_negative_is_refused(
    tmp_path: Path, text: str, limit: str, reason: str
) -> None:
    rows = [(a, b, 2.0, c) for a, b, _, c in ROWS]

    with pytest.raises(ConfigError, match=f"{reason} at least positive_from {limit}"):
        _ = task(tmp_path, text.replace("positive_from: 3", f"positive_from: {limit}"), rows).pairs


def test_where_keeps_only_rows_with_these_values(tmp_path: Path) -> None:
    file = task(tmp_path, STS + "where: {fault: paraphrase}\n")

    assert file.pairs.labels == ["paraphrase", "paraphrase"]
    assert file.pairs.scores == [5.0, 4.5]


@pytest.mark.fault(35, "the error names the missing column and the existing ones")
def test_where_on_a_column_that_no_row_has_names_the_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="genra"):
        _ = task(tmp_path, STS + "where: {genra: western}\n").pairs


def test_an_own_file_for_a_bundled_task_needs_no_filter_column(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    rows = [
        {"sentence1": "A man reads.", "sentence2": "He reads.", "score": 4.5},
        {"sentence1": "A man reads.", "sentence2": "A cat sleeps.", "score": 0},
        {"sentence1": "A man reads.", "sentence2": "Other set.", "score": 1, "dataset": "headlines"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    bundled = bundled_tasks()["VideoDescriptionSTS"]

    file = TaskFile(bundled.spec, bundled.path, data=path)
    assert file.pairs.second == ["He reads.", "A cat sleeps."]
    assert file.revision.startswith("sha256-")


def test_hub_data_keep_the_commit_as_their_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = [
        {"sentence1": "a", "sentence2": "b", "score": 4.0, "dataset": "MSRvid"},
        {"sentence1": "a", "sentence2": "c", "score": 1.0, "dataset": "headlines"},
        {"sentence1": "a", "sentence2": "d", "score": 2.0, "dataset": "MSRvid"},
    ]
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: rows)
    bundled = bundled_tasks()["VideoDescriptionSTS"]

    file = TaskFile(bundled.spec, bundled.path)
    other = TaskFile(bundled.spec.model_copy(update={"where": {"dataset": "headlines"}}), bundled.path)
    assert file.pairs.second == ["b", "d"]
    assert file.revision.startswith(f"{bundled.spec.hub.revision}-")
    assert file.revision != other.revision


# ------------------------------------------------------------------------------------------------------ revision


def test_the_revision_changes_with_every_row_that_changes(tmp_path: Path) -> None:
    reference, candidate, score, label = ROWS[2]
    changed = [
        (reference + ".", candidate, score, label),
        (reference, candidate.upper(), score, label),
        (reference, candidate, score + 0.25, label),
        (reference, candidate, score, "other"),
    ]
    variants = [
        ROWS, *[[*ROWS[:2], row, *ROWS[3:]] for row in changed], ROWS[:-1], [*ROWS, ROWS[0]], ROWS[::-1],
    ]  # fmt: skip

    revisions = [task(tmp_path, STS, rows).revision for rows in variants]
    assert len(set(revisions)) == len(variants)
    assert all(re.fullmatch(r"sha256-[0-9a-f]{12}", revision) for revision in revisions)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text + "\n\n  \n",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text.replace("\n", "\n\n"),
        lambda text: text.replace('": ', '"  :   ').replace("}", " }"),
        lambda text: "\n".join(json.dumps(dict(reversed(json.loads(line).items()))) for line in text.split("\n")),
    ],
    ids=["end", "windows", "bom and blank lines", "spaces", "order of keys"],
)
def test_the_revision_stays_if_only_the_files_format_changes(tmp_path: Path, rewrite: Any) -> None:
    before = task(tmp_path, STS).pairs
    path = tmp_path / "pairs.jsonl"
    path.write_text(rewrite(path.read_text()), newline="")

    after = load_task_file(tmp_path / "task.yaml").pairs
    assert after == before


# ----------------------------------------------------------------------------------------------------- per label


def order_kept(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    return {row["label"]: row["order_kept"] for row in rows}


@pytest.mark.parametrize(
    ("predicted", "kept"), [([0.9, 0.5, 0.1], 1.0), ([0.1, 0.5, 0.9], 0.0), ([0.5, 0.5, 0.5], 0.5)]
)
def test_the_order_kept_is_1_if_perfect_0_if_reversed_and_half_if_tied(predicted: list[float], kept: float) -> None:
    rows = per_label(["good", "middle", "bad"], ["same"] * 3, [5, 3, 0], predicted)

    assert order_kept(rows) == {"good": kept, "middle": kept, "bad": kept}


def test_a_label_without_comparisons_has_no_order_kept() -> None:
    rows = per_label(["alone", "tied", "tied"], ["one", "two", "two"], [4, 3, 3], [0.1, 0.2, 0.3])

    assert order_kept(rows) == {"alone": None, "tied": None}


def test_pairs_are_compared_only_with_pairs_of_the_same_reference() -> None:
    rows = per_label(["a", "b", "a", "b"], ["x", "x", "y", "y"], [5, 0, 1, 4], [0.2, 0.1, 0.9, 0.95])

    assert order_kept(rows) == {"a": 1.0, "b": 1.0}


def test_only_a_labels_own_comparisons_count_for_it() -> None:
    rows = per_label(["good", "blind", "bad"], ["same"] * 3, [5, 2, 0], [0.9, 0.95, 0.1])

    assert order_kept(rows) == {"good": 0.5, "blind": 0.5, "bad": 1.0}
    assert [row["label"] for row in rows] == ["good", "blind", "bad"]
    assert [row["cosine_mean"] for row in rows] == [0.9, 0.95, 0.1]


def brute_force(
    labels: list[str], first: list[str], gold: list[float], predicted: list[float]
) -> dict[str, tuple[int, float, float, float | None]]:
    result: dict[str, tuple[int, float, float, float | None]] = {}
    for label in set(labels):
        right = total = 0.0
        mine = [i for i in range(len(labels)) if labels[i] == label]
        for i in mine:
            for j in range(len(labels)):
                if first[i] != first[j] or gold[i] == gold[j]:
                    continue
                total += 1
                if predicted[i] == predicted[j]:
                    right += 0.5
                elif (predicted[i] > predicted[j]) == (gold[i] > gold[j]):
                    right += 1
        result[label] = (
            len(mine),
            sum(gold[i] for i in mine) / len(mine),
            sum(predicted[i] for i in mine) / len(mine),
            right / total if total else None,
        )
    return result


@settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["clip 1", "clip 2", "clip 3"]),
            st.sampled_from([0.0, 1.0, 2.5, 5.0]),
            st.sampled_from([-0.2, 0.1, 0.4, 0.4000001, 0.9]),
        ),
        min_size=1,
        max_size=25,
    )
)
def test_per_label_agrees_with_a_brute_force_count(pairs: list[tuple[str, str, float, float]]) -> None:
    labels, first, gold, predicted = (list(column) for column in zip(*pairs, strict=True))
    rows = per_label(labels, first, gold, predicted)
    expected = brute_force(labels, first, gold, predicted)

    assert {row["label"] for row in rows} == set(expected)
    for row in rows:
        count, gold_mean, cosine_mean, kept = expected[row["label"]]
        assert row["pairs"] == count
        assert row["gold_mean"] == pytest.approx(gold_mean)
        assert row["cosine_mean"] == pytest.approx(cosine_mean)
        assert row["order_kept"] == (None if kept is None else pytest.approx(kept))
    assert [row["gold_mean"] for row in rows] == sorted((row["gold_mean"] for row in rows), reverse=True)
    json.dumps(rows, allow_nan=False)


# --------------------------------------------------------------------------------------------------- through MTEB


def test_an_own_task_gives_scipys_spearman_through_mteb(tmp_path: Path, hand_made: Any) -> None:
    file = task(tmp_path, STS + "split: holdout\n")
    result = evaluate(hand_made(bag_vector()), file)
    cosines = [cosine(a, b) for a, b, _, _ in ROWS]
    gold = [score for _, _, score, _ in ROWS]

    (scores,) = result.scores["holdout"]
    assert scores["main_score"] == pytest.approx(spearmanr(gold, cosines).statistic, abs=1e-6)
    assert scores["cosine_pearson"] == pytest.approx(np.corrcoef(gold, cosines)[0, 1], abs=1e-6)
    assert result.dataset_revision == file.revision
    expected = brute_force([row[3] for row in ROWS], [row[0] for row in ROWS], gold, cosines)
    assert {row["label"]: row["order_kept"] for row in scores["per_label"]} == {
        label: values[3] for label, values in expected.items()
    }
    for row in scores["per_label"]:
        assert row["cosine_mean"] == pytest.approx(expected[row["label"]][2], abs=1e-6)


def test_the_result_of_an_own_task_survives_the_way_to_disk(tmp_path: Path, hand_made: Any) -> None:
    from mteb.results import TaskResult

    result = evaluate(hand_made(bag_vector()), task(tmp_path, STS))
    result.to_disk(tmp_path / "result.json")

    read = TaskResult.from_disk(tmp_path / "result.json")
    for before, after in zip(result.scores["test"][0]["per_label"], read.scores["test"][0]["per_label"], strict=True):
        assert after == pytest.approx(before, abs=1e-6)
    assert read.get_score() == pytest.approx(result.get_score(), abs=1e-6)


def test_the_range_of_scores_does_not_change_the_rank_correlation(tmp_path: Path, hand_made: Any) -> None:
    percent = [(a, b, 20 * score, label) for a, b, score, label in ROWS]
    as_given = evaluate(hand_made(bag_vector()), task(tmp_path, STS)).get_score()
    scaled = evaluate(hand_made(bag_vector()), task(tmp_path, STS.replace("[0, 5]", "[0, 100]"), percent)).get_score()

    assert scaled == pytest.approx(as_given, abs=1e-9)


def test_a_bad_row_stops_the_evaluation_too(tmp_path: Path, hand_made: Any) -> None:
    file = task(tmp_path, STS, [*ROWS, ("a", "b", 9.0, "c")])

    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}/pairs.jsonl:7: column 'rating'")):
        evaluate(hand_made(bag_vector()), file)


def test_two_own_tasks_do_not_share_their_rows_or_revision(tmp_path: Path) -> None:
    one = task_class(task(tmp_path, STS))()
    one.load_data()
    (tmp_path / "two").mkdir()
    two = task_class(task(tmp_path / "two", STS.replace("MyVideo", "Other"), ROWS[:4]))()
    two.load_data()

    assert (one.metadata.name, two.metadata.name) == ("MyVideoSTS", "OtherSTS")
    assert (one.dataset["test"].num_rows, two.dataset["test"].num_rows) == (6, 4)
    assert one.metadata.revision != two.metadata.revision
    assert (one.min_score, one.max_score) == (0, 5)


def test_the_settings_of_a_task_yaml_reach_mteb(tmp_path: Path) -> None:
    text = STS + "description: Boats and dogs.\nlanguages: [deu-Latn]\ninstruction: Compare.\nsplit: dev\n"
    metadata = task_class(task(tmp_path, text))().metadata

    assert (metadata.description, metadata.prompt) == ("Boats and dogs.", "Compare.")
    assert (metadata.eval_langs, metadata.eval_splits) == (["deu-Latn"], ["dev"])
    assert (metadata.type, metadata.main_score) == ("STS", "cosine_spearman")


def relevant_pairs(folder_task: Any, split: str = "test") -> set[tuple[str, str]]:
    folder_task.load_data()
    data = folder_task.dataset["default"][split]
    queries = dict(zip(data["queries"]["id"], data["queries"]["text"], strict=True))
    corpus = dict(zip(data["corpus"]["id"], data["corpus"]["text"], strict=True))
    return {
        (queries[query], corpus[document])
        for query, documents in data["relevant_docs"].items()
        for document, relevance in documents.items()
        if relevance > 0
    }


def test_the_relevant_pairs_are_exactly_those_from_positive_from_on(tmp_path: Path) -> None:
    rows = [*ROWS, ("rain on a street", ROWS[3][1], 3.0, "limit"), ("rain on a street", "x", 2.99, "below")]
    retrieval = task_class(task(tmp_path, RETRIEVAL, rows))()

    assert relevant_pairs(retrieval) == {
        (candidate, reference) for reference, candidate, score, _ in rows if score >= 3
    }


def test_a_document_in_many_rows_counts_once_and_negatives_stay_in_the_corpus(
    tmp_path: Path,
) -> None:
    rows = [*ROWS, ROWS[0], ("never relevant", "to anything", 0.0, "x")]
    retrieval = task_class(task(tmp_path, RETRIEVAL, rows))()
    retrieval.load_data()
    data = retrieval.dataset["default"]["test"]

    assert data["corpus"]["text"] == [ROWS[0][0], ROWS[3][0], "never relevant"]
    assert data["queries"]["text"] == [ROWS[0][1], ROWS[1][1], ROWS[3][1]]
    assert len(set(data["corpus"]["id"])) == 3
    assert len(set(data["queries"]["id"])) == 3


def test_positive_from_zero_counts_a_score_of_zero(tmp_path: Path) -> None:
    text = RETRIEVAL.replace("positive_from: 3", "positive_from: 0\nscore_range: [-1, 1]")
    rows = [("d1", "q1", 0.0, ""), ("d2", "q2", -0.5, ""), ("d3", "q3", 1.0, "")]

    assert relevant_pairs(task_class(task(tmp_path, text, rows))()) == {("q1", "d1"), ("q3", "d3")}


@pytest.mark.parametrize("right", [True, False])
def test_a_perfect_encoder_gets_ndcg_1_and_one_that_is_always_wrong_0(
    tmp_path: Path, hand_made: Any, right: bool
) -> None:
    rows = [(f"document {i}", f"query {i}", 5.0, "") for i in range(30)] + [("other", "nothing", 0.0, "")]
    place = {reference: i for i, (reference, *_) in enumerate(rows)}
    place |= {candidate: i for i, (_, candidate, *_) in enumerate(rows)}

    def vector(text: str) -> np.ndarray:
        one_hot = np.eye(31)[place[text]]
        return one_hot if right or text.startswith("document") or text == "other" else 0.5 - one_hot

    (scores,) = evaluate(hand_made(vector), task(tmp_path, RETRIEVAL, rows)).scores["test"]
    assert scores["ndcg_at_10"] == pytest.approx(1.0 if right else 0.0)
    assert scores["main_score"] == scores["ndcg_at_10"]


def test_a_half_right_encoder_gets_the_ndcg_of_the_textbook(tmp_path: Path, hand_made: Any) -> None:
    """Each relevant document comes second: 1 / log2(3)."""
    rows = [("d0", "q0", 5.0, ""), ("d1", "q1", 5.0, ""), ("d2", "q2", 5.0, ""), ("d3", "q", 0.0, "")]
    vectors = {f"d{i}": np.eye(4)[i] for i in range(4)}
    vectors |= {f"q{i}": np.eye(4)[i] + 2 * np.eye(4)[(i + 1) % 4] for i in range(3)}

    (scores,) = evaluate(hand_made(vectors.__getitem__), task(tmp_path, RETRIEVAL, rows)).scores["test"]
    assert scores["ndcg_at_10"] == pytest.approx(1 / math.log2(3), abs=1e-5)


GRADED = [
    ("man parks van", "A man parks a red van in front of the bakery and locks the door.", 5.0),
    ("man parks van", "The van is parked by a man.", 1.0),
    ("man parks van", "A woman parks her bicycle.", 0.0),
    ("girls and dog on bridge", "Two girls cross the bridge.", 1.0),
    ("girls and dog on bridge", "The dog stays behind while two girls walk on.", 5.0),
]


@pytest.mark.parametrize("scale", [1.0, 0.7], ids=["whole", "with decimals"])
def test_retrieval_keeps_graded_relevance(tmp_path: Path, hand_made: Any, scale: float) -> None:
    """nDCG by its definition: gain over log2(rank + 1), each gain the score of the pair."""
    text = RETRIEVAL.replace("positive_from: 3", "positive_from: 0.5")
    file = task(tmp_path, text, [(document, query, scale * score, "") for query, document, score in GRADED])
    vector = bag_vector()

    def ndcg(query: str) -> float:
        gains = {document: score for other, document, score in GRADED if other == query}
        documents = dict.fromkeys(document for _, document, _ in GRADED)
        ranked = sorted(documents, key=lambda document: -cosine(query, document))
        ideal = sorted(gains.values(), reverse=True)
        dcg, best = (
            sum(gain / math.log2(rank + 2) for rank, gain in enumerate(order))
            for order in ([gains.get(document, 0.0) for document in ranked], ideal)
        )
        return dcg / best

    (scores,) = evaluate(hand_made(vector), file).scores["test"]

    expected = [ndcg(query) for query in dict.fromkeys(query for query, _, _ in GRADED)]
    assert scores["ndcg_at_10"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert np.mean(expected) < 0.95, "else grades would make no difference"


def test_the_best_grade_of_a_repeated_pair_counts(tmp_path: Path) -> None:
    rows = [("d1", "q1", 3.0, ""), ("d1", "q1", 5.0, ""), ("d1", "q1", 1.0, ""), ("d2", "q1", 4.0, "")]
    retrieval = task_class(task(tmp_path, RETRIEVAL, rows))()
    retrieval.load_data()

    assert retrieval.dataset["default"]["test"]["relevant_docs"] == {"query-0": {"document-0": 5, "document-1": 4}}


def test_results_from_before_graded_relevance_are_not_reused(tmp_path: Path) -> None:
    file = task(tmp_path, RETRIEVAL)
    before = digest([("Retrieval", 3.0, None), file.pairs.digest])

    assert file.revision != f"sha256-{before}"
    pairs = task(tmp_path, PAIRS)
    assert pairs.revision == f"sha256-{digest([('PairClassification', 3.0, None), pairs.pairs.digest])}"


def test_pair_classification_labels_are_one_from_positive_from_on(tmp_path: Path) -> None:
    rows = [*ROWS, ("a", "b", 3.0, "limit"), ("a", "c", 2.99, "below")]
    pairs = task_class(task(tmp_path, PAIRS, rows))()
    pairs.load_data()

    assert pairs.dataset["test"]["labels"] == [1, 1, 0, 1, 0, 0, 1, 0]
    assert pairs.dataset["test"]["sentence2"] == [row[1] for row in rows]


def test_pair_classification_gives_sklearns_average_precision_through_mteb(tmp_path: Path, hand_made: Any) -> None:
    from sklearn.metrics import average_precision_score

    rows = [*ROWS, ("the sea", "two words entirely", 4.0, "hard"), ("the sea", "the sea", 1.0, "hard")]
    result = evaluate(hand_made(bag_vector()), task(tmp_path, PAIRS, rows))
    labels = [row[2] >= 3 for row in rows]
    cosines = [cosine(row[0], row[1]) for row in rows]

    (scores,) = result.scores["test"]
    assert scores["similarity_ap"] == pytest.approx(average_precision_score(labels, cosines), abs=1e-5)
    assert 0.4 < scores["similarity_ap"] < 0.99


# -------------------------------------------------------------------------------------------------------- CLIP-CC


def clip_cc(folder: Path, predictions: dict[str, dict[str, Any]]) -> TaskFile:
    (folder / "predictions").mkdir(parents=True)
    references = [{"id": f"00{i}", "file_link": "https://example.org", "summary": f"Reference {i}."} for i in range(4)]
    (folder / "ground_truth.json").write_text(json.dumps(references))
    for slug, texts in predictions.items():
        (folder / "predictions" / f"{slug}.json").write_text(json.dumps(texts))
    bundled = bundled_tasks()["ClipCCRetrieval"]
    return TaskFile(bundled.spec, bundled.path, data=folder)


def test_the_clip_cc_layout_gives_a_pair_for_each_prediction_that_is_there(tmp_path: Path) -> None:
    file = clip_cc(
        tmp_path / "clip_cc",
        {
            "zeta": {"003": "Zeta on 3.", "000": "Zeta on 0.", "001": "", "999": "No such clip."},
            "alpha": {"000": "Alpha on 0.", "001": "  \n", "002": None, "003": "Alpha on 3."},
        },
    )

    pairs = file.pairs
    assert list(zip(pairs.second, pairs.first, strict=True)) == [
        ("Reference 0.", "Alpha on 0."),
        ("Reference 3.", "Alpha on 3."),
        ("Reference 0.", "Zeta on 0."),
        ("Reference 3.", "Zeta on 3."),
    ]
    assert (pairs.scores, pairs.labels) == ([], [])


def test_each_clip_cc_prediction_is_relevant_to_the_reference_of_its_clip(tmp_path: Path) -> None:
    file = clip_cc(
        tmp_path / "clip_cc",
        {"a": {"000": "A0", "001": "A1"}, "b": {"001": "B1", "002": "B2", "003": "B3"}},
    )

    assert relevant_pairs(task_class(file)()) == {
        ("A0", "Reference 0."),
        ("A1", "Reference 1."),
        ("B1", "Reference 1."),
        ("B2", "Reference 2."),
        ("B3", "Reference 3."),
    }


@pytest.mark.fault(31, "in data: a bad row; the error names it")
def test_a_bad_clip_cc_prediction_is_named_by_model_and_clip_and_can_be_left_out(tmp_path: Path) -> None:
    file = clip_cc(tmp_path / "c", {"a": {"000": "A0", "001": "half \ud800", "002": "A2"}, "b": {"001": "B1"}})

    with pytest.raises(ConfigError) as caught:
        _ = file.pairs
    assert str(caught.value).startswith("task ClipCCRetrieval: 1 bad row (0 allowed):\n")
    assert "a: 001: column 'prediction': contains a lone surrogate (U+D800 at position 5)" in str(caught.value)
    lenient = TaskFile(file.spec, file.path, data=file.data, max_bad_rows=1)
    assert lenient.pairs.first == ["A0", "A2", "B1"]
    assert len(lenient.pairs.bad) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('["not", "an", "object"]', "entry 0: must be a JSON object"),
        ('{"000": 7}', "000: its text must be a string, or a list of strings (got 7)"),
        ('{"000": "A", "000": "B"}', "duplicate key"),
        ('{"555": "A"}', "no id is that of a reference"),
        ('{"000": "A"', "not valid JSON"),
    ],
)
def test_a_clip_cc_file_of_another_form_is_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    file = clip_cc(tmp_path / "c", {"good": {"000": "A", "001": "B"}})
    path = tmp_path / "c" / "predictions" / "odd.json"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        _ = file.pairs
    assert str(caught.value).startswith(str(path))
    assert reason in str(caught.value)


def test_a_clip_cc_folder_without_references_is_named(tmp_path: Path) -> None:
    file = clip_cc(tmp_path / "c", {"a": {"000": "A"}})
    (tmp_path / "c" / "ground_truth.json").unlink()

    with pytest.raises(ConfigError) as caught:
        _ = file.pairs
    assert str(caught.value) == f"{tmp_path}/c/ground_truth.json: no such file"


@needs_shared
def test_the_real_clip_cc_folder_gives_every_pair_that_was_scored() -> None:
    bundled = bundled_tasks()["ClipCCRetrieval"]
    pairs = TaskFile(bundled.spec, bundled.path, data=SHARED / "clip_cc").pairs
    references = {row["id"]: row["summary"] for row in json.loads((SHARED / "clip_cc/ground_truth.json").read_text())}
    expected = {
        (file.stem, clip, text)
        for file in (SHARED / "clip_cc/predictions").glob("*.json")
        for clip, text in json.loads(file.read_text()).items()
    }

    assert len({slug for slug, _, _ in expected}) == 9
    assert len(pairs.first) == 1791 == len(expected)
    assert Counter(zip(pairs.first, pairs.second, strict=True)) == Counter(
        (text, references[clip]) for _, clip, text in expected
    )
    assert set(references.values()) - set(pairs.second) == {references["126"]}


@needs_shared
def test_the_real_clip_cc_pairs_are_those_of_the_published_scores() -> None:
    with (SHARED / "clip_cc/pair_scores.csv").open(encoding="utf-8", newline="") as file:
        published = list(csv.DictReader(file))
    bundled = bundled_tasks()["ClipCCRetrieval"]

    pairs = TaskFile(bundled.spec, bundled.path, data=SHARED / "clip_cc").pairs
    assert len(published) == len(pairs.first)
