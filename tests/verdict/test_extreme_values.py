"""The extreme-value threshold: near the truth where its model is right, and it says where not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hvq_edge.errors import InputError
from hvq_edge.verdict.extreme_values import extreme_value, fit_tail
from hvq_edge.verdict.tolerance_bound import order_statistic


@pytest.mark.parametrize(("shape", "scale"), [(-0.2, 1.0), (0.0, 2.0), (0.2, 5.0)])
def test_the_fit_finds_the_parameters_of_a_pareto_tail(shape, scale):
    drawn = stats.genpareto.rvs(shape, scale=scale, size=(20, 4000), random_state=1)
    tail = fit_tail(np.sort(drawn))
    assert tail.shape.mean() == pytest.approx(shape, abs=0.03)
    assert tail.scale.mean() == pytest.approx(scale, rel=0.03)


@pytest.mark.parametrize("distribution", [stats.norm(5, 1), stats.expon(), stats.gamma(3)])
def test_fewer_images_do_than_order_statistics_need(distribution):
    """150 good images for a rate of 0.5 %, which order statistics promise from 598 on."""
    rate, truth = 0.005, float(distribution.isf(0.005))
    held, values = 0, []
    for seed in range(12):
        scores = np.sort(distribution.rvs(150, random_state=seed))
        bound = extreme_value(scores, rate, 0.95)
        values.append(bound.value)
        held += bound.value >= truth
        assert bound.bound.rank is None
        assert "model" in str(bound.bound)
        assert not order_statistic(scores, rate).bound.met
    assert held >= 9, "the bootstrap's confidence is approximate, not absent"
    assert np.median(values) < distribution.isf(1e-5), "and it is no excuse to reject nothing"


def test_the_same_scores_give_the_same_threshold():
    scores = np.sort(stats.expon.rvs(size=200, random_state=0))
    assert extreme_value(scores) == extreme_value(scores)


def test_a_bad_fit_is_said():
    """Two odd groups in the tail are no tail."""
    generator = np.random.default_rng(0)
    odd = np.concatenate([generator.normal(9, 0.05, 35), generator.normal(4, 0.05, 15)])
    scores = np.sort(np.concatenate([generator.uniform(0, 2, 250), odd]))
    (warning, *_) = extreme_value(scores).bound.warnings
    assert "fits the largest scores badly" in warning
    good = np.sort(stats.expon.rvs(size=300, random_state=2))
    assert extreme_value(good).bound.warnings == ()


def test_a_very_heavy_tail_is_said():
    scores = np.sort(stats.pareto(1.1).rvs(2000, random_state=0))
    assert any("very heavy" in one for one in extreme_value(scores).bound.warnings)


@pytest.mark.parametrize(
    ("scores", "asked", "said"),
    [
        (np.linspace(0, 1, 100), 0.01, "at least 120 good images"),
        (np.linspace(0, 1, 400), 0.3, "inside the good scores"),
        (np.sort(np.r_[np.linspace(0, 1, 300), np.full(100, 2.0)]), 0.01, "nearly all the same"),
    ],
)
def test_what_cannot_be_fitted_is_refused(scores, asked, said):
    with pytest.raises(InputError, match=said):
        extreme_value(scores, asked)
