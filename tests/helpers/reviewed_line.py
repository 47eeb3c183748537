"""A recording that people can judge: a log, its rejects, and images of some passes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.decisions import DRAW, made

from hvq_edge.stream.controls import Controls
from hvq_edge.stream.log.reviews import append_review
from hvq_edge.stream.review.desk import ReviewDesk
from hvq_edge.stream.sinks.all_sinks import OpenSinks
from hvq_edge.stream.sinks.open_sinks import SourceInfo, open_sinks
from hvq_edge.stream.sinks.sink_settings import ImageSettings, LogSettings, SinkSettings

NEAR = 2.9
"""A score just below the threshold of 3."""


def open_recording(out: Path, **images: float) -> OpenSinks:
    """Sinks as a line has them, with a threshold of 3 for bolt; a tenth below it is near."""
    settings = SinkSettings(
        log=LogSettings(commit_ms=0.0, json_lines=False), images=ImageSettings(**images)
    )
    controls = Controls({"bolt": 3.0})
    return open_sinks(
        settings,
        out,
        [SourceInfo("left", 10.0)],
        DRAW,
        when_full="wait",
        session={"version": "1", "thresholds": controls.thresholds},
        controls=controls,
    )


def record(out: Path, verdicts: str, **images: float) -> Path:
    """Record a decision for each letter: pass, reject, near miss, undecided.

    Returns:
        The folder.
    """
    sinks = open_recording(out, **images)
    for index, letter in enumerate(verdicts):
        verdict = {"p": "pass", "n": "pass", "r": "reject", "u": "no_decision"}[letter]
        decision, frame = made(index, verdict, f"part {index}.png")
        decision = replace(decision, camera="left", score=NEAR if letter == "n" else decision.score)
        sinks.write(decision, frame)
    sinks.close(None)
    return out


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A pass, a reject, a near miss, one undecided, a pass and a reject."""
    return record(tmp_path_factory.mktemp("recorded"), "prnupr", sample=0.0)


@pytest.fixture
def out(recorded, tmp_path) -> Path:
    """A copy of it, to write in."""
    return Path(shutil.copytree(recorded, tmp_path / "out"))


def desk_of(out: Path) -> ReviewDesk:
    return ReviewDesk(out, lambda review: append_review(out, review))


def ids(desk: ReviewDesk, queue: str, *, judged: bool = False) -> list[int]:
    """The decisions that a queue shows."""
    return [one.candidate.id for one in desk.listed(queue, judged=judged)]
