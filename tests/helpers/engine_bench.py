"""Engines that take as long as was planted, and a place to measure them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
from helpers.graphs import CATEGORIES, SIDE, save_bundle

from hvq_edge.runtime.choice import choose_graph as rooms
from hvq_edge.runtime.choice import open_candidate
from hvq_edge.runtime.choice.measured_choice import Candidate, measure
from hvq_edge.runtime.engine import EngineInfo

OV32, OV8 = Candidate("openvino", "fp32"), Candidate("openvino", "int8")
ORT32, ORT8 = Candidate("onnxruntime", "fp32"), Candidate("onnxruntime", "int8")
ALL = (OV32, ORT32, OV8, ORT8)


@dataclass
class FakeEngine:
    """An engine that takes as long as was planted, on the bench's clock."""

    bench: Bench
    candidate: Candidate
    mode: str
    open: bool = True

    @property
    def info(self):
        return EngineInfo(*self.candidate, "a fake", (SIDE, SIDE), CATEGORIES, self.mode)

    def run(self, frames, category=None):
        assert self.open
        assert (frames.shape, frames.dtype) == ((1, SIDE, SIDE, 3), np.uint8)
        assert (category is not None) == (self.mode == "input")
        self.bench.runs.append(self.candidate)
        delay = self.bench.delays[self.candidate]
        if isinstance(delay, Exception):
            raise delay
        self.bench.now += delay(len(self.bench.runs)) if callable(delay) else delay

    def close(self):
        self.open = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@dataclass
class Bench:
    """Fake engines and the clock they move. Delays: seconds, a function of the run's number, or
    an error that running raises."""

    delays: dict
    refuse: dict = field(default_factory=dict)
    mode: str = "one"
    now: float = 100.0
    runs: list = field(default_factory=list)
    opened: list = field(default_factory=list)

    def open(self, candidate):
        if candidate in self.refuse:
            raise self.refuse[candidate]
        self.opened.append(FakeEngine(self, candidate, self.mode))
        return self.opened[-1]

    def measure(self, candidates=None, **options):
        chosen = tuple(self.delays) if candidates is None else candidates
        return measure(chosen, self.open, clock=lambda: self.now, **options)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/hvq-edge/engine-times"


@pytest.fixture
def plant(cache, monkeypatch):
    """Put fake engines in the place of real ones; both backends are installed."""

    def put(**options):
        bench = Bench(**options)
        monkeypatch.setattr(rooms, "find_spec", lambda _: object())
        monkeypatch.setattr(
            open_candidate, "open_graph", lambda _, candidate, *__: bench.open(candidate)
        )
        monkeypatch.setattr(
            rooms, "measure", lambda *args, **kw: measure(*args, **kw, clock=lambda: bench.now)
        )
        return bench

    return put


@pytest.fixture
def both(tmp_path):
    return save_bundle(tmp_path / "b", precisions=("fp32", "int8"))
