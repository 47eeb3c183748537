"""The whole inspector for many frames: does its memory stay flat, does every count fit?

    python -m benchmarks.speed.soak                                  100,000 frames, small engine
    python -m benchmarks.speed.soak --bundle runs/latest/bundle      a real one

Frames come from memory as fast as they are taken (policy ``all``): one in a hundred shows a defect
and one in a thousand is lost. All sinks run: the decision log, rejects with their images, the
live page with somebody who looks at it, and a webhook to a receiver on this machine. Memory is the
resident set of the process, which holds the receiver too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import cv2
import numpy as np

from hvq_edge.bundle.manifest import BundleManifest, record_of, write_manifest
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.data.images import fit_image
from hvq_edge.run.settings import ModelSettings
from hvq_edge.runtime.engine import Engine
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.drawing.overlay import Overlay
from hvq_edge.stream.inspection import open_stream_engine
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.live_page.history import History
from hvq_edge.stream.live_page.page_view import PageView
from hvq_edge.stream.live_page.prometheus_metrics import render
from hvq_edge.stream.live_page.serve import serve
from hvq_edge.stream.live_page.settings import LivePageSettings
from hvq_edge.stream.log.verification import verify_log
from hvq_edge.stream.sinks.open_sinks import SourceInfo, open_sinks
from hvq_edge.stream.sinks.sink_settings import RejectSettings, SinkSettings, WebhookSettings
from hvq_edge.stream.sinks.threads import SinkThread
from hvq_edge.stream.sources.source import Frame, Image, arrived, lost
from hvq_edge.verdict.calibration_scores import table_of
from hvq_edge.verdict.threshold import Threshold

SMALL = ModelSettings(input_side=64, width=16, heads=2, feedforward=24, layers=2, codes=20)
POOL = 100
"""Images that are shown in turn; the last one has the defect."""
LOST_EVERY = 1000
IMAGE_SIDE = 128
REJECTS_MEGABYTES = 20.0
PARTS = 10
PAGE_WAITING = 8


def small_bundle(folder: Path) -> Bundle:
    """Export in a process of its own: the memory that PyTorch takes is not the inspector's."""
    process = multiprocessing.get_context("spawn").Process(target=save_small_bundle, args=(folder,))
    process.start()
    process.join()
    return open_bundle(folder)


def save_small_bundle(folder: Path) -> None:
    """Export a small net that was never trained: real layers, and scores that mean nothing."""
    import torch

    from hvq_edge.export.graph.onnx_graph import compare_with_plain, export_graph
    from hvq_edge.model.hvq_trans import HVQTrans

    torch.manual_seed(0)
    net = HVQTrans(SMALL, 1).eval()
    folder.mkdir()
    name = "model.fp32.onnx"
    export_graph(net, folder / name, "one", 0)
    manifest = BundleManifest(
        hvq_edge_version="0",
        created="2026-01-01T00:00:00Z",
        checkpoint_sha256="0" * 64,
        preset="tiny",
        input_side=SMALL.input_side,
        levels=SMALL.layers,
        codes=SMALL.codes,
        categories=("part",),
        category_mode="one",
        models={"fp32": name},
        files={name: record_of(folder / name)},
        graph=compare_with_plain(net, folder / name, "one", 0),
    )
    write_manifest(folder, manifest)


def pool(side: int) -> list[Image]:
    """Return images of smoothed noise, the last one with a bright square."""
    images = []
    for seed in range(POOL):
        noise = np.random.default_rng(seed).normal(size=(side, side, 3))
        smooth = cv2.GaussianBlur(noise, (0, 0), side / 64)
        levels = 128 + 30 * smooth / smooth.std()
        images.append(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    quarter = side // 4
    images[-1][quarter : 3 * quarter, quarter : 3 * quarter] = 255
    return images


class Synthetic:
    """A source of images in memory, each a copy of its own as a camera's would be."""

    live = False
    name = "synthetic"
    frames_per_second = None

    def __init__(self, images: list[Image], frames: int) -> None:
        self._images = images
        self._frames = frames
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        """Give the frames; one in :data:`LOST_EVERY` is lost."""
        for index in range(self._frames):
            if self._closed.is_set():
                return
            if index % LOST_EVERY == LOST_EVERY - 2:
                yield lost(index, "lost on purpose")
            else:
                yield arrived(index, self._images[index % len(self._images)].copy())

    def close(self) -> None:
        """End the iteration."""
        self._closed.set()


class Receiver:
    """Takes a webhook's batches and counts the decisions in them, each id once."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.ids.update(event["id"] for event in content["decisions"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/decisions"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


def look(url: str, ended: threading.Event) -> None:
    """Ask the page for what a monitor asks it, once a second."""
    while not ended.wait(1.0):
        for path in ("healthz", "metrics"):
            # 503 is an answer too: just then a frame was lost.
            with suppress(HTTPError), urlopen(url + path, timeout=10) as answer:
                answer.read()


def resident_megabytes() -> float:
    """Return the resident set of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def threshold_between(engine: Engine, images: list[Image]) -> Threshold:
    """Return what separates the pool's last image from the others, if anything does."""
    fitted = [fit_image(image, engine.info.frame_shape) for image in images]
    scores = [float(engine.run(frame[np.newaxis])["score"][0]) for frame in fitted]
    *others, highest = sorted(scores)
    return Threshold(
        value=(others[-1] + highest) / 2,
        images=len(scores),
        rule="between two images of the pool",
        median=others[len(others) // 2],
        bound=None,
        calibration_scores=table_of(others),
    )


def main() -> None:
    """Run, and print memory over time, speed, latencies and counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--bundle", type=Path, help="default: a small net made for this run")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--side", type=int, default=IMAGE_SIDE, help="of the images, in pixels")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as closing:
        soak(arguments, Path(folder), closing)


def soak(arguments: argparse.Namespace, folder: Path, closing: ExitStack) -> None:
    """One run with everything in a folder."""
    bundle = open_bundle(arguments.bundle) if arguments.bundle else small_bundle(folder / "bundle")
    engine = closing.enter_context(
        open_stream_engine(bundle, precision=arguments.precision, backend=arguments.backend)
    )
    images = pool(arguments.side)
    threshold = threshold_between(engine, images)
    names = engine.info.categories
    manifest = bundle.manifest.model_copy(
        update={
            "thresholds": {engine.info.precision: dict.fromkeys(names, threshold)},
            "image_limits": None,  # of the images that it was trained on
            "category_limits": {},
        }
    )
    bundle = replace(bundle, manifest=manifest)
    receiver = Receiver()
    closing.callback(receiver.close)
    controls = Controls(dict.fromkeys(names, threshold.value))
    source = Synthetic(images, arguments.frames)
    sinks = open_sinks(
        SinkSettings(
            rejects=RejectSettings(keep_megabytes=REJECTS_MEGABYTES),
            webhook=WebhookSettings(url=receiver.url),
        ),
        folder / "out",
        [SourceInfo(source.name, 25.0)],
        Overlay(controls),
        when_full="wait",
        controls=controls,
    )
    closing.callback(sinks.close)
    history = History(controls)
    sinks.threads.append(SinkThread(history, "page", "drop", PAGE_WAITING))
    inspector = Inspector(engine, bundle, source, sinks=[sinks], controls=controls)
    view = PageView(history, controls, inspector.statistics, title="soak", metrics=render)
    serving = closing.enter_context(serve(LivePageSettings(port=0), view))
    ended = threading.Event()
    closing.callback(ended.set)
    threading.Thread(target=look, args=(serving.url, ended), daemon=True).start()

    info = engine.info
    print(f"{info.precision} on {info.backend}, {info.device}; {arguments.frames} frames")
    print("| frames | memory, MB | frames a second |\n|---|---|---|")
    began = last = time.perf_counter()
    print(f"| 0 | {resident_megabytes():.1f} | |", flush=True)
    step = max(arguments.frames // PARTS, 1)
    for count, _decision in enumerate(inspector, 1):
        if count % step == 0:
            now = time.perf_counter()
            rate = step / (now - last)
            print(f"| {count:,} | {resident_megabytes():.1f} | {rate:.0f} |", flush=True)
            last = now
    seconds = time.perf_counter() - began
    statistics = inspector.statistics()
    sinks.close(None, asdict(statistics.counts))
    report(inspector, seconds, folder / "out", len(receiver.ids))


def report(inspector: Inspector, seconds: float, out: Path, received: int) -> None:
    """Print latencies and counts, and check that these fit.

    Raises:
        SystemExit: they do not, or the log is not whole.
    """
    statistics = inspector.statistics()
    counts = statistics.counts
    print(f"\n{counts.frames} frames in {seconds:.0f} s: {counts.frames / seconds:.0f} a second\n")
    print("| stage | p50 | p95 | p99 |\n|---|---|---|---|")
    for name, histogram in statistics.stages.items():
        values = [histogram.percentile(percent) or 0.0 for percent in (50, 95, 99)]
        print(f"| `{name}` | " + " | ".join(f"{value:.2f} ms" for value in values) + " |")
    found = verify_log(out / "decisions.sqlite")
    print(
        f"\nframes {counts.frames} = {counts.passed} pass + {counts.rejected} reject + "
        f"{counts.no_decision} no decision + {counts.dropped} dropped"
    )
    print(f"log: {found.decisions} decisions, whole: {found.whole}")
    print(f"webhook: {received} rejects received")
    for sink in statistics.sinks:
        print(
            f"sink {sink.name}: {sink.written} written, {sink.dropped} dropped, "
            f"{sink.waiting} waiting{': ' + sink.fault if sink.fault else ''}"
        )
    fits = counts.frames == counts.decided + counts.dropped == found.decisions
    if not (fits and found.whole and received == counts.rejected):
        raise SystemExit("the counts do not fit")


if __name__ == "__main__":
    main()
