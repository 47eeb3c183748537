"""An explanation in words: the same on the terminal, on the page and in the picture."""

from __future__ import annotations

from hvq_edge.explain.explanation import LEVEL, MAP, ROUNDING, Likeness, Place

_SHARES = {
    "distance": "distance from what was rebuilt",
    "prototypes": "distance from the nearest prototype",
    "fine prototypes": "distance from the nearest fine prototype",
    MAP: "the map, its parts together",
    LEVEL: "the image's own level, left out",
    ROUNDING: "rounding of the engine that judged",
}


def share_name(name: str) -> str:
    """Say what a share of the score is."""
    return _SHARES.get(name, name)


def share_lines(place: Place) -> list[str]:
    """Say what gave a place its score, a line a share."""
    return [f"{value:+.4f}  {share_name(name)}" for name, value in place.shares.items()]


def place_title(number: int, place: Place) -> str:
    """Say which place it is."""
    left, top, width, height = place.box
    which = "score" if place.region else "no region; highest score"
    return f"{number}  {which} {place.score:.4g}, {width}x{height} px at {left},{top}"


def likeness_lines(one: Likeness) -> list[str]:
    """Say what a cell is nearest to: a title, then lines for what is known of it."""
    what = "prototype" if one.name == "prototypes" else f"{one.name}, code"
    lines = [f"{what} {one.code}"]
    if one.share is not None:
        chosen = f"{100 * one.share:.2g} % of good cells choose it"
        lines.append(chosen if one.share else "no good cell chooses it")
    if one.distance is not None:
        usual = "" if one.usual is None else f", usual is {one.usual:.3g}"
        lines.append(f"distance {one.distance:.3g}{usual}")
    return lines
