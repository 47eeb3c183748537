"""A line for tests of the live page: decisions as an inspector makes them, without an engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from starlette.testclient import TestClient

from hvq_edge.stream.controls import Controls
from hvq_edge.stream.latency import LatencyHistogram
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.api import Served
from hvq_edge.stream.live_page.app import make_app
from hvq_edge.stream.live_page.health import HealthCheck
from hvq_edge.stream.live_page.history import History
from hvq_edge.stream.live_page.page_view import CategoryChoice, PageView
from hvq_edge.stream.sources.source import arrived, lost
from hvq_edge.stream.statistics import CameraStatistics, Counts, SinkStatistics, Statistics
from hvq_edge.verdict.decision import Decision, decide
from hvq_edge.verdict.judgement import Judgement

TOKEN = "a token of the tests, long enough".replace(" ", "-")
BEARER = {"authorization": f"Bearer {TOKEN}"}
CAMERA = "Gerät <b>1</b>"
"""A name that shows what is not escaped."""


class Line:
    """Two categories and one camera; every frame is a plain grey image."""

    def __init__(self, **given: object) -> None:
        self.controls = Controls({"bolt": 0.5, "nut": 2.0})
        self.history = History(self.controls, rejects=3)
        self.verdicts = {"pass": 0, "reject": 0, "no_decision": 0}
        self.connected, self.fault = True, ""
        self.unlike = self.drift = ""
        self.acknowledged: list[str] = []
        self.sinks: tuple[SinkStatistics, ...] = (SinkStatistics("log", 5, 0, 0),)
        self.saved: list[tuple[str, float]] = []
        self.chosen = "bolt"
        self.choice = CategoryChoice(("bolt", "nut"), lambda: self.chosen, self._choose)
        usual = {"title": "bolt and nut", "save_threshold": self._save, "category": self.choice}
        usual["acknowledge_drift"] = self.acknowledged.append
        self.view = PageView(self.history, self.controls, self.statistics, **{**usual, **given})

    def _choose(self, name: str) -> None:
        self.chosen = name

    def _save(self, category: str, value: float) -> None:
        self.saved.append((category, value))

    def see(
        self,
        score: float | None,
        *,
        category: str = "bolt",
        level: int = 90,
        side: int = 64,
        name: str = "",
        part: str = "",
    ) -> Decision:
        """Judge one frame; without a score it is a lost one."""
        index = sum(self.verdicts.values())
        if score is None:
            frame, judgement = lost(index, "the cable", name), None
        else:
            frame = arrived(index, np.full((side, side, 3), level, np.uint8), name)
            heat = np.full((4, 4), score, np.float32)
            judgement = Judgement(category=category, score=score, map=heat)
        decision = decide(
            replace(frame, part=part),
            None,
            judgement,
            self.controls.thresholds,
            precision="fp32",
            latency_ms=4.0,
            camera=CAMERA,
        )
        self.verdicts[decision.verdict] += 1
        self.history.write(decision, frame)
        return decision

    def statistics(self) -> Statistics:
        """As :meth:`hvq_edge.stream.inspector.Inspector.statistics`."""
        counts = Counts(
            frames=sum(self.verdicts.values()),
            passed=self.verdicts["pass"],
            rejected=self.verdicts["reject"],
            no_decision=self.verdicts["no_decision"],
        )
        times = LatencyHistogram()
        times.add(4.0)
        camera = CameraStatistics(
            CAMERA, counts, self.connected, self.fault, gaps=1, unlike=self.unlike, drift=self.drift
        )
        stages = {"engine": times, "total": LatencyHistogram()}
        return Statistics(12.0, (camera,), self.sinks, stages)

    def client(
        self, *, reading_is_open: bool = True, stall_seconds: float = 30.0, **headers: str
    ) -> TestClient:
        """A browser's side, without a server."""
        access = Access(TOKEN, reading_is_open=reading_is_open, names=("factory.example",))
        return client_of(Served(self.view, access, health=HealthCheck(stall_seconds)), **headers)


def client_of(served: Served, **headers: str) -> TestClient:
    """A browser's side of whatever is served, without a server."""
    app = make_app(served)
    client = TestClient(app, base_url="http://127.0.0.1:8642", follow_redirects=False)
    client.headers.update(headers)
    return client
