"""Every command on every page is one that there is: hvq-edge's own parser takes it, and other
programs are given files, targets and extras that exist. The tutorial of the line is run."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from helpers.commands import exit_code
from helpers.paths import ROOT
from typer.core import TyperGroup

import hvq_edge
from hvq_edge.cli.app import app
from hvq_edge.data.images import read_image
from hvq_edge.data.video import write_video
from hvq_edge.run.record import read_run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS = typer.main.get_command(app)
BLOCK = re.compile(r"^ *```(.*?)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
"""Of any language, or the end of one that is left out would begin another. Blocks of commands that
name none hold output as well: a line counts if it begins with the name of a program that is looked
at."""


def command_lines(page: Path) -> Iterator[list[str]]:
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language not in ("", "console", "bash", "sh"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if language == "console" and not line.startswith("$ "):
                continue
            try:
                words = shlex.split(line.removeprefix("$ "), comments=True)
            except ValueError:  # a sentence with an apostrophe: something printed
                continue
            yield from pieces(words)


def pieces(words: list[str]) -> Iterator[list[str]]:
    """Split at ``|``, ``&&`` and ``;``; leave out redirections and variables before a command."""
    piece: list[str] = []
    for word in [*words, ";"]:
        if word in ("|", "&&", "||", ";", "&"):
            while piece and re.match(r"[A-Z_]+=", piece[0]):
                del piece[0]
            if ">" in piece:
                del piece[piece.index(">") :]
            if piece:
                yield piece
            piece = []
        else:
            piece.append(word)


def parse(words: list[str]) -> None:
    """Raise what a wrong command line raises; run nothing."""
    command, name, rest = COMMANDS, "hvq-edge", words
    while isinstance(command, TyperGroup) and rest and rest[0] in command.commands:
        name, *rest = rest
        command = command.commands[name]
    assert not isinstance(command, TyperGroup) or rest[:1] in (["--version"], ["--help"]), words
    if isinstance(command, TyperGroup) or "--help" in rest:
        return
    command.make_context(name, list(rest))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_a_page_can_be_given(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for program, *rest in command_lines(page):
        if program.rpartition("/")[2] == "hvq-edge":
            if "..." in rest:  # cut short on purpose
                continue
            try:
                parse(rest)
            except Exception as error:  # Typer's click has no public name
                pytest.fail(f"hvq-edge {shlex.join(rest)}: {error}")
        elif program == "make":
            named = [word for word in rest if "=" not in word and not word.startswith("-")]
            assert set(named) <= set(targets), rest
        elif program.rpartition("/")[2] == "pip":
            for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(rest)):
                assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), extras
        elif program == "docker" and "-f" in rest:
            assert (ROOT / rest[rest.index("-f") + 1]).is_file(), rest


def test_options_that_text_names_are_there():
    """As in ``hvq-edge calibrate --undo``, inside a sentence."""
    wrong = []
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        for text in re.findall(r"`hvq-edge ([^`]+)`", page.read_text(encoding="utf-8")):
            words = text.replace("\n", " ").split()
            command = COMMANDS
            while isinstance(command, TyperGroup) and words and words[0] in command.commands:
                command = command.commands[words.pop(0)]
            parameters = command.get_params(typer.Context(command))
            known = {option for one in parameters for option in [*one.opts, *one.secondary_opts]}
            known |= {"--help"}
            named = {word.partition("=")[0] for word in words if word.startswith("--")}
            if named - known or (
                isinstance(command, TyperGroup) and words and words[0][0].isalpha()
            ):
                wrong.append(f"{page.relative_to(ROOT)}: hvq-edge {text}")
    assert not wrong, "\n".join(wrong)


RUN_ELSEWHERE = {"train", "eval", "export", "verify", "report", "doctor", "review"}
"""For the README, and in tests of their own; the last serves until Ctrl-C."""


@pytest.mark.parametrize("name", ["demo.md", "line-without-gpu.md"])
def test_commands_of_a_tutorial_run(
    name, small_run, small_bundle, solar_cells, tmp_path, monkeypatch
):
    """A trained run stands where the reader has one, a video in place of the camera."""
    monkeypatch.chdir(tmp_path)
    assert small_bundle.parent == small_run
    for run in ("latest", "demo"):
        shutil.copytree(small_run, tmp_path / "runs" / run)
    shutil.copytree(solar_cells, tmp_path / "photos")
    good = sorted(solar_cells.rglob("train/good/*.png"))[:24]
    write_video(tmp_path / "camera.avi", [read_image(path) for path in good], 5.0, len(good))
    shutil.copy("camera.avi", "runs/demo/parts.avi")
    page = ROOT / "docs/tutorials" / name
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "toml":
            file = text.partition("\n")[0].removeprefix("# ")
            here = text.replace('"0"', '"camera.avi"').replace(
                "[page]", "#"
            )  # it stays until Ctrl-C
            Path(file).write_text(here, encoding="utf-8")
    replaced = {"500": str(len(good))}
    ran = 0
    for program, *rest in command_lines(page):
        if program != "hvq-edge" or rest[0] in RUN_ELSEWHERE:
            continue
        words = [replaced.get(word, word) for word in rest if word not in ("--page", "--play")]
        words = [word.replace("~/.cache/hvq-edge/solar-cells", str(solar_cells)) for word in words]
        words = [str(good[0]) if word.endswith("cell0001.png") else word for word in words]
        if "--calibrate" in words:  # cells of several modules: wider than what a line sees
            words.append("--force")
        assert exit_code(*words) == 0, words
        ran += 1
    assert ran >= 5


def test_the_examples_of_the_api_run(small_run, small_bundle, solar_cells, tmp_path, monkeypatch):
    """All but the one that trains; a folder in place of the camera."""
    monkeypatch.chdir(tmp_path)
    assert small_bundle.parent == small_run
    shutil.copytree(small_run, tmp_path / "runs" / "latest")
    cells = sorted(solar_cells.rglob("test/good/*.png"))[:3]
    shutil.copy(cells[0], "part.png")
    (tmp_path / "camera").mkdir()
    for cell in cells:
        shutil.copy(cell, "camera")
    seen = [read_image(cell) for cell in cells]
    camera = SimpleNamespace(grab=lambda: seen.pop())
    side = read_run(small_run).settings.model.input_side
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    ran = [example for example in examples if "hvq_edge.train(" not in example]
    assert len(ran) == len(examples) - 1 >= 4
    names = {"hvq_edge": hvq_edge, "my_camera": camera}
    for example in ran:
        code = example.replace("camera=0", 'camera="camera"').replace("224, 224", f"{side}, {side}")
        ends = pytest.raises(IndexError) if "my_camera" in code else nullcontext()
        with ends:  # the example's camera has three images only
            exec(compile(code, "docs/reference/api.md", "exec"), names)
