"""Decisions with their frames, as sinks are given them, and a log of some."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from helpers.images import make_texture

from hvq_edge.stream.drawing.overlay import Overlay
from hvq_edge.stream.log.decision_log import DecisionLog, LogOptions, Session
from hvq_edge.stream.log.reader import all_rows
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

MAP = np.linspace(0, 6, 16, dtype=np.float32).reshape(4, 4)
DRAW = Overlay({"bolt": 3.0})


def made(index: int, verdict: str = "pass", name: str = "") -> tuple[Decision, Frame]:
    frame = Frame(index, 1700000000.5 + index, make_texture(index, height=60, width=90), name)
    score = {"pass": 1.0, "reject": 6.0}.get(verdict)
    decision = Decision(
        index, frame.time, "bolt", score, verdict, "because", 1.0, MAP, image=name or None
    )
    return decision, frame


def of_camera(camera: str, index: int, verdict: str = "pass") -> tuple[Decision, Frame]:
    """A decision that knows its camera, as those of several do."""
    decision, frame = made(index, verdict)
    object.__setattr__(decision, "camera", camera)
    return decision, frame


AT_ONCE = LogOptions(commit_seconds=0.0, head_seconds=0.0, reserve_bytes=0)


def written(path: Path, count: int, options: LogOptions = AT_ONCE, **details) -> DecisionLog:
    log = DecisionLog(path, Session(details), options)
    for index in range(count):
        log.write(*made(index, ("pass", "reject", "no_decision")[index % 3]))
        log.tick()
    return log


def execute(path: Path, statement: str) -> None:
    """Change a log as no inspector does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(statement).rowcount > 0


def log_ids(path: Path) -> list[str]:
    """Of each file, from its first row."""
    return [json.loads(row.more)["log"] for row in all_rows(path) if row.kind == "file"]
