"""What documents and code send a reader to is there: pages, headings, files, modules and names."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from helpers.paths import ROOT

ROOMS = ("hvq_edge", "export", "calibration")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")])
TEXTS = sorted(
    path
    for part in (*ROOMS, "tests", "benchmarks", "examples")
    for kind in ("*.py", "*.service", "*.html", "*.js")
    for path in (ROOT / part).rglob(kind)
) + [ROOT / name for name in ("Makefile", "Dockerfile.jetson", "pyproject.toml", ".ci/run")]
FOREIGN = {"docs/operators.md", "docs/Changelog.md"}
"""Of onnx-tensorrt."""


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def without_code_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code_blocks(page.read_text("utf-8")), re.M)
    slugs: set[str] = set()
    for heading in headings:
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (numbered := f"{slug}-{number}" if number else slug) in slugs:
            number += 1
        slugs.add(numbered)
    return slugs


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page):
    text = without_code_blocks(page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.resolve()), link


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_files_that_a_page_names_exist(page):
    """Paths from the root of the repository, with a folder in them, and dotted names of ours."""
    text = re.sub(r"https?://\S+", "", page.read_text(encoding="utf-8"))
    for path in re.findall(r"(?<![\w/.*-])((?:[\w.-]+/)+[\w.*-]+\.(?:py|service|ya?ml))\b", text):
        if path.split("/")[0] in (*ROOMS, "tests", "benchmarks", "examples"):
            assert any(ROOT.glob(path)), path
    for module in re.findall(r"python -m (benchmarks(?:\.\w+)+)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module
    for name in re.findall(r"\bhvq_edge(?:\.\w+)+", text):
        assert is_there(name), name


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a module of ours, or something that one defines."""
    *_, last = parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        module = ROOT / "/".join(parts[:count] if parts[1] not in ROOMS else parts[1:count])
        if module.with_suffix(".py").is_file() or (module / "__init__.py").is_file():
            if count == len(parts):
                return True
            file = (
                module.with_suffix(".py")
                if module.with_suffix(".py").is_file()
                else (module / "__init__.py")
            )
            return re.search(rf"\b{last}\b", file.read_text(encoding="utf-8")) is not None
    return False


def test_pages_that_code_cites_exist():
    missing = {
        f"{shown(path)}: {page}"
        for path in (*TEXTS, *PAGES)
        for page in re.findall(
            r"(?<![\w./-])docs/[\w/-]+\.md\b",
            re.sub(r"https?://\S+", "", path.read_text(encoding="utf-8")),
        )
        if not (ROOT / page).is_file() and page not in FOREIGN
    }
    assert missing == set()


def test_headings_that_code_cites_exist():
    """As in ``docs/explanation/architecture.md, "The graph's contract"``."""
    cited = re.compile(r"docs/([\w/-]+\.md)`*,\s+\"([^\"]+)\"")
    for path in TEXTS:
        for page, heading in cited.findall(path.read_text(encoding="utf-8")):
            text = (ROOT / "docs" / page).read_text(encoding="utf-8")
            assert re.search(rf"^#+ {re.escape(heading)}$", text, re.M), (shown(path), heading)


def test_nothing_cites_a_document_that_the_repository_lacks():
    """Code once sent readers to the sections of a design that they could not have."""
    word = "DESI" + "GN"
    for path in (*TEXTS, *PAGES):
        assert word not in path.read_text(encoding="utf-8"), shown(path)
