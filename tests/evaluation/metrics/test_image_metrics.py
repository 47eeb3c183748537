"""Metrics of scores, against definitions written out."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hvq_edge.errors import InputError, MissingCapability
from hvq_edge.evaluation.metrics.image_metrics import (
    auroc,
    average_precision,
    best_f1,
    recall_at,
    roc_curve,
)

quick = settings(deadline=None, max_examples=60)  # the first example imports scikit-learn


@st.composite
def scored(draw, largest=30):
    """Scores with many ties, and labels of both classes."""
    size = draw(st.integers(2, largest))
    scores = draw(arrays(np.float64, size, elements=st.integers(-8, 8).map(float)))
    labels = draw(arrays(np.bool_, size))
    assume(labels.any() and not labels.all())
    return scores, labels


def pairs_won(scores, labels):
    good, bad = scores[~labels], scores[labels]
    wins = (bad[:, None] > good).sum() + 0.5 * (bad[:, None] == good).sum()
    return wins / (len(good) * len(bad))


def precision_and_recall(scores, labels, threshold):
    called = scores >= threshold
    right = (called & labels).sum()
    return right / called.sum(), right / labels.sum()


@quick
@given(scored())
def test_auroc_is_the_share_of_pairs_won(data):
    assert auroc(*data) == pytest.approx(pairs_won(*data))


@quick
@given(scored())
def test_average_precision_is_the_stepwise_sum(data):
    scores, labels = data
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        precision, recall = precision_and_recall(scores, labels, threshold)
        area += (recall - before) * precision
        before = recall
    assert average_precision(scores, labels) == pytest.approx(area)


@quick
@given(scored())
def test_best_f1_is_the_best_of_all_thresholds(data):
    scores, labels = data

    def f1(threshold):
        precision, recall = precision_and_recall(scores, labels, threshold)
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    best = best_f1(scores, labels)
    assert best.f1 == pytest.approx(max(f1(threshold) for threshold in scores))
    assert best.f1 == pytest.approx(f1(best.threshold))
    assert best.threshold in scores


@quick
@given(scored(), st.sampled_from([0.0, 0.01, 0.05, 0.34, 1.0]))
def test_recall_is_the_best_of_the_thresholds_that_reject_few_enough(data, rate):
    scores, labels = data
    found = [
        (scores[labels] > threshold).mean()
        for threshold in [-np.inf, *scores]
        if (scores[~labels] > threshold).mean() <= rate
    ]
    assert recall_at(scores, labels, rate) == pytest.approx(max(found))


@quick
@given(scored())
def test_only_the_order_of_scores_counts(data):
    scores, labels = data
    stretched = np.exp(scores / 4) - 3
    assert auroc(stretched, labels) == pytest.approx(auroc(scores, labels))
    assert average_precision(stretched, labels) == pytest.approx(average_precision(scores, labels))
    assert best_f1(stretched, labels).f1 == pytest.approx(best_f1(scores, labels).f1)


@quick
@given(scored())
def test_counts_stand_for_repetition(data):
    scores, labels = data
    counts = np.arange(len(scores)) % 3 + 1
    repeated = np.repeat(scores, counts), np.repeat(labels, counts)
    assert auroc(scores, labels, counts) == pytest.approx(auroc(*repeated))
    assert average_precision(scores, labels, counts) == pytest.approx(average_precision(*repeated))
    assert best_f1(scores, labels, counts).f1 == pytest.approx(best_f1(*repeated).f1)
    assert best_f1(scores, labels, counts).threshold == best_f1(*repeated).threshold


def test_what_is_counted_zero_times_is_not_there():
    scores, labels = np.array([0.1, 0.2, 0.3, 0.9]), np.array([False, True, False, False])
    counts = np.array([1, 1, 1, 0])
    for metric in (auroc, average_precision, best_f1):
        assert metric(scores, labels, counts) == metric(scores[:3], labels[:3])
        assert metric(scores, labels, np.array([1, 0, 1, 1])) is None


@quick
@given(scored())
def test_the_area_below_the_roc_curve_is_the_auroc(data):
    curve = roc_curve(*data)
    x, y = curve.false_positive_rate, curve.true_positive_rate
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)) == pytest.approx(auroc(*data))


@pytest.mark.parametrize("metric", [auroc, average_precision, best_f1, roc_curve])
class TestArguments:
    @pytest.mark.parametrize("label", [False, True])
    def test_one_class_has_no_value(self, metric, label):
        assert metric(np.array([0.1, 0.2]), np.array([label, label])) is None

    def test_nothing_has_no_value(self, metric):
        assert metric(np.zeros(0), np.zeros(0, bool)) is None

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_scores_that_are_not_finite_are_refused(self, metric, bad):
        with pytest.raises(InputError, match="1 of 2 scores are not finite"):
            metric(np.array([0.1, bad]), np.array([False, True]))

    @pytest.mark.parametrize(
        ("scores", "labels"),
        [
            (np.zeros((2, 2)), np.zeros((2, 2), bool)),
            (np.zeros(2, int), np.zeros(2, bool)),
            (np.zeros(2), np.zeros(2)),
            (np.zeros(2), np.zeros(3, bool)),
        ],
    )
    def test_other_shapes_and_types_are_refused(self, metric, scores, labels):
        with pytest.raises(InputError, match="expected floating point"):
            metric(scores, labels)

    def test_without_scikit_learn(self, metric, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
        with pytest.raises(MissingCapability, match="scikit-learn"):
            metric(np.array([0.1, 0.2]), np.array([False, True]))


def test_negative_counts_are_refused():
    with pytest.raises(InputError, match="counts"):
        auroc(np.zeros(2), np.array([False, True]), np.array([1, -1]))
