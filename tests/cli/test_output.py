"""Standard output and error that are full or closed, and Ctrl-C before a command has loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.bright_parts import bundle  # noqa: F401  # fixtures
from helpers.images import flat, write_png

from hvq_edge.stream.log.verification import verify_log


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of the shell in which ``hvq-edge`` is the program."""
    function = f'hvq-edge() {{ "{sys.executable}" -m hvq_edge "$@"; }}\n'
    return subprocess.run(
        ["bash", "-c", function + command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.parametrize("command", ["--version", "log verify --help"])
def test_a_full_output_is_a_sentence(command):
    done = shell(f"hvq-edge {command} > /dev/full")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot write standard output" in done.stderr
    assert "Traceback" not in done.stderr
    assert "does not foresee" not in done.stderr


def test_what_cannot_be_said_changes_no_exit_code(tmp_path):
    done = shell(f"hvq-edge log verify {tmp_path}/none 2> /dev/full")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(tmp_path, closed):
    assert shell(f"hvq-edge --version {closed}").returncode == 0
    assert shell(f"hvq-edge log verify {tmp_path}/none {closed}").returncode == 2


@pytest.mark.parametrize("json", ["", "--json"])
def test_a_full_output_does_not_end_an_inspection(bundle, tmp_path, json):
    for number in range(6):
        write_png(tmp_path / "in" / f"{number}.png", flat(230 if number % 2 else 40))
    line = f"--bundle {bundle.path} --camera {tmp_path}/in --out {tmp_path}/out"
    done = shell(f"hvq-edge stream {line} --no-video --no-display {json} > /dev/full")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Inspection goes on") == 1
    found = verify_log(tmp_path / "out")
    assert found.faults == []
    assert found.decisions == 6


PRESSED_WHILE_IT_LOADS = """
import os, signal, sys

class Press:
    def find_spec(self, name, *_):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press())
sys.argv = ["hvq-edge", "--version"]
from hvq_edge.__main__ import main
main()
"""


@pytest.mark.parametrize("name", ["hvq_edge.cli.app", "typer", "hvq_edge.cli.console"])
def test_ctrl_c_while_a_command_loads_is_an_end_like_any_other(name):
    """Loading takes most of a second, on a small device several."""
    code = PRESSED_WHILE_IT_LOADS.format(name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")
