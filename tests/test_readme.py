"""The README's commands run as they stand there, in the order they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import run_here
from helpers.paths import ROOT
from helpers.patience import HANG_SECONDS
from helpers.small_graphs import SMALL

from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_image
from hvq_edge.data.video import write_video
from hvq_edge.evaluation.acceptance.acceptance import collect

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for command in ("make demo", "make test"):
        assert any(block.strip() == command for block in blocks())
        assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE)


def test_ci_calls_the_readmes_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_linked_files_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) >= 5
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.fixture
def workplace(tmp_path, solar_cells) -> Path:
    """A folder with the user's photos, and a video in place of the camera."""
    shutil.copytree(solar_cells, tmp_path / "photos")
    some = find_dataset(solar_cells).test()[:6]
    images = [read_image(image.path) for image in some]
    write_video(tmp_path / "camera.avi", images, 5.0, len(images))
    model = "\n".join(f"{name} = {value}" for name, value in SMALL.items())
    (tmp_path / "small.toml").write_text(f"[model]\n{model}\n[training]\nversions = 1\n")
    return tmp_path


def test_commands(workplace, monkeypatch):
    """Training is cut short, and the camera is a video; all else is as written.

    One epoch gives the weights of the small run that other tests share, and so its graphs.
    """
    monkeypatch.chdir(workplace)
    commands = [
        line
        for block in blocks()
        for line in block.splitlines()
        if line.startswith("hvq-edge ") and "<" not in line
    ]
    verbs = [command.split()[1] for command in commands]
    assert verbs == ["data", "train", "eval", "export", "verify", "report", "stream"]
    # The report measures what is missing; times of a few calls do here, and are not taken again.
    at = verbs.index("report")
    commands.insert(at, "hvq-edge bench --rounds 1 --batch 1 --no-memory")
    for command in commands:
        arguments = shlex.split(command)[1:]
        if arguments[0] == "train":
            arguments += ["--preset", "tiny", "--epochs", "1", "--settings", "small.toml"]
        if arguments[0] == "verify":
            arguments += ["--images", "4"]
        arguments = ["camera.avi" if argument == "0" else argument for argument in arguments]
        done = run_here(*arguments)
        # An epoch does not make a model whose INT8 passes; that verify says so is its job.
        allowed = (0, 1) if arguments[0] == "verify" else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stderr}"
    points = collect(workplace / "runs" / "latest").open_points
    assert not [point for point in points if point.closed_by], "a command could close it"
    (code,) = blocks("python")
    (workplace / "inspect_camera.py").write_text(code.replace("camera=0", 'camera="camera.avi"'))
    done = subprocess.run(
        [sys.executable, "inspect_camera.py"],
        cwd=workplace,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
