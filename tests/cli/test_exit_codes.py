"""How commands end: usage faults with 2, each error with its code, none with a traceback."""

import json
import os
import re
import subprocess
import sys
import tempfile

import pytest
import typer
from helpers.commands import exit_code, run_here
from helpers.patience import HANG_SECONDS
from helpers.run_records import record as run_record

from hvq_edge.cli import app as command_line
from hvq_edge.cli import demo
from hvq_edge.cli.interruption import advice_if_interrupted
from hvq_edge.errors import GateFailed, InputError, MissingCapability
from hvq_edge.run.record import write_run

# Usage faults: exit code 2, said on standard error.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "trian"),
        (["train", "--epoch-count", "3"], "--epoch-count"),
        (["train", "--epochs", "many", "--data", "x"], "--epochs"),
        (["stream"], "--camera"),
        (["data", "chekc"], "chekc"),
        (["data", "check"], "DIR"),
        (["--help-me"], "--help-me"),
    ],
)
def test_a_usage_fault_is_named(arguments, said):
    done = run_here(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "command",
    [
        *("calibrate", "verify", "report", "bench", "build", "eval", "sign", "learn"),
        *("bundle check", "bundle pack", "add-category bolt"),
    ],
)
def test_a_bundle_is_named_by_its_place_or_by_an_option(command, tmp_path):
    """As in the commands that judge, whose argument is an image."""
    absent = str(tmp_path / "absent bundle")
    more = {
        "calibrate": ["--good", absent],
        "learn": ["--good", absent],
        "sign": ["--key", absent],
        "add-category bolt": ["--on-device", "--good", absent],
    }.get(command, [])
    ways = ([absent, *more], ["--bundle", absent, *more], [*more, f"--bundle={absent}"])
    first, *others = [run_here(*command.split(), *way) for way in ways]
    assert first.returncode == 2
    assert absent in first.stderr
    assert [(one.returncode, one.stderr) for one in others] == [(2, first.stderr)] * 2
    twice = run_here(*command.split(), absent, "--bundle", absent, *more)
    assert twice.returncode == 2
    assert "name the bundle once" in twice.stderr
    lacking = run_here(*command.split(), *more, "--bundle")
    assert lacking.returncode == 2
    assert "--bundle' requires an argument" in lacking.stderr


def test_the_bundle_that_an_option_names_is_no_name_of_a_category(tmp_path):
    done = run_here(
        "add-category", "--bundle", str(tmp_path), "--good", str(tmp_path), "--on-device"
    )
    assert done.returncode == 2
    assert "Missing argument 'NAME'" in done.stderr


def test_a_run_named_by_an_option_stands_for_its_bundle(tmp_path):
    write_run(tmp_path, run_record())
    done = run_here("eval", "--bundle", str(tmp_path))
    assert done.returncode == 2
    assert f"was not exported: there is no {tmp_path / 'bundle'}" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--data", "{absent}"],
        ["eval", "{absent}", "--data", "{absent}"],
        ["export", "{absent}"],
        ["doctor", "--bundle", "{absent}"],
        ["verify", "{absent}"],
        ["verify", "{absent}", "--data", "{absent}"],
        ["build", "{absent}"],
        ["load", "{absent}", "--out", "{out}"],
        ["data", "check", "{absent}"],
        ["runs", "{absent}"],
        ["add-category", "bolt", "--good", "{absent}", "--run", "{absent}", "--out", "{out}"],
        ["remove-category", "bolt", "--run", "{absent}", "--out", "{out}"],
        ["rename-category", "bolt", "nut", "--run", "{absent}", "--out", "{out}"],
        ["calibrate", "{absent}", "--good", "{absent}"],
        ["bench", "{absent}", "--out", "{out}"],
        ["report", "{absent}"],
        ["sign", "{absent}", "--key", "{absent}"],
        ["bundle", "check", "{absent}"],
        ["bundle", "pack", "{absent}"],
        ["bundle", "unpack", "{absent}", "{out}"],
        ["bundle", "install", "{absent}", "--into", "{out}"],
        ["bundle", "rollback", "{absent}"],
        ["log", "verify", "{absent}"],
        ["review", "{absent}"],
        ["review", "{absent}", "--save", "{out}"],
        ["log", "show", "{absent}"],
        ["log", "export", "{absent}"],
        ["log", "report", "{absent}", "--out", "{out}"],
        ["stream", "--bundle", "{absent}", "--camera", "{absent}"],
    ],
)
def test_a_path_that_is_not_there(arguments, tmp_path):
    places = {"absent": tmp_path / "no such place é", "out": tmp_path / "out"}
    if arguments[0] == "train":
        arguments = [*arguments, "--out", "{out}"]
    done = run_here(*(argument.format(**places) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert "no such place é" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists(), "nothing may be left half-written"


# Exit codes: docs/explanation/architecture.md, "Exit codes".


@pytest.fixture
def command(request):
    """Registers a function as the command ``trial`` of the real application."""
    application = command_line.app
    registered = list(application.registered_commands)

    def register(function):
        application.command("trial")(function)

    yield register
    application.registered_commands[:] = registered


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GateFailed("INT8 differs.", next_step="calibrate again"), 1),
        (InputError("the folder [bold] is empty.", next_step="name another"), 2),
        (MissingCapability("no camera is connected.", next_step="connect one"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code(command, capsys, error, code):
    def trial() -> None:
        """Fail."""
        raise error

    command(trial)
    assert exit_code("trial") == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    if code != 130:
        assert f"Error: {error.cause}\nNext:  {error.next_step}\n" in printed.err


def test_ctrl_c_is_said_with_the_outermost_advice(command, capsys):
    def trial(how: str) -> None:
        """Be interrupted."""
        if how == "plain":
            raise KeyboardInterrupt
        with advice_if_interrupted(lambda: "Again."), advice_if_interrupted(lambda: "Inner."):
            raise KeyboardInterrupt

    command(trial)
    assert exit_code("trial", "plain") == 130
    assert capsys.readouterr().err.strip() == "Interrupted."
    assert exit_code("trial", "advised") == 130
    assert capsys.readouterr().err.strip() == "Interrupted. Again."


def test_an_interrupted_training_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    from hvq_edge.training import train_run

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)  # runs/latest is made here
    monkeypatch.setattr(train_run, "continue_run", interrupted)
    (tmp_path / "my run").mkdir()
    write_run(tmp_path / "my run", run_record(checkpoint_sha256=None))
    assert exit_code("train", "--resume", "--out", "my run") == 130
    said = "Interrupted. Go on with: hvq-edge train --resume --out 'my run'"
    assert said in capsys.readouterr().err


def test_a_missing_extra_is_named(command, capsys):
    """On a device, `hvq-edge train` says what to install."""

    def trial() -> None:
        """Need PyTorch."""
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

    command(trial)
    assert exit_code("trial") == 3
    printed = capsys.readouterr().err
    assert "needs torch, which is not installed" in printed
    assert "pip install 'hvq-edge[train]'" in printed


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("libGL.so.1", "libgl1"),
        ("libgthread-2.0.so.0", "libglib2.0-0"),
        ("libxcb.so.1", "libxcb1"),
        ("libodd-1.so.7", "apt-file search libodd-1.so.7"),
    ],
)
def test_a_missing_library_of_the_system_is_named_with_its_package(
    command, capsys, library, package
):
    """On a minimal image, `import cv2` needs what windows are made with."""

    def trial() -> None:
        """Need OpenCV."""
        said = f"{library}: cannot open shared object file: No such file or directory"
        raise ImportError(said, name="cv2")

    command(trial)
    assert exit_code("trial") == 3
    printed = capsys.readouterr().err
    assert f"Error: OpenCV cannot be loaded: this system lacks {library}." in printed
    assert package in printed.partition("Next:")[2]
    assert "Traceback" not in printed


def test_a_missing_module_of_ours_is_a_fault_of_ours(command, capsys):
    def trial() -> None:
        """Break."""
        raise ModuleNotFoundError("No module named 'hvq_edge.odel'", name="hvq_edge.odel")

    command(trial)
    assert exit_code("trial") == 70
    assert "ModuleNotFoundError" in capsys.readouterr().err


def test_a_command_that_works_ends_with_0(command, capsys):
    def trial() -> None:
        """Work."""
        from hvq_edge.cli.console import print_json

        print_json({"a": "é"})

    command(trial)
    assert exit_code("trial") == 0
    assert json.loads(capsys.readouterr().out) == {"a": "é"}


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("division by zero"),
        RecursionError("maximum recursion depth exceeded"),
        ModuleNotFoundError("No module named 'hvq_edge.odel'", name="hvq_edge.odel"),
    ],
)
def test_a_defect_of_ours_is_said_and_kept_in_a_report(
    command, capsys, tmp_path, monkeypatch, error
):
    def trial(camera: str, token: str = "") -> None:
        """Break."""
        raise error

    command(trial)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert exit_code("trial", "rtsp://user:word@host", "--token=s3cret") == 70
    printed = capsys.readouterr()
    (report,) = tmp_path.iterdir()
    assert (printed.out, "Traceback" in printed.err) == ("", False)
    assert f"({type(error).__name__})" in printed.err
    assert str(report) in printed.err
    text = report.read_text()
    assert "Traceback" in text
    assert str(error) in text
    assert "command: hvq-edge trial ... --token\n" in text
    assert not {"s3cret", "word@host"} & set(re.findall(r"[\w@]+", text)), "values are left out"
    assert report.stat().st_mode & 0o077 == 0


def test_a_report_that_cannot_be_written_is_printed(command, capsys, monkeypatch, tmp_path):
    def trial() -> None:
        """Break."""
        raise ZeroDivisionError

    command(trial)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert exit_code("trial") == 70
    printed = capsys.readouterr().err
    assert "no report can be written (No such file or directory)" in printed
    assert "Traceback" in printed


def test_a_reader_that_went_away_is_no_failed_gate():
    """`hvq-edge ... | head -1`: nobody reads on, nothing is wrong with the parts."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "hvq_edge", "--help"]
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=HANG_SECONDS
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("--version >/dev/full", 2, "Error: cannot write standard output: no space is left"),
        ("--nope 2>/dev/full", 2, ""),
        ("log verify nowhere 2>/dev/full", 2, ""),
        ("log verify nowhere >&- <&-", 2, "Error: there is no decision log nowhere."),
        ("--version 2>&-", 0, ""),
    ],
)
def test_an_output_that_cannot_be_written_is_no_fault_of_ours(command, code, said):
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m hvq_edge {command}'],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert (done.returncode, done.stderr.startswith(said)) == (code, True), done.stderr
    assert bool(done.stderr) is bool(said)


@pytest.mark.parametrize(
    ("ignored", "code", "said"), [(False, 130, "Interrupted.\n"), (True, 0, "")]
)
@pytest.mark.parametrize("module", ["hvq_edge.cli.app", "typer", "hvq_edge.cli.log_handler"])
def test_ctrl_c_while_the_commands_are_loaded_is_an_end_like_any(module, ignored, code, said):
    """Ignored, as of what runs behind a shell, it is none."""
    program = (
        "import os, signal, sys\n"
        "class Presses:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        f"if {ignored}: signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "sys.meta_path.insert(0, Presses())\n"
        "sys.argv[1:] = ['--version']\n"
        "from hvq_edge.__main__ import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("way", [KeyboardInterrupt(), typer.Exit(130)], ids=["ours", "stream's"])
def test_an_interrupted_demo_says_how_to_go_on(tmp_path, monkeypatch, capsys, way):
    pytest.importorskip("torch", reason="the demo asks for the train extra before anything else")

    def interrupted() -> None:
        raise way

    stage = demo.Stage("train", "hvq-edge train", lambda: False, interrupted)
    monkeypatch.setattr(demo, "demo_stages", lambda *_: [stage])
    assert exit_code("demo", "--out", str(tmp_path)) == 130
    assert capsys.readouterr().err.count(demo.AFTER_CTRL_C) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["stream", "rtsp://me:s3cret@h"],
        ["rtsp://me:s3cret@h"],
        ["stream", "--roi", "me:s3cret@h"],
        ["stream", "--camera", "0", "--policy", "me:s3cret@h"],
        ["stream", "--camera", "0", "--bundle", "https://me:s3cret@h/bundle"],
        ["runs", "https://me:s3cret@h/runs"],
    ],
)
def test_an_address_in_the_wrong_place_is_not_repeated_with_its_credentials(arguments, capsys):
    assert exit_code(*arguments) == 2
    said = capsys.readouterr().err
    assert "s3cret" not in said
    assert "...@h" in said
