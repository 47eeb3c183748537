"""``hvq_edge.inspect``: the whole path in one call."""

from __future__ import annotations

import pytest
from helpers.bright_parts import bundle  # noqa: F401  # fixtures
from helpers.graphs import save_bundle
from helpers.images import flat, write_png

import hvq_edge
from hvq_edge.errors import BundleError, InputError, MissingCapability


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


def test_a_graph_that_must_be_told_the_category(tmp_path, images):
    bundle = save_bundle(tmp_path / "input", "input")
    with pytest.raises(InputError, match="must be told") as raised:
        hvq_edge.inspect(bundle, images)
    assert "washer plate" in raised.value.next_step
    decisions = list(hvq_edge.inspect(bundle, images, category="nut", backend="onnxruntime"))
    assert {decision.category for decision in decisions} == {"nut"}
    assert {decision.verdict for decision in decisions} == {"no_decision"}  # it has no threshold
