"""What a change of thresholds replaces stays in the bundle, and can be brought back."""

from __future__ import annotations

import pytest
from helpers.graphs import save_bundle
from helpers.thresholds import threshold_at

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import (
    BY_HAND,
    MOST_FORMER,
    put_thresholds,
    save_threshold,
    thresholds_of,
    undo_thresholds,
)
from hvq_edge.cli.app import main
from hvq_edge.errors import BundleError


@pytest.fixture
def bundle(tmp_path):
    saved = save_bundle(tmp_path / "bundle", precisions=("fp32", "int8"))
    update = {"thresholds": {"fp32": {"bolt": threshold_at(0.5)}}, "threshold_images": ("a" * 64,)}
    write_manifest(saved.path, saved.manifest.model_copy(update=update))
    return open_bundle(saved.path)


def test_each_change_is_undone_in_turn(bundle):
    calibrated = put_thresholds(
        bundle, {"fp32": {"bolt": threshold_at(0.7)}}, ["b" * 64], why="calibrate --good day 2"
    )
    save_threshold(bundle, "fp32", "bolt", 0.6)
    assert [one.why for one in open_bundle(bundle.path).manifest.former_thresholds] == [
        "calibrate --good day 2",
        BY_HAND,
    ]
    back, undone = undo_thresholds(bundle.path)
    assert undone.why == BY_HAND
    assert back.manifest == calibrated.manifest == open_bundle(bundle.path).manifest
    back, _ = undo_thresholds(bundle.path)
    assert back.manifest == bundle.manifest
    with pytest.raises(BundleError, match="nothing to undo"):
        undo_thresholds(bundle.path)


def test_a_threshold_that_was_not_there_goes_again(bundle):
    put_thresholds(bundle, {"int8": {"bolt": threshold_at(0.7)}})
    back, undone = undo_thresholds(bundle.path)
    assert undone.thresholds == {"int8": {"bolt": None}}
    assert back.manifest == bundle.manifest


def test_only_the_last_changes_are_kept(bundle):
    for step in range(MOST_FORMER + 5):
        save_threshold(bundle, "fp32", "bolt", 1.0 + step)
    for _ in range(MOST_FORMER):
        back, _ = undo_thresholds(bundle.path)
    assert thresholds_of(back, "fp32") == {"bolt": 5.0}
    assert back.manifest.former_thresholds == ()


def test_a_bundle_that_was_put_in_its_place_gets_none_of_its_thresholds(bundle):
    """As an update or an export does while a line runs: those scores are another graph's."""
    other = bundle.manifest.files["model.fp32.onnx"].model_copy(update={"sha256": "0" * 64})
    files = {**bundle.manifest.files, "model.fp32.onnx": other}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": files}))
    before = (bundle.path / "bundle.json").read_bytes()
    for write in (
        lambda: save_threshold(bundle, "fp32", "bolt", 0.6),
        lambda: put_thresholds(bundle, {"fp32": {"bolt": threshold_at(0.7)}}),
    ):
        with pytest.raises(BundleError, match="another one was put there meanwhile"):
            write()
    assert (bundle.path / "bundle.json").read_bytes() == before
    put_thresholds(bundle, {"int8": {"bolt": threshold_at(0.7)}})  # whose graph is the same
    assert thresholds_of(open_bundle(bundle.path), "int8") == {"bolt": 0.7}


def test_a_run_stands_for_the_bundle_in_it(bundle, tmp_path, capsys):
    """It is the run that is at hand after a training, and runs/latest points to it."""
    (tmp_path / "run.json").write_text("{}")
    put_thresholds(bundle, {"fp32": {"bolt": threshold_at(0.7)}}, why="calibrate --good day 2")
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", str(tmp_path), "--undo"])
    assert not stop.value.code
    assert "Undone: calibrate --good day 2" in capsys.readouterr().out
    assert thresholds_of(open_bundle(bundle.path), "fp32") == {"bolt": 0.5}
    bundle.path.rename(tmp_path / "elsewhere")
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", str(tmp_path), "--undo"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"{tmp_path} is a training run that was not exported" in said
    assert f"Next:  run hvq-edge export {tmp_path}" in said
