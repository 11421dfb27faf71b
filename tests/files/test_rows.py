"""Rows of files are the same in every format, and every bad row is reported."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.row_checker import RowChecker
from stella_mteb.files.rows import BadRow, digest, read_hub, read_rows
from stella_mteb.files.texts import is_blank
from stella_mteb.harness.task_yaml import Pairs, TaskFile, TaskSpec

FORMATS = ["jsonl", "csv", "tsv", "parquet"]
COLUMNS = ("reference", "candidate", "rating", "fault")
ROWS = [
    ("A man, in a hat, reads.", 'He says "no", twice.', 4.5, "none"),
    ("Two lines:\nand the second.", "A tab\there.", 0.0, "line breaks"),
    ("Ein Hund läuft über die Straße.", "映像の要約 🎬", 2.25, "other words"),
    ("  spaces stay  ", "A\r\nWindows line.", 5.0, "0123"),
]


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write(path: Path, rows: list[tuple[str, str, float, str]]) -> Path:
    if path.suffix == ".parquet":
        parquet(path, [dict(zip(COLUMNS, row, strict=True)) for row in rows])
    elif path.suffix == ".jsonl":
        lines = (json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) for row in rows)
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([COLUMNS, *rows])
    return path


def pairs_of(path: Path, max_bad_rows: int = 0, **keys: Any) -> Pairs:
    spec = TaskSpec(
        name="Mine",
        type="STS",
        data=path.name,
        columns={"sentence1": "reference", "sentence2": "candidate", "score": "rating", "label": "fault"},
        max_bad_rows=max_bad_rows,
        **keys,
    )
    return TaskFile(spec, path.parent / "task.yaml").pairs


def error_of(path: Path, max_bad_rows: int = 0) -> str:
    with pytest.raises(ConfigError) as caught:
        pairs_of(path, max_bad_rows)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------ formats


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_pairs(tmp_path: Path, suffix: str) -> None:
    pairs = pairs_of(write(tmp_path / f"pairs.{suffix}", ROWS))

    assert list(zip(pairs.first, pairs.second, pairs.scores, pairs.labels, strict=True)) == ROWS
    assert pairs.bad == []
    assert pairs.digest == pairs_of(write(tmp_path / "other.jsonl", ROWS)).digest


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda text: not is_blank(text)
)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.tuples(_TEXT, _TEXT), min_size=2, max_size=4), suffix=st.sampled_from(FORMATS))
def test_any_text_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]], suffix: str
) -> None:
    rows = [(a, b, float(i % 2), "x") for i, (a, b) in enumerate(texts)]
    pairs = pairs_of(write(tmp_path_factory.getbasetemp() / f"property.{suffix}", rows))

    assert list(zip(pairs.first, pairs.second, strict=True)) == texts


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"], ids=ascii)
def test_only_a_newline_ends_a_row(tmp_path: Path, suffix: str, character: str) -> None:
    """Texts from the web contain U+2028 and U+0085, which str.splitlines treats as line ends."""
    rows = [(f"one{character}two", "x", 1.0, "a"), ("three", f"x{character}", 2.0, "a")]

    pairs = pairs_of(write(tmp_path / f"pairs.{suffix}", rows))
    assert pairs.first == [f"one{character}two", "three"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path, suffix: str) -> None:
    plain = write(tmp_path / f"plain.{suffix}", ROWS[::2])
    windows = tmp_path / f"windows.{suffix}"
    text = plain.read_bytes().decode().replace("\r\n", "\n").replace("\n", "\r\n")
    windows.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")

    assert pairs_of(windows) == pairs_of(plain)


def test_blank_lines_are_not_rows_but_count_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('\n{"a": 1}\n   \n\n{"a": 2}\n')

    assert [place for place, _ in read_rows(path)] == [f"{path}:2", f"{path}:5"]


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "pairs.xlsx"
    path.write_text("x")

    with pytest.raises(ConfigError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert ".jsonl, .json, .csv, .tsv, .parquet" in str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"nowhere.{suffix}"

    assert error_of(path) == f"{path}: no such file"


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv"])
def test_a_file_that_is_not_utf8_names_the_byte(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs.{suffix}"
    path.write_bytes(b"abc\xe9")

    assert error_of(path) == f"{path}: not UTF-8 (byte 3); save it as UTF-8"


def test_a_duplicate_column_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("reference,rating,rating\nx,1,2\n")

    assert error_of(path) == f"{path}:1: duplicate column name"


def test_a_duplicate_column_name_in_a_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pyarrow.parquet.write_table(pyarrow.table([["x"], [1.0], [2.0]], names=["reference", "rating", "rating"]), path)

    assert error_of(path) == f"{path}: duplicate column name"


def test_a_file_that_is_not_parquet_despite_its_suffix_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    path.write_text("reference,candidate\n")

    assert error_of(path).startswith(f"{path}: not a Parquet file")


def test_a_cut_off_parquet_file_is_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.parquet", ROWS).read_bytes()
    path = tmp_path / "pairs.parquet"
    for size in (0, 3, 4, 12, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])

        assert error_of(path).startswith(f"{path}: not a Parquet file")


# ------------------------------------------------------------------------------------------------------ bad rows

GOOD = {"reference": "A man reads.", "candidate": "He reads.", "rating": 1, "fault": "none"}
MORE = [GOOD, {**GOOD, "rating": 2}]


def jsonl(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


@pytest.mark.fault(33, "a bad row; the error names file, line and column")
@pytest.mark.fault(
    32, "a bad row; the error names file, line and column, and the task fails unless --max-bad-rows allows it"
)
@pytest.mark.fault(31, "in data: a bad row; the error names it")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {key: GOOD[key] for key in ("reference", "candidate", "fault")},
            "column 'rating': is missing; there are reference, candidate, fault",
        ),
        ({key: GOOD[key] for key in ("reference", "rating", "fault")}, "column 'candidate': is missing"),
        ({key: GOOD[key] for key in COLUMNS[:3]}, "column 'fault': is missing"),
        (GOOD | {"reference": 7}, "column 'reference': must be text (got 7, int)"),
        (GOOD | {"candidate": None}, "column 'candidate': must be text (got None, NoneType)"),
        (GOOD | {"candidate": ["a"]}, "column 'candidate': must be text (got ['a'], list)"),
        (GOOD | {"fault": ["x"]}, "column 'fault': must be text (got ['x'], list)"),
        (GOOD | {"fault": math.nan}, "column 'fault': must be text (got nan, float)"),
        (GOOD | {"reference": ""}, "column 'reference': is empty"),
        (GOOD | {"candidate": " \n\t"}, "column 'candidate': is empty"),
        (GOOD | {"candidate": "\u200b\ufeff\u2060"}, "column 'candidate': is empty"),
        (GOOD | {"rating": "four"}, "column 'rating': must be a number (got 'four')"),
        (GOOD | {"rating": None}, "column 'rating': must be a number (got None)"),
        (GOOD | {"rating": [4]}, "column 'rating': must be a number (got [4])"),
        (GOOD | {"rating": math.nan}, "column 'rating': must be a finite number (got nan)"),
        (GOOD | {"rating": math.inf}, "column 'rating': must be a finite number (got inf)"),
        (GOOD | {"rating": True}, "column 'rating': must be a number (got True, bool)"),
        (GOOD | {"rating": 5.01}, "column 'rating': must be from 0 to 5 (got 5.01)"),
        (GOOD | {"rating": -1}, "column 'rating': must be from 0 to 5 (got -1)"),
        (GOOD | {"rating": 10**400}, "column 'rating': must be"),
        (json.dumps(GOOD)[:-1], "not valid JSON: "),
        (json.dumps(GOOD).replace("1", "9" * 5000), "not valid JSON: "),
        ("[" * 100_000, "not valid JSON: nested too deeply"),
        ('["A man reads.", "He reads.", 1]', "must be a JSON object"),
        ('"words"', "must be a JSON object"),
        (
            json.dumps(GOOD | {"candidate": "half \ud800 of one"}),
            "column 'candidate': contains a lone surrogate (U+D800 at position 5)",
        ),
    ],
    ids=lambda value: value[:45] if isinstance(value, str) else None,
)
def test_a_bad_jsonl_row_stops_the_task_with_line_column_and_reason(
    tmp_path: Path, line: dict[str, Any] | str, message: str
) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", MORE[0], line, MORE[1])

    first, second, cure = error_of(path).split("\n")
    assert first == "task Mine: 1 bad row (0 allowed):"
    assert second.startswith(f"  {path}:2: {message}")
    assert "--max-bad-rows" in cure
    assert len(pairs_of(path, max_bad_rows=1).first) == 2


@pytest.mark.fault(35, "a bad row; the error names file, line and column")
@pytest.mark.fault(33, "a bad row; the error names file, line and column")
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("A man,He reads", "has 2 cells, but the header has 4"),
        ("A man,He reads,1,none,more", "has 5 cells, but the header has 4"),
        (",He reads,1,none", "column 'reference': is empty"),
        ("A man,   ,1,none", "column 'candidate': is empty"),
        ("A man,He reads,good,none", "column 'rating': must be a number (got 'good')"),
        ("A man,He reads,,none", "column 'rating': must be a number (got '')"),
        ("A man,He reads,nan,none", "column 'rating': must be a finite number (got 'nan')"),
        ("A man,He reads,-inf,none", "column 'rating': must be a finite number (got '-inf')"),
        ("A man,He reads,5.5,none", "column 'rating': must be from 0 to 5 (got 5.5)"),
    ],
)
def test_a_bad_csv_row_stops_the_task_with_line_column_and_reason(
    tmp_path: Path, suffix: str, row: str, message: str
) -> None:
    path = tmp_path / f"pairs.{suffix}"
    text = "reference,candidate,rating,fault\nx,y,1,none\n" + row + "\nx,y,2,none\n"
    path.write_text(text.replace(",", "\t" if suffix == "tsv" else ","))

    first, second, _ = error_of(path).split("\n")
    assert first == "task Mine: 1 bad row (0 allowed):"
    assert second == f"  {path}:3: {message}"
    assert pairs_of(path, max_bad_rows=1).scores == [1.0, 2.0]


@pytest.mark.fault(
    32, "a bad row; the error names file, line and column, and the task fails unless --max-bad-rows allows it"
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": None}, "column 'reference': must be text (got None, NoneType)"),
        ({"rating": None}, "column 'rating': must be a number (got None)"),
        ({"rating": math.nan}, "column 'rating': must be a finite number (got nan)"),
        ({"rating": 9.0}, "column 'rating': must be from 0 to 5 (got 9)"),
    ],
)
def test_a_bad_parquet_row_is_named_by_its_number(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "pairs.parquet"
    rows = [{**row, "rating": float(row["rating"])} for row in MORE]
    parquet(path, [rows[0], rows[1], rows[0] | change])

    assert f"\n  {path}: row 3: {message}\n" in error_of(path)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_rating_in_quotes_and_a_label_that_is_a_number_are_read(tmp_path: Path, suffix: str) -> None:
    """pandas writes a column of numbers with a gap as text, and labels are often 0 and 1."""
    rows = [{**row, "rating": str(row["rating"]), "fault": label} for row, label in zip(MORE, (0, 1), strict=True)]
    path = tmp_path / f"pairs.{suffix}"
    parquet(path, rows) if suffix == "parquet" else jsonl(path, *rows)

    pairs = pairs_of(path)

    assert (pairs.scores, pairs.labels) == ([1.0, 2.0], ["0", "1"])


@pytest.mark.parametrize("number", ["1_0", "٣", "0x3", "1,5"])
def test_a_csv_rating_in_another_notation_is_not_guessed_at(tmp_path: Path, number: str) -> None:
    """float() accepts 1_0 and non-ASCII digits."""
    path = tmp_path / "pairs.tsv"
    path.write_text(
        f"reference\tcandidate\trating\tfault\nx\ty\t1\tn\nx\ty\t2\tn\nx\ty\t{number}\tn\n", encoding="utf-8"
    )

    assert f"\n  {path}:4: column 'rating': must be a number (got '{number}')\n" in error_of(path)


def test_a_row_after_quoted_newlines_has_the_line_an_editor_shows(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        'reference,candidate,rating,fault\n"three\nlines\nhere",x,1,n\n\n"two\r\nlines",x,2,n\nx,y,7,n\n',
        newline="",
    )

    assert f"\n  {path}:8: column 'rating'" in error_of(path)


def test_a_bad_row_with_quoted_newlines_is_named_by_the_line_it_starts_on(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('reference,candidate,rating,fault\nx,y,1,n\n"three\nlines\nhere",x,9,n\nx,y,2,n\n')

    assert f"\n  {path}:3: column 'rating'" in error_of(path)


def test_a_quote_that_is_never_closed_is_named_by_the_line_it_opens_on(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('reference,candidate,rating,fault\nx,y,1,n\n"open,y,2,n\n' + "x,y,1,n\n" * 50)

    assert error_of(path).startswith(f"{path}:3: not valid CSV")


def test_max_bad_rows_lets_exactly_that_many_through(tmp_path: Path) -> None:
    bad = [GOOD | {"rating": 9}, "broken", GOOD | {"candidate": ""}]
    path = jsonl(tmp_path / "pairs.jsonl", MORE[0], *bad, MORE[1])

    pairs = pairs_of(path, max_bad_rows=3)
    assert pairs.scores == [1.0, 2.0]
    assert [row.place for row in pairs.bad] == [f"{path}:{line}" for line in (2, 3, 4)]
    assert error_of(path, max_bad_rows=2).startswith("task Mine: 3 bad rows (2 allowed):\n")


def test_a_row_with_two_faults_counts_once_and_both_are_told(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", *MORE, GOOD | {"rating": 9, "candidate": ""})

    message = error_of(path)
    assert message.startswith("task Mine: 1 bad row (0 allowed):\n")
    assert f"  {path}:3: column 'candidate': is empty\n" in message
    assert f"  {path}:3: column 'rating': must be from 0 to 5 (got 9)\n" in message
    assert len(pairs_of(path, max_bad_rows=1).first) == 2


def test_the_limit_of_the_command_line_beats_the_one_of_the_yaml(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", *MORE, "broken")
    spec = TaskSpec(
        name="Mine",
        type="STS",
        data=path.name,
        columns={"sentence1": "reference", "sentence2": "candidate", "score": "rating"},
        max_bad_rows=1,
    )

    assert len(TaskFile(spec, tmp_path / "t.yaml").pairs.bad) == 1
    with pytest.raises(ConfigError, match=r"1 bad row \(0 allowed\)"):
        _ = TaskFile(spec, tmp_path / "t.yaml", max_bad_rows=0).pairs


def test_many_bad_rows_are_counted_and_the_first_ten_shown(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", *MORE, *["broken"] * 25)

    message = error_of(path)
    assert message.startswith("task Mine: 25 bad rows (0 allowed):\n")
    assert message.count(f"  {path}:") == 10
    assert "\n  ... and 15 more\n" in message


# ---------------------------------------------------------------------------------------------------------- fuzz

_PIECES = [
    *('{"a": ', '"b"', ": ", ", ", "}", "[", "]", "NaN", "1e999", "9" * 4400, '"\\ud800"', "null", "true", "\\"),
    *("a,b,c", ",", "\t", '"', '""', "\n", "\r", "\r\n", "\x00", "\x0b", "\x85", "\u2028", "\ufeff", "x" * 70_000),
]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=80),
        st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(st.sampled_from(_PIECES), max_size=16).map(lambda pieces: "".join(pieces).encode()),
    ),
    suffix=st.sampled_from(["jsonl", "csv", "tsv"]),
)
def test_any_file_gives_rows_bad_rows_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz.{suffix}"
    path.write_bytes(content)

    try:
        rows = list(read_rows(path))
    except ConfigError as error:
        assert str(error).startswith(str(path))
        return
    for row in rows:
        place = row.place if isinstance(row, BadRow) else row[0]
        assert 1 <= int(place.removeprefix(f"{path}:")) <= content.count(b"\n") + content.count(b"\r") + 1
        assert isinstance(row, BadRow) or isinstance(row[1], dict)


@pytest.mark.parametrize("value", [0, 255])
def test_a_parquet_file_with_one_damaged_byte_gives_rows_or_a_config_error(tmp_path: Path, value: int) -> None:
    path = tmp_path / "damaged.parquet"
    parquet(path, [{"a": "x"}, {"a": "y"}])
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])

        try:
            rows = list(read_rows(path))
        except ConfigError as error:
            assert str(error).startswith(f"{path}: not a Parquet file")
        else:
            assert all(isinstance(row, BadRow) or isinstance(row[1], dict) for row in rows)


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=8), st.binary(max_size=4),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2),
)  # fmt: skip


@pytest.mark.fault(
    32, "a bad row; the error names file, line and column, and the task fails unless --max-bad-rows allows it"
)
@settings(max_examples=50, deadline=None)
@given(value=_VALUES)
def test_any_value_is_used_or_noted(value: Any) -> None:
    checker = RowChecker()
    number = checker.number("f:1", {"x": value}, "x", 0.0, 5.0)
    text = checker.text("f:1", {"x": value}, "x")
    label = checker.label("f:1", {"x": value}, "x")

    assert len(checker.bad) == (number is None) + (text is None) + (label is None)
    assert text in {None, label}
    if number is not None:
        assert isinstance(number, float)
        assert 0 <= number <= 5
        assert not isinstance(value, bool | bytes)
    if text is not None:
        assert text == value
        assert text.encode().decode().strip()


# ----------------------------------------------------------------------------------------------------------- hub


@pytest.mark.fault(35, "hub data is read only at the pinned commit")
def test_hub_data_is_read_at_the_pinned_commit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[Any, ...]] = []

    def load_dataset(path: str, name: str | None, *, split: str, revision: str) -> list[dict[str, Any]]:
        asked.append((path, name, split, revision))
        return [{"a": "x"}, {"a": "y"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = list(read_hub("org/set", "a" * 40, "en", "validation"))

    assert asked == [("org/set", "en", "validation", "a" * 40)]
    assert rows == [("org/set[validation] row 1", {"a": "x"}), ("org/set[validation] row 2", {"a": "y"})]


def test_unavailable_hub_data_is_named_with_cause_and_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets

    def load_dataset(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    with pytest.raises(EnvironmentProblem) as caught:
        list(read_hub("org/set", "a" * 40, None, "test"))
    for part in ("org/set", "test", "no route", "-t NAME=FILE"):
        assert part in str(caught.value)


# -------------------------------------------------------------------------------------------------------- digest


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5), st.sampled_from([0.0, 1.0, 2.5])), max_size=4),
    other=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5), st.sampled_from([0.0, 1.0, 2.5])), max_size=4),
)
def test_two_lists_of_rows_have_one_digest_only_if_they_are_the_same(
    rows: list[tuple[Any, ...]], other: list[tuple[Any, ...]]
) -> None:
    assert (digest(rows) == digest(other)) == (rows == other)
    assert digest(rows) == digest(list(rows))


def test_text_that_moves_from_one_column_to_the_next_changes_the_digest() -> None:
    assert len({digest([("ab", "c")]), digest([("a", "bc")]), digest([("a",), ("bc",)]), digest([])}) == 4
