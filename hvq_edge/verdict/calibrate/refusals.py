"""Reasons not to write thresholds that were learnt: they would more likely harm than help.

What calibrates is told that it sees good parts, and may be told wrongly. Then the threshold rises,
and defects pass without a word. So what looks like it is refused, unless the user insists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hvq_edge.common.wording import counted
from hvq_edge.errors import GateFailed
from hvq_edge.verdict.judgement import exceeds
from hvq_edge.verdict.threshold import GoodPart, Threshold
from hvq_edge.verdict.tolerance_bound import percent

LEAST_IMAGES = 19
"""Different images of a category: of 19 the largest is exceeded by one new one in 20 (5 %)."""
MOST_REJECTED = 0.5
"""Share of the images that the threshold in force may reject."""
MOST_DEVIATIONS = 3.0
"""Standard deviations of the good scores known, by which a threshold may rise."""
STRAYS = 0.05
"""Share of all images below which too few of a category are taken for wrongly judged ones."""
_QUARTILES_APART = 1.349
"""Of a normal distribution, in standard deviations."""


def strays(parts: Mapping[str, Sequence[GoodPart]]) -> dict[str, str]:
    """Say which categories only a few images of others were judged as: they keep their thresholds.

    Args:
        parts: the good parts that were seen, by the category they were judged as.

    Returns:
        By category, the sentence to tell, without its full stop.
    """
    total = sum(len(seen) for seen in parts.values())
    return {
        name: f"{len(seen)} of {counted(total, 'image')} {'was' if len(seen) == 1 else 'were'} "
        f"judged as {name}, too few for a threshold: it keeps its own"
        for name, seen in parts.items()
        if 0 < len(seen) < min(LEAST_IMAGES, STRAYS * total)
    }


def refuse_harm(
    parts: Mapping[str, Sequence[GoodPart]],
    new: Mapping[str, Threshold],
    in_force: Mapping[str, Threshold],
    *,
    precision: str,
    force: bool = False,
) -> tuple[str, ...]:
    """Refuse thresholds that would probably let defects pass.

    Args:
        parts: the good parts that the new thresholds were learnt from, by category.
        new: thresholds that shall be written, by category.
        in_force: those of the bundle now, by category; may be empty.
        precision: that all of them are of.
        force: write them all the same.

    Returns:
        With ``force``, the reasons to refuse, a sentence each without its full stop.

    Raises:
        GateFailed: there are reasons, and no ``force``.
    """
    found = tuple(
        f"{name} at {precision}: {reason}"
        for name, threshold in new.items()
        for reason in _reasons(parts[name], threshold, in_force.get(name))
    )
    if found and not force:
        raise GateFailed(
            f"no threshold was written: {'; '.join(found)}.",
            next_step="look at these images: every one must show a good part, each another one. "
            "If they do, insist: the same command and --force",
        )
    return found


def _reasons(parts: Sequence[GoodPart], new: Threshold, former: Threshold | None) -> Iterator[str]:
    if len(parts) < LEAST_IMAGES:
        yield (
            f"{len(parts)} different image{'' if len(parts) == 1 else 's'} came, and at least "
            f"{LEAST_IMAGES} are needed"
        )
    bound = new.bound
    if bound is not None and bound.asked is not None and not bound.met:
        more = f": that takes {bound.needed}" if bound.needed else ""
        yield (
            f"at most {percent(bound.asked)} of false rejects was asked for, and {len(parts)} "
            f"images bound them by {percent(bound.rate)}{more}"
        )
    if former is None:
        return
    rejected = sum(exceeds(part.score, former.value) for part in parts)
    if rejected > MOST_REJECTED * len(parts):
        yield (
            f"{rejected} of {counted(len(parts), 'image')} {'is' if rejected == 1 else 'are'} "
            "rejected by the threshold in force, "
            f"{former.value:.4g}: they may be defective"
        )
    known = former.calibration_scores
    deviation = (known.quantile(0.75) - known.quantile(0.25)) / _QUARTILES_APART
    if deviation > 0 and new.value - former.value > MOST_DEVIATIONS * deviation:
        yield (
            f"the threshold would rise from {former.value:.4g} to {new.value:.4g}, by "
            f"{(new.value - former.value) / deviation:.1f} standard deviations of the good scores "
            f"known ({deviation:.3g}); more than {MOST_DEVIATIONS:g} are seldom chance"
        )
