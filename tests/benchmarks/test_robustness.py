"""Disturbances are pure functions of pixels; verdicts under them are those of the line."""

from __future__ import annotations

import json
from importlib.util import find_spec
from shutil import which
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from helpers.images import make_texture
from helpers.spotted_parts import bundle, data  # noqa: F401  # fixtures

from benchmarks.accuracy import disturbances, robustness
from benchmarks.accuracy.disturbances import DISTURBANCES, Shot
from benchmarks.accuracy.robustness_chart import robustness_svg
from benchmarks.accuracy.robustness_result import CLEAN, Counts, Robustness, Row
from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.common.svg import round_steps
from hvq_edge.data.images import fit_image
from hvq_edge.verdict.judgement import VerdictCounts

SIDE = 64
EACH = [(name, strength) for name, found in DISTURBANCES.items() for strength in found]
ENCODES = find_spec("av") is not None or which("ffmpeg") is not None
UNTOUCHED = {
    "blurred": (0.0, 0.0),
    "noisy": (0.0, 3),
    "brightened": (0.0,),
    "contrasted": (0.0,),
    "tinted": (0.0,),
    "gamma": (1.0,),
    "moved": (0.0, 0.0, 0.0, 1.0),
}


def part() -> np.ndarray:
    """Not square, with an odd side, and grain that is not the same in all colours."""
    image = cv2.resize(make_texture(7, grain=1.5, mean=120.0), (131, 96))
    return np.ascontiguousarray(image // np.array([1, 2, 1], np.uint8) + 20).astype(np.uint8)


def disturbed(name: str, strength: str, number: int = 3) -> np.ndarray:
    if name == "H.264" and not ENCODES:
        pytest.skip("neither PyAV nor ffmpeg is there")
    return DISTURBANCES[name][strength](part(), Shot(number, SIDE))


@pytest.mark.parametrize(("name", "strength"), EACH)
def test_a_disturbance_gives_an_image_and_the_same_one_again(name, strength):
    given = part()
    found = disturbed(name, strength)
    assert found.dtype == np.uint8
    assert found.shape == ((SIDE, SIDE, 3) if name == "resampling" else given.shape)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(disturbed(name, strength), found)
    np.testing.assert_array_equal(part(), given)


@pytest.mark.parametrize("name", DISTURBANCES)
@pytest.mark.parametrize("number", [2, 3])
def test_a_stronger_one_changes_more(name, number):
    assert len(DISTURBANCES[name]) == 3
    clean = fit_image(part(), SIDE).astype(int)
    distances = [
        np.abs(fit_image(disturbed(name, strength, number), SIDE) - clean).mean()
        for strength in DISTURBANCES[name]
    ]
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize(("name", "arguments"), UNTOUCHED.items())
def test_strength_0_leaves_an_image_as_it_is(name, arguments):
    found = getattr(disturbances, name)(part(), *arguments)
    np.testing.assert_array_equal(found, part())


@pytest.mark.parametrize("name", ["brightness", "contrast", "white balance", "gamma", "scale"])
def test_images_in_turn_go_either_way(name):
    one, other = (disturbed(name, list(DISTURBANCES[name])[1], number) for number in (0, 1))
    assert not np.array_equal(one, other)


def test_what_they_do_is_what_they_are_called():
    grey = np.full((40, 60, 3), 100, np.uint8)
    assert (disturbances.brightened(grey, 0.1) == 110).all()
    assert (disturbances.brightened(grey, 2.0) == 255).all()
    assert disturbances.tinted(grey, 0.1)[0, 0].tolist() == [110, 100, 90]
    noise = disturbances.noisy(grey, 5, 0)
    assert noise.std() == pytest.approx(5, rel=0.1)
    assert (noise == noise[..., :1]).all()  # a grey camera's
    assert np.ptp(disturbances.noisy(part(), 5, 0).astype(int) - part(), axis=2).any()
    spot = grey.copy()
    spot[20, 30] = 255
    assert np.argwhere(disturbances.moved(spot, 0.1, 0)[..., 0] > 200).tolist() == [[20, 36]]
    turned = disturbances.moved(spot[:39, :59], degrees=90)
    assert np.argwhere(turned[..., 0] > 200).tolist() == [[18, 30]]


@pytest.mark.skipif(find_spec("av") is None or which("ffmpeg") is None, reason="needs both")
def test_pyav_and_ffmpeg_give_about_the_same(monkeypatch):
    through_pyav = disturbances.h264(part(), 40)
    monkeypatch.setattr(disturbances, "find_spec", lambda _: None)
    difference = np.abs(disturbances.h264(part(), 40).astype(int) - through_pyav)
    assert difference.mean() < 3  # two versions of the encoder, at a rate that leaves little out


@pytest.fixture
def few(monkeypatch):
    """Two rows that take no time."""
    steps = [step for step in robustness.STEPS if step[0] in (CLEAN, "brightness")][:3]
    monkeypatch.setattr(robustness, "STEPS", tuple(steps))


def run(capsys, *arguments) -> str:
    robustness.main([str(one) for one in arguments])
    return capsys.readouterr().out


def test_verdicts_are_those_of_the_line(few, bundle, data, tmp_path, capsys):
    given = (bundle.path, data, "--out", tmp_path / "out", "--precision", "fp32")
    found = Robustness.model_validate_json(run(capsys, *given, "--json"))
    assert [(row.disturbance, row.strength) for row in found.rows] == [
        (CLEAN, ""),
        ("brightness", "±5 %"),
        ("brightness", "±10 %"),
    ]
    assert found.images == 11
    assert found.clean.categories == {
        "bolt": Counts(good=VerdictCounts(1, 2, 0), defective=VerdictCounts(3, 0, 0)),
        "nut": Counts(good=VerdictCounts(0, 2, 0), defective=VerdictCounts(2, 1, 0)),
    }
    assert found.clean.mean("found") == pytest.approx(5 / 6)
    assert found.clean.mean("good rejected") == pytest.approx(1 / 6)
    assert "| as it is    |" in run(capsys, *given)
    assert (tmp_path / "out/robustness.svg").exists()


def test_what_is_finished_is_kept(few, bundle, data, tmp_path, capsys, monkeypatch):
    judged = []
    verdicts = robustness.Line.verdicts

    def counted(self, images, disturb):
        judged.append(images)
        return verdicts(self, images, disturb)

    monkeypatch.setattr(robustness.Line, "verdicts", counted)
    given = (bundle.path, data, "--out", tmp_path, "--precision", "fp32")
    whole = run(capsys, *given)
    assert len(judged) == 6
    kept = json.loads((tmp_path / "robustness.json").read_text())
    kept["rows"].pop()
    (tmp_path / "robustness.json").write_text(json.dumps(kept))
    assert run(capsys, *given) == whole
    assert len(judged) == 6 + 2
    moved = bundle.manifest.thresholds["fp32"]["bolt"].model_copy(update={"value": 0.0})
    thresholds = {"fp32": {**bundle.manifest.thresholds["fp32"], "bolt": moved}}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"thresholds": thresholds}))
    assert run(capsys, *given) != whole
    assert len(judged) == 6 + 2 + 6


def test_data_of_other_categories_are_refused(few, bundle, data, tmp_path, capsys):
    for name in ("bolt", "nut"):
        (data / name).rename(data / f"another {name}")
    with pytest.raises(SystemExit) as exit_:
        robustness.main([str(bundle.path), str(data), "--out", str(tmp_path)])
    assert exit_.value.code == 2
    assert "has no test images of bolt, nut" in capsys.readouterr().err


def counts(found: int, rejected: int, undecided: int = 0) -> Counts:
    return Counts(
        good=VerdictCounts(rejected, 100 - rejected - undecided, undecided),
        defective=VerdictCounts(found, 100 - found, 0),
    )


def test_the_picture_has_a_dot_for_every_strength_and_marks_what_is_beyond():
    rows = [Row(disturbance=CLEAN, strength="", categories={"bolt": counts(80, 4)})]
    for name, strengths in DISTURBANCES.items():
        worse = 10 if name == "blur" else 0
        rows += [
            Row(disturbance=name, strength=one, categories={"bolt": counts(80 - worse, 4 + worse)})
            for one in strengths
        ]
    found = Robustness(key="", preset="tiny", engine="test", images=200, rows=tuple(rows))
    drawn = robustness_svg(found)
    ElementTree.fromstring(drawn)
    assert drawn.count("<circle") == 3 * 3 * len(DISTURBANCES) + 4  # 4 of the legend
    for i in range(3):
        legend = int(i == 1)
        assert drawn.count(f'class="bad{i}"') == 2 + legend  # found, and good rejected
    assert "blur 1 px: 70 % defects found" in drawn
    assert round_steps(0, 0.8, 5) == [0, 0.2, 0.4, 0.6, 0.8]
