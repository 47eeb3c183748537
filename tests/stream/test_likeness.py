"""The line says when its images are unlike the training images, wherever somebody may look."""

from __future__ import annotations

import json
import logging

import pytest
from helpers.bright_parts import BrightnessEngine, bundle  # noqa: F401  # a fixture
from helpers.changes import blurred, lit
from helpers.graphs import SIDE
from helpers.images import make_texture, write_png
from helpers.looks import look_of, texture_looks, used_to
from helpers.running_line import rows_of, save_line_bundle
from helpers.sources import ListSource
from typer import Typer
from typer.testing import CliRunner

from hvq_edge.cli.stream import add_stream
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.likeness import WINDOW, LikenessWatch
from hvq_edge.verdict.calibration_scores import table_of
from hvq_edge.verdict.likeness.usual import learn_usual


def textures(count: int, first: int = 0, change=lambda image: image) -> list:
    return [change(make_texture(first + i, height=SIDE, width=SIDE)) for i in range(count)]


@pytest.fixture
def watch() -> LikenessWatch:
    return LikenessWatch("left", {"bolt": learn_usual(texture_looks(40))})


@pytest.fixture
def used(bundle):  # the fixture of that name
    return used_to(bundle, [look_of(image, SIDE) for image in textures(60)])


def show(watch: LikenessWatch, looks, p_value: float | None = 0.5) -> None:
    for look in looks:
        watch.take("bolt", look, p_value)


def test_each_change_is_said_once(watch, caplog):
    caplog.set_level(logging.INFO, "hvq_edge")
    show(watch, texture_looks(2 * WINDOW, first=100))
    assert (watch.said, caplog.messages) == ("", [])
    dark = texture_looks(2 * WINDOW, first=200, change=lit(0.8))
    show(watch, dark)
    assert watch.said.startswith("unlike the training images of bolt: darker (10"), "in full"
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"left: {watch.said}: see to light")
    assert "hvq-edge stream --calibrate" in caplog.messages[0]
    show(watch, dark)
    assert len(caplog.messages) == 1, "nothing has changed"
    show(watch, texture_looks(2 * WINDOW, first=100))
    assert watch.said == ""
    assert caplog.messages[1:] == ["left: bolt is like the training images again"]


def test_it_is_said_with_the_first_window_and_not_before(watch):
    looks = texture_looks(WINDOW, change=blurred(1.0))
    show(watch, looks[:-1])
    assert watch.said == ""
    show(watch, looks[-1:])
    assert "softer (" in watch.said


def test_what_is_seen_only_now_and_then_is_not_said(watch):
    good, dark = texture_looks(WINDOW, first=100), texture_looks(WINDOW, change=lit(0.7))
    show(watch, good)
    for _ in range(4):
        show(watch, dark[: WINDOW // 2 + 2])
        show(watch, good)
        assert watch.said == ""


def test_a_few_odd_parts_are_no_alarm(watch):
    good = texture_looks(WINDOW, first=100)
    show(watch, [*good, *texture_looks(WINDOW // 2 - 1, change=lit(0.5)), *good])
    assert watch.said == ""


def test_categories_are_compared_apart():
    usual = learn_usual(texture_looks(40))
    dark = learn_usual(texture_looks(40, change=lit(0.7)))
    watch = LikenessWatch("left", {"bolt": usual, "nut": dark})
    looks = texture_looks(WINDOW, first=100)
    for look in looks:
        watch.take("bolt", look, None)
        watch.take("nut", look, None)
    assert watch.said.startswith("unlike the training images of nut: brighter (")


def test_scores_of_another_product_variant_are_said(watch):
    looks = texture_looks(WINDOW, first=100)
    show(watch, looks, p_value=0.06)
    assert watch.said == ""
    show(watch, looks * 2, p_value=0.02)
    scores = "scores higher than those of good images (median p-value 0.02)"
    assert watch.said == f"unlike the training images of bolt: {scores}"
    show(watch, looks * 2, p_value=0.08)
    assert watch.said, "it is not quite as usual yet"
    show(watch, looks * 2, p_value=0.3)
    assert watch.said == ""
    show(watch, looks * 2, p_value=None)
    assert watch.said == "", "not known is not high"


def test_the_inspector_compares_frames_with_a_score(used):
    dark = textures(2 * WINDOW, 300, lit(0.7))
    source = ListSource([*textures(WINDOW, 200), None, *dark], live=False)
    inspector = Inspector(BrightnessEngine(), used, source)
    said = [inspector.statistics().cameras[0].unlike for _ in inspector]
    assert set(said[: WINDOW + 1]) == {""}
    assert said[-1].startswith("unlike the training images of bolt: darker (")
    assert inspector.watches["a list"].likeness.said == said[-1]

    paused = Inspector(BrightnessEngine(), used, ListSource(dark, live=False))
    paused.controls.paused = True
    list(paused)
    assert paused.watches["a list"].likeness.said == ""


def test_the_inspector_knows_what_good_parts_score(used):
    good = table_of([i / 1000 for i in range(100)])
    known = used.manifest.thresholds["fp32"]["bolt"].model_copy(update={"calibration_scores": good})
    manifest = used.manifest.model_copy(update={"thresholds": {"fp32": {"bolt": known}}})
    opened = type(used)(used.path, manifest)
    inspector = Inspector(BrightnessEngine(), opened, ListSource(textures(WINDOW, 200), live=False))
    list(inspector)
    said = inspector.watches["a list"].likeness.said
    assert "scores higher than those of good images (median p-value 0.0099)" in said


def test_the_command_warns_and_the_log_keeps_it(tmp_path):
    bundle = save_line_bundle(tmp_path / "bundle")
    used_to(bundle, [look_of(image, SIDE) for image in textures(60)])
    for i, image in enumerate([*textures(WINDOW, 200), *textures(2 * WINDOW, 300, lit(0.7))]):
        write_png(tmp_path / "images" / f"{i}.png", image)
    app = Typer()
    add_stream(app)
    arguments = ["--bundle", bundle.path, "--camera", tmp_path / "images"]
    arguments += ["--out", tmp_path / "out", "--no-video", "--no-display"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None, result.output
    (row,) = [row for row in rows_of(tmp_path / "out") if row["kind"] == "unlike"]
    told = json.loads(row["more"])
    assert told["camera"] == str(tmp_path / "images")
    assert told["from"] == ""
    assert told["to"].startswith("unlike the training images of bolt: darker (")
    assert f"{told['camera']}: {told['to']}" in result.stdout, "the summary says it"
