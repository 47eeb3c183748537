"""The palette: told apart by colour-blind eyes, and text on it is read."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest
from helpers.colour_vision import VISION, contrast, difference, seen
from helpers.paths import ROOT

from hvq_edge.design.palette import palette

SCHEMES = ("light", "dark", "print")
VERDICTS = ("pass", "reject", "no_decision")
APART = 10.0
"""CIEDE2000: a glance tells such colours apart; 2.3 is the least that anybody sees."""
READ, LARGE = 4.5, 3.0
"""WCAG 2 AA: contrast of text, and of large text and shapes."""


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ],
)
def test_the_difference_is_that_of_the_published_pairs(one, other, apart):
    """Sharma, Wu and Dalal, "The CIEDE2000 color-difference formula", 2005, table 1."""
    assert difference(np.array(one), np.array(other)) == pytest.approx(apart, abs=1e-4)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_that_mean_something_are_told_apart(scheme, vision):
    colours = palette()[scheme]
    bands = [f"{verdict}-band" for verdict in VERDICTS]
    for group in (VERDICTS, bands, ("good", "defective")):
        for one, other in combinations(group, 2):
            apart = difference(seen(colours[one], vision), seen(colours[other], vision))
            assert apart >= APART, f"{one} and {other}: {apart:.1f}"


def test_the_former_colours_would_not_pass():
    former = [(27, 129, 72), (200, 35, 44), (185, 122, 0)]
    apart = [
        difference(seen(one, vision), seen(other, vision))
        for vision in VISION
        for one, other in combinations(former, 2)
    ]
    dark = difference(seen((63, 182, 115), "deuteranopia"), seen((255, 107, 111), "deuteranopia"))
    assert dark < APART
    assert contrast(former[2], (243, 244, 246)) < READ
    assert min(apart) < 1.1 * APART


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_is_read(scheme):
    colours = palette()[scheme]
    for ground in ("ground", "surface", "raised"):
        for text in ("text", "muted", "accent", "defective", *VERDICTS):
            found = contrast(colours[text], colours[ground])
            assert found >= READ, f"{text} on {ground}: {found:.2f}"
        for shape in ("edge", "good"):
            assert contrast(colours[shape], colours[ground]) >= LARGE, f"{shape} on {ground}"
    for band in (*VERDICTS, "paused"):
        assert contrast(colours[f"{band}-ink"], colours[f"{band}-band"]) >= READ, band
    assert contrast(colours["accent-ink"], colours["accent"]) >= READ
    for ground in ("image", "caption"):
        assert contrast(colours["caption-text"], colours[ground]) >= READ


def test_every_scheme_has_every_colour():
    assert set(palette()) == set(SCHEMES)
    assert len({frozenset(colours) for colours in palette().values()}) == 1


def test_no_style_has_colours_of_its_own():
    """But the grey that an image stands for under the legend of the heat."""
    styles = [
        *(ROOT / "hvq_edge").rglob("*.html"),
        *(ROOT / "hvq_edge" / "stream" / "live_page").rglob("*.css"),
        ROOT / "hvq_edge" / "design" / "style.css",
    ]
    own = {
        f"{path.name}: {found}"
        for path in styles
        for found in re.findall(r"(?<![&\w])#[0-9a-fA-F]{3,8}\b(?![-\w])", path.read_text("utf-8"))
    }
    allowed = {"cards.css: #70757d", "patches.html: #fff", "patches.html: #0009"}
    assert own - {one for one in own if one.endswith("#000")} == allowed
