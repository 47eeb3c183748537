"""The command line explains itself: help at once, every command and option described."""

import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from helpers.commands import HELP, run, run_here

from hvq_edge.cli import app as command_line

COMMANDS = {
    "train": {"--data", "--preset", "--epochs", "--resume", "--device", "--out", "--settings"},
    "load": {"--out", "--categories"},
    "eval": {"--data", "--precision", "--backend"},
    "export": {"--int8", "--calib", "--category", "--out", "--triton", "--exemplars"},
    "build": {"--backend", "--precision", "--compute-capability", "--force"},
    "calibrate": {"--good", "--false-reject", "--confidence", "--method"},
    "learn": {"--good", "--judged", "--out", "--category", "--data", "--false-reject"},
    "bench": {"--run", "--backends", "--batch", "--rounds", "--out", "--peers"},
    "predict": {"--bundle", "--save", "--fail-on-reject", "--category"},
    "explain": {"--bundle", "--run", "--codebook", "--category", "--save"},
    "doctor": {"--bundle", "--require"},
    "verify": {"--data", "--max-changed", "--bisect"},
    "report": {"--out"},
    "sign": {"--key", "--new-key"},
    "bundle check": {"--require-signature"},
    "bundle pack": {"--out"},
    "bundle unpack": {"--require-signature"},
    "bundle install": {"--into", "--require-signature", "--self-test", "--keep"},
    "bundle rollback": set(),
    "stream": {
        *("--bundle", "--camera", "--policy", "--out", "--display", "--no-display"),
        *("--calibrate", "--false-reject", "--confidence", "--method"),
    },
    "review": {
        "--save",
        "--numbers",
        "--days",
        "--host",
        "--port",
        "--token-file",
        "--name",
        "--head",
    },
    "serve": {"--bundle", "--host", "--port", "--token-file", "--precision", "--category"},
    "runs": set(),
    "add-category": {"--good", "--run", "--out", "--device", "--on-device", "--judged"},
    "remove-category": {"--run", "--out"},
    "rename-category": {"--run", "--out"},
    "demo": set(),
    "data check": set(),
    "log verify": {"--head"},
    "log show": {"--last", "--verdict"},
    "log export": {"--csv"},
    "log report": {"--from", "--to", "--out", "--csv"},
}

GROUPS = {"bundle", "data", "log"}
"""Commands that have sub-commands."""

LIBRARIES = ("cv2", "numpy", "onnx", "onnxruntime", "openvino", "polygraphy", "sklearn", "torch")


def loaded_by_help() -> dict[str, list[str]]:
    """By command, which slow libraries are loaded once one process has shown its help.

    The first is ``hvq-edge --help``; what a command loads stays loaded for those after it.
    """
    code = (
        "import contextlib, io, sys\nfrom hvq_edge.cli.app import main\n"
        f"for command in {['', *sorted(COMMANDS)]!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main([*command.split(), '--help'])\n"
        f"    watched = {(*LIBRARIES, 'pydantic')!r}\n"
        "    print(command, *(one for one in watched if one in sys.modules), sep=',')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | HELP
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(",") for line in done.stdout.splitlines()]
    return {command: loaded for command, *loaded in lines}


def test_help_names_every_command_with_what_it_does():
    done = run("--help")
    assert done.returncode == 0, done.stderr
    listed = dict(re.findall(r"^  (\w[\w-]*)  +(\S.*)$", done.stdout, re.MULTILINE))
    assert set(listed) == {name.partition(" ")[0] for name in COMMANDS}
    assert all(len(text) > 20 for text in listed.values()), listed


@pytest.mark.parametrize("group", ["", *sorted(GROUPS)])
def test_what_a_command_does_is_said_in_one_line_of_80_columns(group):
    done = run_here(*group.split(), "--help")
    listing = done.stdout.partition("--help ")[2].partition("\n\n")[2]
    lines = [line for line in listing.splitlines() if line and not line.endswith(":")]
    assert len(lines) == len(re.findall(r"^  \w[\w-]*  +\S", listing, re.MULTILINE)) > 0
    assert "..." not in listing
    assert all(len(line) <= 80 and line.endswith(".") for line in lines), listing


def test_commands_are_listed_under_headings_in_one_column():
    listing = run_here("--help").stdout.partition("Start here:\n")
    sections = re.findall(r"^(\w.+):\n((?:  .+\n)+)", listing[1] + listing[2], re.MULTILINE)
    assert {heading: len(lines.splitlines()) for heading, lines in sections} == {
        heading: len(named) for heading, named in command_line.LISTED.items()
    }
    listed = [line for _, lines in sections for line in lines.splitlines()]
    assert len({re.match(r" +\S+ +", line).end() for line in listed}) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "part.png"],
        ["stream", "--camera", "0"],
        ["serve"],
        ["bench"],
        ["verify"],
        ["eval"],
        ["runs"],
    ],
    ids=" ".join,
)
def test_who_has_no_run_is_told_of_the_demo(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    done = run_here(*words)
    assert "hvq-edge demo" in done.stderr
    assert "hvq-edge train" in done.stderr


def test_help_loads_no_library():
    loaded = loaded_by_help()
    assert list(loaded) == ["", *sorted(COMMANDS)]
    assert loaded[""] == []
    slow = {command: set(own) & set(LIBRARIES) for command, own in loaded.items()}
    assert not any(slow.values()), slow


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_each_command_explains_itself(command):
    done = run_here(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    usage, listed = re.split(r"\n[A-Z][\w ]*:\n", done.stdout, maxsplit=1)
    assert "[[" not in usage, "Typer puts the brackets of optional arguments itself"
    options = set(re.findall(r"--[a-z0-9-]+", listed))
    assert options >= COMMANDS[command] | {"--help", "--json"}
    undescribed = re.findall(r"^  (--\S+)(?: <\S+>| [A-Z]+)?$", listed, re.MULTILINE)
    assert undescribed == []


@pytest.mark.parametrize("group", sorted(GROUPS))
@pytest.mark.parametrize("arguments", [["--help"], []])
def test_a_group_names_its_commands(group, arguments):
    done = run_here(group, *arguments)
    shown = done.stdout + done.stderr
    assert "Traceback" not in shown
    listed = dict(re.findall(r"^  (\w+)  +(\S.*)$", shown, re.MULTILINE))
    own = {name.partition(" ")[2] for name in COMMANDS if name.startswith(f"{group} ")}
    assert own
    assert set(listed) == own
    assert all(len(text) > 20 for text in listed.values()), listed


def test_the_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"hvq-edge {version('hvq-edge')}\n")


def test_no_arguments_show_the_help():
    done = run_here()
    assert "Usage:" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
