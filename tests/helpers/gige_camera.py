"""Aravis's GigE Vision camera: a program that answers on loopback as a camera does in its network.

Debian: aravis-tools.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

PROGRAM = "arv-fake-gv-camera-0.8"
_LOCK = Path(tempfile.gettempdir()) / "hvq-edge-gige-camera.lock"
"""The port of GigE Vision is one for the whole machine, and two cameras would both answer there."""


def missing() -> str:
    """Why it cannot run here; empty where it can."""
    return "" if shutil.which(PROGRAM) else "aravis-tools is not installed"


class GigeCamera:
    """May be killed and started again.

    Args:
        serial: its serial number.
        lost: of 1000 packets, so many never leave it.
        description: file that says what it offers, in GenICam's XML; default: its own.
    """

    def __init__(self, serial: str, lost: int = 0, description: Path | None = None) -> None:
        self.address = f"genicam://{serial}"
        self.shown = f"genicam://Aravis-Fake-{serial}"
        self._command = [PROGRAM, "-i", "127.0.0.1", "-s", serial]
        self._command += ["-r", str(lost)] if lost else []
        self._command += ["-g", str(description)] if description else []
        self._lock = FileLock(_LOCK)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> GigeCamera:
        self._lock.acquire()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._lock.release()

    def start(self) -> None:
        """Let it answer, from a moment later on."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def freeze(self) -> None:
        """Let it answer nothing more, and keep its connection."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Let it vanish as if its cable had been cut; twice is fine."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
