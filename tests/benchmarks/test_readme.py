"""The benchmarks' README names every script, and no page names one that does not exist."""

from __future__ import annotations

import re

import pytest
from helpers.paths import ROOT

FOLDER = ROOT / "benchmarks"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
SCRIPTS = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), FOLDER / "README.md"])
ROWS = [line.split(" | ") for line in README.splitlines() if line.startswith("| [")]


def anchors_of(page: str) -> set[str]:
    """Those that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


def test_every_script_that_can_be_run_has_one_row():
    run = [name for name in SCRIPTS if "__main__" in (FOLDER / name).read_text(encoding="utf-8")]
    rows = [re.findall(r"\]\((.*?)\)", row[0]) for row in ROWS]
    assert sorted(rows) == sorted([name] for name in run)


def test_every_file_is_named():
    for name in SCRIPTS:
        assert name.rpartition("/")[2] in README, name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].partition("]")[0].strip("| ["))
def test_a_row_names_a_section_that_exists(row):
    links = re.findall(r"\]\((.*?)\)", row[2])
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        page = (FOLDER / (name or "README.md")).read_text(encoding="utf-8")
        assert not anchor or anchor in anchors_of(page), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_benchmark_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\bbenchmarks/([\w/]+\.py)", text):
        assert name in SCRIPTS, name
    for name in re.findall(r"\bbenchmarks\.([a-z_]\w*(?:\.\w+)*)", text):
        assert f"{name.replace('.', '/')}.py" in SCRIPTS, name
