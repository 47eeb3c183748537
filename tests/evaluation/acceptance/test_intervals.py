"""Intervals of an acceptance: of shares, of AUROC, and what the largest score promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from hvq_edge.evaluation.metrics.image_metrics import auroc
from hvq_edge.evaluation.metrics.intervals import auroc_interval, mean_auroc_interval
from hvq_edge.verdict.tolerance import promised_rate, share


@settings(max_examples=60, deadline=None)
@given(total=st.integers(1, 200), part=st.floats(0, 1))
def test_the_interval_of_a_share_is_clopper_and_pearsons(total, part):
    count = round(part * total)
    found = share(count, total)
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    assert found.interval.low == pytest.approx(low)
    assert found.interval.high == pytest.approx(high)
    assert found.interval.low <= found.interval.value <= found.interval.high


def test_a_share_of_nothing():
    assert share(0, 0) is None


def test_the_promise_of_the_largest_score_holds():
    """With a false-reject rate just above the promise, the largest of n would come out this low
    with a chance of 5 %: the definition, from the binomial's side."""
    for images in (1, 10, 30, 299):
        rate = promised_rate(images, 1, 0.95)
        assert binom.cdf(0, images, rate) == pytest.approx(0.05)
    assert promised_rate(299, 1, 0.95) < 0.01 < promised_rate(298, 1, 0.95)


def test_the_bootstrap_interval_covers_the_true_auroc():
    """Two normals a standard deviation apart: AUROC 0.760. 95 % of intervals should hold it."""
    chance = np.random.default_rng(0)
    true, held, draws = 0.7602499, 0, 60
    for _ in range(draws):
        found = auroc_interval(chance.normal(0, 1, 40), chance.normal(1, 1, 40), draws=500)
        held += found.low <= true <= found.high
    assert binom.ppf(1e-4, draws, 0.93) <= held < draws


def test_the_auroc_of_the_interval_is_the_auroc():
    chance = np.random.default_rng(1)
    good, defective = chance.integers(0, 9, 30).astype(float), chance.integers(3, 12, 20) * 1.0
    found = auroc_interval(good, defective)
    labels = np.repeat([False, True], [30, 20])
    assert found.value == pytest.approx(auroc(np.concatenate([good, defective]), labels))
    assert found.low < found.value < found.high
    assert auroc_interval(good, np.zeros(0)) is None


def test_the_interval_of_a_mean_is_narrower_than_those_of_its_parts():
    """Four alike categories, drawn apart: half as wide, as the spread of a mean of four is."""
    chance = np.random.default_rng(2)
    categories = [(chance.normal(0, 1, 80), chance.normal(1, 1, 80)) for _ in range(4)]
    parts = [auroc_interval(*one) for one in categories]
    found = mean_auroc_interval(categories)
    assert found.value == pytest.approx(np.mean([one.value for one in parts]))
    width = np.sqrt(np.mean([(one.high - one.low) ** 2 for one in parts])) / 2
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    only_good = (np.zeros(3), np.zeros(0))
    assert mean_auroc_interval([only_good, categories[0]]) == parts[0]
    assert mean_auroc_interval([only_good]) is None
