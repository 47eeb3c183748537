"""A page that judges images: two of them, an engine that can be held, and who asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine, bundle  # noqa: F401  # a fixture
from helpers.live_line import TOKEN, client_of
from helpers.patience import PATIENCE_SECONDS

from hvq_edge.predict.predictor import Predictor
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.api import Served
from hvq_edge.stream.live_page.judge import ImageJudge

PNG = {"content-type": "image/png"}
SIDE = 96


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def part(*, bright: bool, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(60, 100, (SIDE, SIDE, 3)).astype(np.uint8)
    if bright:
        image[24:60, 24:60] = 255
    return image


GOOD, BAD = png(part(bright=False)), png(part(bright=True))


class HeldEngine(BrightnessEngine):
    """Judges when the test lets it; fails when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.faults: list[Exception] = []
        self.closed = 0

    def run(self, frames, category=None):
        assert self.free.wait(PATIENCE_SECONDS)
        if self.faults:
            raise self.faults.pop()
        return super().run(frames, category)

    def close(self):
        self.closed += 1


@pytest.fixture
def engine() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
def judge(engine, bundle) -> Iterator[ImageJudge]:
    with ImageJudge(lambda: Predictor(engine, bundle)) as made:
        yield made
        engine.free.set()


def client(judge: ImageJudge | None, **headers: str) -> Any:
    return client_of(Served(None, Access(TOKEN, reading_is_open=True), judge=judge), **headers)


def outcomes(judge: ImageJudge) -> dict[str, int]:
    return {outcome: number for outcome, number in judge.snapshot()[0].items() if number}
