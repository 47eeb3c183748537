"""``hvq_edge.load`` and ``predict``: what the line would decide, of images that one has."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine, bundle  # noqa: F401  # fixtures
from helpers.graphs import save_bundle
from helpers.images import flat, write_png

import hvq_edge
from hvq_edge.errors import BundleError, ImageError, InputError, MissingCapability, OutputError
from hvq_edge.predict import result as result_module
from hvq_edge.predict.predictor import Predictor


def spotted(level: int = 40, spot: int = 250):
    image = flat(level)
    image[8:40, 8:40] = spot
    return image


@pytest.fixture
def images(tmp_path):
    for name, image in {"1.png": flat(40), "bad/2.png": spotted(), "bad/3.png": flat(230)}.items():
        write_png(tmp_path / "in" / name, image)
    return tmp_path / "in"


@pytest.fixture
def model(bundle):
    with hvq_edge.load(bundle, backend="onnxruntime") as opened:
        yield opened


def test_one_image_by_every_way_to_name_it(model, images):
    from_path = model.predict(images / "bad/2.png")
    assert from_path.verdict == "reject"
    assert from_path.name == str(images / "bad/2.png")
    pil = pytest.importorskip("PIL.Image")
    for way in (str(images / "bad/2.png"), spotted(), pil.fromarray(spotted())):
        result = model.predict(way)
        assert (result.score, result.verdict) == (from_path.score, "reject")


def test_several_images_are_a_list_in_their_order(model, images):
    verdicts = ["pass", "reject", "reject"]
    several = [images / "1.png", spotted(), str(images / "bad/3.png")]
    for way in (
        images,
        several,
        tuple(several),
        iter(several),
        np.stack([flat(40), *[spotted()] * 2]),
    ):
        assert [one.verdict for one in model.predict(way)] == verdicts
    assert [one.verdict for one in model.predict(str(images / "bad/*.png"))] == verdicts[1:]
    assert model.predict([]) == []


def test_it_decides_as_the_line_does(bundle, model, images):
    for result, decision in zip(
        model.predict(images), hvq_edge.inspect(bundle, images), strict=True
    ):
        assert result.verdict == decision.verdict
        assert result.score == pytest.approx(decision.score, rel=1e-5)
        assert result.p_value == decision.p_value
        assert [one.box for one in result.regions] == [one.box for one in decision.regions]


def test_images_go_to_the_engine_as_batches(bundle):
    engine = BrightnessEngine()
    results = Predictor(engine, bundle).predict([flat(level) for level in range(20, 60)])
    assert engine.calls == 5
    assert [one.score for one in results] == sorted(one.score for one in results)


def test_an_image_that_cannot_be_judged(model, images):
    (images / "bad/2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"2\.png"):
        model.predict(images / "bad/2.png")
    results = model.predict(images)
    assert [one.verdict for one in results] == ["pass", "no_decision", "reject"]
    lost = results[1]
    assert lost.image is None
    assert "2.png" in lost.reason
    assert lost.plot().dtype == np.uint8
    assert (lost.heat(), lost.mask(), lost.threshold) == (None, None, None)
    json.dumps(lost.to_dict(), allow_nan=False)


@pytest.mark.parametrize("value", [3, None, object(), b"bytes", {"a.png": 1}, "", " "])
def test_what_is_no_image(model, value):
    with pytest.raises(InputError, match=r"an image cannot be|an empty name"):
        model.predict(value)


def test_a_result_says_shows_and_keeps_itself(model, images, tmp_path):
    result = model.predict(images / "bad/2.png")
    assert repr(result).startswith("<Result reject, score 0.98")
    said = result.to_dict()
    assert json.loads(json.dumps(said)) == said
    assert said["image"] == result.name
    assert (said["threshold"], said["regions"][0]["box"]) == (0.5, list(result.regions[0].box))
    written = result.save(tmp_path / "out")
    assert [path.name for path in written] == ["2.overlay.png", "2.heat.png", "2.mask.png"]
    overlay, heat, mask = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in written)
    np.testing.assert_array_equal(overlay[:, :, ::-1], result.plot())
    assert heat.shape == (*mask.shape, 3) == result.image.shape
    left, top, width, height = result.regions[0].box
    rows, columns = np.nonzero(mask)
    assert set(np.unique(mask)) == {0, 255}
    assert left <= columns.min() <= columns.max() < left + width
    assert top <= rows.min() <= rows.max() < top + height
    spot, corner = heat[24, 24].astype(int), heat[-4, -4].astype(int)  # BGR
    assert spot[2] > spot[1] + 60  # red: it rejects
    assert corner[2] < corner[1] + 30
    shown = cv2.imdecode(np.frombuffer(result._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown, overlay)


def test_a_pass_has_an_empty_mask(model, tmp_path):
    result = model.predict(flat(40))
    assert result.mask().max() == 0
    names = [result.save(tmp_path)[0].name for _ in range(3)]
    assert names == [f"image{number}.overlay.png" for number in ("", "-2", "-3")]


def test_results_stay_in_their_folder(model, tmp_path):
    result = model.predict(flat(40))
    for stem in ("../out", "/tmp/out"):
        with pytest.raises(InputError, match="not below"):
            result.save(tmp_path, stem)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        result.save(tmp_path / "file")


def test_without_a_screen_show_says_what_else_to_do(model, monkeypatch):
    monkeypatch.setattr(result_module, "has_screen", lambda _: False)
    with pytest.raises(MissingCapability, match="no screen") as raised:
        model.predict(flat(40)).show()
    assert "save" in raised.value.next_step


def test_a_window_shows_the_overlay(model, monkeypatch):
    shown = []
    monkeypatch.setattr(result_module, "has_screen", lambda _: True)
    for name in ("waitKey", "destroyWindow"):
        monkeypatch.setattr(cv2, name, lambda *_: -1)
    monkeypatch.setattr(cv2, "imshow", lambda _, image: shown.append(image))
    result = model.predict(flat(40))
    result.show()
    np.testing.assert_array_equal(shown[0][:, :, ::-1], result.plot())


def test_what_must_be_told_the_category(tmp_path):
    saved = save_bundle(tmp_path / "input", "input")
    with pytest.raises(InputError, match="must be told"):
        hvq_edge.load(saved)
    with hvq_edge.load(saved, category="nut") as model:
        assert model.predict(flat(90)).category == "nut"
        assert model.predict(flat(90)).verdict == "no_decision"  # it has no threshold


def test_no_bundle(tmp_path):
    with pytest.raises(BundleError):
        hvq_edge.load(tmp_path)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_in_batches_a_real_model_decides_as_on_the_line(
    solar_bundle, solar_cells, precision, backend
):
    folder = solar_cells / "solar_cell_mono" / "test"
    with hvq_edge.load(solar_bundle, precision=precision, backend=backend) as model:
        results = model.predict(folder)
    line = hvq_edge.inspect(solar_bundle, folder, precision=precision, backend=backend)
    decisions = list(line)
    assert len(results) == len(decisions) == 16
    assert sum(one.score is not None for one in decisions) > 8
    apart = 1e-3  # INT8 would round a batch that is computed at once by more
    for result, decision in zip(results, decisions, strict=True):
        assert result.category == decision.category
        if decision.score is not None:
            assert result.score == pytest.approx(decision.score, rel=apart)
        if decision.score is None or abs(decision.score / result.threshold - 1) > apart:
            assert result.verdict == decision.verdict
