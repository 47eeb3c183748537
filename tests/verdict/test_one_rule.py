"""Every door asks one rule: whoever says whether a part is rejected says what the line says.

A scripted engine answers each image as its situation demands; every door is shown every situation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("sklearn")
from helpers.graphs import CATEGORIES, GRID, LEVELS, SIDE, save_bundle
from helpers.images import write_png
from helpers.known_answers import take_in
from helpers.looks import ANYTHING
from helpers.thresholds import threshold_at

from hvq_edge.bundle.integrity import self_test
from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.calibration.images import own_set
from hvq_edge.calibration.images.calibration_image import CalibrationImage
from hvq_edge.data.images import read_frame
from hvq_edge.errors import GateFailed, InputError
from hvq_edge.evaluation import evaluate_target
from hvq_edge.evaluation.acceptance.measured import measured_of
from hvq_edge.export import export_run
from hvq_edge.export.verify import verify
from hvq_edge.run.record import ImageRecord
from hvq_edge.runtime.choice.choose_graph import EngineChoice
from hvq_edge.runtime.engine import EngineInfo
from hvq_edge.runtime.known_answers import (
    ANSWERS_NAME,
    Answer,
    Deviation,
    KnownAnswers,
    write_known_answers,
)
from hvq_edge.stream.calibrate_from_stream import calibrate_from_stream
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.live_page.history import Record
from hvq_edge.stream.live_page.page_view import preview
from hvq_edge.stream.sources.folder import open_folder
from hvq_edge.verdict.calibrate import from_images
from hvq_edge.verdict.image_limits import CategoryLimits, ImageLimits
from hvq_edge.verdict.placement import learn_placement, small_grey

THRESHOLD = 0.5
DISC = 40.0


@dataclass(frozen=True)
class Situation:
    """What the engine says of an image, and what the line makes of it."""

    verdict: str
    reason: str
    score: float = 0.3
    margin: float = 0.8
    category: int = 0
    map_value: float = 0.3
    level: int = 120
    shift: int = 0
    learns: bool = False
    """Whether the image may set a threshold."""


SITUATIONS = {
    "within": Situation("pass", "within", learns=True),
    "at the threshold": Situation("pass", "within", score=THRESHOLD, learns=True),
    "above": Situation("reject", "above", score=0.9, learns=True),
    "unknown part": Situation("no_decision", "unknown part", score=0.9, margin=-0.1),
    "margin is no number": Situation("no_decision", "unknown part", margin=np.nan),
    "outside the image limits": Situation("no_decision", "too dark", level=30),
    "outside the category's limits": Situation("no_decision", "too dark", level=60),
    "moved": Situation("no_decision", "moved", score=0.9, shift=12),
    "score is not finite": Situation("no_decision", "not a finite number", score=np.nan),
    "map is not finite": Situation("no_decision", "map is not finite", map_value=np.inf),
    "no threshold": Situation("no_decision", "no threshold", score=0.9, category=1, learns=True),
    "no such category": Situation("no_decision", "no threshold", category=7),
}


def image_of(level: int, shift: int = 0, seed: int = 0) -> np.ndarray:
    """A bright disc in its place on a textured ground of a mean grey level."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    disc = DISC * np.exp(-((x - 30 - shift) ** 2 + (y - 34) ** 2) / 2 / 9.0**2)
    grey = level + disc - disc.mean() + rng.normal(0, 4, (SIDE, SIDE))
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


class ScriptedEngine:
    """Answers as each image's situation demands."""

    def __init__(self, answers: dict[bytes, Situation]) -> None:
        self.info = EngineInfo("onnxruntime", "fp32", "test", (SIDE, SIDE), CATEGORIES, "auto")
        self._answers = answers

    def run(self, frames, category=None):
        found = [self._answers[frame.tobytes()] for frame in frames]
        maps = [np.full((GRID, GRID), one.map_value, np.float32) for one in found]
        return {
            "score": np.array([one.score for one in found], np.float32),
            "map": np.stack(maps),
            "codes": np.zeros((len(found), LEVELS, GRID**2), np.int32),
            "category": np.array([one.category for one in found], np.int32),
            "margin": np.array([one.margin for one in found], np.float32),
        }

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@dataclass
class Scene:
    """One situation: an image on disk, a bundle, and an engine that answers as scripted."""

    situation: Situation
    data: Path
    folder: Path
    bundle: Bundle
    engine: ScriptedEngine

    @property
    def image(self) -> Path:
        return next(self.folder.glob("*.png"))

    @property
    def frame(self) -> np.ndarray:
        return read_frame(self.image, SIDE)


@pytest.fixture(scope="module")
def limits():
    placement = learn_placement([small_grey(image_of(120, seed=seed)) for seed in range(30)])
    assert placement is not None
    everything = ImageLimits(
        brightness_low=40, brightness_high=250, contrast_low=0, sharpness_low=0
    )
    bolt = everything.model_copy(update={"brightness_low": 80})
    return everything, {"bolt": CategoryLimits(image=bolt, usual=ANYTHING, placement=placement)}


@pytest.fixture(params=SITUATIONS, ids=lambda name: name.replace(" ", "-"))
def scene(request, tmp_path, limits, monkeypatch):
    situation = SITUATIONS[request.param]
    data = tmp_path / "data"
    folder = data / "bolt" / "test" / "dent"
    pixels = image_of(situation.level, situation.shift, seed=99)
    write_png(folder / "0.png", pixels)
    write_png(data / "bolt" / "test" / "good" / "1.png", image_of(120, seed=98))
    write_png(data / "bolt" / "train" / "good" / "2.png", image_of(120, seed=97))
    saved = save_bundle(tmp_path / "bundle", "auto")
    update = {
        "image_limits": limits[0],
        "category_limits": limits[1],
        "thresholds": {"fp32": {"bolt": threshold_at(THRESHOLD)}},
    }
    write_manifest(saved.path, saved.manifest.model_copy(update=update))
    answers = {
        read_frame(folder / "0.png", SIDE).tobytes(): situation,
        read_frame(data / "bolt" / "test" / "good" / "1.png", SIDE).tobytes(): SITUATIONS["within"],
    }
    engine = ScriptedEngine(answers)
    for module in (from_images, export_run, evaluate_target, self_test):
        monkeypatch.setattr(module, "open_engine", lambda *_, **__: engine)
    return Scene(situation, data, folder, open_bundle(saved.path), engine)


def line(scene: Scene):
    (decision,) = Inspector(scene.engine, scene.bundle, open_folder(scene.folder))
    return decision


def evaluated(scene: Scene):
    found = evaluate_target.evaluate_target(scene.bundle.path, scene.data, precision="fp32")
    return found.content


def counted(verdicts) -> str:
    (verdict,) = [name for name in ("rejected", "passed", "no_decision") if getattr(verdicts, name)]
    return {"rejected": "reject", "passed": "pass"}.get(verdict, verdict)


def test_the_line(scene):
    decision = line(scene)
    assert decision.verdict == scene.situation.verdict
    assert scene.situation.reason in decision.reason


def test_eval_and_its_file(scene):
    (record,) = evaluated(scene).evaluations
    (bolt,) = record.categories
    assert counted(bolt.defective_verdicts) == scene.situation.verdict
    assert counted(bolt.good_verdicts) == "pass"
    verdicts = {row.good: row.verdict for row in record.images}
    assert verdicts == {False: scene.situation.verdict, True: "pass"}
    assert bolt.missed == (scene.situation.verdict == "pass")


def test_the_acceptance_report(scene):
    found = measured_of(scene.bundle, evaluated(scene), True)
    (bolt,) = found.categories
    counts = {
        "pass": bolt.missed.count,
        "no_decision": bolt.defective_undecided,
        "reject": bolt.defective - bolt.missed.count - bolt.defective_undecided,
    }
    assert counts == {**dict.fromkeys(counts, 0), scene.situation.verdict: 1}


def test_verify(scene):
    found = verify._verdict(
        scene.bundle, "fp32", {"frames": scene.frame[None]}, scene.engine.run(scene.frame[None])
    )
    assert found.verdict == scene.situation.verdict
    assert scene.situation.reason in found.reason


def test_the_preview_of_the_live_page(scene):
    decision = line(scene)
    names = "camera frame time category score verdict reason latency_ms grade image part"
    said = {name: getattr(decision, name) for name in names.split()}
    record = Record(sequence=1, threshold=THRESHOLD, **said)
    shown = preview([record], "bolt", THRESHOLD, THRESHOLD)
    assert shown.would_reject == (scene.situation.verdict == "reject")


def test_the_calibration_set_of_ones_own(scene):
    images = [CalibrationImage(scene.image, "bolt", "")]
    found = own_set.suspicious_images(scene.engine, scene.bundle, images)
    assert bool(found) == (scene.situation.verdict != "pass")


def learns(scene: Scene, learn) -> bool:
    try:
        learnt = learn()
    except InputError:
        return False
    return any(learnt.values())


def test_calibrate_with_good_images(scene):
    def learn():
        done = from_images.calibrate_run(scene.bundle.path, scene.folder, force=True)
        return done.thresholds["fp32"]

    assert learns(scene, learn) == scene.situation.learns


def test_calibrate_under_the_camera(scene):
    def learn():
        source = open_folder(scene.folder)
        return calibrate_from_stream(scene.engine, scene.bundle, source, force=True).thresholds

    assert learns(scene, learn) == scene.situation.learns


def test_export(scene):
    held_out = [
        ImageRecord(
            path=scene.image.relative_to(scene.data).as_posix(),
            category="bolt",
            sha256="0" * 64,
            use="held_out",
        )
    ]

    def learn():
        manifest = export_run._with_thresholds(
            scene.bundle, held_out, [], scene.data, 0.05, {}, lambda *_, **__: None
        )
        return manifest.thresholds["fp32"]

    assert learns(scene, learn) == scene.situation.learns


def test_the_self_test_of_an_installation(scene, monkeypatch):
    """It is shown an image that the line decides on, and fails where that is no longer so."""
    situation = scene.situation
    said = ScriptedEngine({scene.frame.tobytes(): replace(situation, category=0)})
    output = said.run(scene.frame[None])
    answer = Answer(tolerance=Deviation(0.0, 0.0, 1e-3, 0.0), **output)
    write_known_answers(
        scene.bundle.path / ANSWERS_NAME,
        KnownAnswers(scene.frame[None], np.zeros(1, np.int32), {"fp32": answer}),
    )
    bundle = take_in(scene.bundle, ANSWERS_NAME)
    choice = EngineChoice("onnxruntime", "fp32", "fp32: as scripted")
    monkeypatch.setattr(self_test, "choose", lambda _: choice)
    decided = replace(situation, category=0) == situation and situation.verdict != "no_decision"
    if decided:
        assert "right on 1 known image" in self_test.self_test(bundle)
    else:
        with pytest.raises(GateFailed):
            self_test.self_test(bundle)
