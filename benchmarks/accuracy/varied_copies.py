"""What it brings to fit a trained run's statistics to disturbed copies of its images as well.

    python -m benchmarks.accuracy.varied_copies RUN OUT
    hvq-edge export OUT --int8
    python -m benchmarks.accuracy.robustness OUT/bundle DATA --out OUT

The network stays as RUN trained it, and so do the held-out images and what the classifier learnt.
What is fitted after training (prototypes, the whitening of residuals, the scale of the map) sees
each image that RUN learnt from and :data:`COPIES` of it. OUT becomes a run like any other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.accuracy import disturbances
from benchmarks.accuracy.disturbances import DISTURBANCES, Disturb, Pixels, Shot
from benchmarks.accuracy.image_sources import FeatureStore, Source, category_index, training_sources
from hvq_edge.cli.console import progress_bars
from hvq_edge.common.atomic import sha256_of
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.errors import HvqEdgeError
from hvq_edge.model.checkpoint import load_run, save_checkpoint
from hvq_edge.run.record import RunRecord, recorded_data, write_run
from hvq_edge.training.fit_prototypes import fit_prototypes
from hvq_edge.training.statistics import fit_map_scale, fit_residual_whitening

COPIES = (
    ("JPEG", "quality 75", 0),
    ("brightness", "±10 %", 0),
    ("brightness", "±10 %", 1),
    ("shift", "2 %", 0),
    ("blur", "1 px", 0),
)
"""Disturbance, strength, and what is added to an image's number: the other way."""


def refit(run: Path, out: Path, on_progress: ProgressCallback = silent) -> RunRecord:
    """Write a run with the weights of another and statistics of varied copies.

    Args:
        run: a finished run whose images are still there.
        out: folder of the new one; features are kept in it.
        on_progress: told after each batch.

    Raises:
        RunError, CheckpointError, DatasetError, ImageError, OutputError.
    """
    model, record = load_run(run)
    data = recorded_data(run)
    store = FeatureStore(out / "features", model.settings)
    clean = training_sources(record.images, data, "fit")
    varied = (*clean, *_copies(record, data))
    features = store.features("varied", varied, on_progress)
    category = category_index(varied, record.categories)
    fit_prototypes(model, features, category, record.settings.training.seed, on_progress)
    if model.settings.whiten_distance:
        fit_residual_whitening(model, features, category)
    if model.settings.map_scale == "good_images":
        fit_map_scale(model, features, category)
    if model.settings.image_level == "learnt":
        from hvq_edge.training.statistics import fit_level
        from hvq_edge.training.trainer import Images

        held_out = training_sources(record.images, data, "held_out")
        fit_level(
            model,
            Images(features[: len(clean)], category[: len(clean)]),
            Images(
                store.features("held out", held_out, on_progress),
                category_index(held_out, record.categories),
            ),
        )
    out.mkdir(parents=True, exist_ok=True)
    made = record.model_copy(update={"checkpoint_sha256": save_checkpoint(out, model)})
    write_run(out, made)
    return made


def _copies(record: RunRecord, data: Path) -> Iterator[Source]:
    code = sha256_of(Path(disturbances.__file__))
    learnt_from = [image for image in record.images if image.use == "fit"]
    for name, strength, more in COPIES:
        for number, one in enumerate(learnt_from):
            read = _reader(data / one.path, DISTURBANCES[name][strength], number + more)
            yield Source(f"{one.sha256} {name} {strength} {more} {code}", one.category, read)


def _reader(path: Path, disturb: Disturb, number: int) -> Callable[[int], Pixels]:
    return lambda side: fit_image(disturb(read_image(path), Shot(number, side)), side)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("out", type=Path, help="folder of the new run")
    given = parser.parse_args(arguments)
    try:
        with progress_bars() as bars:
            refit(given.run, given.out, bars)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
