"""``hvq-edge stream`` with its live page, played files, signatures, calibration and a server."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.images import write_video
from helpers.paths import ROOT
from helpers.patience import PATIENCE_SECONDS, until
from helpers.running_line import LONGEST_STOP, RunningLine, parts, save_film, save_line_bundle
from typer import Typer
from typer.testing import CliRunner

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10
    import tomli as tomllib

from hvq_edge.bundle.integrity.keys import new_key
from hvq_edge.bundle.integrity.signature import sign_bundle
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.cli.stream import add_stream
from hvq_edge.errors import GateFailed, HvqEdgeError, MissingCapability, SettingsError
from hvq_edge.stream.capture.part_number import named_part
from hvq_edge.stream.settings import load_stream_settings

app = Typer()
add_stream(app)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_line_bundle(tmp_path_factory.mktemp("page") / "bundle")


@pytest.fixture
def film(tmp_path):
    return save_film(tmp_path / "film.avi", 20)


def run(*arguments, fails: type[HvqEdgeError] | None = None) -> str:
    """The command in this process; returns what it printed, or the fault's cause."""
    fixed = ["--backend", "onnxruntime", "--no-display"]
    result = CliRunner().invoke(app, [str(argument) for argument in (*fixed, *arguments)])
    if fails is None:
        assert result.exception is None, result.output
        return result.stdout
    assert isinstance(result.exception, fails), result.output
    assert result.exception.next_step
    return result.exception.cause


# The live page.


def test_the_page_stays_after_a_film_until_ctrl_c(bundle, film, tmp_path):
    arguments = ["--bundle", bundle.path, "--camera", film, "--page-port", 0]
    with RunningLine(tmp_path, *arguments) as line:
        line.wait_for_message("The live page stays until Ctrl-C")
        status, health = line.get("healthz")
        assert (status, json.loads(health)["failing"]) == (200, [])
        assert "hvq_uptime_seconds" in line.get("metrics")[1]
        assert line.get("")[1].lower().startswith("<!doctype html>")
        assert line.stop(signal.SIGINT, code=130) < 5.0
        assert "Interrupted." in line.said
    counts = line.assert_it_fits()
    assert (counts["frames"], counts["rejected"]) == (20, 2)


def test_a_played_film_goes_round_at_its_own_rate(bundle, film, tmp_path):
    with RunningLine(tmp_path, "--bundle", bundle.path, "--camera", film, "--play") as line:
        until(lambda: len(line.decisions()) > 45, "it has gone round twice")
        assert line.stop() < LONGEST_STOP
    decisions = line.decisions()
    seconds = decisions[-1]["time"] - decisions[0]["time"]
    assert decisions[-1]["frame"] / seconds == pytest.approx(30.0, rel=0.2)
    assert line.assert_it_fits()["frames"] >= 45


def test_playing_is_for_files(bundle):
    assert "watched folder" in run(
        "--bundle", bundle.path, "--camera", "watch:/x", "--play", fails=SettingsError
    )


def test_an_open_address_needs_a_token(bundle, film):
    cause = run(
        *("--bundle", bundle.path, "--camera", film, "--page-host", "0.0.0.0"), fails=SettingsError
    )
    assert "token" in cause
    assert SettingsError.exit_code == 2


def test_a_port_in_use_is_said(bundle, film):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        cause = run(
            *("--bundle", bundle.path, "--camera", film, "--page-port", port), fails=SettingsError
        )
    assert str(port) in cause
    assert "in use" in cause


def test_page_and_sinks_of_a_settings_file(bundle, film, tmp_path):
    """Flags win over the file; credentials are not printed."""
    settings = tmp_path / "stream.toml"
    settings.write_text(
        f'bundle = "{bundle.path}"\n[[cameras]]\ncamera = "rtsp://me:tulip@10.0.0.5/line"\n'
        '[page]\nport = 8700\n[sinks.webhook]\nurl = "http://127.0.0.1:9/x"\n'
        "[sinks.rejects]\ncontext_frames = 2\n"
    )
    printed = run("--config", settings, "--page-port", 8701, "--print-config")
    assert "tulip" not in printed
    read = tomllib.loads(printed)
    assert read["page"]["port"] == 8701
    assert read["sinks"]["webhook"]["url"] == "http://127.0.0.1:9/..."
    assert read["sinks"]["rejects"]["context_frames"] == 2
    settings.write_text("[page]\nprot = 1\n[sinks.webhook]\nurl = 5\n[sinks.rejects]\nframes = 1\n")
    cause = run("--config", settings, "--camera", film, fails=SettingsError)
    for fault in ("page.prot", "sinks.webhook.url", "sinks.rejects.frames"):
        assert fault in cause
    settings.write_text('[sinks.webhook]\nurl = "http://127.0.0.1:9/x"\n')
    arguments = ["--config", settings, "--bundle", bundle.path, "--camera", film]
    assert "decision log" in run(*arguments, fails=SettingsError)


def test_half_requests_cost_the_inspector_nothing(bundle, tmp_path):
    film = save_film(tmp_path / "film.avi", 60)
    arguments = ["--bundle", bundle.path, "--camera", film, "--play", "--page-port", 0]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as ends:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(700, limits[1]), limits[1]))
        ends.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        line = ends.enter_context(RunningLine(tmp_path, *arguments))
        port = int(re.search(r":(\d+)/", line.page)[1])
        for _ in range(500):
            half = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
            ends.enter_context(half).sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        assert line.get("healthz")[0] == 200
        allowed = Path(f"/proc/{line.process.pid}/limits").read_text()
        assert int(re.search(r"Max open files +(\d+)", allowed)[1]) == min(8192, limits[1])
        line.wait_for(3, "reject")
        line.stop()
        line.assert_it_fits()
    assert "Warning" not in line.said


# Signatures, calibration, servers.


def test_only_a_signed_bundle_is_used(bundle, film, tmp_path):
    keys = tmp_path / "keys"
    keys.mkdir()
    office, stranger = keys / "office", keys / "stranger"
    new_key(office)
    new_key(stranger)
    signed = Path(shutil.copytree(bundle.path, tmp_path / "signed"))
    sign_bundle(signed, office)
    arguments = ["--bundle", signed, "--camera", film, "--require-signature"]
    assert "reject" in run(*arguments, f"{office}.pub")
    assert run(*arguments, f"{stranger}.pub", fails=GateFailed)
    graph = signed / "model.fp32.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    assert "model.fp32.onnx" in run(*arguments, f"{office}.pub", fails=GateFailed)
    assert GateFailed.exit_code == 1


def test_thresholds_are_learnt_from_a_stream(bundle, tmp_path):
    learning = Path(shutil.copytree(bundle.path, tmp_path / "learning"))
    good = [image for i, image in enumerate(parts(140)) if i % 10 != 3]
    film = write_video(tmp_path / "good.avi", good)
    arguments = ["--bundle", learning, "--camera", film, "--calibrate"]
    printed = run(*arguments, 120, "--false-reject", 0.05)
    assert re.search(r"5(\.0)? ?%", printed), printed
    thresholds = open_bundle(learning).manifest.thresholds["fp32"]
    assert 0.3 < thresholds["bolt"].value < 0.35, "just above what good images have"
    assert thresholds["bolt"].rule != "test"
    told = json.loads(run(*arguments, 120, "--false-reject", 0.05, "--json"))
    assert isinstance(told, dict)
    two = run(*arguments, 50, "--camera", "0", fails=SettingsError)
    assert "one camera at a time" in two


def test_a_stream_s_thresholds_promise_what_was_asked_for(bundle, tmp_path):
    learning = Path(shutil.copytree(bundle.path, tmp_path / "learning"))
    (learning / "bundle.sig").write_text("{}")  # whatever it signed, it is other bytes now
    good = [image for i, image in enumerate(parts(150)) if i % 10 != 3]
    film = write_video(tmp_path / "good.avi", good)
    arguments = ["--bundle", learning, "--camera", film, "--calibrate", 125]
    told = json.loads(run(*arguments, "--confidence", 0.8, "--json"))
    assert told["thresholds"]["fp32"]["bolt"]["bound"]["confidence"] == 0.8
    (note,) = [note for note in told["notes"] if "signature" in note]
    assert "its signature no longer holds" in note
    assert f"hvq-edge sign {learning}" in note
    tail = ["--method", "extreme-value", "--false-reject", 0.05]
    told = json.loads(run(*arguments, *tail, "--json"))
    assert told["thresholds"]["fp32"]["bolt"]["bound"]["method"] == "extreme-value"
    assert "'guess' is none of" in run(*arguments, "--method", "guess", fails=SettingsError)
    assert "between 0 and 1" in run(*arguments, "--confidence", 1, fails=SettingsError)


def test_a_server_that_is_not_there(bundle, film):
    fixed = ["--bundle", str(bundle.path), "--camera", str(film), "--no-display"]
    result = CliRunner().invoke(app, [*fixed, "--server", "127.0.0.1:9"])
    assert isinstance(result.exception, MissingCapability), result.output
    assert "127.0.0.1:9" in result.exception.cause
    assert MissingCapability.exit_code == 3


def test_the_exit_code_of_the_real_command(bundle, film):
    command = [sys.executable, "-m", "hvq_edge", "stream", "--bundle", str(bundle.path)]
    done = subprocess.run(
        [*command, "--camera", str(film), "--page-host", "0.0.0.0"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert "\nNext:  " in done.stderr


def test_the_settings_file_of_the_docs_is_valid(tmp_path):
    page = (ROOT / "docs/how-to/inspector.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(# stream\.toml\n.+?)```", page, re.DOTALL)
    file = tomllib.loads(example)
    assert {"page", "decision", "sinks", "cameras"} <= set(file)
    settings = tmp_path / "stream.toml"
    settings.write_text(example)
    assert load_stream_settings(settings).page is not None


def test_the_examples_of_serial_numbers_in_the_docs_are_valid(tmp_path):
    page = (ROOT / "docs/how-to/inspector.md").read_text(encoding="utf-8")
    section = page.partition("## Serial numbers of parts")[2].partition("\n## ")[0]
    settings = tmp_path / "stream.toml"
    found = []
    for example in re.findall(r"```toml\n(.+?)```", section, re.DOTALL):
        settings.write_text(example)
        found += load_stream_settings(settings).cameras
    assert [(one.part_code, one.part_opcua_node is None) for one in found] == [
        ("data-matrix", True),
        (None, False),
    ]
    (pattern,) = re.findall(r"watch:\S+ --part-from '(\S+)'", section)
    assert named_part(re.compile(pattern), "belt/SN-0042_cam1.png") == "SN-0042"
