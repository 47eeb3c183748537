"""Every picture of the documentation is shown on a page, and made by a command that is there."""

from __future__ import annotations

import re
import subprocess

from helpers.paths import ROOT

PICTURES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/pictures").iterdir())
LOGO = "hvq_edge/design/logo.svg"  # drawn by hand, shown by the README
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_each_picture_has_a_command():
    done = subprocess.run(
        ["make", "-f", "docs/pictures.mk", "--dry-run", "--always-make", *PICTURES],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr  # make knows no rule for one of them
    modules = re.findall(r"-m (benchmarks[\w.]+)", done.stdout)
    assert len(modules) >= 7
    for module in modules:
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module


def test_each_picture_is_shown_and_no_other():
    shown = {
        (page.parent / path).resolve().relative_to(ROOT).as_posix()
        for page in PAGES
        for path in re.findall(r"!\[[^\]]*\]\((?!https?:)([^)]+)\)", page.read_text("utf-8"))
    }
    assert shown == {*PICTURES, LOGO}
