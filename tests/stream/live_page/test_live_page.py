"""The live page's memory, its images, its health, and thresholds that it saves."""

from __future__ import annotations

import os
import re
import threading
import time
import tracemalloc
from dataclasses import replace
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.graphs import save_bundle
from helpers.images import write_png
from helpers.live_line import CAMERA, Line
from helpers.paths import ROOT
from helpers.thresholds import threshold_at

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import BY_HAND, save_threshold
from hvq_edge.common.heat_map import legend_gradient
from hvq_edge.errors import BundleError, OutputError, SettingsError
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.live_page.health import HealthCheck
from hvq_edge.stream.live_page.history import History
from hvq_edge.stream.live_page.images import VIEW_SIDE
from hvq_edge.stream.live_page.page_view import preview
from hvq_edge.stream.sources.source import arrived
from hvq_edge.stream.statistics import CameraStatistics, Counts, SinkStatistics, Statistics
from hvq_edge.verdict.calibration_scores import table_of
from hvq_edge.verdict.decision import Decision
from hvq_edge.verdict.regions import Region


def pixels(file: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)


def test_it_remembers_decisions_with_the_threshold_that_made_them():
    line = Line()
    line.see(0.2)
    line.controls.set_threshold("bolt", 0.1)
    line.see(0.2)
    line.see(None)
    first, second, third = line.history.records()
    assert (first.verdict, first.threshold) == ("pass", 0.5)
    assert (second.verdict, second.threshold) == ("reject", 0.1)
    assert (third.verdict, third.threshold, third.reason) == ("no_decision", None, "the cable")
    assert [record.sequence for record in line.history.records()] == [1, 2, 3]
    assert [record.sequence for record in line.history.records(after=2)] == [3]
    assert line.history.records(after=3) == line.history.records(after=99) == []


def test_it_forgets_the_oldest():
    history = History(Controls({}), decisions=4, rejects=2)
    for i in range(10):
        decision = Decision(i, 0.0, "bolt", 1.0, "reject", "", 1.0, camera="a")
        history.write(decision, arrived(i, np.zeros((8, 8, 3), np.uint8)))
    assert [record.frame for record in history.records()] == [6, 7, 8, 9]
    assert [record.frame for record in history.records(after=3)] == [6, 7, 8, 9]
    assert [record.frame for record in history.rejects()] == [9, 8]
    assert history.reject_image(10, "view", heat=True) is not None
    assert history.reject_image(8, "view", heat=True) is None


def test_rejects_of_a_large_camera_take_bounded_memory():
    history = History(Controls({"bolt": 0.5}), rejects=4)
    tracemalloc.start()
    try:
        for i in range(12):
            decision = Decision(i, 0.0, "bolt", 1.0, "reject", "", 1.0, camera="a")
            history.write(decision, arrived(i, np.zeros((2000, 3000, 3), np.uint8)))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    small, newest = 4 * 640 * 427 * 3, 2000 * 3000 * 3
    assert small + newest <= held < 1.05 * (small + newest)


def test_an_image_is_encoded_once_for_all_who_look(monkeypatch):
    line = Line()
    line.see(0.9)
    encoded = []
    real = cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *given: encoded.append(1) or real(*given))
    line.see(0.2)
    assert encoded == [], "nobody looks"
    threads = [
        threading.Thread(
            target=line.history.newest(CAMERA).jpeg, args=(VIEW_SIDE,), kwargs={"heat": True}
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert encoded == [1]


def test_heat_shows_and_can_be_left_out():
    line = Line()
    line.see(2.0, level=90)
    plain = line.history.newest(CAMERA).jpeg(VIEW_SIDE, heat=False)
    hot = line.history.newest(CAMERA).jpeg(VIEW_SIDE, heat=True)
    assert np.abs(pixels(plain).astype(int) - 90).max() < 4
    assert np.abs(pixels(hot).astype(int) - 90).max() > 60


def test_images_are_no_larger_than_a_screen_needs():
    line = Line()
    line.see(0.9, side=2500)
    view = line.history.newest(CAMERA).jpeg(VIEW_SIDE, heat=True)
    assert pixels(view).shape[:2] == (960, 960)
    assert pixels(line.history.reject_image(1, "view", heat=True)).shape[:2] == (640, 640)
    assert pixels(line.history.reject_image(1, "thumbnail", heat=True)).shape[:2] == (240, 240)


def test_the_rate_falls_when_a_camera_stops(monkeypatch):
    line = Line()
    now = [100.0]
    monkeypatch.setattr("hvq_edge.stream.live_page.history.time.monotonic", lambda: now[0])
    for _ in range(21):
        line.see(0.1)
        now[0] += 0.1
    now[0] -= 0.1
    assert line.history.rates()[CAMERA] == pytest.approx(10.0)
    now[0] += 2.0
    assert line.history.rates()[CAMERA] == pytest.approx(5.0)
    now[0] += 10.0
    assert line.history.rates()[CAMERA] == 0.0


def test_the_preview_counts_scores_of_that_category_alone():
    line = Line()
    for score in (0.1, 0.2, 0.3, 0.6, 0.7):
        line.see(score)
    for _ in range(3):
        line.see(9.0, category="nut")
        line.see(None)
        line.see(9.0, category="plate")  # no threshold: no decision
    found = preview(line.history.records(), "bolt", 0.25, 0.5)
    assert (found.frames, found.would_reject, found.rejects_now) == (5, 3, 2)
    assert (found.lowest, found.highest) == (0.1, 0.7)
    assert found.scores == (0.1, 0.2, 0.3, 0.6, 0.7)
    assert preview(line.history.records(), "plate", 1.0, 1.0).frames == 0


def test_the_preview_takes_the_last_five_hundred():
    line = Line()
    for i in range(600):
        line.see(0.9 if i < 100 else 0.1)
    found = preview(line.history.records(), "bolt", 0.5, 0.05)
    assert (found.frames, found.would_reject, found.rejects_now) == (500, 0, 500)


def test_health_tells_what_lets_parts_pass_from_what_does_not():
    line = Line()
    check = HealthCheck(stall_seconds=0.5)
    line.see(0.1)
    assert check(line.statistics()).working
    line.sinks = (SinkStatistics("recording", 5, 0, 0, fault="no space is left"),)
    found = check(line.statistics())
    assert found.working
    assert found.degraded == ("recording: no space is left",)
    time.sleep(0.55)
    assert "no frame was decided" in check(line.statistics()).failing[0]
    line.see(None)
    line.connected, line.fault = False, "the cable"
    assert check(line.statistics()).failing == (f"camera {CAMERA}: the cable",)


def test_a_camera_that_was_just_opened_is_not_lost():
    line = Line()
    line.connected = False
    assert HealthCheck()(line.statistics()).working


def test_where_no_frame_is_due_none_is_missed():
    check = HealthCheck(stall_seconds=0.05)
    decided = Counts(frames=3, passed=3)
    between = Statistics(1.0, (CameraStatistics("film", decided, True, due=False),), ())
    check(between)
    time.sleep(0.1)
    assert check(between).working
    in_hand = replace(decided, frames=4)
    hangs = Statistics(1.0, (CameraStatistics("film", in_hand, True, due=False),), ())
    time.sleep(0.1)
    assert not check(hangs).working


@pytest.fixture
def bundle(tmp_path):
    saved = save_bundle(tmp_path / "bundle", precisions=("fp32", "int8"))
    learnt = threshold_at(
        0.5,
        images=9,
        rule="largest of good",
        highest_image="a.png",
        median=0.2,
        calibration_scores=table_of([0.1, 0.2, 0.5]),
    )
    thresholds = {"fp32": {"bolt": learnt}, "int8": {"bolt": learnt}}
    write_manifest(saved.path, saved.manifest.model_copy(update={"thresholds": thresholds}))
    return open_bundle(saved.path)


def test_a_saved_threshold_says_that_a_hand_set_it_and_what_was_before(bundle):
    save_threshold(bundle, "int8", "bolt", 0.75)
    save_threshold(bundle, "int8", "bolt", 0.625)
    manifest = open_bundle(bundle.path).manifest
    saved = manifest.thresholds["int8"]["bolt"]
    assert saved.value == 0.625
    assert saved.rule.startswith(f"{BY_HAND} at 20")
    assert saved.rule.endswith("; before: 0.75; learnt: largest of good")
    assert saved.highest_image is None
    assert saved.calibration_scores == table_of([0.1, 0.2, 0.5]), "p-values are as before"
    assert manifest.thresholds["fp32"] == bundle.manifest.thresholds["fp32"]
    assert len(manifest.former_thresholds) == 2
    update = {
        "thresholds": bundle.manifest.thresholds,
        "former_thresholds": bundle.manifest.former_thresholds,
    }
    assert manifest.model_copy(update=update) == bundle.manifest, "nothing else has changed"


@pytest.mark.parametrize(
    ("precision", "category", "value", "error"),
    [
        ("int8", "nut", 0.5, BundleError),
        ("fp16", "bolt", 0.5, BundleError),
        ("int8", "bolt", float("nan"), SettingsError),
    ],
)
def test_a_threshold_that_cannot_be_saved_changes_nothing(
    bundle, precision, category, value, error
):
    before = (bundle.path / "bundle.json").read_bytes()
    with pytest.raises(error):
        save_threshold(bundle, precision, category, value)
    assert (bundle.path / "bundle.json").read_bytes() == before


def test_a_bundle_on_a_full_disk_keeps_its_threshold(bundle, monkeypatch):
    def full(*_given: object) -> None:
        raise OSError(28, "No space left on device")

    before = (bundle.path / "bundle.json").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space"):
        save_threshold(bundle, "int8", "bolt", 0.75)
    assert (bundle.path / "bundle.json").read_bytes() == before
    assert [path.name for path in bundle.path.iterdir() if path.name.endswith(".tmp")] == []


def test_the_example_in_the_docs_inspects_and_serves(bundle, tmp_path, texture, capsys):
    """As it stands there, but for the bundle, the camera and the port."""
    page = ROOT / "docs/how-to/inspector.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    write_png(tmp_path / "images" / "a.png", texture(1))
    for written, here in {
        '"runs/latest/bundle"': repr(str(bundle.path)),
        '"0"': repr(str(tmp_path / "images")),
        "8642": "0",
    }.items():
        assert written in code
        code = code.replace(written, here)
    names: dict[str, Any] = {}
    exec(compile(code, str(page), "exec"), names)
    assert re.fullmatch(r"http://127.0.0.1:\d+/#token=\S+", capsys.readouterr().out.strip())
    assert names["decision"].verdict == "reject"
    sinks = names["line"].inspector.statistics().sinks
    assert [(one.name, one.written) for one in sinks] == [("page", 1)]


def test_the_pages_legend_has_the_colours_of_the_heat():
    style = files("hvq_edge.design").joinpath("colours.css").read_text()
    assert f"--heat: {legend_gradient()};" in style


def test_outlines_are_drawn_where_the_regions_are_whatever_the_size():
    history = History(Controls({"bolt": 0.5}))
    corners = np.array([[900, 600], [1500, 600], [1500, 1200], [900, 1200]], np.int32)
    region = Region((900, 600, 601, 601), 3.6e5, None, 1.0, corners)
    calm = np.zeros((4, 4), np.float32)
    decision = Decision(0, 0.0, "bolt", 1.0, "reject", "", 1.0, calm, camera="a", regions=(region,))
    history.write(decision, arrived(0, np.full((2000, 3000, 3), 90, np.uint8)))
    files_of = {
        "view": history.newest("a").jpeg(VIEW_SIDE, heat=True),
        "reject": history.reject_image(1, "view", heat=True),
        "thumbnail": history.reject_image(1, "thumbnail", heat=True),
    }
    for name, data in files_of.items():
        shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        rows = np.flatnonzero(shown[:, round(shown.shape[1] * 0.4)] > 180)
        assert rows.min() == pytest.approx(shown.shape[0] * 0.3, abs=2.5), name
        assert rows.max() == pytest.approx(shown.shape[0] * 0.6, abs=2.5), name
