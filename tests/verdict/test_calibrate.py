"""`hvq-edge calibrate`: thresholds of a bundle from good images or a stream of good parts."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine
from helpers.graphs import CATEGORIES, SIDE, save_bundle
from helpers.images import make_texture, write_png
from helpers.looks import ANYTHING
from helpers.run_records import record
from helpers.sources import AlwaysTrigger, ListSource
from helpers.thresholds import threshold_at
from helpers.visa_folder import write_visa

from hvq_edge.bundle.manifest import (
    AddedCategory,
    CalibrationRecord,
    LearntImages,
    write_manifest,
)
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import put_thresholds, thresholds_of
from hvq_edge.cli.app import main
from hvq_edge.data.content import hash_image
from hvq_edge.data.dataset import find_dataset
from hvq_edge.errors import BundleError, GateFailed, InputError, SettingsError
from hvq_edge.run.record import write_run
from hvq_edge.stream.calibrate_from_stream import FIRST_LOOK, calibrate_from_stream
from hvq_edge.stream.sources.trigger import TriggeredSource
from hvq_edge.verdict.calibrate.from_images import calibrate_run
from hvq_edge.verdict.calibrate.good_images import find_good_images
from hvq_edge.verdict.image_limits import CategoryLimits, ImageLimits
from hvq_edge.verdict.threshold import GoodPart, autocorrelation_warning, learn_threshold
from hvq_edge.verdict.tolerance_bound import order_statistic


def part(level: int, number: int = 0) -> np.ndarray:
    """A flat image with one different pixel, so that no two are the same."""
    image = np.full((SIDE, SIDE, 3), level, np.uint8)
    image[number % SIDE, number // SIDE] = level // 2
    return image


def save_parts(folder, levels) -> list:
    return [write_png(folder / f"{i:04}.png", part(level, i)) for i, level in enumerate(levels)]


@pytest.fixture
def bundle(tmp_path):
    return save_bundle(tmp_path / "bundle")


def changed(bundle, **update):
    write_manifest(bundle.path, bundle.manifest.model_copy(update=update))
    return open_bundle(bundle.path)


def test_too_few_images_promise_what_they_can(bundle, tmp_path):
    save_parts(tmp_path / "good", range(60, 100))
    given = {"false_reject": 0.01, "rule": order_statistic}
    with pytest.raises(GateFailed, match=r"40 images bound them by 7.3 %: that takes 299"):
        calibrate_run(bundle.path, tmp_path / "good", **given)
    done = calibrate_run(bundle.path, tmp_path / "good", **given, force=True)
    threshold = open_bundle(bundle.path).manifest.thresholds["fp32"]["bolt"]
    assert threshold == done.thresholds["fp32"]["bolt"]
    assert threshold.value == pytest.approx(99 / 255, rel=1e-5)
    promise = threshold.bound
    assert (promise.images, promise.rank, promise.needed) == (40, 1, 299)
    assert promise.rate == pytest.approx(1 - 0.05 ** (1 / 40))
    assert not promise.met
    assert threshold.highest_image.endswith("0039.png")
    assert threshold.calibration_scores.p_value(threshold.value) == 2 / 41
    assert len(done.bundle.manifest.threshold_images) == 40


def test_enough_images_reject_the_oddest(bundle, tmp_path):
    levels = [*np.linspace(60, 120, 199).astype(int), 250]
    files = save_parts(tmp_path / "good", levels)
    done = calibrate_run(bundle.path, tmp_path / "good", false_reject=0.05, rule=order_statistic)
    threshold = done.thresholds["fp32"]["bolt"]
    assert threshold.bound.met
    assert threshold.bound.rank == 5
    assert threshold.value < 0.5
    assert next(iter(done.rejected["bolt"])) == files[-1].as_posix()
    assert len(done.rejected["bolt"]) <= 4


def test_names_that_are_no_text_go_into_the_record_with_escapes(bundle, tmp_path):
    good = tmp_path / os.fsdecode(b"gut_\xfc")
    for file in save_parts(good, range(60, 90)):
        file.rename(file.with_name(os.fsdecode(b"teil_\xfc") + file.name))
    calibrate_run(bundle.path, good)
    threshold = open_bundle(bundle.path).manifest.thresholds["fp32"]["bolt"]
    assert threshold.highest_image.startswith(rf"{tmp_path}/gut_\udcfc/teil_\udcfc00")
    assert threshold.bound.source == r"images in gut_\udcfc"


def test_test_images_that_set_a_threshold_are_said(bundle, tmp_path):
    save_parts(tmp_path / "test/good", range(60, 90))
    done = calibrate_run(bundle.path, tmp_path / "test/good")
    assert [note for note in done.notes if note.startswith("30 of 30 images are test images")]
    done = calibrate_run(bundle.path, save_parts(tmp_path / "good", range(60, 90))[0].parent)
    assert not [note for note in done.notes if "test images" in note]


def note_on_test_images(bundle, folder) -> str:
    """What calibration from a folder says of test images; empty: nothing."""
    notes = find_good_images(folder, bundle).notes
    return next((note for note in notes if "test image" in note), "")


def test_test_images_are_those_of_the_dataset_around_them(tmp_path):
    bundle = save_bundle(tmp_path / "bundle", "auto")
    name = CATEGORIES[0]
    own = tmp_path / "data" / name
    for place, levels in (
        ("train/good", range(60, 70)),
        ("test/ok/camera 1", range(70, 73)),
        ("test/dent", range(200, 203)),
    ):
        save_parts(own / place, levels)
    for folder, of in (
        (own / "test/ok/camera 1", "3 of 3"),
        (own, "3 of 13"),
        (own.parent, "3 of"),
    ):
        assert note_on_test_images(bundle, folder).startswith(f"{of}"), folder
    assert note_on_test_images(bundle, own / "train/good") == ""
    save_parts(tmp_path / "elsewhere/test/new", range(90, 95))
    assert note_on_test_images(bundle, tmp_path / "elsewhere/test/new").startswith("5 of 5")


def test_test_images_of_visa_and_of_the_plain_layout(tmp_path):
    bundle = save_bundle(tmp_path / "bundle", "auto")
    normal = write_visa(tmp_path / "VisA") / "pcb1/Data/Images/Normal"
    assert note_on_test_images(bundle, normal).startswith("3 of 9 images are test images")
    plain = tmp_path / "plain"
    for i in range(20):
        write_png(plain / f"good/{i}.png", make_texture(i))
    assert note_on_test_images(bundle, plain) == "", "good images alone are not tested with"
    write_png(plain / "dent/0.png", make_texture(90))
    tested = sum(image.good for image in find_dataset(plain).test())
    assert note_on_test_images(bundle, plain).startswith(f"{tested} of 20 images are")
    # The run knows which folder it learnt from, whatever is asked for below it.
    assert note_on_test_images(bundle, plain / "good") == ""
    known = record(data=str(plain), checkpoint_sha256=bundle.manifest.checkpoint_sha256)
    write_run(bundle.path.parent, known)
    assert note_on_test_images(bundle, plain / "good").startswith(f"{tested} of 20 images are")


def test_what_the_model_was_made_with_and_copies_do_not_count(bundle, tmp_path):
    files = save_parts(tmp_path / "good", range(60, 90))
    record = CalibrationRecord(
        method="",
        rule="",
        images=[hash_image(p) for p in files[:7]],
        converged=True,
        int8_layers=1,
        float_layers=0,
        plan_by="rule",
    )
    bundle = changed(bundle, calibration=record)
    for i in range(3):
        (tmp_path / f"good/copy {i}.png").write_bytes(files[20].read_bytes())
    steps = []
    find_good_images(tmp_path / "good", bundle, on_progress=lambda *step: steps.append(step))
    assert steps == [("reading good images", done, 33) for done in range(1, 34)]
    done = calibrate_run(bundle.path, tmp_path / "good")
    assert done.thresholds["fp32"]["bolt"].images == 23
    assert any(note.startswith("3 of 33 images are copies") for note in done.notes)
    assert any(note.startswith("7 of 33 images set the INT8 ranges") for note in done.notes)
    only = record.model_copy(update={"images": tuple(hash_image(p) for p in files)})
    bundle = changed(bundle, calibration=only)
    before = (bundle.path / "bundle.json").read_bytes()
    with pytest.raises(InputError, match="can set a threshold"):
        calibrate_run(bundle.path, tmp_path / "good")
    assert (bundle.path / "bundle.json").read_bytes() == before


def test_what_the_bundle_learnt_since_its_export_does_not_count(bundle, tmp_path):
    """Though no run is at hand; held-out images of an added category may set thresholds again."""
    hashes = [hash_image(path) for path in save_parts(tmp_path / "good", range(60, 90))]
    common = {"category": "bolt", "created": "", "before": "0" * 64}
    learnt = LearntImages(**common, images=hashes[:4], replaced={})
    added = AddedCategory(**common, images=hashes[4:9], held_out=hashes[9:12], codes_of="nut")
    bundle = changed(bundle, learnt=(learnt,), added=(added,))
    found = find_good_images(tmp_path / "good", bundle)
    assert [one.sha256 for one in found.images] == hashes[9:]
    (note,) = found.notes
    assert note.startswith("9 of 30 images were learnt from since the export: left out")


def test_unusable_images_set_no_threshold(bundle, tmp_path):
    limits = ImageLimits(brightness_low=50, brightness_high=200, contrast_low=0, sharpness_low=0)
    bundle = changed(bundle, image_limits=limits)
    save_parts(tmp_path / "good", [*range(60, 80), 1, 2, 255])
    done = calibrate_run(bundle.path, tmp_path / "good")
    assert done.thresholds["fp32"]["bolt"].images == 20
    (note,) = done.notes
    assert "3 of 23 images would lead to no decision" in note
    assert "2 black, 1 saturated" in note
    save_parts(tmp_path / "dark", [1, 2])
    with pytest.raises(InputError, match="none of the 2 images can be judged"):
        calibrate_run(bundle.path, tmp_path / "dark")


def test_folders_a_category(tmp_path):
    bundle = save_bundle(tmp_path / "bundle", "input")
    first, second = CATEGORIES[:2]
    save_parts(tmp_path / "good" / first, range(60, 80))
    save_parts(tmp_path / "good" / second / "train" / "good", range(80, 105))
    save_parts(tmp_path / "good" / second / "test" / "scratch", range(200, 210))
    done = calibrate_run(bundle.path, tmp_path / "good")
    learnt = done.thresholds["fp32"]
    assert {name: threshold.images for name, threshold in learnt.items()} == {
        first: 20,
        second: 25,
    }
    with pytest.raises(InputError, match="does not say it"):
        calibrate_run(bundle.path, tmp_path / "good" / second / "test" / "scratch")
    with pytest.raises(InputError, match="no good images"):
        calibrate_run(bundle.path, tmp_path / "good" / second / "test")


def test_frames_of_one_part_are_no_new_evidence():
    steps = np.repeat(np.random.default_rng(0).normal(size=20), 25)
    warning = autocorrelation_warning(steps.tolist())
    assert "score alike" in warning
    assert int(warning.split("only about ")[1].split()[0]) < 60
    assert autocorrelation_warning(np.random.default_rng(1).normal(size=500).tolist()) == ""
    assert autocorrelation_warning([1.0] * 100) == ""
    learnt = learn_threshold([GoodPart(score, "") for score in steps.tolist()], asked=0.05)
    assert learnt.bound.warnings == (warning,)


def test_thresholds_that_stay_keep_their_images(bundle):
    old = threshold_at(1.0, images=1, rule="old")
    new = threshold_at(2.0, images=1, rule="new")
    bundle = changed(bundle, thresholds={"fp32": {"bolt": old}}, threshold_images=("a" * 64,))
    replaced = put_thresholds(bundle, {"fp32": {"bolt": new}}, ["b" * 64])
    assert replaced.manifest.threshold_images == ("b" * 64,)
    beside = put_thresholds(bundle, {"int8": {"bolt": new}}, ["c" * 64])
    assert beside.manifest.threshold_images == ("b" * 64, "c" * 64)
    assert beside.manifest.thresholds["fp32"]["bolt"] == new
    assert open_bundle(bundle.path).manifest == beside.manifest
    (bundle.path / "bundle.json").unlink()
    with pytest.raises(BundleError):
        put_thresholds(bundle, {"fp32": {"bolt": new}})


# On the device.


def test_a_stream_of_good_parts_sets_the_thresholds_of_its_precision(bundle):
    levels = np.random.default_rng(0).integers(60, 120, 400)
    images = [part(int(level), i) for i, level in enumerate(levels)]
    images[5] = None
    images[9:12] = [images[8]] * 3
    source = ListSource(images, live=True)
    seen = []
    done = calibrate_from_stream(
        BrightnessEngine(),
        bundle,
        source,
        300,
        false_reject=0.02,
        on_progress=lambda *told: seen.append(told),
    )
    assert source.closed.is_set()
    assert (done.used, done.unusable, done.copies) == (300, {"lost": 1}, 3)
    assert seen[-1] == ("good parts", 300, 300, "1 without a decision")
    promise = done.thresholds["bolt"].bound
    assert promise.met
    assert promise.images == 300
    assert (promise.source, promise.machine) == ("a list", "fp32 on test")
    opened = open_bundle(bundle.path)
    assert thresholds_of(opened, "fp32") == {"bolt": done.thresholds["bolt"].value}
    assert opened.manifest.threshold_images == ()


def test_a_frozen_camera_behind_a_trigger_sets_no_threshold(bundle):
    frozen = ListSource([part(60)] * 500, live=True, pause=0.001)
    with pytest.raises(InputError, match="frozen"):
        calibrate_from_stream(
            BrightnessEngine(), bundle, TriggeredSource(frozen, AlwaysTrigger()), 400
        )


def test_each_third_frame(bundle):
    source = ListSource([part(60 + i, i) for i in range(60)], live=False)
    done = calibrate_from_stream(BrightnessEngine(), bundle, source, every=3)
    assert done.used == 20


def test_frames_that_the_line_would_not_decide_set_no_threshold(bundle):
    """Of this category only the bright half is fit: known after the engine has said what it is."""
    image = ImageLimits(brightness_low=0, brightness_high=255, contrast_low=0, sharpness_low=0)
    bright = image.model_copy(update={"brightness_low": 70})
    own = {"bolt": CategoryLimits(image=bright, usual=ANYTHING)}
    limited = changed(bundle, image_limits=image, category_limits=own)
    source = ListSource([part(level, level) for level in range(54, 94)], live=False)
    done = calibrate_from_stream(BrightnessEngine(), limited, source)
    assert sum(done.unusable.values()) == 40 - done.used
    assert 20 <= done.used <= 28
    assert min(done.thresholds["bolt"].calibration_scores.scores) > 69 / 255


def test_a_camera_that_needs_attention_sets_no_threshold(bundle):
    before = (bundle.path / "bundle.json").read_bytes()
    images = [part(60, i) if i % 3 == 0 else None for i in range(500)]
    source = ListSource(images, live=False)
    with pytest.raises(InputError, match=f"of {FIRST_LOOK} frames of a list lead to no decision"):
        calibrate_from_stream(BrightnessEngine(), bundle, source)
    assert source.closed.is_set()
    with pytest.raises(InputError, match=r"no frame that can be judged \(3 lost\)"):
        calibrate_from_stream(BrightnessEngine(), bundle, ListSource([None] * 3, live=False))
    with pytest.raises(InputError, match="2 of 3 frames"):
        calibrate_from_stream(
            BrightnessEngine(), bundle, ListSource([part(60), None, None], live=False)
        )
    with pytest.raises(SettingsError):
        calibrate_from_stream(BrightnessEngine(), bundle, source, false_reject=1.5)
    assert (bundle.path / "bundle.json").read_bytes() == before


# The command.


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", *arguments])
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def test_the_command_says_how_many_images_are_needed(bundle, tmp_path, capsys):
    save_parts(tmp_path / "good", range(60, 100))
    order = ["--good", str(tmp_path / "good"), "--method", "order-statistics"]
    code, out, err = run(capsys, str(bundle.path), *order, "--false-reject", "0.01")
    assert (code, out) == (1, "")
    assert "no threshold was written" in err
    assert "--force" in err
    code, out, _ = run(capsys, str(bundle.path), *order, "--false-reject", "0.01", "--force")
    assert code == 0
    assert "7.3 %" in out
    assert "needs 299 for 1 %" in out
    code, out, _ = run(
        capsys,
        str(bundle.path),
        *order,
        "--false-reject",
        "0.2",
        "--json",
    )
    assert code == 0
    printed = json.loads(out)
    threshold = printed["thresholds"]["fp32"]["bolt"]
    assert threshold["bound"]["rate"] <= 0.2
    assert len(printed["rejected"]["bolt"]) == threshold["bound"]["rank"] - 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --good DIR, or show good parts to the camera"),
        (["--camera", "0"], "No such option"),
        (["--good", "nowhere"], "no folder nowhere"),
        (["--good", ".", "--method", "guess"], "'guess' is none of"),
        (["--undo"], "keeps no former thresholds: nothing to undo"),
        (["--good", ".", "--undo"], "--good and --undo do not go together"),
        (["--undo", "--data", "."], "--undo and --data do not go together"),
        (["--operating-point", "f1", "--force"], "do not go together"),
        (["--operating-point", "recall=2"], "'recall=2' is none of f1"),
        (["--operating-point", "f1"], "no labelled test images were judged at fp32"),
        (["--good", ".", "--false-reject", "1"], "between 0 and 1"),
        (["--good", ".", "--precision", "int4"], "'int4' is none of"),
    ],
)
def test_usage_faults(bundle, arguments, said, capsys):
    code, out, err = run(capsys, str(bundle.path), *arguments)
    assert (code, out) == (2, "")
    assert said in err
