"""The rooms: folders that one can look over, tests that mirror them, and helpers in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from helpers.paths import HELPERS, ROOT, TESTS

PRODUCT = ("hvq_edge", "export", "calibration")
MOST_FILES = 16
TEST_FILES = sorted(TESTS.rglob("*.py"))
NO_ROOMS = {"helpers", "data", "benchmarks", "faults"}
"""Folders of ``tests`` that are no mirror of a folder of the product; ``data`` is one as well."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_by(path: Path) -> set[str]:
    """Every part of every name that a file imports, also in the code that it keeps as text."""
    found: set[str] = set()
    trees = [ast.parse(path.read_text(encoding="utf-8"))]
    while trees:
        for node in ast.walk(trees.pop()):
            match node:
                case ast.Import():
                    found.update(part for one in node.names for part in one.name.split("."))
                case ast.ImportFrom():
                    found.update((node.module or "").split("."))
                    found.update(one.name for one in node.names)
                case ast.Constant(value=str(text)) if "import " in text:
                    try:
                        trees.append(ast.parse(text))
                    except SyntaxError:
                        continue
    return found


def test_no_file_of_the_tests_imports_a_test():
    """What two of them share goes to ``tests/helpers``, under a name that says what it is."""
    tests = {path.stem for path in TEST_FILES if path.name.startswith("test_")}
    for path in TEST_FILES:
        found = imported_by(path) & tests
        assert not found, f"{name_of(path)} imports {found}"


def test_helpers_hold_no_tests():
    for path in HELPERS.rglob("*.py"):
        assert not path.name.startswith("test_"), path.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            assert not getattr(node, "name", "").startswith("test_"), f"{path.name}: {node.name}"


def test_tests_mirror_the_rooms():
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    for folder in folders:
        if folder.parts and folder.parts[0] not in NO_ROOMS:
            assert any((ROOT / top / folder).is_dir() for top in (".", "hvq_edge")), folder


@pytest.mark.parametrize("top", PRODUCT)
def test_a_room_can_be_looked_over(top):
    """``cli`` may hold one file a command."""
    for folder in {path.parent for path in (ROOT / top).rglob("*.py")}:
        count = len(list(folder.glob("*.py")))
        if folder != ROOT / "hvq_edge" / "cli":
            assert count <= MOST_FILES, f"{name_of(folder)} holds {count} files"
