"""The threshold whose expected false-reject rate is the one asked for, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.errors import SettingsError
from hvq_edge.verdict.calibrate.expected_rate import (
    MOST_SET_ASIDE,
    OUTLIER_LEVEL,
    _student_t,
    expected_rate,
    outliers,
    threshold_at_rate,
)
from hvq_edge.verdict.threshold import GoodPart, learn_threshold
from hvq_edge.verdict.tolerance_bound import order_statistic

stats = pytest.importorskip("scipy.stats")
DRAWS = 4000


@pytest.mark.parametrize("n", [19, 30, 99, 400])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_a_new_score_exceeds_it_with_the_rate_whatever_the_distribution(n, rate):
    rng = np.random.default_rng(n)
    for sample, exceeding in (
        (rng.normal(size=(DRAWS, n)), stats.norm.sf),
        (rng.exponential(size=(DRAWS, n)), stats.expon.sf),
        (rng.standard_t(4, size=(DRAWS, n)), lambda x: stats.t.sf(x, 4)),
    ):
        values = [threshold_at_rate(np.sort(row), rate) for row in sample]
        found = exceeding(np.array(values))
        error = found.std() / np.sqrt(DRAWS)
        # Interpolation between order statistics is not exact; the rest is the simulation's error.
        assert found.mean() == pytest.approx(rate, abs=4 * error + 0.12 * rate)


@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_beyond_the_largest_score_the_tail_is_a_model(n, rate):
    """Exponential tails are met; the lighter normal one is rejected less often, not more."""
    rng = np.random.default_rng(n)
    exponential = [
        threshold_at_rate(np.sort(row), rate) for row in rng.exponential(size=(DRAWS, n))
    ]
    assert 0.4 * rate < stats.expon.sf(exponential).mean() < 1.6 * rate
    normal = [threshold_at_rate(np.sort(row), rate) for row in rng.normal(size=(DRAWS, n))]
    assert stats.norm.sf(normal).mean() < rate


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.floats(0.001, 0.9),
    st.floats(0.001, 0.9),
)
def test_a_smaller_rate_never_has_a_lower_threshold(scores, one, other):
    ordered = np.sort(np.array(scores))
    low, high = sorted((one, other))
    assert threshold_at_rate(ordered, low) >= threshold_at_rate(ordered, high)
    assert threshold_at_rate(ordered, high) >= ordered[0]


def test_images_learnt_from_place_it_and_held_out_ones_bound_it():
    """30 held-out and 300 learnt images, which score 0.7 lower: the rate is kept on average, and
    the threshold varies less than with the held-out ones alone."""
    rng = np.random.default_rng(0)
    pooled, alone = [], []
    for _ in range(300):
        held_out, learnt = np.sort(rng.normal(size=30)), np.sort(rng.normal(-0.7, 1, size=300))
        found = expected_rate(held_out, 0.05, learnt=learnt)
        pooled.append(found.value)
        alone.append(expected_rate(held_out, 0.05).value)
        assert found.bound.images <= 30
        assert found.bound.learnt == 300
        assert found.bound.rate > found.bound.expected == 0.05
        assert found.bound.met
    rates = stats.norm.sf(pooled)
    assert 0.03 < rates.mean() < 0.055, "the error of the shift is paid for"
    assert rates.std() < 0.8 * stats.norm.sf(alone).std()


def test_the_bound_is_that_of_clopper_and_pearson():
    scores = np.arange(40.0)
    found = expected_rate(scores, 0.1)
    above = int((scores > found.value).sum())
    exact = stats.beta.ppf(0.95, above + 1, 40 - above)
    assert found.bound.rate == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("bad", [0, 1, 2, 5])
def test_the_rate_is_kept_with_bad_images_among_the_good(bad):
    """Per cent of the good images that are defective: far above, they are set aside and named."""
    rng = np.random.default_rng(bad)
    rates, named = [], []
    for _ in range(100):
        scores = rng.normal(size=200)
        scores[: 2 * bad] = rng.normal(9, 1, size=2 * bad)
        parts = [GoodPart(float(score), str(i)) for i, score in enumerate(scores)]
        learnt = learn_threshold(parts, asked=0.05, rule=expected_rate)
        rates.append(stats.norm.sf(learnt.value))
        named.append({int(name) for name in learnt.set_aside})
    assert 0.04 < np.mean(rates) < 0.06
    assert all(set(range(2 * bad)) <= names for names in named)
    assert np.mean([len(names) - 2 * bad for names in named]) < 0.1, "hardly a good one is"


def test_good_images_are_hardly_ever_set_aside():
    rng = np.random.default_rng(0)
    for n in (20, 60, 200):
        found = [outliers(np.sort(rng.normal(size=n))) > 0 for _ in range(3000)]
        assert np.mean(found) < 4 * OUTLIER_LEVEL
    assert outliers(np.zeros(50)) == 0
    assert outliers(np.sort(np.r_[np.zeros(80), np.full(20, 9.0)])) <= MOST_SET_ASIDE * 100


@pytest.mark.parametrize("freedom", [8, 20, 100, 1000])
def test_quantiles_of_student_s_t(freedom):
    for probability in (0.99, 0.999, 0.99999):
        exact = stats.t.ppf(probability, freedom)
        assert _student_t(probability, freedom) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("probability", [0.3, 0.99, 0.9999])
def test_student_s_t_is_expanded_to_the_fourth_power(probability):
    """So twice the degrees of freedom leave a 32nd of the error."""
    found = [(_student_t(probability, freedom), freedom) for freedom in (40, 80)]
    # Its distribution is exact where older SciPy's quantiles are not.
    errors = [(stats.t.cdf(t, df) - probability) / stats.t.pdf(t, df) for t, df in found]
    assert errors[0] / errors[1] == pytest.approx(32, rel=0.1)


def test_the_image_that_is_nearest_to_the_threshold_is_named():
    parts = [GoodPart(float(score), f"{score}.png") for score in (3, 9, 1, 7, 5, 2, 8, 4, 6, 0)]
    learnt = learn_threshold(parts, asked=0.25, rule=expected_rate)
    assert 7 <= learnt.value < 8
    assert (learnt.highest_image, learnt.next_highest) == ("7.png", None)
    ranked = learn_threshold(parts, rule=order_statistic)
    assert (ranked.value, ranked.highest_image, ranked.next_highest) == (9.0, "9.png", 8.0)


def test_few_images_are_said_to_be_few():
    few = expected_rate(np.arange(5.0), 0.05).bound
    assert "5 good images are few for 5 %" in few.warnings[0]
    (said,) = expected_rate(np.arange(2.0), 0.05, learnt=np.arange(100.0)).bound.warnings
    assert "only 2 of the good images were held out" in said
    assert expected_rate(np.arange(40.0), 0.05).bound.warnings == ()


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_rates_that_mean_nothing_are_refused(rate):
    with pytest.raises(SettingsError, match="between 0 and 1"):
        expected_rate(np.arange(9.0), rate)
