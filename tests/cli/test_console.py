"""What is shown while something takes long."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from hvq_edge.cli import console


def shown(monkeypatch, width: int, steps: int) -> list[str]:
    """The lines that a terminal shows while a model is trained."""
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(console, "messages", terminal)
    with console.progress_bars() as bars:
        bars("backbone features", 4096, 4096)
        for epoch in range(1, steps + 1):
            time.sleep(0.15)  # it is drawn ten times a second
            bars("training", epoch, 120, "loss 0.1234, held out 0.2345")
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in written.getvalue().split("\n")]


@pytest.mark.parametrize("width", [80, 120])
def test_epoch_time_left_and_loss_fit_into_a_line(monkeypatch, width):
    lines = shown(monkeypatch, width, 4)
    last = [line for line in lines if line.lstrip("\r").startswith("training")][-1]
    assert re.search(" 4/120 +ETA +0:00:", last)
    assert "loss 0.1234, held out 0.2345" in last
    assert len(last.strip("\r")) <= width
    assert any(re.search("4096/4096 +took +0:00:00", line) for line in lines)


def test_a_line_that_is_too_narrow_cuts_the_note_alone(monkeypatch):
    lines = shown(monkeypatch, 60, 3)
    last = [line for line in lines if line.lstrip("\r").startswith("training")][-1]
    assert re.search(" 3/120 +ETA +0:00:", last)
    assert "…" in last[last.index("ETA") :]
