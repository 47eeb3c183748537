"""``hvq-edge stream`` from the outside: what it prints, what it writes, how it ends."""

from __future__ import annotations

import csv
import gc
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.commands import exit_code
from helpers.images import flat, read_video, write_png, write_video
from helpers.patience import PATIENCE_SECONDS, Stopwatch
from helpers.stream_command import bundle, part, run, video  # noqa: F401  # fixtures
from helpers.thresholds import threshold_at

from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import put_thresholds
from hvq_edge.cli import console, stream_view
from hvq_edge.errors import SettingsError
from hvq_edge.stream import from_settings


def test_video_to_json_and_files(bundle, video, tmp_path):
    out = tmp_path / "out"
    result = run("--bundle", bundle.path, "--camera", video, "--json", "--out", out)
    decisions = [json.loads(line) for line in result.stdout.splitlines()]
    assert [decision["frame"] for decision in decisions] == list(range(12))
    assert [decision["category"] for decision in decisions] == ["bolt", "nut"] * 6
    expected = ["reject" if i % 4 == 3 else "pass" for i in range(12)]
    assert [decision["verdict"] for decision in decisions] == expected
    assert "Inspecting" in result.stderr
    assert re.search(r"with (fp32|int8) on (openvino|onnxruntime) ", result.stderr)

    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == [
        "annotated.mp4",
        "decisions.jsonl",
        "decisions.sqlite",
        "decisions.sqlite.head",
        "rejects",
    ]
    logged = [json.loads(line) for line in (out / "decisions.jsonl").read_text().splitlines()]
    assert logged == decisions
    assert len(list((out / "rejects").glob("*.png"))) == 3
    assert len(list((out / "rejects").glob("*.npy"))) == 3
    assert len(read_video(out / "annotated.mp4")) == 12


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["lines", "json"])
def test_a_full_disk_behind_standard_output_ends_printing_alone(
    bundle, video, tmp_path, monkeypatch, capsys, form
):
    with open("/dev/full", "w") as full, monkeypatch.context() as patched:  # noqa: PTH123
        patched.setattr(sys, "stdout", console._guarded(full, console._Results))
        code = exit_code(
            *("stream", "--bundle", str(bundle.path), "--camera", str(video), *form),
            *("--out", str(tmp_path / "out"), "--no-video", "--no-display"),
        )
    assert code == 0
    said = capsys.readouterr().err
    assert said.count("Warning: cannot write standard output: no space is left on the disk.") == 1
    assert len((tmp_path / "out" / "decisions.jsonl").read_text().splitlines()) == 12


def test_a_part_is_found_by_the_code_that_a_camera_saw(bundle, tmp_path, capsys):
    """A video of parts beside their labels; the third label is torn off."""
    encoder = cv2.QRCodeEncoder.create()
    numbers = ["SN-1", "SN-2/\x1b[2J", "", "SN-3"]
    images = []
    for i, number in enumerate(numbers):
        image = np.full((96, 192, 3), 200, np.uint8)
        image[:64, :64] = part("bolt", defect=i % 2 == 1)
        if number:
            code = cv2.resize(encoder.encode(number), None, fx=3, fy=3, interpolation=0)
            image[8 : 8 + len(code), 88 : 88 + len(code)] = code[..., np.newaxis]
        images += [image] * 2
    film = write_video(tmp_path / "labels.avi", images)
    out = tmp_path / "out"
    cameras = ["--camera", film, "--roi", "0,0,64,64", "--part-code", "qr"]
    region = ["--part-code-region", "72,0,120,96"]
    result = run("--bundle", bundle.path, *cameras, *region, "--out", out)
    lines = [line for line in result.stdout.splitlines() if line.startswith("frame")]
    assert [r"part SN-2/\x1b[2J" in line for line in lines] == [True, True, False, False]
    summary = dict(re.findall(r"│ (\S.*?)\s+│\s+(\S.*?) │", result.stdout))
    assert (summary["frames"], summary["serial number not read"]) == ("8", "2")

    logged = [json.loads(line) for line in (out / "decisions.jsonl").read_text().splitlines()]
    assert [one["image"] for one in logged] == [f"labels.avi#{i}" for i in range(8)]
    assert [one["part"] or "" for one in logged] == [one for one in numbers for _ in range(2)]
    assert [one["verdict"] for one in logged] == ["pass", "pass", "reject", "reject"] * 2
    for number in ("SN-1", "SN-2/\x1b[2J", "SN-3"):
        assert exit_code("log", "show", str(out), "--part", number, "--json") == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        expected = [one for one in logged if one["part"] == number]
        assert [one["image"] for one in rows] == [one["image"] for one in expected]
        for row in rows:
            suffixes = [Path(path).suffix for path in row["recorded"] if Path(path).is_file()]
            assert suffixes == ([".npy", ".png", ".jpg"] if row["verdict"] == "reject" else [])
    assert exit_code("log", "show", str(out), "--part", "SN-2/\x1b[2J") == 0
    printed = capsys.readouterr().out
    assert r"SN-2/\x1b[2J" in printed
    assert "\x1b" not in printed
    assert len(re.findall(rf"{out}/rejects/\S+-00000[23]-SN-2_\w*\.png", printed)) == 2
    assert exit_code("log", "show", str(out), "--part", "SN-2") == 0
    assert "no such row" in capsys.readouterr().err
    assert exit_code("log", "export", str(out), "--part", "SN-3") == 0
    names = [
        (row["image"], row["part"]) for row in csv.DictReader(capsys.readouterr().out.split("\n"))
    ]
    assert names == [("labels.avi#6", "SN-3"), ("labels.avi#7", "SN-3")]
    assert exit_code("log", "verify", str(out)) == 0


def test_json_at_a_terminal_shows_no_control_character_of_a_name(bundle, tmp_path):
    name = "a\x9b\u202e.png"
    write_png(tmp_path / "Teile" / name, part("bolt")[..., ::-1])
    settings = ["--bundle", bundle.path, "--camera", tmp_path / "Teile", "--part-from", "^[^.]+"]
    line = run(*settings, "--json").stdout
    assert r"\u009b\u202e" in line
    assert [json.loads(line)[key] for key in ("image", "part")] == [name, "a\x9b\u202e"]


def test_it_says_why_it_does_not_run_int8(bundle, video, tmp_path):
    copy = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    (copy / "verify.json").write_text('{"precisions": {"int8": {"passed": false}}}')
    arguments = ["--bundle", copy, "--camera", video, "--max-frames", 1, "--backend", "onnxruntime"]
    assert "Why fp32: hvq-edge verify did not pass int8." in run(*arguments).stderr
    assert "Why" not in run(*arguments, "--precision", "fp32").stderr


def test_summary_for_people(bundle, video, tmp_path):
    result = run("--bundle", bundle.path, "--camera", video, "--out", tmp_path / "out")
    lines = result.stdout.splitlines()
    rejects = [line for line in lines if line.startswith("frame")]
    assert len(rejects) == 3
    assert all("reject" in line and "nut" in line for line in rejects)
    summary = dict(re.findall(r"│ (\S.*?)\s+│\s+(\S.*?) │", result.stdout))
    assert summary["frames"] == "12"
    assert summary["pass"] == "9"
    assert summary["reject"] == "3"
    assert summary["dropped (policy all)"] == "0"
    assert float(summary["latency p99"].split()[0]) >= float(summary["latency p50"].split()[0]) > 0
    assert str(tmp_path / "out" / "annotated.mp4") in result.stdout


def test_an_image_that_passes_has_its_score_printed(bundle, tmp_path):
    image = tmp_path / "gut 1.png"
    write_png(image, part("bolt")[..., ::-1])
    (line,) = re.findall(r"^frame.*", run("--bundle", bundle.path, "--camera", image).stdout, re.M)
    assert re.search(r"pass\s+bolt\s+score 0\.[0-9]+ within threshold 0\.5\s+\(gut 1.png\)", line)
    image.write_text("text")
    (line,) = re.findall(r"^frame.*", run("--bundle", bundle.path, "--camera", image).stdout, re.M)
    assert "no decision" in line
    write_png(image, part("bolt")[..., ::-1])
    assert "frame  " not in run("--bundle", bundle.path, "--camera", tmp_path).stdout


def test_folder_with_a_broken_image_and_a_category_without_threshold(bundle, tmp_path):
    folder = tmp_path / "Teile"
    write_png(folder / "1 gut.png", part("bolt")[..., ::-1])
    write_png(folder / "3 Platte.png", part("washer plate")[..., ::-1])
    (folder / "2 kaputt.png").write_text("text")
    result = run("--bundle", bundle.path, "--camera", folder, "--json", "--precision", "fp32")
    decisions = [json.loads(line) for line in result.stdout.splitlines()]
    assert [decision["verdict"] for decision in decisions] == ["pass", "no_decision", "no_decision"]
    assert "2 kaputt.png" in decisions[1]["reason"]
    assert decisions[1]["score"] is None
    assert decisions[2]["reason"] == "no threshold for washer plate at fp32"
    assert decisions[2]["score"] == pytest.approx(20 + 50 / 255, abs=0.01)
    assert "no fp32 threshold for washer plate" in result.stderr


def test_thresholds_of_before_are_said(bundle, video, tmp_path):
    """One precision was calibrated at the camera, and another one is asked for."""
    copy = shutil.copytree(bundle.path, tmp_path / "bundle")
    learnt = {name: threshold_at(0.4) for name in ("bolt", "nut")}
    put_thresholds(open_bundle(copy), {"int8": learnt}, why="stream --calibrate with 0")
    older = run("--bundle", copy, "--camera", video, "--precision", "fp32").stderr
    assert (
        "Warning: stream --calibrate with 0 set the thresholds of int8 last (bolt, nut); those of "
        "fp32, which judge now, are of before.\nNext:    run with --precision int8, or" in older
    )
    said = run("--bundle", copy, "--camera", video).stderr
    assert "with int8 on" in said
    assert "its thresholds were set last, by stream --calibrate with 0" in said
    assert "are of before" not in said


def test_without_out_nothing_is_written(bundle, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    run("--bundle", bundle.path, "--camera", video.name)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_collector_rests_while_it_loads_and_works_while_it_inspects(bundle, video, monkeypatch):
    seen = []
    opened = from_settings.open_line

    def opening(*given, **named):
        seen.append(("opens", gc.isenabled()))
        return opened(*given, **named)

    def written(self, decision, frame):
        seen.append(("decides", gc.isenabled()))

    monkeypatch.setattr(from_settings, "open_line", opening)
    monkeypatch.setattr(stream_view.PrintedJson, "write", written)
    run("--bundle", bundle.path, "--camera", video, "--max-frames", 1, "--no-display", "--json")
    assert seen == [("opens", False), ("decides", True)]
    run("--camera", video, "--roi", "none", fails=SettingsError)
    assert gc.isenabled()


def test_options(bundle, video, tmp_path):
    result = run(
        *("--bundle", bundle.path, "--camera", video, "--json", "--max-frames", 5),
        *("--backend", "onnxruntime", "--out", tmp_path / "out", "--no-video"),
    )
    assert len(result.stdout.splitlines()) == 5
    # which file is faster on it is measured anew on every machine
    assert re.search(r"(fp32|int8) on onnxruntime", result.stderr)
    assert not (tmp_path / "out" / "annotated.mp4").exists()


def test_a_repeated_no_decision_is_one_line_from_a_camera_feed(bundle, tmp_path):
    film = write_video(tmp_path / "film.avi", [part("washer plate")] * 6)
    result = run("--bundle", bundle.path, "--camera", film)
    lines = [line for line in result.stdout.splitlines() if line.startswith("frame")]
    assert len(lines) == 1
    assert "no decision" in lines[0]


def start(*options) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "hvq_edge", "stream", "--json", "--backend", "onnxruntime"]
    return subprocess.Popen(
        [*command, *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_reader_that_goes_away_ends_it(bundle, tmp_path):
    """``hvq-edge stream --json | head -2`` is no error."""
    film = write_video(tmp_path / "film.avi", [flat(i % 200) for i in range(3000)])
    process = start("--bundle", bundle.path, "--camera", film)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["frame"] == 0
    process.stdout.close()
    messages = process.stderr.read()
    assert process.wait(PATIENCE_SECONDS) == 0, messages
    assert "Traceback" not in messages
    assert "frames" in messages
    process.stderr.close()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
)
def test_signals_end_it_cleanly(bundle, tmp_path, number, code):
    """In a process of its own; the film is long enough not to end by itself."""
    film = write_video(tmp_path / "film.avi", [flat(i % 200) for i in range(5000)])
    out = tmp_path / "out"
    process = start("--bundle", bundle.path, "--camera", film, "--out", out)
    assert process.stdout is not None
    assert process.stderr is not None
    first = [process.stdout.readline() for _ in range(3)]
    with Stopwatch() as stopwatch:
        process.send_signal(number)
        # Not communicate(): it reads the pipe itself, past what readline() has buffered.
        rest, messages = process.stdout.read(), process.stderr.read()
        process.stdout.close()
        process.stderr.close()
        assert process.wait(PATIENCE_SECONDS) == code, messages
    assert stopwatch.seconds < 5, stopwatch
    printed = "".join(first) + rest
    assert printed == (out / "decisions.jsonl").read_text(), "every line is whole, in both"
    frames = [json.loads(line)["frame"] for line in printed.splitlines()]
    assert frames == list(range(len(frames)))
    assert len(frames) < 5000
    assert len(read_video(out / "annotated.mp4")) == len(frames)
    summary = {
        label: int(value) for label, value in re.findall(r"│ (\w[\w ()]*?)\s+│\s+(\d+) │", messages)
    }
    counts = {label.split(" (")[0]: value for label, value in summary.items()}
    decided = counts["pass"] + counts["reject"] + counts["no decision"]
    assert decided == len(frames)
    assert counts["frames"] == decided + counts["dropped"]
    assert counts["dropped"] == 0, "what was captured is decided"
