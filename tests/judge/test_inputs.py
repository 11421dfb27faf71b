"""References and predictions in every layout; errors name the unusable entry."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from stella_mteb.engine.encoder import TextEncoder
from stella_mteb.errors import ConfigError
from stella_mteb.judge.inputs import Candidate, read_candidates, read_references
from stella_mteb.judge.judge import judge_all
from stella_mteb.judge.sentences import split_sentences
from tests.conftest import SHARED, needs_shared
from tests.support.judging import (
    GIVEN,
    PREDICTIONS,
    REFERENCES,
    published_pairs,
)
from tests.support.spies import twin

Rows = dict[str, str | None]


def as_json_list(path: Path, texts: Rows) -> Path:
    path = path.with_name(path.name + ".json")
    content = [{"id": clip, "file_link": "https://example.org/x", "summary": text} for clip, text in texts.items()]
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def as_json_object(path: Path, texts: Rows) -> Path:
    path = path.with_name(path.name + ".json")
    path.write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8-sig")
    return path


def as_jsonl(path: Path, texts: Rows) -> Path:
    path = path.with_name(path.name + ".jsonl")
    lines = [json.dumps({"summary": text, "id": clip}, ensure_ascii=False) for clip, text in texts.items()]
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


def as_csv(path: Path, texts: Rows) -> Path:
    path = path.with_name(path.name + ".csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["genre", "id", "summary"])
        writer.writerows(["drama", clip, text] for clip, text in texts.items())
    return path


FORMS = [as_json_list, as_json_object, as_jsonl, as_csv]
AWKWARD = {
    "007": 'He says "Go, now!", and leaves.\nShe stays — für immer 🧱.',
    "7": "  blanks, commas, ",
    "clip/β 1": "one",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_references_gives_the_same_texts(form: Callable[[Path, Rows], Path], tmp_path: Path) -> None:
    path = form(tmp_path / "references", AWKWARD)

    assert list(read_references(path).items()) == [(clip, (text,)) for clip, text in AWKWARD.items()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.json", '{"1": ["one", "two", "two"], "2": ["three"]}'),
        ("r.json", '{"1": ["one", "two", "two"], "2": "three"}'),
        ("r.json", '[{"id": "1", "summary": ["one", "two", "two"]}, {"id": "2", "summary": "three"}]'),
        ("r.jsonl", '{"id": "1", "summary": ["one", "two", "two"]}\n{"id": "2", "summary": ["three"]}\n'),
    ],
)
def test_a_list_in_place_of_a_text_is_several_references(name: str, content: str, tmp_path: Path) -> None:
    assert read_references(write(tmp_path / name, content)) == {"1": ("one", "two", "two"), "2": ("three",)}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_predictions_gives_the_same_candidate(form: Callable[[Path, Rows], Path], tmp_path: Path) -> None:
    given = {"clip/β 1": AWKWARD["clip/β 1"], "other": "no reference has this", "007": AWKWARD["007"], "7": " \n "}
    references = {**AWKWARD, "gone": "a reference without a prediction"}

    (found,) = read_candidates([form(tmp_path / "longva", given)], references)

    assert found == Candidate(
        slug="longva",
        texts={"007": AWKWARD["007"], "clip/β 1": "one"},
        missing=("gone",),
        empty=("7",),
        unknown=("other",),
    )
    assert list(found.texts) == ["007", "clip/β 1"], "in the order of the references"


def test_a_line_separator_inside_a_csv_text_is_part_of_the_text(tmp_path: Path) -> None:
    """U+2028 and its like come out of language models; csv.writer leaves them unquoted."""
    texts = {"001": "one\u2028two", "002": "three\x0bfour", "003": "five\x85six"}

    assert read_references(as_csv(tmp_path / "references", texts)) == {clip: (text,) for clip, text in texts.items()}


def test_null_and_blank_predictions_are_empty_not_text(tmp_path: Path) -> None:
    given = {"001": None, "002": "", "003": "\t\n", "004": "a text"}

    (found,) = read_candidates([as_json_object(tmp_path / "m", given)], REFERENCES)

    assert found.empty == ("001", "002", "003")
    assert found.texts == {"004": "a text"}


def test_gaps_are_listed_and_never_scored(minilm: TextEncoder, tmp_path: Path) -> None:
    given = {"001": PREDICTIONS["good"]["001"], "003": " ", "nowhere": "a text"}
    (found,) = read_candidates([as_json_object(tmp_path / "m", given)], REFERENCES)
    encoder = twin(minilm)

    (judgement,) = judge_all(encoder, "", GIVEN, [found])

    assert (found.missing, found.empty, found.unknown) == (("002", "004"), ("003",), ("nowhere",))
    assert list(judgement.scores) == ["001"]
    whole = [*REFERENCES.values(), given["001"]]
    assert encoder.stats.encoded == len({part for text in whole for part in [text, *split_sentences(text)]})


def test_a_folder_gives_one_candidate_for_each_file_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    folder.mkdir()
    as_csv(folder / "zeta", PREDICTIONS["bad"])
    as_json_object(folder / "alpha-1.5_b", PREDICTIONS["good"])
    as_jsonl(folder / "mid", PREDICTIONS["good"])
    (folder / "README.md").write_text("not predictions")
    (folder / "old").mkdir()

    found = read_candidates([folder], REFERENCES)

    assert [one.slug for one in found] == ["alpha-1.5_b", "mid", "zeta"]
    assert [one.texts for one in found] == [PREDICTIONS["good"], PREDICTIONS["good"], PREDICTIONS["bad"]]


def test_a_file_given_twice_is_one_candidate(tmp_path: Path) -> None:
    file = as_json_object(tmp_path / "m", PREDICTIONS["good"])

    assert len(read_candidates([file, tmp_path, file], REFERENCES)) == 1


def wrong_references(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_references(path)
    return str(caught.value)


def wrong_predictions(*paths: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_candidates(paths, REFERENCES)
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.fault(34, "a duplicate id is refused; the error names its line or entry")
@pytest.mark.parametrize(
    ("name", "content", "place", "said"),
    [
        ("r.json", '[{"id": "1", "summary": "a"}, {"id": "1", "summary": "b"}]', "entry 1", "duplicate id '1'"),
        ("r.json", '{"1": "a", "1": "b"}', "", "duplicate key '1'"),
        ("r.jsonl", '{"id": "1", "summary": "a"}\n{"id": "1", "summary": "b"}\n', ":2", "duplicate id '1'"),
        ("r.csv", "id,summary\n1,a\n2,b\n1,c\n", ":4", "duplicate id '1'"),
        ("r.json", '[{"id": "1", "summary": "a"}, {"id": 7.5, "summary": "b"}]', "entry 1", "'id'"),
        ("r.jsonl", '{"id": "1", "summary": "a"}\n\n{"id": null, "summary": "b"}\n', ":3", "'id'"),
        ("r.json", '[{"summary": "b"}]', "entry 0", "--id-column"),
        ("r.json", '[{"id": "1", "summary": " \\n"}]', "entry 0", "empty text of id '1'"),
        ("r.json", '{"1": "a", "2": ""}', ": 2", "empty text of id '2'"),
        ("r.csv", "id,summary\n1,a\n2,\n", ":3", "empty text of id '2'"),
        ("r.csv", "id,words\n1,a\n", ":2", "--text-column"),
        ("r.json", '[{"id": "1", "summary": []}]', "entry 0", "empty text of id '1'"),
        ("r.json", '[{"id": "1", "summary": ["a", " "]}]', "entry 0", "empty text of id '1'"),
        ("r.json", '{"1": ["a"], "2": ["b", 3]}', ": 2", "a string, or a list of strings"),
        ("r.json", '["a", "b"]', "entry 0", "must be a JSON object"),
        ("r.json", '"a"', "", "JSON list"),
        ("r.json", "[]", "", "no reference"),
        ("r.jsonl", "", "", "no reference"),
        ("r.json", '[{"id": "1",\n "summary": "a"\n', ":3", "not valid JSON"),
        ("r.jsonl", '{"id": "1", "summary": "a"}\n{"id": \n', ":2", "not valid JSON"),
        ("r.csv", "id,summary\n1,a,b\n", ":2", "3 cells"),
        ("r.txt", "1 a", "", "suffix"),
    ],
)
def test_unusable_references_are_refused_with_file_and_place(
    name: str, content: str, place: str, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, content)

    message = wrong_references(path)

    assert str(path) + place in message or f"{path}: {place}" in message
    assert said in message


def test_all_unusable_references_are_counted_and_the_first_ten_named(tmp_path: Path) -> None:
    path = as_json_list(tmp_path / "r", {f"{number:03}": "" if number % 2 else "text" for number in range(50)})

    message = wrong_references(path)

    assert "25 unusable references" in message
    assert message.count("entry") == 10


def test_a_missing_references_file_is_named(tmp_path: Path) -> None:
    for name in ("gone.json", "gone.jsonl", "gone.csv"):
        assert f"{tmp_path / name}: no such file" in wrong_references(tmp_path / name)


@pytest.mark.fault(34, "a duplicate id is refused; the error names its line or entry")
@pytest.mark.parametrize(
    ("name", "content", "place", "said"),
    [
        ("m.json", '{"001": "a", "001": "b"}', "", "duplicate key '001'"),
        ("m.json", '[{"id": "001", "summary": "a"}, {"id": "001", "summary": "b"}]', "entry 1", "duplicate id"),
        ("m.csv", "id,summary\n001,a\n001,b\n", ":3", "duplicate id '001'"),
        ("m.json", '[{"id": "001", "summary": "a"}, {"id": 2.5, "summary": "b"}]', "entry 1", "id"),
        ("m.jsonl", '{"id": "001", "summary": "a"}\n{"id": true, "summary": "b"}\n', ":2", "id"),
        ("m.json", '{"001": "a", "002": 3}', ": 002", "3"),
        ("m.json", '{"001": ["a", "b"]}', ": 001", "text"),
        ("m.jsonl", '{"id": "001", "summary": {"words": "a"}}\n', ":1", "text"),
        ("m.json", '{"1": "a", "2": "b"}', "", "'001'"),
        ("m.json", "{}", "", "'001'"),
        ("m.json", '{"001": "a",\n\n "002" "b"}', ":3", "not valid JSON"),
        ("m.jsonl", "not json\n", ":1", "not valid JSON"),
        ("m.json", '"a"', "", "JSON list"),
        ("m.json", '{"001": NaN}', "", "NaN"),
    ],
)
def test_unusable_predictions_are_refused_with_file_and_place(
    name: str, content: str, place: str, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, content)

    message = wrong_predictions(path)

    assert str(path) + place in message or f"{path}: {place}" in message
    assert said in message


def test_a_numeric_id_is_shown_unchanged(tmp_path: Path) -> None:
    """7 for "007" is the usual slip; a message that says `None` hides it."""
    path = write(tmp_path / "m.json", '[{"id": 7, "summary": "a"}]')

    assert "7" in wrong_predictions(path).removeprefix(str(path))


@pytest.mark.fault(35, "the error names the missing column and the existing ones")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "id,words\n001,a\n002,b\n"),
        ("m.jsonl", '{"id": "001", "words": "a"}\n'),
        ("m.json", '[{"id": "001", "words": "a"}]'),
    ],
)
def test_predictions_under_an_unknown_column_name_are_an_error_that_names_the_columns(
    name: str, content: str, tmp_path: Path
) -> None:
    """Else every clip would count as predicted with an empty text."""
    message = wrong_predictions(write(tmp_path / name, content))

    assert "which column has the text? Name it with --text-column: id, words" in message


def test_two_files_of_one_name_are_refused_and_both_named(tmp_path: Path) -> None:
    one = as_json_object(tmp_path / "longva", PREDICTIONS["good"])
    two = as_csv(tmp_path / "longva", PREDICTIONS["good"])

    message = wrong_predictions(tmp_path)

    assert str(one) in message
    assert str(two) in message


@pytest.mark.fault(
    13, "two files of predictions whose names are equal on some file system are refused; the error names both"
)
def test_names_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    """On half of all machines their results would be one file."""
    for folder, name in (("x", "LongVA"), ("y", "longva")):
        (tmp_path / folder).mkdir()
        as_json_object(tmp_path / folder / name, PREDICTIONS["good"])

    message = wrong_predictions(tmp_path / "x", tmp_path / "y")

    assert str(tmp_path / "x" / "LongVA.json") in message
    assert str(tmp_path / "y" / "longva.json") in message


def test_an_empty_folder_of_predictions_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    folder.mkdir()

    message = wrong_predictions(folder)

    assert "no predictions" in message
    assert str(folder) in message


def test_a_missing_predictions_path_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'gone'}: no such file or folder" in wrong_predictions(tmp_path / "gone")


@needs_shared
def test_the_clip_cc_data_are_read_whole_with_their_known_gap() -> None:
    references = read_references(SHARED / "clip_cc/ground_truth.json")
    found = read_candidates([SHARED / "clip_cc/predictions"], references)

    scored: dict[str, set[str]] = defaultdict(set)
    for row in published_pairs():
        scored[row["vlm"]].add(row["video_id"])
    assert len(references) == 200
    assert {one.slug: set(one.texts) for one in found} == dict(scored)
    assert all("126" in (*one.missing, *one.empty) and not one.unknown for one in found)


def test_the_demos_candidates_have_the_bundled_pairs_of_one_fault_each(tmp_path: Path) -> None:
    from stella_mteb.cli.demo import CANDIDATES, write_judge_inputs
    from stella_mteb.harness.task_yaml import bundled_tasks

    folder = bundled_tasks()["VideoSummarySTS"].path.parent
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()]

    references_file, predictions_folder = write_judge_inputs(tmp_path)
    references = read_references(references_file)
    found = {one.slug: one for one in read_candidates([predictions_folder], references)}

    texts = {(row["clip_id"], row["fault"]): (row["reference"], row["candidate"]) for row in pairs}
    clips = {clip for clip, _ in texts if all((clip, fault) in texts for fault in CANDIDATES.values())}
    assert clips
    assert references == {clip: (texts[clip, "paraphrase"][0],) for clip in clips}
    assert {slug: one.texts for slug, one in found.items()} == {
        slug: {clip: texts[clip, fault][1] for clip in clips} for slug, fault in CANDIDATES.items()
    }
    for one in found.values():
        assert (one.missing, one.empty, one.unknown) == ((), (), ())
