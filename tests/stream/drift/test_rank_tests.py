"""Bets are fair, false alarms no more than stated, and changes found."""

from __future__ import annotations

import numpy as np
import pytest

from hvq_edge.stream.drift.rank_tests import RankTests, Reference, reference_of


def some_tests(lines: int, references: int, draw, slack: float = 0.0) -> RankTests:
    drawn = draw.standard_normal((lines, references))
    return RankTests([reference_of(values, slack) for values in drawn])


@pytest.mark.parametrize("before", [[], [0.2, 0.2, 4.0]])
def test_a_bet_is_worth_its_stake_over_all_gaps(before):
    """With weights as of a thinned table, and after values that taught the odds."""
    edges, weights = np.array([-1.0, 0.0, 0.5, 2.0]), np.array([3.0, 1.0, 1.0, 5.0, 1.0])
    gaps = np.array([-2.0, -0.5, 0.2, 1.0, 3.0])
    tests = RankTests([Reference(edges, weights, 0.0)] * len(gaps))
    for value in before:
        tests.take(np.full(len(gaps), value))
    counted = weights + np.bincount(np.searchsorted(edges, before), minlength=5)
    stake = tests.evidence[0] + 1.0
    tests.take(gaps)
    worth = float(tests.evidence @ counted / counted.sum())
    assert worth == pytest.approx(stake, rel=1e-9)


@pytest.mark.parametrize("references", [5, 30])
def test_few_references_lead_to_no_more_false_alarms_than_stated(references):
    """Of lines with calibration scores of their own, n / c alarm within n values at most."""
    draw = np.random.default_rng(references)
    lines, values, limit = 400, 300, 1500.0
    tests = some_tests(lines, references, draw)
    alarmed = np.zeros(lines, bool)
    for _ in range(values):
        tests.take(draw.standard_normal(lines))
        alarmed |= tests.evidence >= limit
    stated = values / limit
    assert alarmed.mean() <= stated + 3 * (stated * (1 - stated) / lines) ** 0.5
    assert alarmed.any(), "the bound is not far away either"


def test_a_wander_within_the_slack_is_no_alarm():
    draw = np.random.default_rng(1)
    tests = some_tests(50, 50, draw, slack=0.5)
    for number in range(500):
        tests.take(draw.standard_normal(50) + 0.4 * np.sin(number / 40))
    assert (tests.evidence < 1000).all()


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_a_change_is_found_with_its_way_its_size_and_its_beginning(shift):
    draw = np.random.default_rng(2)
    tests = some_tests(20, 50, draw)
    for number in range(300):
        tests.take(draw.standard_normal(20) + shift * (number >= 200), float(number))
    assert (tests.evidence >= 1e5).all()
    found = [tests.moved(test) for test in range(20)]
    assert {one.up for one in found} == {shift > 0}
    assert np.median([one.mean for one in found]) == pytest.approx(shift, abs=0.3)
    assert np.median([one.since for one in found]) == pytest.approx(200, abs=10)
    assert all(one.values == 300 - one.since for one in found)


def test_a_value_that_is_not_known_changes_nothing():
    draw = np.random.default_rng(3)
    tests = some_tests(2, 10, draw)
    tests.take(np.array([0.5, 0.5]))
    before = tests.evidence.copy()
    tests.take(np.array([np.nan, 3.0]))
    assert tests.evidence[0] == before[0]
    assert tests.evidence[1] != before[1]
    assert tests.arrays()["mass"].sum(axis=1).tolist() == [12.0, 13.0]


def test_tests_go_on_from_their_arrays():
    draw = np.random.default_rng(4)
    tests = some_tests(3, 10, draw)
    tests.take(draw.standard_normal(3), 7.0)
    again = RankTests.of({name: array.copy() for name, array in tests.arrays().items()})
    value = draw.standard_normal(3)
    tests.take(value, 8.0)
    again.take(value, 8.0)
    assert again.evidence.tolist() == tests.evidence.tolist()
    assert again.moved(1) == tests.moved(1)
    with pytest.raises(ValueError, match="mass is of another size"):
        RankTests.of({**tests.arrays(), "mass": np.ones((2, 2))})
