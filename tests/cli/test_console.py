"""What is shown while something takes long."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

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


UNSHOWN = "part\x1b[2J\x9b31m\u202egnp.\udc80.png"
ESCAPED = r"part\x1b[2J\x9b31m\u202egnp.\udc80.png"


def written_by(show) -> str:
    file = io.StringIO()
    show(console.SafeConsole(file=file, force_terminal=True, width=120, color_system="standard"))
    return file.getvalue()


def test_a_name_neither_moves_the_cursor_nor_turns_the_text():
    table = Table()
    table.add_column(Text(UNSHOWN))  # its width is measured before: the end is cut off
    table.add_column()
    table.add_row("", UNSHOWN, style="red")
    for show in (
        lambda one: one.print(UNSHOWN, markup=False, soft_wrap=True),
        lambda one: one.print(Text(UNSHOWN)),
        lambda one: one.print(table),
        lambda one: one.log(UNSHOWN),
    ):
        written = written_by(show)
        assert ESCAPED in re.sub(r"\x1b\[[0-9;]*m", "", written)
        assert not re.search("\x1b\\[2J|[\x9b\u202e\udc80]", written)
        written.encode()


def test_a_live_line_shows_names_safely_and_moves():
    def show(one: Console) -> None:
        with Live(Text(UNSHOWN), console=one, auto_refresh=False) as live:
            live.update(Text(f"{UNSHOWN} 2"), refresh=True)

    written = written_by(show)
    assert f"{ESCAPED} 2" in written
    assert "\x1b[2K" in written, "Rich's own movement"
    assert "\x1b[2J" not in written


def test_lines_tabs_and_other_scripts_stay():
    text = "größe 規格 é\n  next"
    assert written_by(lambda one: one.print(text, markup=False)) == f"{text}\n"


def test_json_says_the_same_in_escapes(capsys, monkeypatch):
    monkeypatch.setattr(console.results, "_file", io.StringIO())  # ``file`` could not be undone
    console.print_json({UNSHOWN: "größe"})
    printed = console.results.file.getvalue()
    assert not console._UNSHOWN.search(printed)
    assert "größe" in printed
    assert json.loads(printed) == {UNSHOWN: "größe"}


def test_json_needs_no_character_that_the_encoding_lacks(monkeypatch):
    written = io.BytesIO()
    latin = io.TextIOWrapper(written, encoding="latin-1")
    monkeypatch.setattr(console.results, "_file", latin)
    console.print_json({"part": "größe … 🔩"})
    assert json.loads(written.getvalue().decode("latin-1")) == {"part": "größe … 🔩"}


def test_a_table_is_shown_where_the_encoding_lacks_its_lines():
    script = (
        "from hvq_edge.cli import console; console.guard_output();"
        "console.print_line('80 % – of größe')"
    )
    for encoding, said in (("utf-8", "80 % – of größe"), ("latin-1", "80 % \\u2013 of größe")):
        shown = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=True,
        )
        assert shown.stdout.decode(encoding).rstrip() == said


def test_every_message_goes_through_it():
    assert isinstance(console.messages, console.SafeConsole)
    assert isinstance(console.results, console.SafeConsole)


def test_a_stage_that_comes_again_is_timed_anew(monkeypatch):
    """As the features of held-out images after those that are trained on."""
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(console, "messages", terminal)
    now = [0.0]
    monkeypatch.setattr(terminal, "get_time", lambda: now[0])
    with console.progress_bars() as bars:
        for count, seconds in ((340, 300.0), (60, 40.0)):
            bars("backbone features", 8, count)
            now[0] += seconds
            bars("backbone features", count, count)
    assert re.search("60/60 +took +0:00:40", written.getvalue())


def test_a_dumb_terminal_hears_of_a_stage_in_lines_and_has_its_own_width(monkeypatch):
    """It draws no bar, and would be silent for minutes."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "60")
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: True)
    terminal = console._console(written, 100, stderr=False)
    terminal.file = written
    monkeypatch.setattr(console, "messages", terminal)
    with console.progress_bars() as bars:
        bars("Reading images", 1, 2)
        bars("Reading images", 2, 2)
    terminal.rule("1/7 images", align="left")
    assert written.getvalue().splitlines()[:1] == ["Reading images: 2/2"]
    assert max(map(len, written.getvalue().splitlines())) == 60
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS")
    assert console._console(written, 100, stderr=False)._width is None, "Rich follows it"
    assert console._console(io.StringIO(), 100, stderr=False).width == 100


@pytest.mark.parametrize(("columns", "width"), [(60, 80), (120, 120)])
def test_a_narrow_terminal_drops_no_columns_of_tables(monkeypatch, columns, width):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    assert console._console(Terminal(), 100, stderr=False).width == width
    assert console._console(Terminal(), None, stderr=True).width == columns, "bars fit their line"
