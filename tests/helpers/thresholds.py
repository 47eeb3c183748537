"""A threshold without a promise, as one set by hand."""

from hvq_edge.verdict.calibration_scores import table_of
from hvq_edge.verdict.threshold import Threshold


def threshold_at(value: float, images: int = 3, rule: str = "test", **more) -> Threshold:
    given = {"median": value, "bound": None, "calibration_scores": table_of([value]), **more}
    return Threshold(value=value, images=images, rule=rule, **given)
