"""A question asked in a process of its own: a library that crashes or hangs there harms nobody.

TensorRT ends the program over some driver faults, and a dead camera's driver can hang in a call.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

TIMEOUT_S = 20.0
_MARK = "hvq-edge-answer:"


class NoAnswer(Exception):
    """The child process crashed, hung, or raised; the message says which, in one line."""


def run_isolated(code: str, *arguments: str, timeout: float = TIMEOUT_S) -> Any:  # noqa: ANN401
    """Run Python code in a child process.

    It imports nothing from the current folder, where a file may be called as a library is.

    Args:
        code: sets ``answer`` to something that JSON holds; ``arguments`` is there as a list.
        arguments: strings for it.
        timeout: seconds until the child is killed.

    Raises:
        NoAnswer: no answer came.
    """
    program = (
        # -c puts the empty string in front. Isolated (-I) it would see no PYTHONPATH either.
        "import sys\nsys.path[:1] = filter(None, sys.path[:1])\n"
        f"import json\narguments = sys.argv[1:]\n{code}\n"
        f"print({_MARK!r} + json.dumps(answer), flush=True)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
            env=os.environ | {"OPENCV_LOG_LEVEL": "SILENT"},
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"no answer within {timeout:g} s") from error
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
    if done.returncode < 0:
        raise NoAnswer(f"it crashed with {signal.Signals(-done.returncode).name}")
    said = [line for line in done.stderr.splitlines() if line.strip()]
    raise NoAnswer(said[-1].strip() if said else f"it ended with exit code {done.returncode}")


def tool(*command: str, timeout: float = TIMEOUT_S) -> str | None:
    """Return what a program prints; ``None`` where it is not installed or fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
