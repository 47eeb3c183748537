"""``docs/explanation/architecture.md`` is true: its drawing shows the folders that there are, its
walks follow imports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from helpers.imports import imports_of, module_of
from helpers.paths import ROOT

PAGE = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
WALKS = ("A frame", "A threshold")
MOST_STEPS = 10


def section(heading: str) -> str:
    """What stands below a heading, up to the next one of any level."""
    found = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##+ |\Z)", PAGE, re.DOTALL | re.M)
    assert found, f"docs/explanation/architecture.md has no section {heading!r}"
    return found[1]


def drawn() -> list[str]:
    """The folders of the drawing, as paths from the root; indentation shows what is in what."""
    (drawing,) = re.findall(r"^```\n(.*?)^```", section("The rooms"), re.DOTALL | re.M)
    above: list[tuple[int, str]] = []
    folders = []
    for line in drawing.splitlines():
        indent = len(line) - len(line.lstrip())
        name, _, meaning = line.strip().partition("/")
        assert meaning.strip(), f"what is {name} for?"
        above = [entry for entry in above if entry[0] < indent]
        above.append((indent, name))
        folders.append("/".join(part for _, part in above))
    return folders


def walk(heading: str) -> list[Path]:
    """The files of a walk, in its order."""
    steps = re.findall(r"^(\d+)\. \[`([^`]+)`\]\(\.\./\.\./([^)]+)\)", section(heading), re.M)
    assert [int(number) for number, _, _ in steps] == [*range(1, len(steps) + 1)]
    for _, shown, path in steps:
        assert path.removeprefix("hvq_edge/") == shown
    return [ROOT / path for _, _, path in steps]


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, `from a import b` as `a` and as `a.b`."""
    for found in imports_of(path.read_text(encoding="utf-8"), module_of(path)):
        yield found.name
        yield found.name.rpartition(".")[0]


def test_the_drawing_shows_every_folder_of_the_product_and_no_other():
    there = {
        path.parent.relative_to(ROOT).as_posix()
        for room in ("hvq_edge", "export", "calibration")
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert sorted(drawn()) == sorted(there)


@pytest.mark.parametrize("heading", WALKS)
def test_a_walk_follows_imports(heading):
    steps = walk(heading)
    assert 2 < len(steps) <= MOST_STEPS
    for step in steps:
        assert step.is_file(), f"{step.relative_to(ROOT)} is not there"
    for here, there in pairwise(steps):
        met = module_of(there) in imported(here) or module_of(here) in imported(there)
        assert met, f"neither {here.name} nor {there.name} imports the other"


def test_the_contract_is_the_codes():
    from hvq_edge.runtime.contract import graph_inputs, graph_outputs

    tables = re.findall(r"(?:^\|.*\n)+", section("The graph's contract"), re.M)
    names = [re.findall(r"^\| `(\w+)`", table, re.M) for table in tables]
    assert names[0] == list(graph_inputs("input"))
    assert names[1] == list(graph_outputs("auto"))


def test_exit_codes_are_those_of_the_exceptions():
    from hvq_edge import errors

    said = dict(re.findall(r"^\| (\d+) \|[^|]*\|([^|]*)\|$", section("Exit codes"), re.M))
    assert set(said) == {"0", "1", "2", "3", "70", "130"}
    for code in "123":
        names = re.findall(r"`(\w+)`", said[code])
        assert names
        assert {getattr(errors, name).exit_code for name in names} == {int(code)}
