"""Photograph the live page in Chromium while it inspects: the image in docs/how-to/live-page.md.

    python examples/rendered_washers.py washers --train 80
    hvq-edge train --data washers --preset tiny --out runs/washers
    hvq-edge export runs/washers
    hvq-edge eval runs/washers/bundle
    python -m benchmarks.live_page_image runs/washers/bundle washers/washer/test live-page.png

Takes images of the folder by chance, 4 a second, most of them good. With ``--darker 0.25`` they
get darker after 130 frames, and the image is that of docs/how-to/drift.md: run it on the demo's
bundle and solar_cell_mono/test of its images.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from hvq_edge.bundle.judged_images import find_labelled
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import save_threshold, thresholds_of, typical_scores_of
from hvq_edge.data.images import read_image
from hvq_edge.data.versions import brightened
from hvq_edge.explain.explainer import Explainer
from hvq_edge.predict.predictor import load
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.inspection import open_stream_engine
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.live_page.history import History
from hvq_edge.stream.live_page.judge import ImageJudge
from hvq_edge.stream.live_page.page_view import PageView
from hvq_edge.stream.live_page.serve import serve
from hvq_edge.stream.live_page.settings import LivePageSettings
from hvq_edge.stream.sources.source import Frame, arrived

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
GOOD_FRAMES = 0.88
LIT_FRAMES = 130
PACE_SECONDS = 1 / 4
SETTLE_SECONDS = 2.0
TRIES = 10
LOADED_AND_REJECTING = """() =>
    document.querySelector('.camera[data-look="reject"]')
    && [...document.querySelectorAll("#rejects img")].every((one) => one.complete)"""


class Belt:
    """Good and defective images of a folder, as a camera over a belt would give them."""

    live = True
    name = "camera 0"
    frames_per_second = 1 / PACE_SECONDS

    def __init__(self, folder: Path, darker: float = 0.0, seed: int = 3) -> None:
        self._darker = darker
        files = sorted(folder.rglob("*.png"))
        good = [file for file in files if file.parent.name == "good"]
        self._kinds = (good, [file for file in files if file.parent.name != "good"])
        self._rng = np.random.default_rng(seed)
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        """Give images until :meth:`close`."""
        index = 0
        while not self._closed.wait(PACE_SECONDS):
            kind = self._kinds[int(self._rng.random() > GOOD_FRAMES)]
            file = kind[int(self._rng.integers(len(kind)))]
            image = read_image(file)
            lit = brightened(image, -self._darker if index >= LIT_FRAMES else 0.0)
            yield arrived(index, lit)
            index += 1

    def close(self) -> None:
        """End the iteration."""
        self._closed.set()


def main() -> None:
    """Inspect and photograph."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path, help="images in good/ and in other folders")
    parser.add_argument("image", type=Path, help="to write; others are written beside it")
    parser.add_argument("--seconds", type=float, default=60.0, help="inspect before the image")
    parser.add_argument("--all", action="store_true", help="light, dark and phone")
    parser.add_argument(
        "--darker", type=float, default=0.0, help="share of light lost after a while"
    )
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    with open_stream_engine(bundle) as engine:
        info = engine.info
        controls = Controls(thresholds_of(bundle, info.precision))
        history = History(controls, typical_scores_of(bundle, info.precision))
        inspector = Inspector(
            engine,
            bundle,
            Belt(arguments.folder, arguments.darker),
            controls=controls,
            sinks=[history],
        )
        view = PageView(
            history,
            controls,
            inspector.statistics,
            title=f"{', '.join(info.categories)}, {info.precision} on {info.backend}",
            save_threshold=partial(save_threshold, bundle, info.precision),
            labelled=find_labelled(bundle, info.precision),
            acknowledge_drift=lambda name: inspector.watches[name].acknowledge(),
        )
        with (
            ImageJudge(lambda: load(bundle)) as judge,
            serve(
                LivePageSettings(port=0),
                view,
                explainer=Explainer(bundle, judge, info.precision),
            ) as serving,
            inspector,
        ):
            thread = threading.Thread(target=lambda: list(inspector), daemon=True)
            thread.start()
            photograph(serving.token_url, arguments.image, arguments.seconds, every=arguments.all)
            inspector.stop()
            thread.join()
        print(inspector.counts)


def photograph(url: str, image: Path, seconds: float, *, every: bool) -> None:
    """Wait for the page to fill, then for a reject, and take its image."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        looks: dict[str, dict[str, object]] = {"": {"color_scheme": "light"}}
        if every:
            looks |= {"-dark": {"color_scheme": "dark"}}
            phone = {"width": 390, "height": 844}
            looks |= {"-phone": {"color_scheme": "light", "viewport": phone}}
        time.sleep(seconds)
        for name, look in looks.items():  # one after another: a page that nobody sees stands still
            size = {"width": 1280, "height": 860}
            context = browser.new_context(**{"viewport": size, **look})  # type: ignore[arg-type]
            page = context.new_page()
            page.goto(url)
            page.wait_for_selector('.camera:not([data-look="waiting"])')
            time.sleep(SETTLE_SECONDS)
            file = image.with_stem(image.stem + name)
            for _ in range(TRIES):
                while not page.evaluate(LOADED_AND_REJECTING):
                    page.wait_for_timeout(20)
                page.screenshot(path=file, full_page=name == "-phone")
                if page.evaluate(LOADED_AND_REJECTING):
                    break  # else a good part came while the image was taken
            print(f"{file}: {file.stat().st_size // 1024} KB")
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
