"""Thresholds that would probably let defects pass are refused; who insists is told why."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine
from helpers.graphs import SIDE, save_bundle
from helpers.images import write_png
from helpers.judged_images import evaluated
from helpers.sources import ListSource

from hvq_edge.bundle.judged_images import ImageRow
from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import put_thresholds
from hvq_edge.cli import threshold_changes
from hvq_edge.cli.app import main
from hvq_edge.errors import GateFailed
from hvq_edge.stream.calibrate_from_stream import calibrate_from_stream
from hvq_edge.verdict.calibrate.from_images import Calibrated
from hvq_edge.verdict.calibrate.refusals import LEAST_IMAGES, refuse_harm, strays
from hvq_edge.verdict.threshold import GoodPart, learn_threshold
from hvq_edge.verdict.tolerance_bound import order_statistic


def parts_around(centre: float, count: int, spread: float = 0.02) -> list[GoodPart]:
    places = np.linspace(-2, 2, count)
    return [GoodPart(float(centre + spread * place), f"{place:.2f}.png") for place in places]


IN_FORCE = learn_threshold(parts_around(0.3, 100))


def reasons(parts, **more) -> str:
    new = learn_threshold(parts, **more)
    given = ({"bolt": parts}, {"bolt": new}, {"bolt": IN_FORCE})
    return "; ".join(refuse_harm(*given, precision="fp32", force=True))


def test_good_parts_like_those_known_are_welcome():
    assert reasons(parts_around(0.3, LEAST_IMAGES)) == ""
    assert reasons(parts_around(0.32, 60)) == "", "another day, another light"


@pytest.mark.parametrize(
    ("parts", "more", "said"),
    [
        (parts_around(0.3, 4), {}, "4 different images came, and at least 19 are needed"),
        (
            parts_around(0.3, 30),
            {"asked": 0.01, "rule": order_statistic},
            "at most 1 % of false rejects was asked for, and 30 images bound them by 9.6 %",
        ),
        (parts_around(0.36, 30), {}, "22 of 30 images are rejected by the threshold in force"),
        (
            [*parts_around(0.3, 30), GoodPart(0.5, "broken.png")],
            {},
            "the threshold would rise from 0.34 to 0.5, by 5.3 standard deviations",
        ),
    ],
    ids=["few", "unmet", "defective", "steep"],
)
def test_what_is_refused_and_why(parts, more, said):
    assert said in reasons(parts, **more)


def test_each_category_is_told_how_many_images_it_lacks():
    parts = {"bolt": parts_around(0.3, 4), "nut": parts_around(0.3, 60), "cap": parts_around(1, 18)}
    new = {name: learn_threshold(own) for name, own in parts.items()}
    with pytest.raises(GateFailed) as refused:
        refuse_harm(parts, new, {}, precision="int8")
    first, *others = refused.value.cause.splitlines()
    assert first == (
        "no threshold was written: take at least 15 more good images of bolt and 1 more good image "
        "of cap."
    )
    assert [line.split(":")[0] for line in others] == ["  - bolt at int8", "  - cap at int8"]


def test_a_few_images_judged_as_another_category_set_no_threshold_of_it():
    parts = {"bolt": parts_around(0.3, 100), "nut": parts_around(0.3, 2), "washer": []}
    assert list(strays(parts)) == ["nut"]
    assert "2 of 102 images were judged as nut" in strays(parts)["nut"]
    alone = strays({"bolt": parts_around(0.3, 100), "nut": parts_around(0.3, 1)})["nut"]
    assert "1 of 101 images was judged as nut" in alone
    assert strays({"bolt": parts_around(0.3, 20), "nut": parts_around(0.3, 10)}) == {}


# At both doors, with the command.


@pytest.fixture
def bundle(tmp_path):
    saved = save_bundle(tmp_path / "bundle")
    known = {"fp32": {"bolt": IN_FORCE}}
    write_manifest(saved.path, saved.manifest.model_copy(update={"thresholds": known}))
    return open_bundle(saved.path)


def image(level: int, number: int) -> np.ndarray:
    flat = np.full((SIDE, SIDE, 3), level, np.uint8)
    flat[number % SIDE, number // SIDE] = level // 2
    return flat


def command(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", *map(str, arguments)])
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def test_calibrate_writes_nothing_from_defective_images_unless_forced(bundle, tmp_path, capsys):
    folder = tmp_path / "good"
    for i in range(25):
        write_png(folder / f"{i}.png", image(150 + i, i))
    before = (bundle.path / "bundle.json").read_bytes()
    code, out, err = command(capsys, bundle.path, "--good", folder)
    assert (code, out) == (1, "")
    assert "25 of 25 images are rejected by the threshold in force, 0.34: they may" in err
    assert "insist: the same command and --force" in err
    listed = err[err.index("Error:") : err.index("Next:")].splitlines()
    assert listed[0] == "Error: no threshold was written."
    assert [line.split(": ")[0] for line in listed[1:]] == ["  - bolt at fp32"] * 2, "one a line"
    assert (bundle.path / "bundle.json").read_bytes() == before
    code, out, _ = command(capsys, bundle.path, "--good", folder, "--force", "--json")
    told = json.loads(out)
    assert code == 0
    assert any("because --force was given" in note for note in told["notes"])
    (change,) = told["changes"]
    assert change["old"] == IN_FORCE.value
    assert change["new"] == told["thresholds"]["fp32"]["bolt"]["value"] > 0.6


@pytest.mark.parametrize(
    ("count", "more", "said"),
    [
        (4, {}, "take at least 15 more good images of bolt."),
        (18, {}, "take at least 1 more good image of bolt."),
        (
            30,
            {"asked": 0.01, "rule": order_statistic},
            "take at least {} more good images of bolt.",
        ),
    ],
)
def test_how_many_more_images_it_takes_comes_first(count, more, said):
    parts = parts_around(0.3, count)
    new = learn_threshold(parts, **more)
    with pytest.raises(GateFailed) as refused:
        refuse_harm({"bolt": parts}, {"bolt": new}, {}, precision="fp32")
    wanted = said.format((new.bound.needed or 0) - count)
    first, *others = refused.value.cause.splitlines()
    assert first == f"no threshold was written: {wanted}"
    assert others
    enough = parts_around(0.3, count + int(wanted.split()[3]))
    new = learn_threshold(enough, **more)
    assert refuse_harm({"bolt": enough}, {"bolt": new}, {}, precision="fp32") == ()


def counts_of(out: str) -> list[str]:
    """How many good parts each of two thresholds loses, as it is printed."""
    (line,) = [line for line in out.splitlines() if "good parts lost" in line]
    return line.partition(": ")[2].split(" → ")


def test_undo_counts_on_the_same_images_as_the_change(bundle, tmp_path, capsys):
    folder = tmp_path / "good"
    for i in range(25):
        write_png(folder / f"{i}.png", image(66 + i % 12, i))
    before, now = counts_of(command(capsys, bundle.path, "--good", folder)[1])
    assert "of 25 " in before
    assert counts_of(command(capsys, bundle.path, "--undo")[1]) == [now, before]


def test_fewer_defects_found_are_said_on_a_line_of_their_own(bundle, tmp_path, capsys):
    common = {"category": "bolt", "judged_as": "bolt", "good": False}
    scores = (0.26, 0.3, 0.35, 0.9)
    evaluated(bundle, [ImageRow(path=f"{one}.png", score=one, **common) for one in scores])
    folder = tmp_path / "good"
    for i in range(25):
        write_png(folder / f"{i}.png", image(75 + i % 20, i))
    code, _, err = command(capsys, bundle.path, "--good", folder)
    new = open_bundle(bundle.path).manifest.thresholds["fp32"]["bolt"].value
    assert (code, 0.35 < new < 0.9) == (0, True)
    assert (
        "Look: bolt at fp32 finds 1 of 4 defective test images, and found 2 before: if that is too "
        f"few, hvq-edge calibrate {bundle.path} --undo brings the thresholds back.\n"
    ) in err
    _, out, _ = command(capsys, bundle.path, "--undo", "--json")
    assert "look" not in json.loads(out)
    code, out, _ = command(capsys, bundle.path, "--good", folder, "--json")
    assert len(json.loads(out)["look"]) == 1


def test_calibrate_undo_brings_the_former_back(bundle, tmp_path, capsys):
    folder = tmp_path / "good"
    for i in range(25):
        write_png(folder / f"{i}.png", image(66 + i % 12, i))
    code, out, err = command(capsys, bundle.path, "--good", folder)
    assert code == 0
    assert "bolt, fp32: threshold 0.34 → 0.3" in out
    assert "good parts lost, of those that set it: 0 of 25 (0.0 to 13.7 %) → " in out
    assert "Defects found are not known: no labelled test images were judged at fp32" in err
    code, out, _ = command(capsys, bundle.path, "--undo")
    assert code == 0
    assert "Undone: calibrate --good good" in out
    assert "→ 0.34, set by 2.00.png" in out
    assert open_bundle(bundle.path).manifest == bundle.manifest
    code, out, err = command(capsys, bundle.path, "--undo")
    assert (code, out) == (2, "")
    assert "nothing to undo" in err


def test_a_broken_part_under_the_camera_sets_no_threshold(bundle):
    before = (bundle.path / "bundle.json").read_bytes()
    source = ListSource([image(200, i) for i in range(4)], live=True)
    with pytest.raises(GateFailed, match="4 different images came") as refused:
        calibrate_from_stream(BrightnessEngine(), bundle, source, 4)
    assert "4 of 4 images are rejected by the threshold in force" in refused.value.cause
    assert "would rise from 0.34" in refused.value.cause
    assert (bundle.path / "bundle.json").read_bytes() == before
    source = ListSource([image(200, i) for i in range(4)], live=True)
    done = calibrate_from_stream(BrightnessEngine(), bundle, source, 4, force=True)
    assert len(done.notes) == 3
    assert open_bundle(bundle.path).manifest.former_thresholds[-1].why.startswith("stream")


def test_what_is_said_of_an_image_is_said_once(bundle, capsys):
    """Whatever the precisions, and whether or not it is rejected as well."""
    threshold = IN_FORCE.model_copy(update={"set_aside": ("odd.png",)})
    learnt = {precision: {"bolt": threshold} for precision in ("fp32", "int8")}
    now = put_thresholds(bundle, learnt)
    notes = [f"2 of 14 images lead to no decision at {precision}" for precision in learnt]
    notes += ["bolt at int8: one of its own"]
    rejected = {"bolt": {"odd.png": 2, "dark.png": 1}}
    threshold_changes.show(Calibrated(now, learnt, rejected, tuple(notes)), learnt)
    said = capsys.readouterr().err
    assert said.count("odd.png") == 1
    assert "rejected now: dark.png.\n" in said
    assert "Note: 2 of 14 images lead to no decision at fp32 and int8.\n" in said
    assert "Note: bolt at int8: one of its own.\n" in said
    rejected["bolt"].pop("dark.png")
    threshold_changes.show(Calibrated(now, learnt, rejected), learnt)
    said = capsys.readouterr().err
    assert "rejected now" not in said
    assert "stay as they were" not in said


def test_a_precision_that_was_left_out_is_named(tmp_path, capsys):
    bundle = save_bundle(tmp_path / "two", precisions=("fp32", "int8"))
    learnt = {"int8": {"bolt": IN_FORCE}}
    threshold_changes.show(Calibrated(put_thresholds(bundle, learnt), learnt, {}), learnt)
    assert (
        "Note: the thresholds of fp32 stay as they were: without --precision the line takes int8 "
        "from now on.\n" in capsys.readouterr().err
    )
