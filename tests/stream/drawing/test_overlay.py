"""The drawn frame: the part is left visible, the verdict cannot be missed, the heat is honest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.common.heat_map import HeatScale
from hvq_edge.stream.drawing.lettering import (
    ascii_text,
    cut_to_width,
    draw_text,
    text_width,
    wrap_to_width,
)
from hvq_edge.stream.drawing.overlay import (
    COLOURS,
    LONGEST_SIDE,
    SHORTEST_SIDE,
    Overlay,
    annotate,
    draw_findings,
    place,
)
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision
from hvq_edge.verdict.regions import Region

AT_3 = HeatScale(3.0)
GREY = np.full((320, 320, 3), 128, np.uint8)


def made(verdict="pass", score=1.0, level=None, category="bolt", reason="why") -> Decision:
    heat = None if level is None else np.full((14, 14), level, np.float32)
    return Decision(3, 0.0, category, score, verdict, reason, 12.3, heat)


def image_part(drawn: np.ndarray) -> np.ndarray:
    """The middle of the drawing, within the border."""
    height, width = drawn.shape[:2]
    return drawn[height // 2 - 100 : height // 2 + 100, width // 2 - 100 : width // 2 + 100]


def test_a_good_part_is_shown_as_it_is():
    """A map up to half the threshold adds no colour."""
    drawn = annotate(GREY, made(score=1.5, level=1.5), AT_3)
    np.testing.assert_array_equal(image_part(drawn), 128)


def test_heat_covers_the_defect_only():
    heat = np.zeros((14, 14), np.float32)
    heat[2:5, 9:12] = 6.0
    drawn = annotate(GREY, Decision(0, 0.0, "bolt", 6.0, "reject", "", 1.0, heat), AT_3)
    changed = np.abs(drawn.astype(int) - 128).max(2) > 20
    head = 44  # pixels at this size
    side = drawn.shape[1]
    assert changed[head + side * 3 // 14, side * 10 // 14]
    assert not changed[head + side * 10 // 14, side * 3 // 14]


@pytest.mark.parametrize("verdict", ["pass", "reject", "no_decision"])
def test_border_has_the_colour_of_the_verdict(verdict):
    drawn = annotate(GREY, made(verdict), AT_3)
    for row, column in ((200, 1), (200, -2), (46, 200)):
        assert tuple(drawn[row, column]) == COLOURS[verdict]


def test_verdict_is_a_word_and_not_a_colour_only(monkeypatch):
    """With all verdicts in one colour, the drawings still differ."""
    for verdict in COLOURS:
        monkeypatch.setitem(COLOURS, verdict, (200, 0, 0))
    heads = [annotate(GREY, made(verdict), AT_3)[:44, :90] for verdict in COLOURS]
    assert not np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[1], heads[2])


def test_bar_grows_with_the_score():
    def lit(score: float) -> int:
        drawn = annotate(GREY, made("reject", score), AT_3)
        return int((drawn[-15] == COLOURS["reject"]).all(1).sum())

    widths = [lit(score) for score in (-1.0, 1.0, 3.0, 4.0, 6.0, 60.0)]
    assert widths == sorted(widths)
    assert widths[0] == 0
    assert widths[-1] == widths[-2] > 400


@given(st.integers(1, 6000), st.integers(1, 6000))
def test_images_of_all_sizes_fit(height, width):
    rows, columns = place(height, width)
    assert max(rows, columns) <= LONGEST_SIDE
    assert rows >= 1
    assert columns >= 1
    enlarged = max(rows, columns) < LONGEST_SIDE
    if enlarged:  # nothing stood in the way of the size for the lettering
        assert min(rows, columns) >= SHORTEST_SIDE - 1


@pytest.mark.parametrize("size", [(1, 1), (16, 2000), (300, 300), (301, 777), (2000, 3000)])
@pytest.mark.parametrize("verdict", ["pass", "no_decision"])
def test_drawing_is_large_enough_and_even(size, verdict):
    image = np.full((*size, 3), 90, np.uint8)
    drawn = annotate(image, made(verdict, level=1.0, category="x" * 200, reason="y " * 200), AT_3)
    assert drawn.dtype == np.uint8
    assert min(drawn.shape[:2]) >= SHORTEST_SIDE
    assert drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
    assert (image == 90).all(), "the image itself is not drawn on"


def test_lost_frame_and_map_that_is_not_finite_can_be_drawn():
    lost = annotate(None, made("no_decision", None, category=None), HeatScale(None))
    assert lost.shape[1] == 640
    drawn = annotate(GREY, made("no_decision", None, level=np.nan), AT_3)
    np.testing.assert_array_equal(image_part(drawn), 128)


def test_negative_thresholds():
    hot = annotate(GREY, made("reject", -1.0, level=-1.0), HeatScale(-2.0))
    calm = annotate(GREY, made("pass", -3.5, level=-3.5), HeatScale(-2.0))
    assert np.abs(image_part(hot).astype(int) - 128).mean() > 20
    np.testing.assert_array_equal(image_part(calm), 128)


def test_the_bar_has_the_heats_colours_under_it():
    drawn = annotate(GREY, made(score=2.0), AT_3).astype(int)
    under = drawn[-8, 12:-12]
    middle = len(under) // 2
    assert (under[: middle // 2] == under[0]).all(), "clear up to half the threshold"
    greens = under[:, 1]
    assert greens[middle - 4] > greens[middle + 4] + 80, "orange on the left, red on the right"
    assert (drawn[-8, 12 + middle] > 200).all(), "the threshold's mark goes through it"


def test_a_category_without_a_threshold_has_heat_and_no_red():
    decision = made("no_decision", score=9.0, level=0.0)
    decision.map[3:6, 3:6] = 9.0
    drawn = image_part(annotate(GREY, decision, HeatScale(None))).astype(int)
    assert np.abs(drawn - 128).max() > 40
    assert drawn[..., 1].min() > 80


def test_an_outline_stands_where_the_region_is_at_any_size():
    corners = np.array([[100, 100], [200, 100], [200, 200], [100, 200]], np.int32)
    region = Region((100, 100, 101, 101), 1e4, None, 4.0, corners)
    decision = replace(made("reject", 4.0, level=0.0), regions=(region,))
    for side in (160, 320, 640):
        shown = np.full((side, side, 3), 128, np.uint8)
        drawn = draw_findings(shown, decision, AT_3, (320, 320)).astype(int)
        rows = np.flatnonzero(drawn[:, side // 2].min(1) > 200)
        assert abs(rows.min() - side * 100 / 320) <= 2
        assert abs(rows.max() - side * 200 / 320) <= 2
        assert (shown == 128).all()


def test_overlay_draws_once_for_several_sinks():
    overlay = Overlay({"bolt": 3.0})
    frame = Frame(0, 0.0, GREY)
    first, second = made(), made("reject", 9.0)
    assert overlay(first, frame) is overlay(first, frame)
    assert not np.array_equal(overlay(first, frame), overlay(second, frame))


@given(st.text())
def test_any_text_can_be_drawn(text):
    shown = ascii_text(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert ascii_text(shown) == shown


@given(st.text(min_size=1), st.floats(0, 300))
def test_cut_text_fits(text, width):
    cut = cut_to_width(text, 11, width)
    assert text_width(cut, 11) <= width or cut == ""


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=9), min_size=1, max_size=30))
def test_wrapped_text_fits_and_loses_nothing_that_has_room(words):
    text = " ".join(words)
    lines = wrap_to_width(text, 11, 200, 2)
    assert len(lines) <= 2
    assert all(text_width(line, 11) <= 200 for line in lines)
    if not lines[-1].endswith("..."):
        assert " ".join(lines) == text


def test_letters_have_the_height_asked_for():
    canvas = np.zeros((100, 400, 3), np.uint8)
    draw_text(canvas, "HEX", 10, 80, 40, (255, 255, 255))
    rows = np.flatnonzero(canvas.max((1, 2)) > 100)
    assert rows[-1] - rows[0] == pytest.approx(40, abs=6)
