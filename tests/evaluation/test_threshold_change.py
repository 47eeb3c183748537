"""What a change of thresholds does to labelled test images, and thresholds chosen on them."""

from __future__ import annotations

import json

import pytest
from helpers.graphs import save_bundle
from helpers.judged_images import DEFECTIVE, GOOD, evaluated
from helpers.thresholds import threshold_at
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.bundle.manifest import KnownDefects, TrainingRecord, write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import before_last_change, put_thresholds
from hvq_edge.cli.app import main
from hvq_edge.cli.threshold_changes import say
from hvq_edge.evaluation.acceptance.threshold_bound import threshold_bound
from hvq_edge.evaluation.chosen_threshold import AskedPoint, read_point, threshold_at_point
from hvq_edge.evaluation.threshold_change import threshold_changes
from hvq_edge.verdict.calibration_scores import table_of


@pytest.fixture
def bundle(tmp_path):
    saved = save_bundle(tmp_path / "bundle")
    known = threshold_at(0.45, calibration_scores=table_of([0.1, 0.2, 0.3, 0.5]))
    update = {"thresholds": {"fp32": {"bolt": known}}}
    write_manifest(saved.path, saved.manifest.model_copy(update=update))
    return open_bundle(saved.path)


def test_defects_found_before_and_now_without_judging_again(bundle):
    evaluated(bundle)
    new = threshold_at(0.65, calibration_scores=table_of([0.2, 0.4, 0.66]), highest_image="7.png")
    changed = put_thresholds(bundle, {"fp32": {"bolt": new}})
    (change,) = threshold_changes(changed, before_last_change(changed.manifest))
    assert (change.old, change.new, change.set_by) == (0.45, 0.65, "7.png")
    counts = [(one.count, one.total) for one in (change.defects.before, change.defects.now)]
    assert counts == [(4, 6), (2, 6)], "one of the six leads to no decision"
    assert change.defects.now.interval.low < 2 / 6 < change.defects.now.interval.high
    assert change.good_tested.now.count == 0
    assert (change.good_shown.before.count, change.good_shown.now.count) == (1, 1)
    assert change.untested == ""


def test_without_labelled_images_of_these_graphs_that_is_said(bundle):
    (change,) = threshold_changes(bundle, None)
    assert change.defects.now is change.defects.before is change.old is None
    assert "no labelled test images were judged at fp32" in change.untested
    assert f"hvq-edge eval {bundle.path} --precision fp32" in change.untested
    evaluated(bundle, created="2000-01-01T00:00:00+00:00")
    (change,) = threshold_changes(bundle, None)
    assert change.defects.now is None
    assert "older than the bundle" in change.untested


def test_known_defects_found_before_and_now(bundle, capsys):
    known = KnownDefects(images=4, sha256="2" * 64, weighted=True, scores=(0.3, 0.5, 0.6, 0.9))
    training = TrainingRecord(
        created="2026-01-01T00:00:00+00:00",
        hvq_edge_version="0.1.0",
        epochs=1,
        settings={},
        weights="none",
        learnt_from={},
        held_out={},
        known_defects={"bolt": known},
    )
    update = {"training": training}
    write_manifest(bundle.path, bundle.manifest.model_copy(update=update))
    changed = put_thresholds(open_bundle(bundle.path), {"fp32": {"bolt": threshold_at(0.65)}})
    (change,) = threshold_changes(changed, before_last_change(changed.manifest))
    both = (change.known_defects.before, change.known_defects.now)
    assert [(one.count, one.total) for one in both] == [(3, 4), (1, 4)]
    say([change])
    assert "known defects found, by cross-validation: 3 of 4" in capsys.readouterr().out


# Chosen on labelled images.


@pytest.mark.parametrize(
    ("point", "lost", "found"),
    [
        ("f1", 1, 5),
        ("recall=0.6", 0, 3),
        ("recall=1", 1, 5),
        ("false-reject=0.25", 1, 5),
        ("false-reject=0", 0, 4),
        ("false-reject=1", 4, 5),
        ("recall=0", 0, 0),
    ],
)
def test_an_operating_point(point, lost, found):
    value = threshold_at_point(GOOD, DEFECTIVE, read_point(point))
    assert sum(score > value for score in GOOD) == lost
    assert sum(score > value for score in DEFECTIVE) == found


scores = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


@given(scores, scores, st.floats(0, 1))
def test_an_operating_point_is_kept_whatever_the_scores(good, defective, rate):
    value = threshold_at_point(good, defective, AskedPoint("recall", rate))
    assert sum(one > value for one in defective) >= rate * len(defective) - 1e-6
    value = threshold_at_point(good, defective, AskedPoint("false-reject", rate))
    assert sum(one > value for one in good) <= rate * len(good) + 1e-6


def test_calibrate_at_an_operating_point_says_what_it_rests_on(bundle, capsys):
    evaluated(bundle)
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", str(bundle.path), "--operating-point", "recall=1", "--json"])
    assert not stop.value.code
    told = json.loads(capsys.readouterr().out)
    (change,) = told["changes"]
    assert change["defects"]["before"]["count"] == 4
    assert change["defects"]["now"]["count"] == 5
    record = open_bundle(bundle.path).manifest.thresholds["fp32"]["bolt"]
    assert record.rule == (
        "chosen on labelled test images: recall=1; of these very images it rejects 5 of 5 "
        "defective and 1 of 4 good ones, which says nothing of others"
    )
    assert record.bound is None
    assert record.calibration_scores.count == 4
    said = threshold_bound("fp32", "bolt", record)
    assert said.promise == "none: it was chosen on the test images"
