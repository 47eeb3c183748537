"""Thresholds learnt anew, verdicts that flip, and images that had better not be learnt."""

from __future__ import annotations

import pytest

from hvq_edge.bundle.learnt import Compared, Side, count
from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.data.content import hash_image
from hvq_edge.errors import DatasetError
from hvq_edge.export.learn.judged import list_judged
from hvq_edge.export.learn.known_good import former_parts, known_good
from hvq_edge.export.learn.outcome import doubts, not_below, of_rise
from hvq_edge.run.record import ImageRecord, write_run
from hvq_edge.verdict.calibration_scores import table_of
from hvq_edge.verdict.threshold import GoodPart, learn_threshold


def row(name: str, score: float, *, good: bool, seen: str = "judged", before: float = 9.0):
    def side(value: float) -> Side:
        verdict = "reject" if value > 5 else "pass"
        return Side(score=value, threshold=5.0, verdict=verdict, reason="")

    return Compared(
        image=name,
        category="bolt",
        good=good,
        seen=seen,
        before=side(before),
        after=side(score),
        identical=score == before,
    )


DEFECTS = [row(f"crack {number}.png", 7.0 + number, good=False) for number in range(4)]


def test_an_image_that_scores_like_the_known_defects_is_named():
    rows = (*DEFECTS, row("a.png", 8.5, good=True, seen="learnt"))
    (said,) = doubts({"fp32": rows}, ["bolt"])
    assert said.startswith("a.png (bolt) scores like the known defects: 8.5")
    assert doubts({"fp32": (*DEFECTS, row("a.png", 4.0, good=True, seen="learnt"))}, ["bolt"]) == ()


def test_without_known_defects_an_image_that_the_others_do_not_explain_is_named():
    (said,) = doubts({"fp32": (row("a.png", 8.5, good=True, seen="learnt"),)}, ["bolt"])
    assert "would still be rejected if only the others were learnt" in said


def test_defects_that_are_missed_now_are_named():
    rows = (*DEFECTS, row("lost.png", 3.0, good=False))
    (said,) = doubts({"fp32": rows}, ["bolt"])
    assert "4 of 5 known defects are found, before 5; missed now: lost.png" in said


def test_a_threshold_never_falls():
    """It rests on images that are not at hand: more good ones do not show that it was too high."""
    low, high = (
        learn_threshold([GoodPart(score + step, "") for step in (0.0, 0.1, 0.2)], asked=0.05)
        for score in (1.0, 3.0)
    )
    assert not_below(high, low) is high
    assert not_below(low, None) is low
    kept = not_below(low, high)
    assert kept.value == high.value
    assert kept.calibration_scores == low.calibration_scores
    assert kept.rule.startswith("kept, since images called good set a lower one")


def test_a_threshold_that_rises_is_said():
    low, high = (learn_threshold([GoodPart(n * x, "") for n in range(40)]) for x in (1.0, 2.0))
    assert of_rise("bolt", low, None, [1.0], 0.05) == []
    assert of_rise("bolt", low, high, [1.0], 0.05) == []
    (unasked,) = of_rise("bolt", high, low, [1.0] * 30, 0.05)
    assert "though 0 of 30 good images were above the former one" in unasked
    (asked,) = of_rise("bolt", high, low, [high.value] * 30, 0.05)
    assert "rises" in asked
    assert "though" not in asked


def test_one_picture_is_not_good_and_defective(tmp_path, texture):
    from helpers.images import write_png

    for place in ("bolt/good/a.png", "bolt/defective/crack/b.png"):
        write_png(tmp_path / place, texture(0))
    with pytest.raises(DatasetError, match="are the same picture") as found:
        list_judged(tmp_path, ("bolt",))
    assert found.value.exit_code == 2


def test_images_are_counted_by_what_they_show():
    rows = (*DEFECTS, row("a.png", 3.0, good=True, seen="held out"), row("b.png", 3.0, good=True))
    assert count(rows, "bolt", True).images == 2
    found = count(rows, "bolt", True, "held out")
    assert (found.images, found.rejected_before, found.rejected_after) == (1, 1, 0)
    assert count(rows, "nut", True).images == 0


def test_a_table_stands_for_as_many_good_parts_as_it_was_made_of():
    scores = [float(number) for number in range(300)]
    parts = former_parts(table_of(scores))
    assert len(parts) == 300
    assert sorted(part.score for part in parts)[-64:] == scores[-64:]
    assert all(part.score >= score for part, score in zip(sorted(parts), scores, strict=True))


def test_held_out_images_may_lie_outside_the_training_data(tmp_path, texture):
    """A category may be added from a folder of its own: its paths are recorded whole."""
    from helpers.graphs import save_bundle
    from helpers.images import write_png
    from helpers.run_records import record

    inside, outside = "bolt/train/good/a.png", tmp_path / "elsewhere/b.png"
    paths = [tmp_path / "data" / inside, outside]
    hashes = [hash_image(write_png(path, texture(n))) for n, path in enumerate(paths)]
    images = tuple(
        ImageRecord(path=str(path), category="bolt", sha256=digest, use="held_out")
        for path, digest in zip((inside, outside), hashes, strict=True)
    )
    bundle = save_bundle(tmp_path / "run/bundle")
    write_manifest(
        bundle.path, bundle.manifest.model_copy(update={"threshold_images": tuple(hashes)})
    )
    checkpoint = bundle.manifest.checkpoint_sha256
    data = str(tmp_path / "data")
    write_run(tmp_path / "run", record(data=data, images=images, checkpoint_sha256=checkpoint))
    known = known_good(open_bundle(bundle.path), {"bolt"}, None)["bolt"]
    assert [one.name for one in known.images] == [inside, outside.as_posix()]


def test_what_people_judged_is_found_as_review_saves_it(tmp_path, texture):
    from helpers.images import write_png

    for number, place in enumerate(
        ("bolt/good/a.png", "bolt/defective/crack/b.png", "bolt/defective/c.png", "nut/d.png")
    ):
        write_png(tmp_path / place, texture(number))
    write_png(tmp_path / "bolt/good/copy.png", texture(0))
    found = list_judged(tmp_path, ("bolt", "nut"))
    assert [(one.name, one.category, one.good, one.defect) for one in found] == [
        ("bolt/good/a.png", "bolt", True, ""),
        ("bolt/defective/c.png", "bolt", False, ""),
        ("bolt/defective/crack/b.png", "bolt", False, "crack"),
        ("nut/d.png", "nut", True, ""),
    ]
    for folder in (tmp_path / "bolt", tmp_path / "bolt" / "good"):
        assert {one.category for one in list_judged(folder, ("bolt", "nut"))} == {"bolt"}
    assert len(list_judged(tmp_path / "bolt" / "good", ("nut",), "nut")) == 1
