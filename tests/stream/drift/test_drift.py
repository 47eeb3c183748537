"""What moved is said wherever somebody may look, and ends when it is acknowledged."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine, bundle  # noqa: F401  # a fixture
from helpers.changes import lit
from helpers.graphs import SIDE
from helpers.images import make_texture, write_png
from helpers.paths import ROOT
from helpers.running_line import rows_of, save_line_bundle
from helpers.sources import ListSource
from helpers.thresholds import threshold_at
from typer import Typer
from typer.testing import CliRunner

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.cli.stream import add_stream
from hvq_edge.stream.drift.category import PartSeen, scores_within, stride_of
from hvq_edge.stream.drift.kept import go_on, keep
from hvq_edge.stream.drift.measures import IMAGE
from hvq_edge.stream.drift.settings import DriftSettings
from hvq_edge.stream.drift.watch import DriftWatch
from hvq_edge.stream.inspector import Inspector
from hvq_edge.verdict.calibration_scores import table_of

QUICK = DriftSettings(false_alarms=1000, reference_parts=40)
THRESHOLD = 10.0


class Parts:
    """Parts of one kind; :meth:`show` shows some to a watch, each another image."""

    def __init__(self, seed: int = 0) -> None:
        self.draw = np.random.default_rng(seed)
        self.time = 0.0

    def show(
        self,
        watch: DriftWatch,
        count: int,
        *,
        margin: float = 1.0,
        category: str = "bolt",
        fixture: float | None = None,
        **moved: float,
    ) -> None:
        """Show parts; in a fixture they lie alike, of this grey."""
        for _ in range(count):
            self.time += 1.0
            image = self.draw.standard_normal(len(IMAGE)) / 10
            for name, by in moved.items():
                if name in IMAGE:
                    image[IMAGE.index(name)] += by
            score = float(self.draw.standard_normal() + moved.get("score", 0.0))
            codes = self.draw.integers(0, 8, (2, 49)).astype(np.int32)
            codes[1, : int(moved.get("codes", 0))] = 9
            part = PartSeen(self.time, score, margin + self.draw.normal(0, 0.1), image, codes)
            small = self.draw.uniform(0, 255, (56, 56)).astype(np.float32)
            if fixture is not None:
                small = (fixture + self.draw.normal(0, 1, small.shape)).astype(np.float32)
            watch.take(part, small, category, THRESHOLD)


@pytest.fixture
def parts() -> Parts:
    return Parts()


def watch_of(settings: DriftSettings = QUICK, good: bool = True) -> DriftWatch:
    scores = table_of(np.random.default_rng(9).standard_normal(30).tolist())
    return DriftWatch("left", {"bolt": scores} if good else {}, settings)


@pytest.mark.parametrize(
    ("moved", "words", "remedy"),
    [
        ({"sharpness": -0.3}, "softer", "clean the lens"),
        ({"brightness": 0.3}, "brighter", "the lamp"),
        ({"warmth": 0.3}, "warmer", "white balance"),
        ({"across": 0.3}, "placed elsewhere across", "mount"),
        ({"score": 2.0}, "higher scores of passed parts", "rejects"),
        ({"margin": -0.3}, "further from the category's centre", "from before"),
        ({"codes": 8}, "rarer codes at level 1", "new material"),
    ],
)
def test_what_moved_is_said_with_since_when_and_what_to_do(parts, caplog, moved, words, remedy):
    watch = watch_of()
    parts.show(watch, 200)
    assert watch.said == ""
    moved = {**moved, "margin": 1.0 + moved.get("margin", 0.0)}
    parts.show(watch, 150, **moved)
    first = watch.alarms[0]
    assert first.words == words
    assert remedy in watch.remedy
    assert abs(first.since - 200) < 40
    assert f"drift of bolt: {first}" in watch.said
    assert caplog.messages[0].startswith(f"left: drift of bolt: {first}: ")


def test_nothing_is_said_while_nothing_changes(parts):
    watch = watch_of(DriftSettings())
    parts.show(watch, 1500)
    assert watch.alarms == ()


def test_scores_unlike_the_calibration_are_said_with_the_first_reference(parts):
    watch = watch_of()
    parts.show(watch, 40, score=2.0)
    assert [alarm.measure for alarm in watch.alarms] == ["score"]
    alone = watch_of(good=False)
    parts.show(alone, 80, score=2.0)
    assert alone.alarms == (), "its own parts are what it knows"


def test_rejects_are_no_drift(parts):
    watch = watch_of()
    parts.show(watch, 100)
    parts.show(watch, 200, score=30.0, brightness=1.0)
    assert watch.alarms == ()


def test_one_part_before_a_belt_that_stands_still_is_one_part():
    watch, part = watch_of(), PartSeen(0.0, 2.0, 1.0, np.ones(len(IMAGE)), np.zeros((2, 49), int))
    Parts().show(watch, 60)
    draw = np.random.default_rng(0)
    seen = draw.uniform(0, 255, (56, 56))
    for _ in range(300):
        small = (seen + draw.normal(0, 1, seen.shape)).astype(np.float32)
        watch.take(part, small, "bolt", THRESHOLD)
    assert watch.alarms == ()


def test_a_change_of_product_does_not_stop_the_watch(parts):
    """Two products differ by far more than two parts of one in a fixture."""
    watch = watch_of()
    for _ in range(30):
        parts.show(watch, 1, fixture=200.0, category="nut")
        parts.show(watch, 1, fixture=100.0)
    parts.show(watch, 100, fixture=100.0)
    parts.show(watch, 100, fixture=100.0, brightness=-0.4)
    assert [alarm.category for alarm in watch.alarms] == ["bolt"]


def test_an_acknowledgement_makes_the_new_state_the_usual_one(parts, caplog):
    caplog.set_level(logging.INFO, "hvq_edge")
    watch = watch_of()
    parts.show(watch, 100)
    parts.show(watch, 100, score=2.0, brightness=-0.4)
    assert {alarm.measure for alarm in watch.alarms} >= {"score", "brightness"}
    watch.acknowledge()
    parts.show(watch, 300, score=2.0, brightness=-0.4)
    assert watch.alarms == ()
    assert caplog.messages[-1] == "left: drift is acknowledged; what is usual is learnt anew"
    parts.show(watch, 100, score=2.0)
    assert watch.alarms[0].words == "brighter"


def test_another_threshold_begins_anew(parts):
    watch = watch_of()
    parts.show(watch, 100)
    parts.show(watch, 100, brightness=-0.4)
    assert watch.alarms
    part = PartSeen(0.0, 0.0, 1.0, np.zeros(len(IMAGE)), np.zeros((2, 49), np.int32))
    watch.take(part, np.zeros((56, 56), np.float32), "bolt", THRESHOLD + 1)
    assert watch.alarms == ()


def test_only_scores_that_would_pass_are_compared_with_passed_parts():
    good = table_of([1.0, 2.0, 3.0, 4.0])
    kept = scores_within(good, 3.5)
    assert kept.values.tolist() == [1, 2, 3]
    assert kept.weights.tolist() == [1, 1, 1, 1], "and up to the next score"
    assert scores_within(good, 9.0).weights.tolist() == [1] * 5
    assert scores_within(good, 0.5) is None
    many = table_of([float(i) for i in range(300)])
    assert scores_within(many, 400.0).weights.sum() == 301


def test_parts_that_are_alike_one_after_the_other_count_less():
    draw = np.random.default_rng(0)
    alone = draw.standard_normal((200, 9))
    assert stride_of(alone) == 1
    slow = np.cumsum(alone[:, 0])
    assert stride_of(np.column_stack((alone, slow))) > 5
    assert stride_of(np.ones((100, 2))) == 1


def test_what_is_usual_outlives_a_clean_end(tmp_path, parts, caplog):
    caplog.set_level(logging.INFO, "hvq_edge")
    path = tmp_path / "drift.npz"
    keep(path, {"left": watch_of()}, "model 1")
    assert not path.exists(), "nothing is known yet"
    first = watch_of()
    parts.show(first, 100)
    keep(path, {"left": first, "right": watch_of()}, "model 1")
    second = watch_of()
    go_on(path, {"left": second, "other": watch_of()}, "model 1")
    parts.show(second, 60, sharpness=-0.4)
    assert second.alarms[0].words == "softer", "learnt before"
    keep(path, {"left": second}, "model 1")
    third = watch_of()
    go_on(path, {"left": third}, "model 1")
    assert third.said == second.said, "nobody acknowledged it"

    anew = watch_of()
    go_on(path, {"left": anew}, "model 2")
    assert anew.said == ""
    assert caplog.messages[-1].startswith("drift: the model is another one")
    path.write_bytes(path.read_bytes()[:200])
    go_on(path, {"left": anew}, "model 1")
    assert "cannot be read, what is usual is learnt anew" in caplog.messages[-1]
    go_on(tmp_path / "none.npz", {"left": anew}, "model 1")
    assert caplog.messages[-1].startswith("drift: nothing is known of a former run")


def textures(count: int, first: int, change=lambda image: image) -> list:
    return [change(make_texture(first + i, height=SIDE, width=SIDE)) for i in range(count)]


def test_the_inspector_marks_decisions_and_may_be_told_not_to(bundle):
    good, dark = textures(60, 0), textures(40, 100, lit(0.6))

    def inspector(settings: DriftSettings | None) -> Inspector:
        source = ListSource([*good, *dark], live=False)
        return Inspector(BrightnessEngine(), bundle, source, drift=settings)

    watched = inspector(QUICK)
    watched.controls.set_threshold("bolt", 9.0)
    decisions = list(watched)
    assert {decision.drift for decision in decisions[:60]} == {None}
    assert "darker" in decisions[-1].drift
    assert decisions[-1].fields()["drift"] == decisions[-1].drift
    camera = watched.statistics().cameras[0]
    assert camera.moved == len(watched.watches["a list"].alarms) > 0
    assert "drift of bolt: darker (" in camera.drift or "darker (" in camera.drift
    watched.watches["a list"].acknowledge()

    off = inspector(DriftSettings(watch=False))
    assert {decision.drift for decision in off} == {None}
    assert off.watches["a list"].alarms == ()
    off.watches["a list"].acknowledge()


def test_the_command_keeps_it_in_the_log_and_from_one_run_to_the_next(tmp_path):
    bundle = save_line_bundle(tmp_path / "bundle")
    thresholds = {"fp32": {"bolt": threshold_at(2.0, images=3, rule="test")}}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"thresholds": thresholds}))
    for i, image in enumerate([*textures(60, 0), *textures(30, 100, lit(0.6))]):
        write_png(tmp_path / "images" / f"{i}.png", image)
    config = tmp_path / "stream.toml"
    config.write_text("[drift]\nfalse_alarms = 1000\nreference_parts = 40\n")
    app = Typer()
    add_stream(app)
    arguments = ["--config", config, "--bundle", bundle.path, "--camera", tmp_path / "images"]
    arguments += ["--out", tmp_path / "out", "--no-video", "--no-display"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None, result.output
    rows = [row for row in rows_of(tmp_path / "out") if row["kind"] == "drift"]
    told = [json.loads(row["more"]) for row in rows]
    dark = next(one for one in told if one["measure"] == "brightness")
    assert dark["what"] == "darker"
    assert dark["value"] < dark["usual"]
    assert dark["camera"] == str(tmp_path / "images")
    assert "the lamp" in dark["remedy"]
    assert "darker (" in result.stdout, "the summary says it"
    decisions = [row for row in rows_of(tmp_path / "out") if row["kind"] == "decision"]
    assert "drift" not in json.loads(decisions[0]["more"])
    assert "darker" in json.loads(decisions[-1]["more"])["drift"], "so it goes to every receiver"
    again = CliRunner().invoke(app, [*map(str, arguments), "--max-frames", "2"])
    assert again.exception is None, again.output
    assert "adds to 90 decisions, first of" in again.stderr
    assert "adds to" not in result.stderr
    later = [row for row in rows_of(tmp_path / "out") if row["kind"] == "decision"]
    assert "darker" in json.loads(later[-1]["more"])["drift"], "nobody acknowledged it"


def test_the_page_has_every_setting_with_its_default():
    page = (ROOT / "docs/reference/line-settings.md").read_text(encoding="utf-8")
    for name, field in DriftSettings.model_fields.items():
        assert f"| `{name}` | {json.dumps(field.default)} | " in page
