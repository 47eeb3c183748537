"""Opening sinks from settings, what they keep on disk, and how they end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_stream_sinks import DRAW, made, read_video
from test_stream_sinks_network import HttpReceiver, until
from test_stream_sinks_plant import free_port

from hvq_edge.errors import MissingCapability, OutputError, SettingsError
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.decisions import Decision
from hvq_edge.stream.latency import LatencyHistogram
from hvq_edge.stream.sinks import reject_pictures, sink_thread
from hvq_edge.stream.sinks.by_camera import ByCamera
from hvq_edge.stream.sinks.decision_log import DecisionLog, LogOptions, Session
from hvq_edge.stream.sinks.deliveries import Deliveries, Progress
from hvq_edge.stream.sinks.log_file import chain_files
from hvq_edge.stream.sinks.log_reader import all_rows
from hvq_edge.stream.sinks.log_retention import remove_old_log_files
from hvq_edge.stream.sinks.log_verification import verify_log
from hvq_edge.stream.sinks.open_sinks import SourceInfo, needed, open_sinks
from hvq_edge.stream.sinks.prometheus_metrics import render
from hvq_edge.stream.sinks.reject_pictures import RejectPictures
from hvq_edge.stream.sinks.retention import (
    REJECT_FILES,
    VIDEO_FILES,
    Retention,
    RetentionLimits,
)
from hvq_edge.stream.sinks.sink_settings import SinkSettings, read_secret
from hvq_edge.stream.sinks.sink_thread import SinkThread
from hvq_edge.stream.sinks.video_segments import VideoSegments
from hvq_edge.stream.sources.source import Frame
from hvq_edge.stream.statistics import CameraStatistics, Counts, SinkStatistics, Statistics
from hvq_edge.stream.stream_settings import load_stream_settings, to_toml

ROOT = Path(__file__).parents[1]
SOURCES = [SourceInfo("", 10.0)]


def of_camera(camera: str, index: int, verdict: str = "pass") -> tuple[Decision, Frame]:
    """A decision that knows its camera, as those of several do."""
    decision, frame = made(index, verdict)
    object.__setattr__(decision, "camera", camera)
    return decision, frame


# Threads.


class Recorder:
    """Takes decisions, fails and hangs as it is told."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.faulty = False
        self.go = threading.Event()
        self.go.set()
        self.closed = 0

    def write(self, decision, frame):
        self.go.wait()
        if self.faulty:
            raise OutputError("cannot write: no space is left on the disk.")
        self.taken.append(decision.frame)

    def close(self):
        self.closed += 1


def sums(thread: SinkThread) -> int:
    counts = thread.statistics()
    assert min(counts.written, counts.dropped, counts.waiting) >= 0
    return counts.written + counts.dropped + counts.waiting


def test_a_slow_sink_drops_and_counts_where_it_may():
    sink = Recorder()
    sink.go.clear()
    thread = SinkThread(sink, "slow", "drop", 3)
    start = time.monotonic()
    for index in range(20):
        thread.write(*made(index))
        assert sums(thread) == index + 1
    assert time.monotonic() - start < 1.0
    sink.go.set()
    thread.close()
    counts = thread.statistics()
    assert counts.written == len(sink.taken) in (3, 4)
    assert counts.dropped == 20 - counts.written
    assert sink.taken == sorted(sink.taken)
    assert sink.closed == 1


def test_back_pressure_loses_nothing():
    sink = Recorder()
    thread = SinkThread(sink, "all", "wait", 2)
    sink.go.clear()
    threading.Timer(0.05, sink.go.set).start()
    for index in range(20):
        thread.write(*made(index))
    thread.close()
    assert sink.taken == list(range(20))
    assert thread.statistics() == SinkStatistics("all", 20, 0, 0)


def test_a_fault_is_told_once_and_ends_with_it():
    sink, told = Recorder(), []
    thread = SinkThread(sink, "rejects", "wait", 2, report=lambda *said: told.append(said))
    sink.faulty = True
    for index in range(5):
        thread.write(*made(index))
    until(lambda: thread.statistics().dropped == 5)
    assert "no space" in thread.statistics().fault
    sink.faulty = False
    thread.write(*made(5))
    until(lambda: thread.statistics().written == 1)
    assert thread.statistics().fault == ""
    thread.close()
    assert told == [("rejects", "cannot write: no space is left on the disk.")]


def test_a_sink_that_cannot_go_on_is_closed_once():
    sink = Recorder()
    thread = SinkThread(sink, "video", "wait", 2, ends_at_fault=True)
    thread.write(*made(0))
    until(lambda: sink.taken == [0])
    sink.faulty = True
    thread.write(*made(1))
    until(lambda: sink.closed == 1)
    sink.faulty = False
    thread.write(*made(2))
    thread.close()
    counts = thread.statistics()
    assert (counts.written, counts.dropped, sink.closed) == (1, 2, 1)
    assert counts.fault


def test_a_defect_of_a_sink_does_not_reach_the_inspector():
    class Broken(Recorder):
        def write(self, decision, frame):
            raise ZeroDivisionError("a defect")

    thread = SinkThread(Broken(), "broken", "wait", 1)
    for index in range(3):
        thread.write(*made(index))
    thread.close()
    assert thread.statistics().dropped == 3
    assert "ZeroDivisionError" in thread.statistics().fault


def test_a_sink_that_hangs_is_left_behind():
    sink = Recorder()
    sink.go.clear()
    thread = SinkThread(sink, "dead disk", "wait", 2)
    for index in range(3):
        thread.write(*made(index))
    blocked = threading.Thread(target=lambda: thread.write(*made(3)))
    blocked.start()
    start = time.monotonic()
    thread.close(0.1)
    assert time.monotonic() - start < 1.0
    blocked.join(5.0)
    assert not blocked.is_alive(), "whoever waits for room is let go"
    assert sums(thread) == 4
    assert "did not finish" in thread.statistics().fault
    sink.go.set()


def test_pictures_do_not_wait_where_nobody_looks_at_them():
    seen = []

    class Looking(Recorder):
        def write(self, decision, frame):
            seen.append((decision.map, frame.picture, decision.frame))

    thread = SinkThread(Looking(), "log", "wait", 2, pictures=False)
    thread.write(*made(7, "reject"))
    thread.close()
    assert seen == [(None, None, 7)]


def test_passes_do_not_crowd_out_a_reject():
    sink = Recorder()
    sink.go.clear()
    thread = SinkThread(sink, "rejects", "drop", 2, wanted=lambda d: d.verdict == "reject")
    for index in range(50):
        thread.write(*made(index, "reject" if index == 49 else "pass"))
        assert sums(thread) == index + 1
    sink.go.set()
    thread.close()
    assert sink.taken == [49]
    assert thread.statistics() == SinkStatistics("rejects", 50, 0, 0)


# Pictures.


def test_frames_around_a_reject_are_kept(tmp_path):
    sink = RejectPictures(tmp_path, DRAW, context_frames=2)
    for index in range(8):
        sink.write(*made(index, "reject" if index in (1, 4) else "pass"))
    sink.close()
    found: dict[str, set[str]] = {}
    for path in tmp_path.iterdir():
        match = re.fullmatch(r".*-00000(\d)_frame([+-]\d)\.jpg", path.name)
        if match:
            found.setdefault(match[1], set()).add(match[2])
    assert found == {"1": {"-1", "+1", "+2"}, "4": {"-2", "-1", "+1", "+2"}}
    (before,) = tmp_path.glob("*-000004_frame-1.jpg")
    picture = cv2.imread(str(before))[..., ::-1].astype(int)
    assert np.abs(picture - made(3)[1].picture).mean() < np.abs(picture - made(2)[1].picture).mean()
    assert all(REJECT_FILES.fullmatch(path.name) for path in tmp_path.iterdir())


def test_frames_around_a_reject_are_of_its_camera(tmp_path):
    sink = RejectPictures(tmp_path, DRAW, context_frames=1, name_cameras=True)
    for index in range(4):
        for camera in "left", "right/2":
            rejected = (camera, index) == ("left", 1)
            sink.write(*of_camera(camera, index, "reject" if rejected else "pass"))
    names = sorted(path.name.partition("-000001-")[2] for path in tmp_path.iterdir())
    assert names == [
        "left.npy",
        "left.png",
        "left_frame+1.jpg",
        "left_frame-1.jpg",
        "left_overlay.jpg",
    ]


def test_frames_kept_for_later_have_a_limit_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(reject_pictures, "CONTEXT_BYTES", 3 * 60 * 90 * 3)
    sink = RejectPictures(tmp_path, DRAW, context_frames=50)
    for index in range(20):
        sink.write(*made(index))
    assert [index for _, index, _ in sink._former] == [17, 18, 19]


def test_video_in_pieces(tmp_path):
    sink = VideoSegments(tmp_path, DRAW, 10.0, seconds=0.0)
    for index in range(3):
        sink.write(*made(index))
    sink.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"20231114T22132{second}500Z.mp4" for second in range(3)]
    assert all(VIDEO_FILES.fullmatch(name) for name in names)
    assert len(read_video(tmp_path / names[0])) == 1


# Retention.


def recording(folder: Path, number: int, age: float, size: int = 100) -> list[Path]:
    """A reject as three files, all of the same age."""
    stem = f"2023111{number}T221320500Z-00000{number}"
    files = [folder / f"{stem}{end}" for end in (".npy", "_overlay.jpg", ".png")]
    for path in files:
        path.write_bytes(bytes(size))
        os.utime(path, (1e9 - age, 1e9 - age))
    return files


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (RetentionLimits(), {0, 1, 2, 3}),
        (RetentionLimits(bytes=600), {2, 3}),
        (RetentionLimits(bytes=1), {3}),
        (RetentionLimits(seconds=250.0), {1, 2, 3}),
        (RetentionLimits(seconds=0.0), {3}),
        (RetentionLimits(bytes=900, seconds=150.0), {2, 3}),
    ],
)
def test_the_oldest_goes_first_and_the_newest_never(tmp_path, limits, left):
    files = [recording(tmp_path, number, age=100.0 * (3 - number)) for number in range(4)]
    unfinished = tmp_path / f".{files[0][2].name}.abc_1.tmp"  # left by a kill
    unfinished.write_bytes(bytes(9))
    os.utime(unfinished, (1e9 - 300.0, 1e9 - 300.0))
    removed = Retention(tmp_path, REJECT_FILES, limits, clock=lambda: 1e9).apply()
    there = {number for number in range(4) if files[number][0].exists()}
    assert there == left
    for number, paths in enumerate(files):
        assert {path.exists() for path in paths} == {number in left}
    assert len(removed) == 3 * (4 - len(left)) + (0 not in left)


def test_nothing_else_is_ever_removed(tmp_path):
    files = [recording(tmp_path, number, age=1e6) for number in range(3)]
    others = [
        tmp_path / "notes.txt",
        tmp_path / "20231110T221320500Z.png",
        tmp_path / "20231110T221320500Z-000000 (copy).png",
        tmp_path / "x20231110T221320500Z-000000.png",
        tmp_path / "20231110T221320500Z-000000.tiff",
    ]
    for path in others:
        path.write_bytes(bytes(100))
        os.utime(path, (0, 0))
    target = tmp_path / "elsewhere"
    target.touch()
    link = tmp_path / "20231109T221320500Z-000000.png"
    link.symlink_to(target)
    folder = tmp_path / "20231108T221320500Z-000000.npy"
    folder.mkdir()
    Retention(tmp_path, REJECT_FILES, RetentionLimits(1, 0.0)).apply()
    left = {*tmp_path.iterdir()}
    assert left == {*others, target, link, folder, *files[2]}


def test_log_files_go_when_every_receiver_has_what_is_in_them(tmp_path):
    path = tmp_path / "decisions.sqlite"
    log = DecisionLog(path, Session(), LogOptions(0.0, file_bytes=1, reserve_bytes=0))
    for index in range(4):
        log.write(*made(index))
        log.tick()
    log.close()
    limits = RetentionLimits(bytes=1)
    ends = [list(all_rows(file))[-1].id for file in chain_files(path)]
    deliveries = Deliveries(path)
    deliveries.write("webhook", Progress(4))
    deliveries.write("mqtt", Progress(ends[-1]))
    assert deliveries.lowest_cursor() == 4
    assert [file.name for file in remove_old_log_files(path, limits)] == ["decisions.sqlite"]
    deliveries.write("webhook", Progress(ends[-1]))
    assert len(remove_old_log_files(path, RetentionLimits())) == 0
    assert len(remove_old_log_files(path, limits)) == 3
    assert len(chain_files(path)) == 1
    assert verify_log(path).whole


# Settings.


def test_every_fault_of_the_settings_is_said_at_once(tmp_path):
    table = {
        "log": {"commit_ms": -1.0},
        "webhook": {"url": "ftp://x", "token_file": "a", "token_env": "b", "colour": 1},
        "mqtt": {"verdicts": ["maybe"], "host": "a", "tls": "yes"},
        "video": {"keep_days": 1.0},
        "modbus": {"host": "plc", "reject_coil": 4, "heartbeat_coil": 4},
        "gpio": {},
        "carrier_pigeon": {},
    }
    file = tmp_path / "line.toml"
    file.write_text(to_toml({"sinks": table}), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_stream_settings(file, cameras=[0])
    said = caught.value.cause
    for key in (
        "log.commit_ms",
        "webhook.url",
        "webhook.colour",
        "mqtt.verdicts.0",
        "mqtt.tls",
        "video",
        "modbus",
        "gpio.line",
        "carrier_pigeon",
    ):
        assert f"- sinks.{key}: " in said, key
    assert f"settings are wrong in {file}" in said


def test_without_settings_nothing_goes_anywhere():
    settings = load_stream_settings(cameras=[0]).sinks
    assert settings == SinkSettings()
    assert [settings.webhook, settings.mqtt, settings.modbus, settings.gpio] == [None] * 4


def test_secrets_come_from_files_and_the_environment(tmp_path):
    file = tmp_path / "token"
    file.write_text(" sesame\n")
    assert read_secret("key", str(file)) == "sesame"
    assert read_secret("key", None, "TOKEN", {"TOKEN": "sesame"}) == "sesame"
    assert read_secret("key", None) is None
    with pytest.raises(SettingsError, match="TOKEN"):
        read_secret("key", None, "TOKEN", {})
    with pytest.raises(SettingsError, match="cannot read"):
        read_secret("key", str(tmp_path / "none"))


def test_every_example_of_the_docs_is_valid(tmp_path):
    text = (ROOT / "docs" / "sinks.md").read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    named = set()
    for example in examples:
        file = tmp_path / "line.toml"
        file.write_text(example, encoding="utf-8")
        named |= load_stream_settings(file, cameras=[0], inspects=False).sinks.model_fields_set
    assert named == set(SinkSettings.model_fields)


def test_every_setting_is_in_the_docs():
    text = (ROOT / "docs" / "sinks.md").read_text(encoding="utf-8")
    for name, field in SinkSettings.model_fields.items():
        for model in (field.annotation, *getattr(field.annotation, "__args__", ())):
            for key in getattr(model, "model_fields", {}):
                assert f"`{key}`" in text, f"{name}.{key}"


# All together.


def test_everything_for_files_is_complete(tmp_path):
    opened = open_sinks(
        SinkSettings(), tmp_path, SOURCES, DRAW, when_full="wait", video=True, session={"a": 1}
    )
    for index in range(20):
        opened.write(*made(index, "reject" if index % 10 == 3 else "pass"))
    opened.event("threshold", {"category": "bolt", "to": 2.0})
    opened.close(None, counts={"frames": 20})
    assert {stats.name: stats for stats in opened.statistics()} == {
        name: SinkStatistics(name, 20, 0, 0) for name in ("log", "jsonl", "rejects", "video")
    }
    assert len(read_video(tmp_path / "annotated.mp4")) == 20
    assert len((tmp_path / "decisions.jsonl").read_text().splitlines()) == 20
    assert len([*(tmp_path / "rejects").glob("*.png")]) == 2
    found = verify_log(tmp_path)
    assert (found.whole, found.decisions) == (True, 20)
    rows = list(all_rows(tmp_path))
    assert [row.kind for row in rows[-2:]] == ["threshold", "session_end"]
    assert '"frames":20' in rows[-1].more


def test_thresholds_pauses_and_gaps_are_in_the_log(tmp_path):
    controls = Controls({"bolt": 3.0})
    opened = open_sinks(
        SinkSettings(), tmp_path, SOURCES, DRAW, when_full="wait", controls=controls
    )
    opened.write(*made(0))
    controls.set_threshold("bolt", 2.5)
    controls.paused = True
    opened.write(*made(1))
    lost = Frame(2, 5.0, None, fault="the cable is loose")
    for _ in range(3):
        opened.write(made(2, "no_decision")[0], lost)
    controls.paused = False
    opened.write(*made(3))
    opened.close(None)
    rows = [row for row in all_rows(tmp_path) if not row.kind.startswith(("file", "session"))]
    assert [(row.kind, row.frame) for row in rows] == [
        ("decision", 0),
        ("threshold", None),
        ("paused", None),
        ("decision", 1),
        ("gap_start", None),
        *[("decision", 2)] * 3,
        ("paused", None),
        ("gap_end", None),
        ("decision", 3),
    ]
    assert json.loads(rows[1].more) == {"category": "bolt", "from": 3.0, "to": 2.5}
    gap = {"camera": "", "since": 5.0, "frames": 3, "fault": "the cable is loose"}
    assert json.loads(rows[9].more) == gap
    assert verify_log(tmp_path).whole


def test_each_sink_draws_for_itself(tmp_path):
    """A drawing that is kept for the next sink would be another thread's."""
    drawn = []

    class Draw:
        def __call__(self, decision, frame):
            drawn.append((threading.current_thread().name, id(self)))
            return frame.picture

    opened = open_sinks(SinkSettings(), tmp_path, SOURCES, Draw(), when_full="wait", video=True)
    opened.write(*made(0, "reject"))
    opened.close(None)
    assert len(set(drawn)) == len({drawer for _, drawer in drawn}) == 2


def test_a_live_camera_has_no_endless_text_file(tmp_path):
    opened = open_sinks(SinkSettings(), tmp_path, SOURCES, DRAW, when_full="drop")
    opened.close()
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == {
        "decisions.sqlite",
        "decisions.sqlite.head",
        "rejects",
    }


def test_all_receivers_dead_and_the_end_is_still_in_time(tmp_path):
    http = HttpReceiver()
    http.mode = "hang"
    port = free_port()
    settings = SinkSettings.model_validate(
        {
            "webhook": {"url": http.url, "verdicts": ["pass"]},
            "mqtt": {"host": "127.0.0.1", "port": port},
            "modbus": {"host": "127.0.0.1", "port": port, "heartbeat_coil": 1},
            "opcua": {"url": f"opc.tcp://127.0.0.1:{port}/", "reject_node": "ns=2;s=a"},
        }
    )
    told, before = [], {*threading.enumerate()}
    opened = open_sinks(
        settings,
        tmp_path,
        SOURCES,
        DRAW,
        when_full="drop",
        report=lambda *said: told.append(said),
    )
    readers = {thread for thread in {*threading.enumerate()} - before if "sink" in thread.name}
    start = time.monotonic()
    for index in range(30):
        opened.write(*made(index))
    assert time.monotonic() - start < 1.0, "nobody waits for them"
    faulty = {"mqtt", "modbus", "opcua"}
    until(lambda: {name for name, _ in told} == faulty)
    start = time.monotonic()
    opened.close()
    assert time.monotonic() - start < 2.0
    statistics = {stats.name: stats for stats in opened.statistics()}
    for stats in statistics.values():
        assert stats.written + stats.dropped + stats.waiting == 30, stats
    assert statistics["log"].written == 30
    assert statistics["webhook"].waiting == statistics["mqtt"].waiting == 30
    http.close()
    until(lambda: not any(thread.is_alive() for thread in readers))
    opened.close()
    assert [*tmp_path.glob("*-wal")] == []


def test_a_receiver_needs_a_log_to_read_from():
    settings = SinkSettings.model_validate({"webhook": {"url": "http://127.0.0.1:1"}})
    with pytest.raises(SettingsError, match="decision log") as caught:
        open_sinks(settings, None, SOURCES, DRAW, when_full="drop")
    assert "--out" in caught.value.next_step


def test_what_was_opened_is_closed_when_the_rest_cannot_be(tmp_path):
    settings = SinkSettings.model_validate({"gpio": {"chip": str(tmp_path / "none"), "line": 3}})
    with pytest.raises(MissingCapability, match="no GPIO chip"):
        open_sinks(settings, tmp_path, SOURCES, DRAW, when_full="drop")
    open_sinks(SinkSettings(), tmp_path, SOURCES, DRAW, when_full="drop").close()
    assert verify_log(tmp_path).lost_sessions == 0


def test_a_missing_package_is_named():
    lacking = pytest.raises(MissingCapability, match=r"\[sinks.mqtt\] needs paho")
    with lacking as caught, needed("mqtt"):
        raise ModuleNotFoundError("No module named 'paho'", name="paho")
    assert caught.value.next_step == "pip install 'hvq-edge[factory]'"
    with pytest.raises(ModuleNotFoundError), needed("mqtt"):
        raise ModuleNotFoundError("No module named 'hvq_edge.x'", name="hvq_edge.x")


def test_recording_alone_needs_no_package_of_the_factory(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from hvq_edge.stream.sinks.open_sinks import open_sinks, SourceInfo\n"
        "from hvq_edge.stream.sinks.sink_settings import SinkSettings\n"
        f"out = pathlib.Path({str(tmp_path)!r})\n"
        "sources = [SourceInfo('a', 1.0)]\n"
        "open_sinks(SinkSettings(), out, sources, lambda *_: None, when_full='drop').close()\n"
        "packages = ('httpx', 'tenacity', 'paho', 'pymodbus', 'asyncua', 'gpiod')\n"
        "print([name for name in packages if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_two_cameras_get_two_videos(tmp_path):
    sources = [SourceInfo("left", 10.0), SourceInfo("right", 10.0)]
    opened = open_sinks(SinkSettings(), tmp_path, sources, DRAW, when_full="wait", video=True)
    for index in range(3):
        for camera in "left", "right":
            opened.write(*of_camera(camera, index, "reject"))
    opened.close(None)
    videos = sorted(tmp_path.glob("*.mp4"))
    assert [path.name for path in videos] == ["annotated-0-left.mp4", "annotated-1-right.mp4"]
    assert [len(read_video(path)) for path in videos] == [3, 3]
    assert len([*(tmp_path / "rejects").glob("*.png")]) == 6


def test_a_second_run_keeps_the_videos_of_the_first(tmp_path):
    cameras = [SourceInfo("left", 10.0), SourceInfo("right", 10.0)]
    for frames in 1, 2, 3:
        for sources in cameras[:1], cameras:
            opened = open_sinks(
                SinkSettings(), tmp_path, sources, DRAW, when_full="wait", video=True
            )
            for index in range(frames):
                opened.write(*of_camera("left", index, "pass"))
            opened.close(None)
    for stem in "annotated", "annotated-0-left":
        videos = [tmp_path / f"{stem}{number}.mp4" for number in ("", "-2", "-3")]
        assert [len(read_video(path)) for path in videos] == [1, 2, 3]


def test_a_sink_of_a_camera_that_fails_does_not_keep_the_others_open():
    sinks = {"left": Recorder(), "right": Recorder()}

    def fail():
        raise OutputError("cannot finish")

    sinks["left"].close = fail
    each = ByCamera(lambda camera: sinks[camera])
    for camera in sinks:
        each.write(*of_camera(camera, 0))
    with pytest.raises(OutputError, match="cannot finish"):
        each.close()
    assert sinks["right"].closed == 1


def test_a_full_disk_stops_rejects_until_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setattr(sink_thread, "RETRY_SECONDS", 0.01)
    full = [False]

    def check():
        if full[0]:
            raise OutputError("cannot record: 0 MiB are free.")

    sink = RejectPictures(tmp_path, DRAW)
    thread = SinkThread(sink, "rejects", "wait", 2, check=check)
    for index in range(9):
        full[0] = 3 <= index < 6
        thread.write(*made(index, "reject"))
        until(lambda: not thread.statistics().waiting)
    thread.close()
    counts = thread.statistics()
    assert (counts.written, counts.dropped, counts.fault) == (6, 3, "")
    assert len([*tmp_path.glob("*.png")]) == 6


# Prometheus.


def test_metrics_are_in_the_format_and_their_sums_fit():
    latency = LatencyHistogram()
    for milliseconds in range(1, 101):
        latency.add(float(milliseconds))
    camera = CameraStatistics('l"eft', Counts(10, 5, 2, 1, 2), connected=False, gaps=3)
    sink = SinkStatistics("mqtt", 4, 3, 2, "the broker is gone")
    text = render(Statistics(12.5, (camera,), (sink,), {"engine": latency})).decode()
    samples = {
        (sample.name, *dict(sorted(sample.labels.items())).values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples[("hvq_uptime_seconds",)] == 12.5
    verdicts = ("pass", "reject", "no_decision")
    decided = [samples[("hvq_decisions_total", 'l"eft', verdict)] for verdict in verdicts]
    assert decided == [5, 2, 1]
    dropped = samples[("hvq_frames_dropped_total", 'l"eft')]
    assert samples[("hvq_frames_total", 'l"eft')] == sum(decided) + dropped
    assert samples[("hvq_camera_up", 'l"eft')] == 0
    assert samples[("hvq_camera_gaps_total", 'l"eft')] == 3
    assert samples[("hvq_sink_written_total", "mqtt")] == 4
    assert samples[("hvq_sink_dropped_total", "mqtt")] == 3
    assert samples[("hvq_sink_waiting", "mqtt")] == 2
    assert samples[("hvq_sink_up", "mqtt")] == 0
    assert samples[("hvq_stage_latency_seconds", "0.95", "engine")] == pytest.approx(
        0.095, rel=0.02
    )
    assert samples[("hvq_stage_frames_total", "engine")] == 100
    assert "# TYPE hvq_frames_total counter" in text or "# TYPE hvq_frames counter" in text


def test_metrics_without_a_frame_are_there_too():
    empty = CameraStatistics("a", Counts(), connected=True)
    text = render(Statistics(0.0, (empty,), (), {"engine": LatencyHistogram()})).decode()
    assert 'hvq_frames_total{camera="a"} 0.0' in text
    assert "quantile" not in text
