"""``CONTRIBUTING.md``: its commands are there and run, and the names it sends people to exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest
from helpers.paths import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
NAMED = [
    (name, path)
    for names, path in re.findall(r"((?:`\w+`(?:,| or| and)?\s+)+)in\s+`([\w/]+\.py)`", PAGE)
    for name in re.findall(r"`(\w+)`", names)
]


def test_every_make_target_is_one():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [shlex.split(command)[1] for command in COMMANDS if command.startswith("make ")]
    assert targets[-1] == "test"
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_test_it_names_is_of_the_suite():
    """Which runs it: a child of pytest would import everything to run it once more."""
    (command,) = [one for one in COMMANDS if one.startswith(".venv/bin/python ")]
    module, pytest_, path = shlex.split(command)[1:]
    assert (module, pytest_) == ("-m", "pytest")
    assert re.fullmatch(r"tests/(?:\w+/)*test_\w+\.py", path), path
    assert re.search(r"^def test_", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_expression_it_gives_to_pytest_finds_tests():
    (command,) = [one for one in COMMANDS if "ARGS=" in one]
    (given,) = re.findall(r"ARGS='-k (\w+)'", command)
    assert any(given in path.name for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize(("name", "path"), NAMED, ids=lambda value: str(value))
def test_a_name_stands_where_the_page_says(name, path):
    source = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^(?:class {name}\b|def {name}\(|{name}\b.* =)", source, re.MULTILINE)


def test_the_page_names_what_each_addition_needs():
    """A heading "To add ..." without names would pass every other test."""
    assert len(NAMED) >= 20
    for part in ("sink", "source", "engine", "lint rule"):
        assert re.search(rf"^## To add an? {part}$", PAGE, re.MULTILINE)


@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout"
)
def test_commits_that_blame_skips_are_in_the_history():
    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )

    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("a shallow clone has no history")
    lines = (ROOT / ".git-blame-ignore-revs").read_text(encoding="utf-8").splitlines()
    for commit in (line for line in lines if line and not line.startswith("#")):
        ancestor = git("merge-base", "--is-ancestor", commit, "HEAD")
        assert ancestor.returncode == 0, f"{commit} was rebased or never committed"
