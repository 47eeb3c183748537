"""p-values of scores: the definition, from a small table, valid for good parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from hvq_edge.verdict.calibration_scores import EXACT, THINNED, CalibrationScores, table_of

SCORES = st.one_of(st.floats(-100, 100), st.integers(-3, 3).map(float))


def definition(good: list[float], score: float) -> float:
    return (1 + sum(one >= score for one in good)) / (len(good) + 1)


@given(st.lists(SCORES, min_size=1, max_size=EXACT), SCORES)
@settings(max_examples=150, deadline=None)
def test_few_scores_give_the_definition(good, score):
    table = table_of(good)
    assert table.p_value(score) == definition(good, score)
    assert [table.p_value(one) for one in good] == [definition(good, one) for one in good]


@given(st.integers(0, 1000), st.integers(EXACT + 1, 3000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_many_scores_are_exact_in_the_tail_and_never_too_small_elsewhere(seed, count, ties):
    generator = np.random.default_rng(seed)
    good = generator.gamma(2, 3, count)
    good = (np.rint(good) if ties else good).tolist()
    table = table_of(good)
    ordered = np.sort(good)
    most_alike = np.unique(ordered, return_counts=True)[1].max() if ties else 0
    assert len(table.scores) <= EXACT + THINNED
    assert table == CalibrationScores.model_validate_json(table.model_dump_json())
    tail = ordered[-EXACT:]
    for score in (*generator.gamma(2, 3, 40), *good[:40], max(good) + 1):
        exact = (1 + count - int(np.searchsorted(ordered, score))) / (count + 1)
        assert table.p_value(score) >= exact
        assert table.p_value(score) <= exact + (math.ceil(count / THINNED) + most_alike) / count
        if score > tail[0]:
            assert table.p_value(score) == exact


def test_a_good_part_seldom_has_a_small_p_value():
    """Over 1,000 draws of good scores and one more good part each."""
    generator = np.random.default_rng(3)
    for draw in (lambda n: generator.standard_t(1.5, n), lambda n: generator.poisson(3, n) * 1.0):
        p = np.array([table_of(draw(80).tolist()).p_value(float(draw(1)[0])) for _ in range(1000)])
        for level in (0.02, 0.1, 0.3):
            assert stats.binom.sf((p <= level).sum() - 1, 1000, level) > 1e-4


def test_ends():
    table = table_of([1.0, 2.0, 3.0])
    assert table.p_value(-math.inf) == 1
    assert table.p_value(math.inf) == table.p_value(3.1) == 1 / 4
    with pytest.raises(ValueError, match="not a number"):
        table.p_value(math.nan)
    with pytest.raises(ValueError, match="at least one"):
        table_of([])


@pytest.mark.parametrize(
    "broken",
    [
        {"scores": (1.0, 1.0), "above": (1, 0)},
        {"scores": (2.0, 1.0), "above": (1, 0)},
        {"scores": (1.0, 2.0), "above": (1,)},
        {"scores": (1.0, 2.0), "above": (0, 0)},
        {"scores": (1.0, 2.0), "above": (1, 1)},
        {"scores": (1.0, math.nan), "above": (1, 0)},
    ],
)
def test_a_table_that_would_give_wrong_p_values_is_refused(broken):
    with pytest.raises(ValidationError):
        CalibrationScores(count=2, **broken)
