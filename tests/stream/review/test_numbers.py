"""What reviews say of the line: shares with intervals, by day, the sample weighted."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
import pytest
from helpers.commands import exit_code
from helpers.reviewed_line import record

from hvq_edge.stream.log.reviews import Review, append_review
from hvq_edge.stream.review.candidates import Candidate, Stratum, day_of
from hvq_edge.stream.review.desk import ReviewDesk
from hvq_edge.stream.review.numbers import estimate, numbers_of
from hvq_edge.verdict.tolerance import share

MONDAY, TUESDAY = 1_700_000_000.0, 1_700_000_000.0 + 86_400


def candidate(number: int, at: float, queue: str, part: float = 0.1) -> Candidate:
    verdict = queue if queue in ("reject", "no_decision") else "pass"
    return Candidate(
        *(number, "", at, "left", number, "bolt", 1.0, 3.0, verdict, "", queue, part),
        *(None, None, None),
    )


def said(number: int, judgement: str) -> Review:
    return Review(number, "", judgement, None, "Ada", "", None)


def test_one_group_has_the_exact_interval():
    found = estimate([(1000, 60, 0)])
    exact = share(0, 60)
    assert found.share == exact.interval
    assert found.count.high == pytest.approx(1000 * exact.interval.high)


def test_where_all_are_judged_nothing_is_left_to_chance():
    found = estimate([(10, 10, 3), (30, 30, 1)])
    assert (found.share.value, found.share.low, found.share.high) == (0.1, 0.1, 0.1)


def test_each_judged_one_stands_for_as_many_as_there_were_for_it():
    found = estimate([(900, 10, 0), (100, 10, 5)])
    assert found.share.value == pytest.approx(0.05)
    assert found.count.value == pytest.approx(50)
    plain = share(5, 20).interval
    assert found.share.high - found.share.low > 0.5 * (plain.high - plain.low)
    assert estimate([(900, 0, 0), (100, 10, 5)]).all == 100, "of the other nothing is known"
    assert estimate([(5, 0, 0)]).share is None


def test_the_interval_holds_what_it_promises_with_unequal_weights():
    """By simulation: days whose judged shares and defect rates differ, as on a line."""
    rng = np.random.default_rng(0)
    sizes, judged, rates = (4000, 1000, 300), (40, 40, 60), (0.01, 0.05, 0.2)
    held, highest = 0, []
    rounds = 25
    for _ in range(rounds):
        groups, wrong = [], 0
        for size, of, rate in zip(sizes, judged, rates, strict=True):
            defective = rng.random(size) < rate
            wrong += int(defective.sum())
            groups.append((size, of, int(rng.choice(defective, of, replace=False).sum())))
        found = estimate(groups)
        truth = wrong / sum(sizes)
        held += found.share.low <= truth <= found.share.high
        highest.append(found.share.high)
    assert held / rounds >= 0.95
    assert np.mean(highest) < 0.15, "of 0.028: with 66 images, as many as the weights leave"


def test_days_and_sessions_with_other_shares_are_kept_apart():
    days = day_of(MONDAY), day_of(TUESDAY)
    assert isinstance(days[0], date)
    found = {
        1: candidate(1, MONDAY, "reject"),
        2: candidate(2, MONDAY, "reject"),
        3: candidate(3, TUESDAY, "reject"),
        4: candidate(4, MONDAY, "sample"),
        5: candidate(5, MONDAY, "sample", 0.5),
        6: candidate(6, MONDAY, "near_miss"),
        7: candidate(7, TUESDAY, "sample"),
    }
    reviews = {
        1: said(1, "good"),
        3: said(3, "defective"),
        4: said(4, "defective"),
        5: said(5, "good"),
        6: said(6, "defective"),
        7: said(7, "skip"),
    }
    passes = {
        Stratum(days[0], 0.1): 80,
        Stratum(days[0], 0.5): 20,
        Stratum(days[1], 0.1): 40,
        Stratum(days[1], 0.0): 7,
    }
    together, by_day = numbers_of(found, reviews, passes, {days[0]: 2, days[1]: 1})
    assert [one.day for one in by_day] == list(days)
    monday, tuesday = by_day
    assert (monday.false_rejects.judged, monday.false_rejects.wrong) == (1, 1)
    assert monday.misses.share.value == pytest.approx(0.8), "1 of 1 of 80, 0 of 1 of 20"
    assert monday.near_misses == (1, 1)
    assert (tuesday.misses.share, tuesday.skipped, tuesday.unsampled) == (None, 1, 7)
    assert (together.passes, together.rejects, together.near_misses) == (147, 3, (1, 1))
    assert together.false_rejects.share.value == pytest.approx(2 / 3)


def test_the_command_says_them(tmp_path, capsys):
    out = record(tmp_path / "out", "pprpn", sample=0.0)
    desk = ReviewDesk(out, lambda review: append_review(out, review))
    (reject,) = desk.listed("reject")
    desk.judge(reject.candidate.id, "good", by="Ada")
    assert exit_code("review", str(out), "--numbers", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["together"]["false_rejects"]["share"]["value"] == 1.0
    assert found["together"]["misses"]["share"] is None
    assert [one["passes"] for one in found["days"]] == [4]
    assert exit_code("review", str(out), "--numbers") == 0
    printed = capsys.readouterr()
    assert "100 %" in printed.out
    assert "not known" in printed.out
    assert "4 passes of sessions that kept no sample" in printed.err
