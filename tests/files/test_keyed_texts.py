"""Texts by id in common layouts: an unambiguous layout is read, others are errors that show the entry."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from stella_mteb.errors import ConfigError
from stella_mteb.files.keyed_texts import BY_NAME, KeyedColumns, matching, read_entries, read_texts
from stella_mteb.files.rows import BadRow

TEXTS = {"7": "A dog barks.", "v_8": "Two girls cross the bridge."}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def all_texts(path: Path, columns: KeyedColumns = BY_NAME) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for entry in read_entries(path, columns):
        assert not isinstance(entry, BadRow), str(entry)
        texts.setdefault(entry.id, []).extend(entry.texts)
    return texts


def refused(path: Path, columns: KeyedColumns = BY_NAME) -> str:
    with pytest.raises(ConfigError) as caught:
        read_texts(path, columns)
    return str(caught.value).removeprefix(str(path))


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


A, B = TEXTS.values()
ONE_TEXT: dict[str, tuple[str, Any]] = {
    "object of texts": ("x.json", TEXTS),
    "object of lists of one": ("x.json", {"7": [A], "v_8": [B]}),
    "object of objects": ("x.json", {"7": {"caption": A, "score": 0.9}, "v_8": {"caption": B, "score": 0.8}}),
    "object of lists of objects": ("x.json", {"7": [{"caption": A}], "v_8": [{"caption": B}]}),
    "list, ids as whole numbers": ("x.json", [{"id": 7, "summary": A}, {"id": "v_8", "summary": B}]),
    "list of text": ("x.json", [{"id": "7", "text": A, "n": 1}, {"id": "v_8", "text": B, "n": 2}]),
    "list of prediction": ("x.json", [{"video_id": 7, "prediction": A}, {"video_id": "v_8", "prediction": B}]),
    "list by videoID": ("x.json", [{"videoID": 7, "Caption": A}, {"videoID": "v_8", "Caption": B}]),
    "JSON Lines in .json": ("x.json", lines({"id": 7, "caption": A}, {"id": "v_8", "caption": B})),
    "JSON Lines": ("x.jsonl", lines({"image_id": 7, "caption": A}, {"image_id": "v_8", "caption": B})),
    "COCO results": ("x.json", [{"image_id": 7, "caption": A}, {"image_id": "v_8", "caption": B}]),
    "COCO annotations": (
        "x.json",
        {
            "info": {"description": "own"},
            "images": [{"id": 7, "file_name": "7.jpg"}, {"id": "v_8", "file_name": "8.jpg"}],
            "annotations": [{"image_id": 7, "id": 1, "caption": A}, {"image_id": "v_8", "id": 2, "caption": B}],
        },
    ),
    "MSR-VTT": (
        "x.json",
        {
            "videos": [{"video_id": "7", "split": "test"}],
            "sentences": [
                {"caption": A, "video_id": "7", "sen_id": 0},
                {"caption": B, "video_id": "v_8", "sen_id": 1},
            ],
        },
    ),
    "file name and caption, Flickr8k": ("x.csv", f"image,caption\n7,{A}\nv_8,{B}\n"),
    "semicolons": ("x.csv", f"id;note;text\n7;x;{A}\nv_8;y;{B}\n"),
    "tabs": ("x.csv", f"id\tsentence\n7\t{A}\nv_8\t{B}\n"),
}


@pytest.mark.parametrize(("name", "content"), ONE_TEXT.values(), ids=ONE_TEXT)
def test_every_unambiguous_layout_is_read(tmp_path: Path, name: str, content: Any) -> None:
    assert read_texts(write(tmp_path, name, content)) == TEXTS


MOMENTS = [[0.0, 4.1], [3.9, 9.0]]
DENSE: dict[str, Any] = {
    "ActivityNet results": {
        "version": "VERSION 1.0",
        "results": {"v_8": [{"sentence": A, "timestamp": MOMENTS[0]}, {"sentence": f" {B}", "timestamp": MOMENTS[1]}]},
        "external_data": {"used": False},
    },
    "ActivityNet annotations": {"v_8": {"duration": 9.0, "timestamps": MOMENTS, "sentences": [A, f" {B}"]}},
}


@pytest.mark.parametrize("content", DENSE.values(), ids=DENSE)
def test_dense_captions_of_a_video_are_one_text_with_a_caption_per_line(tmp_path: Path, content: Any) -> None:
    assert read_texts(write(tmp_path, "x.json", content)) == {"v_8": f"{A}\n{B}"}


SEVERAL: dict[str, Any] = {
    "object of lists": {"7": [A, B]},
    "object of lists of captions": {"7": [{"caption": A}, {"caption": B}]},
    "COCO annotations": {
        "annotations": [{"image_id": 7, "id": 1, "caption": A}, {"image_id": 7, "id": 2, "caption": B}]
    },
    "captions of an image": [{"image": "7", "caption": A}, {"image": "7", "caption": B}],
    "list of references": [{"id": "7", "references": [A, B]}],
}


@pytest.mark.parametrize("content", SEVERAL.values(), ids=SEVERAL)
def test_several_texts_of_an_id_are_kept_and_refused_as_a_single_text(tmp_path: Path, content: Any) -> None:
    path = write(tmp_path, "x.json", content)

    assert all_texts(path) == {"7": [A, B]}
    assert f"2 texts ({A!r}, ...)" in refused(path)


def test_options_name_the_columns_that_their_names_do_not_tell(tmp_path: Path) -> None:
    path = write(tmp_path, "vatex.json", [{"videoID": "7", "enCap": [A], "chCap": ["一只狗在叫。"]}])

    message = refused(path)

    assert message.startswith(": entry 0: which column has the text? Name it with --text-column: videoID, enCap, chCap")
    assert '"enCap": ["A dog barks."]' in message
    assert read_texts(path, KeyedColumns(text="enCap")) == {"7": A}
    assert read_texts(path, KeyedColumns(text="chCap")) == {"7": "一只狗在叫。"}


@pytest.mark.parametrize(
    ("row", "option"),
    [
        ({"video": "7", "clip": 1, "text": A}, "id"),
        ({"id": "7", "caption": A, "prediction": B}, "text"),
        ({"caption": A, "score": 1, "n": 2}, "id"),
        ({"id": 7, "score": 0.3}, "text"),
        ({"001": "002", "A dog barks.": "A cat sleeps."}, "id"),
    ],
)
def test_an_ambiguous_entry_is_shown_with_the_option_that_decides(
    tmp_path: Path, row: dict[str, Any], option: str
) -> None:
    message = refused(write(tmp_path, "x.jsonl", lines(row)))

    assert message.startswith(f":1: which column has the {option}? Name it with --{option}-column: ")
    assert json.dumps(row) in message


def test_a_column_option_applies_only_to_files_that_have_the_column(tmp_path: Path) -> None:
    """References and predictions often have different column names."""
    columns = KeyedColumns(id="vid_name", text="gen")

    assert read_texts(write(tmp_path, "a.json", [{"vid_name": "7", "gen": A, "text": "no"}]), columns) == {"7": A}
    assert read_texts(write(tmp_path, "b.json", {"7": A}), columns) == {"7": A}


def test_a_file_without_header_is_read_by_position(tmp_path: Path) -> None:
    path = write(tmp_path, "x.tsv", f"7\ten\t{A}\nv_8\ten\t{B}\n")

    assert read_texts(path, KeyedColumns("1", "3")) == TEXTS


def test_the_documented_form_needs_no_options_whatever_else_an_entry_holds(tmp_path: Path) -> None:
    row = {"id": "7", "video_id": "x", "file_link": "https://example.org", "summary": A, "caption": "other"}

    assert read_texts(write(tmp_path, "x.json", [row])) == {"7": A}


def test_the_columns_of_a_file_are_those_of_its_first_entry(tmp_path: Path) -> None:
    """Without this, a note would be read as the text that an entry lacks."""
    path = write(tmp_path, "x.jsonl", lines({"id": 7, "caption": A}, {"id": 8, "text": "no caption"}))

    assert refused(path) == ":2: column 'caption': is missing; there are id, text"


@pytest.mark.parametrize("clip", [True, 7.5, None, "", ["7"]])
def test_an_id_is_text_or_a_whole_number(tmp_path: Path, clip: Any) -> None:
    message = refused(write(tmp_path, "x.json", [{"id": clip, "summary": A}]))

    assert message == f": entry 0: column 'id': must be text or a whole number (got {clip!r})"


def test_the_number_7_and_the_text_7_are_one_id(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "x.json", [{"id": 7, "summary": A}, {"id": "7", "summary": B}]))

    assert message == ": entry 1: duplicate id '7'"


# ------------------------------------------------------------------------------------------------- Unicode forms


def test_ids_that_differ_in_unicode_form_only_are_one(tmp_path: Path) -> None:
    """A file system or an archive writes é as two characters, a list of ids as one."""
    composed, decomposed = (unicodedata.normalize(form, "clip_é") for form in ("NFC", "NFD"))
    references = read_texts(write(tmp_path, "r.json", {composed: A}))
    given = read_texts(write(tmp_path, "p.json", {decomposed: B}))

    assert composed != decomposed
    assert matching(tmp_path, given, references) == {composed: B}


def test_ids_that_only_look_alike_are_shown_with_their_code_points(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        matching(tmp_path / "p.json", {"сlip": A}, {"clip": B})  # noqa: RUF001 -- a Cyrillic letter
    assert r"ids here: 'сlip' = '\u0441lip', ...; of the references: 'clip', ..." in str(caught.value)  # noqa: RUF001


@pytest.mark.parametrize("text", ["\u200b", "\ufeff", " \u200d\u2060\n", "\u00ad", "\u3000", None, [], [None]])
def test_a_text_without_visible_characters_is_empty(tmp_path: Path, text: Any) -> None:
    given = read_texts(write(tmp_path, "p.json", {"7": text}))

    with pytest.raises(ConfigError, match="every prediction is empty"):
        matching(tmp_path, given, {"7": A})
