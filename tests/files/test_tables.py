from __future__ import annotations

import csv
import io
import json
import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from stella_mteb.files.tables import TableFormat, plain, render

FORMS: list[TableFormat] = ["table", "md", "json", "csv"]
PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=40)
MARKS = "|<>&\\`[]()!*_~#:-=+@'\"/ {}ab1."
FORMULAS = ["=cmd()", "+1+2", "-1+2", "@SUM(A1)", "=HYPERLINK(1)"]
HOSTILE = [
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x1b]8;;http://x\x1b\\y",
    "a\rb",
    "a\bb",
    "\x9b31m",
    "\u202egpj",
]


@pytest.fixture(autouse=True)
def _no_forced_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)


def markdown_rows(text: str) -> list[list[str]]:
    """Return the cells of a Markdown table as text, by an independent parser."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            kinds = {child.type for child in token.children or []}
            assert kinds <= {"text", "text_special"}, f"{token.content!r} acts as {kinds}"
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


def width_of(line: str) -> int:
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in line)


# ------------------------------------------------------------------------------------------------ for programs


@settings(max_examples=50, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.text(max_size=20))
def test_json_restores_every_value_to_the_last_bit(number: float, whole: int, text: str) -> None:
    rows = [{"number": number, "whole": whole, "text": text, "nothing": None}]

    assert json.loads(render(rows, "json")) == rows


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), PRINTABLE), min_size=1, max_size=4))
def test_csv_restores_numbers_to_the_last_bit_and_texts_unchanged(pairs: list[tuple[float, str]]) -> None:
    rows = [{"number": number, "text": f"x{text}"} for number, text in pairs]

    header, *cells = list(csv.reader(io.StringIO(render(rows, "csv"))))

    assert header == ["number", "text"]
    assert [(float(number), text) for number, text in cells] == [(n, f"x{t}") for n, t in pairs]


@pytest.mark.fault(45, "in CSV: no formula")
@pytest.mark.parametrize("text", FORMULAS)
def test_a_spreadsheet_does_not_run_a_cell(text: str) -> None:
    (cell,) = list(csv.reader(io.StringIO(render([{"name": text}], "csv"))))[1]

    assert cell == f"'{text}"


def test_negative_numbers_are_not_escaped_as_formulas() -> None:
    assert render([{"a": -0.25, "b": -3}], "csv") == "a,b\n-0.25,-3"


def test_a_missing_value_is_null_in_json_and_nothing_in_csv() -> None:
    rows = [{"score": None, "name": "x"}]

    assert json.loads(render(rows, "json")) == rows
    assert render(rows, "csv") == "score,name\n,x"


# ---------------------------------------------------------------------------------------------------- Markdown


@pytest.mark.parametrize(
    "text",
    [
        "a | b",
        "<script>alert(1)</script>",
        "`rm`",
        "[x](http://y)",
        "![x](y)",
        "**b** _i_",
        "a\\|b",
        "&lt;b&gt;",
    ],
)
def test_a_markdown_cell_shows_the_text_that_was_given(text: str) -> None:
    rows = [{"name": text, "after": "end"}]

    assert markdown_rows(render(rows, "md")) == [["name", "after"], [text, "end"]]


def test_a_newline_does_not_end_a_markdown_row() -> None:
    assert markdown_rows(render([{"name": "one\ntwo", "after": "end"}], "md"))[1:] == [["one two", "end"]]


@pytest.mark.fault(45, "in tables of every format: plain text within its cell")
@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(MARKS, min_size=1, max_size=25).map(lambda text: f"x{text}x"), min_size=1, max_size=3))
def test_no_punctuation_acts_in_markdown(texts: list[str]) -> None:
    rows = [{"name": text, "after": "end"} for text in texts]

    assert markdown_rows(render(rows, "md"))[1:] == [[text, "end"] for text in texts]


# --------------------------------------------------------------------------------------------------- terminals


@pytest.mark.fault(46, "control characters become spaces")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", HOSTILE)
def test_escape_codes_do_not_reach_the_terminal(form: TableFormat, text: str) -> None:
    shown = render([{"name": text}], form, width=80)

    # JSON and Markdown, CSV and tables alike are printed.
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)


@pytest.mark.fault(46, "markup is printed literally")
@pytest.mark.parametrize("text", ["[red]x[/red]", "[link=http://y]x[/link]", "[/]", "[b]", ":smile:"])
def test_rich_markup_is_printed_literally(text: str) -> None:
    assert text in render([{"name": text}], "table", width=80)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
@example("\n")
@example("\x85")
@example("\u2028")
@example("\u2029")
def test_a_value_is_one_line(text: str) -> None:
    assert len(plain(f"x{text}x").splitlines()) == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("ab 中é[]|", max_size=150), st.text("a/", max_size=150), st.floats(-1e6, 1e6)),
        min_size=1,
        max_size=4,
    )
)
def test_no_line_is_wider_than_the_terminal(values: list[tuple[str, str, float]]) -> None:
    rows = [{"name": name, "path": path, "score": score, "pairs": 7} for name, path, score in values]

    lines = render(rows, "table", width=80).splitlines()

    assert max(map(width_of, lines)) <= 80


def test_a_long_name_is_folded_and_not_cut() -> None:
    name = "".join(f"{i:03d}" for i in range(100))

    shown = render([{"name": name, "score": 0.5}], "table", width=40)

    assert name in re.sub(r"\s|0\.5", "", shown.partition("\n")[2].replace("─", ""))


# ----------------------------------------------------------------------------------------------------- numbers


def test_a_missing_value_is_shown_as_a_dash() -> None:
    assert render([{"name": None, "score": None}], "md").splitlines()[-1] == "| - | - |"


def test_the_numbers_of_a_column_share_their_decimals() -> None:
    rows = [{"a": 0.5, "b": 1.0}, {"a": 0.25, "b": 2.0}, {"a": 1.0, "b": 3.0}]

    assert markdown_rows(render(rows, "md"))[1:] == [["0.50", "1"], ["0.25", "2"], ["1.00", "3"]]


def test_four_decimals_are_shown_at_most_and_the_rest_is_rounded() -> None:
    rows = [{"a": 0.123456, "n": 12}, {"a": -2.0, "n": 3}]

    assert markdown_rows(render(rows, "md"))[1:] == [["0.1235", "12"], ["-2.0000", "3"]]


def test_numbers_are_aligned_right_and_names_left() -> None:
    rows = [{"name": "a", "score": 1.5}, {"name": "longer", "score": 10.25}, {"name": "b", "score": None}]

    lines = render(rows, "table", width=80).splitlines()[2:]

    assert [line.split() for line in lines] == [["a", "1.50"], ["longer", "10.25"], ["b", "-"]]
    assert len({line.rindex(cell[-1]) for line, cell in zip(lines, ("1.50", "10.25", "-"), strict=True)}) == 1
    assert len({line.index(cell[0]) for line, cell in zip(lines, ("a", "longer", "b"), strict=True)}) == 1


def test_a_table_that_is_a_little_too_wide_loses_space_between_columns_before_a_cell_is_wrapped() -> None:
    names = ("coarse", "faithfulness", "coverage", "order", "consistency", "rouge-1")
    rows = [{"slug": "llava_one_vision"} | dict.fromkeys(names, 0.123)]

    lines = render(rows, "table", width=80).splitlines()

    assert lines[0].split() == ["slug", *names]
    assert lines[-1].split() == ["llava_one_vision", *["0.123"] * len(names)]
    assert "   " in render(rows, "table", width=90).splitlines()[0].strip().removeprefix("slug").strip()
