"""The rooms of the package, and the imports between them."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import stella_mteb

PACKAGE = Path(stella_mteb.__file__).parent
MAY_IMPORT = {
    "files": set(),
    "engine": {"files"},
    "statistics": set(),
    "pages": {"files"},
    "prompts": {"files"},
    "outputs": {"files", "statistics"},
    "models": {"files", "engine", "prompts"},
    "harness": {"files", "statistics", "engine", "models", "prompts", "outputs"},
    "judge": {"files", "statistics", "pages", "engine", "models", "prompts", "outputs"},
    "inhouse": {"files", "engine", "models", "prompts"},
    "compare": {"files", "statistics", "pages", "models", "prompts", "outputs"},
    "diagnostics": {"files", "engine", "models", "prompts"},
    "cluster": {"files", "engine", "models", "harness", "outputs"},
    "cli": {"files", "statistics", "engine", "models", "prompts", "harness", "outputs", "judge", "inhouse", "compare",
            "diagnostics", "cluster"},
}  # fmt: skip
"""A room may import its own modules, `stella_mteb.errors`, the package's version, and these rooms."""
ROOT_FILES = {"__init__.py", "__main__.py", "errors.py"}
LONGEST = {"engine/encoder.py": 460}
"""The way of a text stands in one place; every other module has at most 400 lines."""


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Module names that a file imports, the line, and whether only a type checker reads the import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    of_types = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING"
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node.lineno, id(node) in of_types


def room_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "stella_mteb" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else None


def test_every_module_is_in_a_room() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == ROOT_FILES
    assert {path.parent.name for path in modules()} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in modules()
        if path.parent.name == room
        for name, line, _ in imports(path)
        if room_of(name) not in {None, room, *MAY_IMPORT[room]}
    ]
    assert wrong == []


def test_only_the_harness_imports_mteb() -> None:
    knows = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        for name, _, _ in imports(path)
        if name.split(".")[0] == "mteb"
    }
    assert {path for path in knows if not path.startswith("harness/")} == set()


def test_there_are_no_import_cycles() -> None:
    known = {".".join(("stella_mteb", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in modules()}
    graph = {
        module: {
            other
            for name, _, of_types in imports(path)
            for other in (name, name.rpartition(".")[0])
            if other in known and not of_types
        }
        for module, path in known.items()
    }
    tuple(graphlib.TopologicalSorter({module: others - {module} for module, others in graph.items()}).static_order())


def test_no_test_module_imports_another() -> None:
    for path in Path(__file__).parents[1].rglob("*.py"):
        assert not re.search(r"^(?:from|import) tests\.\w+\.test_", path.read_text(), re.MULTILINE), path


def test_no_module_is_too_long_to_read() -> None:
    lines = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()
    }
    assert {name: count for name, count in lines.items() if count > LONGEST.get(name, 400)} == {}
