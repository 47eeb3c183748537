"""A real inspector of a rendered video, and the page that shows it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine
from helpers.graphs import save_bundle
from helpers.judged_images import evaluated
from helpers.thresholds import threshold_at

from hvq_edge.bundle.judged_images import find_labelled
from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import save_threshold
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.live_page.history import History
from hvq_edge.stream.live_page.page_view import PageView
from hvq_edge.stream.live_page.serve import serve
from hvq_edge.stream.live_page.settings import LivePageSettings
from hvq_edge.stream.sources.source import Frame, arrived, lost
from hvq_edge.stream.sources.video_file import VideoFile

CAMERA = "line <1>"


class Loop:
    """A video again and again at 10 frames a second; its cable can be pulled."""

    live = True
    name = CAMERA
    frames_per_second = 10.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = threading.Event()
        self.pulled = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while True:
            for frame in VideoFile(self._path):
                if self._closed.wait(0.1):
                    return
                cut = self.pulled.is_set()
                given = lost(index, "the cable is out") if cut else arrived(index, frame.image)
                yield replace(given, name=frame.name, part=f"SN-{index % 40} \u202e<b>")
                index += 1

    def close(self) -> None:
        self._closed.set()


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """A grey part that moves; three in ten have a bright spot, which the engine rejects."""
    path = tmp_path_factory.mktemp("video") / "parts.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (160, 120))
    rng = np.random.default_rng(0)
    for i in range(40):
        image = rng.integers(20, 40, (120, 160, 3), dtype=np.uint8)
        cv2.rectangle(image, (10 + 3 * i % 90, 30), (60 + 3 * i % 90, 90), (90, 90, 90), -1)
        if i % 10 in (5, 6, 7):
            cv2.circle(image, (80, 60), 50, (240, 240, 240), -1)
        writer.write(image)
    writer.release()
    return path


@contextmanager
def inspecting(video: Path, folder: Path) -> Iterator[SimpleNamespace]:
    saved = save_bundle(folder / "bundle")
    half = threshold_at(0.6, images=3, rule="largest of held-out good images")
    manifest = saved.manifest.model_copy(update={"thresholds": {"fp32": {"bolt": half}}})
    write_manifest(saved.path, manifest)
    bundle = open_bundle(saved.path)
    evaluated(bundle)
    controls = Controls({"ant": 1.0, "bolt": 0.6})
    # A page loads the images of them all, and none is forgotten while a test looks at it.
    history = History(controls, rejects=150)
    source = Loop(video)
    inspector = Inspector(BrightnessEngine(), bundle, source, controls=controls, sinks=[history])
    view = PageView(
        history,
        controls,
        inspector.statistics,
        title="bolt",
        save_threshold=lambda category, value: save_threshold(bundle, "fp32", category, value),
        labelled=find_labelled(bundle, "fp32"),
        acknowledge_drift=lambda name: inspector.watches[name].acknowledge(),
    )
    with serve(LivePageSettings(port=0), view) as serving, inspector:
        thread = threading.Thread(target=lambda: list(inspector))
        thread.start()
        (watch,) = inspector.watches.values()
        yield SimpleNamespace(
            serving=serving,
            controls=controls,
            bundle=bundle.path,
            source=source,
            likeness=watch.likeness,
            drift=watch.drift,
        )
        inspector.stop()
        thread.join()
