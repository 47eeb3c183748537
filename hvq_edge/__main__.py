"""``hvq-edge``, which is ``python -m hvq_edge``: what must hold before anything else is loaded."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Run the command line; see :func:`hvq_edge.cli.app.main`.

    To load that takes a while, on a small device seconds: a Ctrl-C meanwhile is an end like any.
    """
    _open_what_is_closed()
    handler = signal.getsignal(signal.SIGINT)
    taken = handler is signal.default_int_handler  # else ignored, as of what runs behind a shell
    if taken:
        signal.signal(signal.SIGINT, lambda *_: _end_interrupted())
    from hvq_edge.cli.app import main as run

    try:
        if taken:
            signal.signal(signal.SIGINT, handler)
        run()
    except KeyboardInterrupt:  # between the commands' own care for it
        _end_interrupted()


def _open_what_is_closed() -> None:
    """Let closed standard streams lead nowhere: the next file opened would take their place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free
            os.set_inheritable(nowhere, True)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _end_interrupted() -> None:
    with suppress(OSError):
        os.write(2, b"Interrupted.\n")
    os._exit(128 + signal.SIGINT)  # half-loaded libraries are not taken down


if __name__ == "__main__":
    main()
