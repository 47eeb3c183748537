"""`hvq-edge doctor`: no check ends the others, and its table comes out whole."""

from __future__ import annotations

import json

import cv2
import pytest
from helpers.graphs import save_bundle
from helpers.patience import Stopwatch

from hvq_edge.cli.app import main
from hvq_edge.common.child_process import NoAnswer, run_isolated, tool
from hvq_edge.doctor.examination import insist
from hvq_edge.doctor.finding import Check, CheckResult, examine
from hvq_edge.errors import InputError, MissingCapability

# Isolation.


def test_a_check_that_breaks_is_a_finding_and_the_others_run():
    def breaks():
        raise SystemError("the driver says no\nat length")

    fine = CheckResult("fine", "ok", "it is")
    broken, after = examine([Check("bad", breaks), Check("fine", lambda: [fine])])
    assert (broken.name, broken.state) == ("bad", "missing")
    assert "SystemError the driver says no" in broken.found
    assert "at length" not in broken.found
    assert after == fine


def test_what_is_missing_has_a_remedy():
    with pytest.raises(ValueError, match="remedy"):
        CheckResult("gpu", "missing", "no GPU")


def test_a_library_that_ends_the_program_harms_nobody():
    assert run_isolated("answer = [arguments, 1]", "é") == [["é"], 1]
    for code, said in (
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("import os; os._exit(7)", "exit code 7"),
        ("import no_such_library", "No module named 'no_such_library'"),
    ):
        with pytest.raises(NoAnswer, match=said):
            run_isolated(code)
    with Stopwatch() as stopwatch, pytest.raises(NoAnswer, match=r"no answer within 0\.3 s"):
        run_isolated("import time; time.sleep(60)", timeout=0.3)
    assert stopwatch.seconds < 10, stopwatch
    assert tool("no-such-tool-é") is None
    assert tool("false") is None


def test_a_file_of_the_current_folder_is_no_library(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("json", "cv2", "hvq_edge"):
        (folder / f"{name}.py").write_text("open('ran', 'a').close()\n__version__ = 'mine'\n")
    (tmp_path / "asked_for.py").write_text("name = 'there'\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "import cv2, hvq_edge, asked_for\nanswer = [cv2.__version__, asked_for.name]"
    for safe in ("", "1"):  # Python puts the folder there, or from 3.11 on is told not to
        monkeypatch.setenv("PYTHONSAFEPATH", safe)
        assert run_isolated(code) == [cv2.__version__, "there"]
    assert not (folder / "ran").exists()


# The command.


def test_the_table_comes_out_whole_and_names_what_is_required(tmp_path, capsys):
    bundle = save_bundle(tmp_path / "bundle", "auto", ("fp32", "int8"))
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--bundle", str(bundle.path), "--json"])
    assert stop.value.code in (0, None)
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert {"python", "memory", "disk", "opencv", "onnxruntime", "gpu", "tensorrt"} <= set(found)
    assert all(one["remedy"] for one in found.values() if one["state"] == "missing")
    assert any(name.startswith("genicam") for name in found)
    assert "gstreamer" in found
    assert "providers: cpu" in found["onnxruntime"]["found"]
    assert found["thresholds"]["state"] == "missing"


def test_require():
    findings = [
        CheckResult("camera-0", "missing", "dead", "unplug it"),
        CheckResult("camera-1", "ok", "alive"),
        CheckResult("opencv", "ok", "4.8"),
        CheckResult("opencv-gstreamer", "note", "NO", "take the system's"),
    ]
    insist(["camera", "opencv"], findings)
    with pytest.raises(MissingCapability, match="opencv-gstreamer") as caught:
        insist(["opencv-gstreamer", "camera-0"], findings)
    assert "camera-0 (dead)" in caught.value.cause
    assert caught.value.next_step == "take the system's"
    with pytest.raises(InputError, match="nothing called 'lidar'"):
        insist(["lidar"], findings)
