"""The drawn frame: the part is left visible, the verdict cannot be missed, the heat is honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    bar_position,
    heat_range_at,
    place,
)
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

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
    drawn = annotate(GREY, made(level=1.5), 3.0)
    np.testing.assert_array_equal(image_part(drawn), 128)


def test_heat_covers_the_defect_only():
    heat = np.zeros((14, 14), np.float32)
    heat[2:5, 9:12] = 6.0
    drawn = annotate(GREY, Decision(0, 0.0, "bolt", 6.0, "reject", "", 1.0, heat), 3.0)
    changed = np.abs(drawn.astype(int) - 128).max(2) > 20
    head = 44  # pixels at this size
    side = drawn.shape[1]
    assert changed[head + side * 3 // 14, side * 10 // 14]
    assert not changed[head + side * 10 // 14, side * 3 // 14]


@pytest.mark.parametrize("verdict", ["pass", "reject", "no_decision"])
def test_border_has_the_colour_of_the_verdict(verdict):
    drawn = annotate(GREY, made(verdict), 3.0)
    for row, column in ((200, 1), (200, -2), (46, 200)):
        assert tuple(drawn[row, column]) == COLOURS[verdict]


def test_verdict_is_a_word_and_not_a_colour_only(monkeypatch):
    """With all verdicts in one colour, the drawings still differ."""
    for verdict in COLOURS:
        monkeypatch.setitem(COLOURS, verdict, (200, 0, 0))
    heads = [annotate(GREY, made(verdict), 3.0)[:44, :90] for verdict in COLOURS]
    assert not np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[1], heads[2])


def test_bar_grows_with_the_score():
    def lit(score: float) -> int:
        drawn = annotate(GREY, made("reject", score), 3.0)
        return int((drawn[-15] == COLOURS["reject"]).all(1).sum())

    widths = [lit(score) for score in (-1.0, 1.0, 3.0, 4.0, 6.0, 60.0)]
    assert widths == sorted(widths)
    assert widths[0] == 0
    assert widths[-1] == widths[-2] > 400


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_reject_is_always_right_of_the_middle(score, threshold):
    position = bar_position(score, threshold)
    assert 0.0 <= position <= 1.0
    assert (position > 0.5) <= (score > threshold)
    low, high = heat_range_at(threshold)
    assert low < high
    assert low <= threshold <= high


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
    drawn = annotate(image, made(verdict, level=1.0, category="x" * 200, reason="y " * 200), 3.0)
    assert drawn.dtype == np.uint8
    assert min(drawn.shape[:2]) >= SHORTEST_SIDE
    assert drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
    assert (image == 90).all(), "the image itself is not drawn on"


def test_lost_frame_and_map_that_is_not_finite_can_be_drawn():
    lost = annotate(None, made("no_decision", None, category=None), None)
    assert lost.shape[1] == 640
    drawn = annotate(GREY, made("no_decision", None, level=np.nan), 3.0)
    np.testing.assert_array_equal(image_part(drawn), 128)


def test_negative_thresholds():
    hot = annotate(GREY, made("reject", -1.0, level=-1.0), -2.0)
    calm = annotate(GREY, made("pass", -3.5, level=-3.5), -2.0)
    assert np.abs(image_part(hot).astype(int) - 128).mean() > 20
    np.testing.assert_array_equal(image_part(calm), 128)


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
