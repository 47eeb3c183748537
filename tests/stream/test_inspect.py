"""``hvq_edge.inspect``: the whole path in one call."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.bright_parts import bundle  # noqa: F401  # fixtures
from helpers.graphs import save_bundle
from helpers.images import flat, write_png
from PIL import Image

import hvq_edge
from hvq_edge.data.images import rgb_from_memory
from hvq_edge.errors import BundleError, ImageError, InputError, MissingCapability


@pytest.fixture
def images(tmp_path):
    for number, level in enumerate([40, 230, 60]):
        write_png(tmp_path / "in" / f"{number}.png", flat(level))
    return tmp_path / "in"


def test_inspect_is_the_whole_path(bundle, images):
    decisions = list(hvq_edge.inspect(bundle.path, images, backend="onnxruntime"))
    assert [decision.verdict for decision in decisions] == ["pass", "reject", "pass"]
    assert [decision.category for decision in decisions] == ["bolt"] * 3
    assert decisions[1].score == pytest.approx(230 / 255, abs=1e-3)
    assert all(decision.latency_ms > 0 for decision in decisions)


def test_inspect_takes_several_cameras(bundle, images, tmp_path):
    write_png(tmp_path / "b" / "1.png", flat(250))
    decisions = list(hvq_edge.inspect(bundle, [images, tmp_path / "b"]))
    found = {(decision.camera, decision.frame): decision.verdict for decision in decisions}
    assert len(found) == 4
    assert found[str(images), 1] == found[str(tmp_path / "b"), 0] == "reject"


def test_inspect_fails_at_once_and_not_at_the_first_frame(bundle, images, tmp_path):
    with pytest.raises(BundleError):
        hvq_edge.inspect(tmp_path / "none", images)
    with pytest.raises(InputError):
        hvq_edge.inspect(bundle, tmp_path / "none.mp4")
    with pytest.raises(MissingCapability):
        hvq_edge.inspect(bundle, 63)


def test_inspect_takes_images_from_memory(bundle):
    grey = Image.fromarray(flat(40)[..., 0])
    found = hvq_edge.inspect(bundle, [flat(40), grey, flat(230), Image.fromarray(flat(240))])
    assert [decision.verdict for decision in found] == ["pass", "pass", "reject", "reject"]
    for one in (flat(230), Image.fromarray(flat(230)), np.stack([flat(230)])):
        (decision,) = hvq_edge.inspect(bundle, one)
        assert (decision.verdict, decision.camera) == ("reject", "images")


def test_an_iterator_without_end(bundle):
    buffer, given = flat(0), []

    def images():
        while True:  # as cv2.VideoCapture.read fills one array again and again
            buffer[:] = 230 if len(given) % 2 else 40
            given.append(buffer)
            yield buffer

    decisions = hvq_edge.inspect(bundle, images())
    verdicts = [next(decisions).verdict for _ in range(6)]
    decisions.close()
    assert verdicts == ["pass", "reject"] * 3
    assert len(given) < 12, "it is not run ahead of"


def test_an_image_that_cannot_be_used(bundle):
    with pytest.raises(ImageError, match="cannot be of float64"):
        hvq_edge.inspect(bundle, np.zeros((64, 64, 3)))
    with pytest.raises(ImageError, match="not float"):
        hvq_edge.inspect(bundle, 0.5)
    with pytest.raises(InputError, match="mixed"):
        hvq_edge.inspect(bundle, ["folder", flat(40)])
    found = list(hvq_edge.inspect(bundle, iter([flat(40), flat(40)[..., :2], flat(40)[:3], None])))
    assert [decision.verdict for decision in found] == ["pass"] + ["no_decision"] * 3
    reasons = ("this is uint8", "smaller than 16", "not NoneType")
    for decision, reason in zip(found[1:], reasons, strict=True):
        assert reason in decision.reason


def test_what_an_iterator_raises_is_raised(bundle):
    def images():
        yield flat(40)
        raise RuntimeError("my camera is gone")

    decisions = hvq_edge.inspect(bundle, images())
    assert next(decisions).verdict == "pass"
    with pytest.raises(RuntimeError, match="my camera is gone"):
        next(decisions)


def test_pillow_images_are_read_as_files_are(tmp_path):
    levels = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    deep = Image.fromarray(levels)
    assert np.abs(rgb_from_memory(deep)[..., 1] - levels / 257).max() <= 0.5
    assert rgb_from_memory(Image.fromarray(np.full((20, 30), 65535, np.uint16))).min() == 255
    rgb = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
    turned = Image.fromarray(rgb)
    turned.getexif()[0x0112] = 6  # taken with the camera on its side
    np.testing.assert_array_equal(rgb_from_memory(turned), np.rot90(rgb, -1))
    with pytest.raises(ImageError, match="mode F"):
        rgb_from_memory(Image.fromarray(levels.astype(np.float32)))


def test_a_graph_that_must_be_told_the_category(tmp_path, images):
    bundle = save_bundle(tmp_path / "input", "input")
    with pytest.raises(InputError, match="must be told") as raised:
        hvq_edge.inspect(bundle, images)
    assert "washer plate" in raised.value.next_step
    decisions = list(hvq_edge.inspect(bundle, images, category="nut", backend="onnxruntime"))
    assert {decision.category for decision in decisions} == {"nut"}
    assert {decision.verdict for decision in decisions} == {"no_decision"}  # it has no threshold
