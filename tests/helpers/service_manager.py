"""systemd as the inspector sees it: the socket that it tells, and the unit that starts it."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from helpers.paths import ROOT
from helpers.patience import until

UNIT = ROOT / "examples" / "hvq-edge.service"


class Systemd:
    """The other end of the socket."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self, seconds: float = 0.0) -> list[str]:
        """Listen for so long; return all that was ever heard."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.heard.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return self.heard
                time.sleep(0.005)

    def hears(self, message: str, seconds: float) -> bool:
        """Whether the message comes within the next seconds."""
        self.listen()
        self.heard.clear()
        return message in self.listen(seconds)

    def wait_for(self, message: str) -> None:
        until(lambda: message in self.listen(), f"the message {message}")

    def close(self) -> None:
        self._socket.close()
