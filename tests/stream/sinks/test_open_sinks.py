"""Opening sinks from settings: all of them together, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest
from helpers.decisions import DRAW, made, of_camera
from helpers.images import read_video
from helpers.patience import Stopwatch, until
from helpers.receivers import HttpReceiver, free_port

from hvq_edge.common.extras import needed
from hvq_edge.errors import MissingCapability, SettingsError
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.log.reader import all_rows
from hvq_edge.stream.log.verification import verify_log
from hvq_edge.stream.report.events import said_of
from hvq_edge.stream.sinks.open_sinks import SourceInfo, open_sinks
from hvq_edge.stream.sinks.sink_settings import SinkSettings
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.sources.source import Frame
from hvq_edge.stream.statistics import SinkStatistics

SOURCES = [SourceInfo("", 10.0)]


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


@pytest.mark.parametrize("cameras", [("",), ("left", "right")])
def test_video_in_limited_pieces_begins_without_a_fault(tmp_path, cameras):
    settings = SinkSettings.model_validate(
        {"video": {"segment_minutes": 1.0, "keep_megabytes": 1.0}}
    )
    said = []
    opened = open_sinks(
        settings,
        tmp_path,
        [SourceInfo(name, 10.0) for name in cameras],
        DRAW,
        when_full="wait",
        video=True,
        report=lambda *fault: said.append(fault),
    )
    for name in cameras:
        opened.write(*of_camera(name, 0))
    opened.close(None)
    assert said == []
    assert len([*(tmp_path / "videos").glob("*.mp4")]) == len(cameras)


def test_thresholds_pauses_and_gaps_are_in_the_log(tmp_path):
    controls = Controls({"bolt": 3.0})
    opened = open_sinks(
        SinkSettings(), tmp_path, SOURCES, DRAW, when_full="wait", controls=controls
    )
    opened.write(*made(0))
    controls.set_threshold("bolt", 2.5, "Ada")
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
    assert json.loads(rows[1].more) == {
        "category": "bolt",
        "from": 3.0,
        "to": 2.5,
        "by": "Ada",
    }
    gap = {"camera": "", "since": 5.0, "frames": 3, "fault": "the cable is loose"}
    assert json.loads(rows[9].more) == gap
    assert verify_log(tmp_path).whole


def test_what_went_wrong_on_the_way_from_a_camera_is_in_the_log(tmp_path):
    counts = [Transport(), Transport(missed=2, last="gone"), Transport(2, 1, 1, "torn")]
    now = iter([*counts, counts[-1]])
    opened = open_sinks(
        SinkSettings(), tmp_path, SOURCES, DRAW, when_full="wait", transport=lambda _: next(now)
    )
    for number in range(4):
        opened.write(*made(number))
    opened.close(None)
    rows = [row for row in all_rows(tmp_path) if row.kind in ("decision", "transport")]
    kinds = ["decision", "transport", "decision", "transport", "decision", "decision"]
    assert [row.kind for row in rows] == kinds
    told = [json.loads(row.more) for row in rows if row.kind == "transport"]
    first = {"camera": "", "missed": 2, "doubled": 0, "incomplete": 0, "what": "gone"}
    assert told == [first, {**first, "missed": 0, "doubled": 1, "incomplete": 1, "what": "torn"}]
    assert said_of(rows[1]) == ": frames 2 missed: gone"
    assert said_of(rows[3]) == ": frames 1 doubled, 1 incomplete: torn"


def test_each_sink_draws_for_itself(tmp_path):
    """A drawing that is kept for the next sink would be another thread's."""
    drawn = []

    class Draw:
        def __call__(self, decision, frame):
            drawn.append((threading.current_thread().name, id(self)))
            return frame.image

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


def test_after_a_clean_end_each_file_of_the_log_is_complete_by_itself(tmp_path):
    """The receiver read from all of them, which keeps SQLite from tidying up."""
    http = HttpReceiver()
    settings = SinkSettings.model_validate(
        {
            "log": {"file_megabytes": 0.02, "commit_ms": 0.0},
            "webhook": {"url": http.url, "verdicts": ["pass"]},
        }
    )
    opened = open_sinks(settings, tmp_path, SOURCES, DRAW, when_full="wait")
    for index in range(100):
        opened.write(*made(index))
        if index % 5 == 0:
            until(lambda: not any(one.waiting for one in opened.statistics()))
    opened.close(None)
    http.close()
    assert len(chain_files(tmp_path)) > 1
    assert not [*tmp_path.glob("*-wal"), *tmp_path.glob("*-shm")]
    assert len([row for row in all_rows(tmp_path) if row.verdict]) == 100


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
    with Stopwatch() as stopwatch:
        for index in range(30):
            opened.write(*made(index))
    assert stopwatch.seconds < 1.0, "nobody waits for them"
    faulty = {"mqtt", "modbus", "opcua"}
    until(lambda: {name for name, _ in told} == faulty)
    with Stopwatch() as stopwatch:
        opened.close()
    assert stopwatch.seconds < 2.0, stopwatch
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
    with lacking as caught, needed("[sinks.mqtt]"):
        raise ModuleNotFoundError("No module named 'paho'", name="paho")
    assert caught.value.next_step == "pip install 'hvq-edge[factory]'"
    with pytest.raises(ModuleNotFoundError), needed("[sinks.mqtt]"):
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
