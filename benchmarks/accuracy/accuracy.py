"""How accurate the model is, beside a nearest-neighbour memory on the same features.

    python -m benchmarks.accuracy.accuracy DATA                      # trains the edge preset first
    python -m benchmarks.accuracy.accuracy DATA --run runs/latest    # a run of the same images

One model for all categories against PatchCore-like memories of 8,000 vectors, one a category
(nearest_neighbour.py), both made of the same good images and fed the same backbone features, with
the same score window and the same upsampling. Two kinds of evidence: the test images, with the
metrics of `hvq-edge eval`; and held-out good images against the same with pseudo-defects
(hvq_edge.data.pseudo_defects), which needs no test image. Then the trained model's map in other
forms (map_forms.py). In brackets: the lowest and highest mean that leaving one category out gives.

A training that was stopped goes on with the same command. Writes OUT/accuracy.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from benchmarks.accuracy.evidence import (
    OURS,
    Evidence,
    Judge,
    Range,
    ToJudge,
    Verdict,
    gather,
    images_to_judge,
    map_of,
)
from benchmarks.accuracy.image_sources import Streamed, pseudo_sources, sources_of, training_sources
from benchmarks.accuracy.map_forms import LEVELLED, MapForms, with_and_without_level
from benchmarks.accuracy.nearest_neighbour import MEMORY, fit_memory
from benchmarks.markdown_table import markdown_table
from hvq_edge.cli.console import print_json, progress_bars
from hvq_edge.common.atomic import write_text
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.splits import check_unchanged
from hvq_edge.errors import HvqEdgeError, RunError
from hvq_edge.evaluation.table import COLUMNS, percent
from hvq_edge.model.checkpoint import load_run
from hvq_edge.model.device import choose_device
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import RECORD_NAME, RunRecord, read_run
from hvq_edge.run.settings import Settings, load_settings
from hvq_edge.runtime.cpu.processor import processor_name
from hvq_edge.training.batches import Images
from hvq_edge.training.features import cache_features
from hvq_edge.training.train_run import continue_run, start_run, varied_images

MEMORIES = {"nearest neighbour": False, "nearest neighbour, pooled 3x3": True}
"""Baselines, and whether they average features over neighbours first, as PatchCore does."""
METHODS = (OURS, *(name + end for name in MEMORIES for end in ("", LEVELLED)))
"""Ours takes each image's own level off; so that this is no advantage, the baselines come both
ways."""
SHOWN = (
    "image_auroc",
    "image_ap",
    "image_f1",
    "image_recall_at_5",
    "image_recall_at_1",
    "pixel_auroc",
    "pixel_ap",
    "pixel_aupro",
)
"""Metrics in the tables; the file has all."""
RESULT_NAME = "accuracy.json"


class Accuracy(BaseModel):
    """The content of ``accuracy.json``."""

    created: str
    hvq_edge_version: str
    device: str
    data: str
    run: str
    settings: Settings
    backbone_weights: str
    epochs_done: int
    training: dict[str, float]
    """Last losses and seconds by stage, from the run's record."""
    images: dict[str, int]
    memory_vectors: int
    """At most so many a category in the nearest-neighbour memories."""
    methods: dict[str, Evidence]
    map_forms: dict[str, Evidence]


def trained_run(
    data: Path, run: Path, settings: Settings, device: str, on_progress: ProgressCallback = silent
) -> None:
    """Train a run to its end, from where an earlier call stopped.

    Raises:
        RunError: ``run`` was begun with other data or settings.
        HvqEdgeError: as :func:`hvq_edge.training.train_run.continue_run`.
    """
    begun = (run / RECORD_NAME).exists()
    if begun:
        record = read_run(run, finished=False)
        if (record.settings, record.data) != (settings, str(data.resolve())):
            raise RunError(
                f"{run} was begun with other data or settings.",
                next_step="give the same as then, another folder with --out, or --run for a "
                "finished run as it is",
            )
    else:
        start_run(data, run, settings, on_progress=on_progress)
    continue_run(run, device=device, images_checked=not begun, on_progress=on_progress)


def measure(
    data: Path, run: Path, out: Path, device: str, on_progress: ProgressCallback = silent
) -> Accuracy:
    """Judge a finished run and the baselines on the images of a folder.

    Args:
        data: the folder that the run was trained on, wherever it lies now.
        run: the run's folder.
        out: where features of the training images are kept if the run has none.
        device: of all that is computed.
        on_progress: told of every stage.

    Raises:
        RunError: no finished run, or one without training images.
        DatasetError: images changed since training, or there are no test images.
        ImageError: an image cannot be read.
    """
    model, record = load_run(run, device)
    if not record.images:
        raise RunError(
            f"{run} was not trained here: it does not say which images it learnt from.",
            next_step="give a run of hvq-edge train",
        )
    check_unchanged(record.images, data, on_progress)
    images = images_to_judge(find_dataset(data), record.categories)
    folder = run if (run / "features.npy").exists() else out
    fit = fit_features(model, record, data, folder)
    held_out = training_sources(record.images, data, "held_out")
    names = record.categories
    material = ToJudge(
        categories=names,
        test=Streamed(model, sources_of(images), names),
        images=images,
        held_out=Streamed(model, held_out, names),
        pseudo=Streamed(model, pseudo_sources(held_out), names),
        side=record.settings.model.input_side,
    )
    with varied_images(out, record, model, data, on_progress) as (varied, _):
        forms = MapForms(model, (fit, *varied), record.settings.training.seed)
    judge = everything(map_of(model), memories(fit, model.score_window, model.channels), forms)
    found = gather(judge, material, on_progress)
    cuda = "cuda" in device
    return Accuracy(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        hvq_edge_version=version("hvq-edge"),
        device=torch.cuda.get_device_name(device) if cuda else processor_name(),
        data=str(data.resolve()),
        run=str(run.resolve()),
        settings=record.settings,
        backbone_weights=record.backbone_weights,
        epochs_done=record.epochs_done,
        training=record.metrics,
        images={"fit": len(fit.features), "held out": len(held_out), "test": len(images)},
        memory_vectors=MEMORY,
        methods={name: found[name] for name in METHODS},
        map_forms={name: one for name, one in found.items() if name not in METHODS},
    )


def fit_features(model: HVQTrans, record: RunRecord, data: Path, folder: Path) -> Images:
    """Raw features of the images learnt from: the run's own cache, or computed again."""
    chosen = [image for image in record.images if image.use == "fit"]
    features, _ = cache_features(folder, model, data, chosen, record.backbone_weights)
    category = [record.categories.index(image.category) for image in chosen]
    return Images(features, np.array(category))


def memories(fit: Images, window: Tensor, channels: int) -> Judge:
    """The baselines: a memory a category of the images that the model learnt from.

    Args:
        fit: those images.
        window: of the image's score (:func:`hvq_edge.model.image_score.score_window`).
        channels: of a token; what the features hold beyond, fine tokens, is left out.
    """
    own = [
        fit.features[fit.category == k][..., :channels] for k in range(int(fit.category.max()) + 1)
    ]
    kept = {
        name: [fit_memory(features, pooled=pooled, device=window.device) for features in own]
        for name, pooled in MEMORIES.items()
    }

    def judge(raw: Tensor, k: int) -> dict[str, Verdict]:
        verdicts: dict[str, Verdict] = {}
        for name, books in kept.items():
            verdicts |= with_and_without_level(name, books[k].distance(raw), window)
        return verdicts

    return judge


def everything(*judges: Judge) -> Judge:
    """Several judges as one: each sees the very same features."""

    def judge(raw: Tensor, k: int) -> dict[str, Verdict]:
        return {name: verdict for one in judges for name, verdict in one(raw, k).items()}

    return judge


def means_table(found: Mapping[str, Evidence]) -> str:
    """A line a method: means over the categories, and their ranges."""
    headings = [
        *("", "image AUROC", "leaving one out"),
        *(COLUMNS[field] for field in SHOWN[1:]),
        *("pseudo-defects", "leaving one out"),
    ]
    lines = [
        [
            *(name, percent(one.mean.image_auroc), in_brackets(one.image_auroc_range)),
            *(percent(getattr(one.mean, field)) for field in SHOWN[1:]),
            *(percent(one.pseudo_mean), in_brackets(one.pseudo_range)),
        ]
        for name, one in found.items()
    ]
    return markdown_table(headings, lines)


def category_table(one: Evidence) -> str:
    """A line a category of one method."""
    headings = ["category", *(COLUMNS[field] for field in SHOWN), "pseudo-defects"]
    lines = [
        [
            metrics.category,
            *(percent(getattr(metrics, field)) for field in SHOWN),
            percent(one.pseudo.get(metrics.category)),
        ]
        for metrics in one.categories
    ]
    means = [percent(getattr(one.mean, field)) for field in SHOWN]
    return markdown_table(headings, [*lines, ["mean", *means, percent(one.pseudo_mean)]])


def in_brackets(ends: Range | None) -> str:
    """``[91.2, 94.0]`` in per cent."""
    return "" if ends is None else f"[{percent(ends[0])}, {percent(ends[1])}]"


def print_tables(accuracy: Accuracy) -> None:
    """Print all tables, ready for a Markdown page."""
    model = accuracy.settings.model
    counts = ", ".join(f"{count} {use}" for use, count in accuracy.images.items())
    print(
        f"{accuracy.settings.preset}: {model.backbone}, {model.input_side} px, "
        f"{accuracy.epochs_done} epochs; images: {counts}; {accuracy.device}\n\n"
        f"Means over the categories, category known (%)\n\n{means_table(accuracy.methods)}"
    )
    for name, one in accuracy.methods.items():
        print(f"\n{name} (%)\n\n{category_table(one)}")
    print(f"\nOther forms of the map (%)\n\n{means_table(accuracy.map_forms)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train if need be, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of images with test images")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--preset", default="edge", choices=["edge", "tiny", "paper"])
    parser.add_argument("--settings", type=Path, help="TOML file, as for hvq-edge train")
    parser.add_argument("--epochs", type=int, help="default: the preset's")
    parser.add_argument("--run", type=Path, help="a finished run of these images: no training")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args(arguments)
    try:
        device = choose_device(given.device)
        torch.backends.cudnn.allow_tf32 = False  # full float32, as hvq-edge eval has it
        with progress_bars() as bars:
            run = given.run or given.out / "run"
            if given.run is None:
                settings = load_settings(
                    given.preset, given.settings, training={"epochs": given.epochs}
                )
                trained_run(given.data, run, settings, device, bars)
            accuracy = measure(given.data, run, given.out, device, bars)
        write_text(given.out / RESULT_NAME, accuracy.model_dump_json(indent=1) + "\n")
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")
    if given.json:
        print_json(accuracy.model_dump(mode="json"))
    else:
        print_tables(accuracy)


if __name__ == "__main__":
    main()
