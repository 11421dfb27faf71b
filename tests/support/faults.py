"""Generates docs/faults.md from the marks at the tests: `python -m tests.support.faults > docs/faults.md`.

    @pytest.mark.fault(4, "set aside, and the task runs again")
    def test_...

Each mark names one fault that a test injects, and the outcome. The marks are read from the source, so that nothing is
imported. A test in `promises/test_faults.py` compares the page with them.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"

FAULTS = {
    1: "`kill -9` during the write of a result",
    2: "`kill -9` between two tasks, or in the middle of encoding",
    3: "SIGINT, SIGTERM",
    4: "truncated result file",
    5: "result file that is empty, not an object, of another task, or of a newer schema",
    6: "disk full at write, at flush, at rename",
    7: "read-only results, unwritable cache, a folder at the path of a file",
    8: "two processes on the same run",
    9: "two processes on the same vector cache",
    10: "clock that jumps, two runs in the same second",
    11: "lock of a dead process",
    12: "symlink in the results to a place outside",
    13: "names of more than 255 bytes, names that differ only in case or Unicode form",
    14: "vector cache of an older schema",
    15: "models, revisions, dimensions, prompts, dtypes that share a cache folder",
    16: "the same text as query and as document",
    17: "truncated shard, flipped bit, zeroed block",
    18: "missing or truncated index or label of the cache",
    19: "valid vector of zeros",
    20: "NaN or infinity in one vector, in all vectors, in long texts at half precision",
    21: "constant vectors",
    22: "backbone that returns too few or too many rows, another width, another dtype",
    23: "head missing, of the wrong shape, NaN, or of an unknown dimension",
    24: "truncated weights, with a broken header, with a header of 2^64 bytes",
    25: "pickled weights only",
    26: "batch of one or of many, in any order, padded or not",
    27: "out of memory",
    28: "few-shot examples that are empty, malformed, among the scored pairs, or too long",
    29: "no prompt for a task",
    30: "empty, blank, NUL, right-to-left, joined emoji, a million characters",
    31: "lone surrogate",
    32: "number, null, list, bytes in a text column",
    33: "score that is text, NaN, out of range; scores that are all equal",
    34: "duplicate ids, repeated and swapped pairs, overlap of training and test",
    35: "missing column or split, no rows, one row, ragged CSV",
    36: "data set that needs a loading script",
    37: "pickles and object arrays as data",
    38: "archives, and files that decompress to a far larger size",
    39: "malformed YAML, duplicate keys, alias bombs, deep nesting, tabs, `no`, `0123`, tags",
    40: "unknown model, task, benchmark, option, key",
    41: "offline with an empty cache",
    42: "remote code without consent, or with consent to another commit",
    43: "access token in the environment or in a URL",
    44: "stdout closed early (`| head`)",
    45: "HTML, Markdown, template and formula code in names",
    46: "terminal markup and escape codes in names",
    47: "path traversal by names, revisions, modules, shards",
    48: "report over partial, failed, mixed results",
    49: "result edited by hand",
    50: "comparison without a common task, of one pair, of identical scores",
    51: "connection or process that ends in the middle of the weights",
}
LIMITS = {
    34: "Nothing is trained here, so training and test cannot overlap; few-shot examples are fault 28.",
    36: "The library that reads hub data has no loading scripts any more.",
    49: (
        "No further check: results are MTEB's own files, which MTEB, its tools and people merge and repair, so there "
        "is no manifest that a change would break."
    ),
}
"""The parts of faults that do not apply, with the reason."""

_HEAD = """\
# Faults and their outcomes

This page lists each injected fault, what the project does, and the tests that inject it. It is generated from marks at
the tests by `python -m tests.support.faults > docs/faults.md`, and a test fails if it is out of date. Tests marked
slow run before a release; the others run every time.

| | fault | outcome | tests |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Mark:
    """A test that injects a fault."""

    outcome: str
    test: str


def marks() -> dict[int, list[Mark]]:
    """Return the marks of all test files, by fault.

    Raises:
        ValueError: If a mark is not `fault(number, "outcome")` with a number of the list.
    """
    found: dict[int, list[Mark]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for number, mark in _marks_of(path):
            found[number].append(mark)
    return found


def _marks_of(path: Path) -> Iterator[tuple[int, Mark]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    all_slow = any(_is_pytestmark(node) and "mark.slow" in ast.unparse(node) for node in tree.body)
    for node in tree.body:
        if not (isinstance(node, ast.FunctionDef) and node.name.startswith("test_")):
            continue
        slow = all_slow or any(ast.unparse(decorator) == "pytest.mark.slow" for decorator in node.decorator_list)
        name = f"`{path.relative_to(TESTS).with_suffix('').as_posix()}::{node.name}`{' (slow)' if slow else ''}"
        for decorator in reversed(node.decorator_list):
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
                values = [argument.value for argument in decorator.args if isinstance(argument, ast.Constant)]
                if len(values) != 2 or values[0] not in FAULTS or not isinstance(values[1], str) or decorator.keywords:
                    raise ValueError(f"{path.name}:{decorator.lineno}: the form is fault(1 to 51, 'outcome')")
                yield int(str(values[0])), Mark(values[1], name)


def _is_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"


def page() -> str:
    """Return the page as Markdown."""
    found = marks()
    return _HEAD + "".join(_rows(number, found.get(number, [])) for number in FAULTS)


def _rows(number: int, found: list[Mark]) -> str:
    outcomes = {
        outcome: ", ".join(dict.fromkeys(mark.test for mark in found if mark.outcome == outcome))
        for outcome in dict.fromkeys(mark.outcome for mark in found)
    }
    if number in LIMITS:
        outcomes[LIMITS[number]] = ""
    lines = []
    for outcome, tests in outcomes.items():
        fault = "" if lines else FAULTS[number]
        cells = [cell.replace("|", "\\|") for cell in (str(number), fault, outcome, tests)]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def untested() -> list[int]:
    """Return the faults that have neither a test nor a reason for lacking one."""
    found = marks()
    return [number for number in FAULTS if number not in LIMITS and not found.get(number)]


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
