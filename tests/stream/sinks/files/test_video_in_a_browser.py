"""What the inspector writes as video plays where people look at it: in a browser."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.browser import browser, needs_chromium  # noqa: F401  # a fixture

from hvq_edge.stream.sinks.files.video import AnnotatedVideo
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

pytest.importorskip("av")
pytestmark = needs_chromium

PLAYS = """async () => {
  const video = document.querySelector("video");
  await video.play();
  await new Promise((resolve) => video.addEventListener("ended", resolve, { once: true }));
  const seen = document.createElement("canvas").getContext("2d");
  seen.drawImage(video, 0, 0);
  return {
    error: video.error, at: video.currentTime, seconds: video.duration,
    size: [video.videoWidth, video.videoHeight],
    frames: video.getVideoPlaybackQuality().totalVideoFrames,
    colour: [...seen.getImageData(20, 20, 1, 1).data],
  };
}"""


@pytest.mark.parametrize("rate", [10.0, 29.97])
def test_an_annotated_video_plays_to_its_end(browser, tmp_path, rate):
    red = (222, 56, 60)
    drawn = np.full((580, 480, 3), red, np.uint8)
    video = AnnotatedVideo(tmp_path / "annotated.mp4", lambda *_: drawn, rate)
    for index in range(15):
        decision = Decision(index, 0.0, "bolt", 1.0, "reject", "", 1.0)
        video.write(decision, Frame(index, 0.0, np.zeros((8, 8, 3), np.uint8)))
    video.close()
    # As a page has it: over file:// a canvas may not be read.
    page = browser.new_page()
    page.route(
        "http://line.test/*",
        lambda route: (
            route.fulfill(path=tmp_path / "annotated.mp4", content_type="video/mp4")
            if route.request.url.endswith(".mp4")
            else route.fulfill(
                body='<video src="annotated.mp4" muted></video>', content_type="text/html"
            )
        ),
    )
    page.goto("http://line.test/")
    played = page.evaluate(PLAYS)
    page.close()
    assert played["error"] is None
    assert played["size"] == [480, 580]
    assert played["at"] == pytest.approx(played["seconds"], abs=0.05)
    assert played["seconds"] == pytest.approx(15 / rate, rel=0.02)
    assert played["frames"] >= 1
    assert played["colour"][:3] == pytest.approx(red, abs=6), "the colours are those drawn"
