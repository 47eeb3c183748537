"""The promised false-reject rate holds with the promised confidence, whatever the scores are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hvq_edge.errors import SettingsError
from hvq_edge.verdict.tolerance import largest_rank, least_images, promised_rate
from hvq_edge.verdict.tolerance_bound import order_statistic, percent

DRAWS = 1000
RATES = st.sampled_from([0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3])
CONFIDENCES = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])

CONTINUOUS = {
    "normal": stats.norm(3, 2),
    "exponential": stats.expon(),
    "uniform": stats.uniform(),
    "heavy-tailed": stats.t(1.5),
    "very heavy-tailed": stats.pareto(0.7),
    "lognormal": stats.lognorm(1.2),
}
WITH_TIES = {
    "few values": stats.poisson(2.5),
    "mostly one value": stats.geom(0.9),
    "rounded": stats.binom(40, 0.3),
}


def rejected_shares(distribution, n: int, rate: float, confidence: float, seed: int):
    """True false-reject rate of each of many thresholds; a score equal to one passes."""
    draws = distribution.rvs(size=(DRAWS, n), random_state=seed).astype(float)
    bounds = [order_statistic(np.sort(draw), rate, confidence) for draw in draws]
    return distribution.sf(np.array([bound.value for bound in bounds])), bounds[0].bound


@pytest.mark.parametrize("name", [*CONTINUOUS, *WITH_TIES])
@pytest.mark.parametrize(("n", "rate", "confidence"), [(299, 0.01, 0.95), (80, 0.05, 0.9)])
def test_the_promise_holds_in_simulation(name, n, rate, confidence):
    """Whether it is kept is one coin toss a draw, so its share may miss by binomial error alone."""
    distribution = (CONTINUOUS | WITH_TIES)[name]
    shares, promise = rejected_shares(distribution, n, rate, confidence, seed=len(name))
    assert promise.met
    kept = int((shares <= promise.rate).sum())
    assert stats.binom.cdf(kept, DRAWS, confidence) > 1e-4, f"{kept} of {DRAWS}"


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_promise_is_no_looser_than_it_must_be(name):
    """Without ties the promised rate is missed as often as was said: it is exact, not just safe."""
    shares, promise = rejected_shares(CONTINUOUS[name], 65, 0.01, 0.95, seed=7)
    assert promise.rate == pytest.approx(0.045042, abs=1e-5)
    assert not promise.met
    missed = int((shares > promise.rate).sum())
    assert stats.binom.cdf(missed, DRAWS, 0.05) > 1e-4
    assert stats.binom.sf(missed - 1, DRAWS, 0.05) > 1e-4


@given(st.integers(1, 3000), RATES, CONFIDENCES)
@settings(max_examples=60, deadline=None)
def test_the_rank_is_the_largest_that_keeps_the_promise(n, rate, confidence):
    k = largest_rank(n, rate, confidence)
    assert 0 <= k <= n
    if k:
        assert stats.binom.sf(k - 1, n, rate) >= confidence - 1e-9
    if k < n:
        assert stats.binom.sf(k, n, rate) < confidence + 1e-9


@given(st.integers(1, 2000), st.data(), CONFIDENCES)
@settings(max_examples=60, deadline=None)
def test_the_promised_rate_is_the_quantile_of_a_beta_distribution(n, data, confidence):
    k = data.draw(st.integers(1, min(n, 50)))
    rate = promised_rate(n, k, confidence)
    assert rate == pytest.approx(stats.beta.ppf(confidence, k, n - k + 1), rel=1e-9)


@given(RATES, CONFIDENCES)
@settings(deadline=None)
def test_the_least_images_are_just_enough(rate, confidence):
    n = least_images(rate, confidence)
    assert largest_rank(n, rate, confidence) >= 1
    assert n == 1 or largest_rank(n - 1, rate, confidence) == 0


def test_published_numbers():
    """Wilks' first order one-sided bounds."""
    table = {(0.05, 0.95): 59, (0.01, 0.95): 299, (0.1, 0.9): 22, (0.01, 0.99): 459}
    assert {pair: least_images(*pair) for pair in table} == table
    assert least_images(1e-6, 0.95) == math.ceil(math.log(0.05) / math.log1p(-1e-6))


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=400),
    RATES,
    CONFIDENCES,
)
@settings(max_examples=80, deadline=None)
def test_a_threshold_is_a_good_score_and_rejects_fewer_than_its_rank(scores, rate, confidence):
    ordered = np.sort(np.array(scores))
    value, promise, _ = order_statistic(ordered, rate, confidence)
    assert value in ordered
    assert (ordered > value).sum() < promise.rank
    assert promise.met == (len(scores) >= promise.needed)
    assert promise.rate <= rate or value == ordered[-1]
    assert order_statistic(ordered, None, confidence).value == ordered[-1]


@pytest.mark.parametrize(
    ("rate", "confidence"), [(0, 0.9), (1, 0.9), (0.1, 1), (-1, 0.9), (0.1, 0)]
)
def test_rates_that_mean_nothing_are_refused(rate, confidence):
    with pytest.raises(SettingsError, match="between 0 and 1"):
        order_statistic(np.ones(9), rate, confidence)
    with pytest.raises(SettingsError, match="not be nan"):
        order_statistic(np.ones(9), math.nan)


@given(st.floats(1e-6, 1))
def test_percentages_never_understate(rate):
    shown = float(percent(rate).split()[0])
    assert 100 * rate * (1 - 1e-6) <= shown <= 100 * rate * 1.11


def test_a_promise_in_words():
    scores = np.arange(1000.0)
    assert str(order_statistic(scores[:65], None).bound) == (
        "largest of 65 good images: at most 4.6 % false rejects at 95 % confidence"
    )
    assert str(order_statistic(scores, 0.01).bound).startswith("5th largest of 1000 good")
    words = {n: str(order_statistic(scores, k / 10).bound) for n, k in ((2, 1), (3, 3))}
    assert "th largest" in words[2]
    assert str(order_statistic(scores[:473], 0.01).bound).startswith("2nd largest of 473")
