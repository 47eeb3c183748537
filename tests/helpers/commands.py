"""``hvq-edge`` as a user calls it: in a process of its own, or in this one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from importlib import import_module

import pytest

from hvq_edge.cli import app as command_line

HELP = {"NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "hvq_edge", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | HELP,
        stdin=subprocess.DEVNULL,
    )
    return unless_torch_lacks(done)


def unless_torch_lacks(
    done: subprocess.CompletedProcess[str],
) -> subprocess.CompletedProcess[str]:
    """Skip the test where that is all the command says."""
    if "this command needs torch, which is not installed" in done.stderr:
        pytest.importorskip("torch")
    return done


def run_here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in this process: what it starts with is loaded already, so it takes no time."""
    said, complained = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
    ):
        for name, value in HELP.items():
            patch.setenv(name, value)
        code = exit_code(*arguments)
    done = subprocess.CompletedProcess(arguments, code, said.getvalue(), complained.getvalue())
    return unless_torch_lacks(done)


WITHOUT = ("torch", "torchvision", "onnxscript", "polygraphy", "sklearn", "scipy")
"""A device has none of these."""
_ON_A_DEVICE = f"""
import sys
sys.modules.update(dict.fromkeys({WITHOUT}))
from hvq_edge.cli.app import main
main(sys.argv[1:])
"""


def on_a_device(*arguments: str) -> str:
    """Run a command where nothing is installed that trains; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_DEVICE, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        command_line.main(list(arguments))
    code = caught.value.code
    return code if isinstance(code, int) else 0


def benchmark(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *arguments: object
) -> str:
    """Run one as a person would, in this process; return what it printed."""
    module = import_module("benchmarks." + script.removesuffix(".py").replace("/", "."))
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    module.main()
    return capsys.readouterr().out
