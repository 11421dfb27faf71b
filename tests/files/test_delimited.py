"""Delimited files in the wild: with any quoting, delimiter and header, no row is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.errors import ConfigError
from stella_mteb.files.rows import BadRow, read_rows
from stella_mteb.harness.task_yaml import Pairs, TaskFile, TaskSpec
from tests.conftest import SHARED, needs_shared

NAMES = {"sentence1": "sentence1", "sentence2": "sentence2", "score": "score"}
OFFICIAL = {"score": 5, "sentence1": 6, "sentence2": 7}
"""STSBenchmark as it was published: tabs, no header, no quoting, and in some rows a licence at the end."""


def pairs_of(path: Path, columns: dict[str, Any] = NAMES, **keys: Any) -> Pairs:
    return TaskFile(
        TaskSpec(name="T", type="STS", data=path.name, columns=columns, **keys), path.parent / "t.yaml"
    ).pairs


def rows_of(path: Path, columns: tuple[str | int, ...] = ()) -> list[dict[Any, Any] | str]:
    return [str(row) if isinstance(row, BadRow) else row[1] for row in read_rows(path, columns)]


def refused(path: Path, columns: dict[str, Any] = NAMES) -> str:
    with pytest.raises(ConfigError) as caught:
        pairs_of(path, columns)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ quotes


def test_an_unclosed_quote_swallows_no_row(tmp_path: Path) -> None:
    """GLUE and STSBenchmark do not quote: a quotation that goes on in another row is two stray quotes."""
    path = tmp_path / "pairs.tsv"
    path.write_text(
        "sentence1\tsentence2\tscore\nA man opens a red door.\tSomeone opens a door.\t4.5\n"
        '"We will not sell the harbour.\tThe harbour is not for sale, he said.\t4.0\n'
        "Two girls cross the bridge.\tA chef chops onions.\t0.2\n"
        'The crew waited for an hour."\tThe crew kept waiting.\t3.5\nA dog barks.\tThe cat sleeps.\t1.0\n'
    )

    pairs = pairs_of(path)

    assert pairs.scores == [4.5, 4.0, 0.2, 3.5, 1.0]
    assert pairs.first[1] == '"We will not sell the harbour.'
    assert pairs.first[3] == 'The crew waited for an hour."'


@pytest.mark.parametrize(
    "first", ['"We will not sell," he said.', '"No.', 'He said "no', '"', '""" three', '"a" b "c"']
)
def test_a_stray_quote_in_one_tab_separated_row_is_a_character(tmp_path: Path, first: str) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(f"sentence1\tsentence2\tscore\nx\ty\t1\n{first}\tb\t2\nc\td\t3\n")

    assert pairs_of(path).first == ["x", first, "c"]


_CELL = st.text('ab "', min_size=1, max_size=5)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.tuples(_CELL, _CELL, _CELL), min_size=1, max_size=6))
def test_a_file_without_quoting_keeps_all_its_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "unquoted.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in [("x", "y", "z"), *rows]))

    read = rows_of(path)

    assert len(read) == len(rows)
    for cells, row in zip(read, rows, strict=True):
        assert isinstance(cells, dict)
        assert [cell.replace('"', "") for cell in cells.values()] == [cell.replace('"', "") for cell in row]


@pytest.mark.fault(33, "a quote that opens in one row and closes in another is refused; the error names both lines")
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_row_that_swallowed_others_is_refused_where_quotes_join_cells(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "pairs.csv"
    lines = ["id,summary", "1,A dog barks.", '2,"We wait, he said.', "3,A cat, too.", '4,The end."', "5,Rain."]
    path.write_text("\n".join(line.replace(",", delimiter, 1) for line in lines))

    with pytest.raises(ConfigError) as caught:
        list(read_rows(path))

    assert str(caught.value).startswith(f"{path}:3: a quote opens here and closes on line 5")


def test_a_text_of_several_lines_is_not_a_swallowed_row(tmp_path: Path) -> None:
    path = tmp_path / "poem.csv"
    path.write_text('id,summary\n1,"Roses are red,\nviolets, they say, are blue,\nsugar, is sweet."\n2,Prose.\n')

    assert rows_of(path) == [
        {"id": "1", "summary": "Roses are red,\nviolets, they say, are blue,\nsugar, is sweet."},
        {"id": "2", "summary": "Prose."},
    ]


# --------------------------------------------------------------------------------------------- delimiters and headers


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
def test_the_content_and_not_the_suffix_decides_the_delimiter(
    tmp_path: Path, suffix: str, delimiter: str, mark: str, end: str
) -> None:
    path = tmp_path / f"pairs.{suffix}"
    rows = [
        "sentence1|sentence2|score",
        '"A man, his dog; a cat."|Two pets.|3',
        'Rain.|"Snow, or ""sleet""; wind."|0.5',
    ]
    path.write_bytes((mark + end.join(rows).replace("|", delimiter)).encode())

    pairs = pairs_of(path)

    assert pairs.first == ["A man, his dog; a cat.", "Rain."]
    assert pairs.second == ["Two pets.", 'Snow, or "sleet"; wind.']
    assert pairs.scores == [3, 0.5]


def test_a_comma_inside_a_number_does_not_make_commas_the_delimiter(tmp_path: Path) -> None:
    """As spreadsheets of many countries write it: SheetJS/sheetjs #2239."""
    path = tmp_path / "x.csv"
    path.write_text("A;B;C\n1,1;2,2;3,3\n1,1;2,2;3,3\n")

    assert rows_of(path) == [{"A": "1,1", "B": "2,2", "C": "3,3"}] * 2


@pytest.fixture
def official(tmp_path: Path) -> Path:
    path = tmp_path / "sts-test.csv"
    path.write_text(
        "main-captions\tMSRvid\t2012test\t0024\t2.500\tA girl styles her hair.\tA girl brushes her hair.\n"
        "main-captions\timages\t2014\t0012\t0.400\tThree boats leave, at dawn.\tA cook burns the soup.\n"
        'main-news\theadlines\t2015\t0100\t4.000\t"The harbour is ours.\tThe harbour belongs to us.\n'
        'main-forums\tdeft-forum\t2014\t0007\t1.000\tNobody waves."\tSome wave.\tlicence\thttp://example.org\n'
    )
    return path


def test_the_official_form_of_stsbenchmark_is_read_by_position(official: Path) -> None:
    pairs = pairs_of(official, OFFICIAL)

    assert pairs.scores == [2.5, 0.4, 4.0, 1.0]
    assert pairs.first[1:] == ["Three boats leave, at dawn.", '"The harbour is ours.', 'Nobody waves."']
    assert pairs.second[3] == "Some wave."


def test_where_also_selects_by_position(official: Path) -> None:
    assert pairs_of(official, OFFICIAL, where={"1": "main-captions"}).scores == [2.5, 0.4]


def test_column_names_for_a_file_without_header_are_refused_with_its_first_line(official: Path) -> None:
    message = refused(official)

    assert message.startswith(f"{official}:1: no column 'sentence1'; its first line has 7 cells between tabs: ")
    assert "'main-captions', 'MSRvid', '2012test', '0024', '2.500', 'A girl styles her hair.'" in message
    assert "positions from 1 to 7" in message


def test_a_row_that_is_shorter_than_a_position_is_named(official: Path) -> None:
    official.write_text(official.read_text() + "main-news\tshort\n")

    assert f"{official}:5: has 2 cells, but column 7 is needed" in refused(official, OFFICIAL)


def test_json_rows_are_also_read_by_position(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('["a", "b", 1]\n["c", "d", 2]\n')

    pairs = pairs_of(path, {"sentence1": 1, "sentence2": 2, "score": 3})

    assert (pairs.first, pairs.scores) == (["a", "c"], [1, 2])


def test_names_and_positions_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="all names, or all positions"):
        TaskSpec(name="T", type="STS", data="x.csv", columns={"sentence1": 1, "sentence2": "b", "score": 3})


@needs_shared
def test_all_of_stsbenchmark_comes_back_from_its_official_form(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (SHARED / "sts/STSBenchmark.jsonl").read_text().splitlines()]
    path = tmp_path / "sts-test.csv"
    lines = (
        f"g\tf\t2012\t{i:04}\t{row['score']}\t{row['sentence1']}\t{row['sentence2']}" for i, row in enumerate(rows)
    )
    path.write_text("\n".join(lines))

    pairs = pairs_of(path, OFFICIAL)

    assert (pairs.first, pairs.second) == ([row["sentence1"] for row in rows], [row["sentence2"] for row in rows])
