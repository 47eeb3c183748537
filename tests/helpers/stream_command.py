"""`hvq-edge stream` in this process, a bundle for it and a video."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.graphs import save_bundle
from helpers.images import write_video
from helpers.thresholds import threshold_at
from typer import Typer
from typer.testing import CliRunner

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.cli.stream import add_stream

app = Typer()
add_stream(app)

LEVELS = {"bolt": (90, 30, 30), "nut": (30, 90, 30), "washer plate": (30, 30, 90)}
DEFECT = 255


def part(category: str, *, defect: bool = False) -> np.ndarray:
    """The graph takes the strongest colour for the category, and the brightest block for score."""
    image = np.full((64, 64, 3), LEVELS[category], np.uint8)
    if defect:
        image[16:32, 16:32] = DEFECT
    return image


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Category mode auto, int8 and fp32; thresholds for bolt and nut, not for washer plates."""
    saved = save_bundle(tmp_path_factory.mktemp("cli") / "ein Bündel", "auto", ("fp32", "int8"))
    thresholds = {
        name: threshold_at(10.0 * index + 0.5, images=3, rule="test")
        for index, name in enumerate(["bolt", "nut"])
    }
    manifest = saved.manifest.model_copy(
        update={"thresholds": {"fp32": thresholds, "int8": thresholds}}
    )
    write_manifest(saved.path, manifest)
    return open_bundle(saved.path)


@pytest.fixture
def video(tmp_path):
    """12 frames: bolts and nuts in turn, every fourth defective."""
    images = [part(["bolt", "nut"][i % 2], defect=i % 4 == 3) for i in range(12)]
    return write_video(tmp_path / "Film 1 ü.avi", images)


def run(*arguments, fails=None):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if fails is None:
        assert result.exception is None, result.output
        assert result.exit_code == 0
    else:
        assert isinstance(result.exception, fails), result.output
    return result
