"""What reviews say of the line: how many rejects were good, and how many passes defective.

Rejects are all there to be judged; of passes a sample is, drawn by chance. So within a day (and one
share of passes kept) the judged ones stand for all: each counts for as many as there were for each
judged one. A total over days adds these up. Its interval is that of Clopper and Pearson for as many
images as the unequal weights leave (Korn and Graubard, "Confidence intervals for proportions with
small expected number of positive counts estimated from survey data", Survey Methodology 24, 1998),
rounded so that it gets no narrower; with equal weights that is the exact interval itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from hvq_edge.stream.log.reviews import Review
from hvq_edge.stream.review.candidates import Candidate, Candidates, Stratum
from hvq_edge.verdict.tolerance import Interval, share


@dataclass(frozen=True)
class Estimate:
    """How many of some decisions were wrong."""

    all: int
    """Decisions that it speaks of."""
    judged: int
    wrong: int
    """Among those judged."""
    share: Interval | None
    """Of wrong ones among all, at 95 % confidence; ``None``: none was judged."""

    @property
    def count(self) -> Interval | None:
        """Wrong ones among all."""
        if self.share is None:
            return None
        return Interval(
            *(self.all * one for one in (self.share.value, self.share.low, self.share.high))
        )


def estimate(groups: Iterable[tuple[int, int, int]]) -> Estimate:
    """Estimate the share of wrong decisions.

    Args:
        groups: of each how many there are, how many were judged, and how many of these were wrong.
            Groups of which none was judged have no part in it.
    """
    known = [group for group in groups if group[1]]
    total, judged, wrong = (sum(group[place] for group in known) for place in range(3))
    if not judged:
        return Estimate(0, 0, 0, None)
    value = sum(all_ * bad / of for all_, of, bad in known) / total
    if judged == total:  # nothing is left to chance
        return Estimate(total, judged, wrong, Interval(value, value, value))
    effective = total**2 / sum(all_**2 / of for all_, of, _ in known)
    size = max(math.floor(effective + 1e-9), 1)
    low = share(math.floor(value * size + 1e-9), size)
    high = share(min(math.ceil(value * size - 1e-9), size), size)
    assert low is not None
    assert high is not None
    return Estimate(total, judged, wrong, Interval(value, low.interval.low, high.interval.high))


@dataclass(frozen=True)
class LineNumbers:
    """What reviews say of some days together, or of one."""

    day: date | None
    """``None``: of all."""
    passes: int
    rejects: int
    false_rejects: Estimate
    """Of rejects: those that a person called good."""
    misses: Estimate
    """Of passes: those of the sample that a person called defective."""
    near_misses: tuple[int, int]
    """Near misses judged besides, and how many of these are defective: no sample, so they say
    nothing of other passes."""
    unsampled: int
    """Passes of sessions that kept no sample: the estimate says nothing of them."""
    skipped: int
    """Decisions of which a person could not say."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "day": None if self.day is None else self.day.isoformat(),
            "passes": self.passes,
            "rejects": self.rejects,
            "false_rejects": _values(self.false_rejects),
            "misses": _values(self.misses),
            "near_misses": {"judged": self.near_misses[0], "defective": self.near_misses[1]},
            "passes_without_a_sample": self.unsampled,
            "skipped": self.skipped,
        }


def line_numbers(candidates: Candidates) -> tuple[LineNumbers, list[LineNumbers]]:
    """Return the numbers of all days together, and of each day that has decisions.

    Args:
        candidates: of the log, up to date.
    """
    return numbers_of(
        candidates.found, candidates.in_force(), candidates.passes, candidates.rejects
    )


def numbers_of(
    found: Mapping[int, Candidate],
    reviews: Mapping[int, Review],
    passes: Mapping[Stratum, int],
    rejects: Mapping[date, int],
) -> tuple[LineNumbers, list[LineNumbers]]:
    """Return the numbers of all together and by day.

    Args:
        found: the decisions that may be judged, by id.
        reviews: those in force, by the decision's id.
        passes: how many there were.
        rejects: likewise, by day.
    """
    judged: Counter[tuple[object, str, str]] = Counter()
    for number, review in reviews.items():
        one = found.get(number)
        if one is not None:
            place = Stratum(one.day, one.share) if one.queue == "sample" else one.day
            judged[place, one.queue, review.judgement] += 1
    days = sorted(
        {*(stratum.day for stratum in passes), *(day for day, count in rejects.items() if count)}
    )

    def of(day: date | None, chosen: Iterable[date]) -> LineNumbers:
        wanted = set(chosen)
        strata = [stratum for stratum in passes if stratum.day in wanted]
        sampled = [
            _group(passes[stratum], judged, stratum, "sample", "defective")
            for stratum in strata
            if stratum.share
        ]
        rejected = [_group(rejects.get(one, 0), judged, one, "reject", "good") for one in wanted]
        near = Counter[str]()
        for one in wanted:
            for judgement in ("good", "defective"):
                near[judgement] += judged[one, "near_miss", judgement]
        skipped = sum(
            count
            for (place, _, judgement), count in judged.items()
            if judgement == "skip"
            and (place.day if isinstance(place, Stratum) else place) in wanted
        )
        return LineNumbers(
            day,
            sum(passes[stratum] for stratum in strata),
            sum(rejects.get(one, 0) for one in wanted),
            estimate(rejected),
            estimate(sampled),
            (near["good"] + near["defective"], near["defective"]),
            sum(passes[stratum] for stratum in strata if not stratum.share),
            skipped,
        )

    return of(None, days), [of(day, [day]) for day in days]


def _group(
    count: int,
    judged: Mapping[tuple[object, str, str], int],
    place: object,
    queue: str,
    wrong: str,
) -> tuple[int, int, int]:
    both = [judged[place, queue, judgement] for judgement in ("good", "defective")]
    return count, sum(both), both[wrong == "defective"]


def _values(found: Estimate) -> dict[str, Any]:
    intervals = {"share": found.share, "count": found.count}
    return {
        "of": found.all,
        "judged": found.judged,
        "wrong": found.wrong,
        **{
            name: None if one is None else {"value": one.value, "low": one.low, "high": one.high}
            for name, one in intervals.items()
        },
    }
