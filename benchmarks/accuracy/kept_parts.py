"""Parts of the maps of a run's images, kept apart so that they can be joined in other ways.

The network is the run's own; what is compared stands in ``choices.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.accuracy import disturbances
from benchmarks.accuracy.disturbances import DISTURBANCES, Shot
from benchmarks.accuracy.image_sources import (
    FeatureStore,
    Source,
    category_index,
    sources_of,
    training_sources,
)
from hvq_edge.common.atomic import sha256_of
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data import versions
from hvq_edge.data.dataset import DatasetImage, find_dataset
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.data.splits import check_unchanged
from hvq_edge.data.versions import Pixels
from hvq_edge.errors import DatasetError, RunError
from hvq_edge.model.backbone_weights import load_backbone_weights
from hvq_edge.model.checkpoint import load_run
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import read_run, recorded_data
from hvq_edge.run.settings import ModelSettings
from hvq_edge.training.batches import Images
from hvq_edge.training.statistics import batches_of, fit_residual_whitening
from hvq_edge.training.train_run import varied_images

CLEAN = "as it is"
STRENGTHS = {"shift": "2 %", "JPEG": "quality 75", "blur": "1 px", "brightness": "±10 %"}
"""How strong each disturbance is."""
OWN, ALONE, PLAIN = "versions", "images alone", "not whitened"
"""What the distance's whitening is fitted to: as training does it, without versions, nothing."""

Parts = Mapping[str, Tensor]
"""By whitening: :meth:`HVQTrans.map_parts` of a category's images, ``[parts, images, tokens]``."""


class Product(NamedTuple):
    """Parts of the maps of one category's images, and how its run joins them."""

    run: str
    name: str
    weights: tuple[float, ...]
    fit: Parts
    varied: Parts | None
    """Versions of ``fit``."""
    held_out: Parts
    test: Mapping[str, Parts]
    """:data:`CLEAN`, and by disturbance."""
    defective: NDArray[np.bool_]
    """Of the test images."""


def products_of(run: Path, out: Path, on_progress: ProgressCallback = silent) -> list[Product]:
    """Compute the parts of the maps of a run's images.

    Args:
        run: a finished run whose images lie where they lay.
        out: folder that keeps features.
        on_progress: told of every stage.

    Returns:
        The categories that have both good and defective test images.

    Raises:
        RunError: no finished run, or one whose map is made otherwise.
        DatasetError: images changed since training, or no category has both kinds.
        ImageError, CheckpointError, MissingCapability, OutputError.
    """
    settings, ours = read_run(run).settings, ModelSettings()
    same = ("whiten_distance", "map_scale", "image_level", "transport_levels")
    if not settings.model.prototypes or any(
        getattr(settings.model, field) != getattr(ours, field) for field in same
    ):
        raise RunError(
            f"the score of {run} is not made as by default.",
            next_step="give a run of the preset edge or tiny",
        )
    model, record = load_run(run)
    data = recorded_data(run)
    if load_backbone_weights(model.backbone, settings.model.backbone) != record.backbone_weights:
        raise RunError(
            f"{run} was trained with other backbone weights: {record.backbone_weights}.",
            next_step="give a run with the published ones",
        )
    check_unchanged(record.images, data, on_progress)
    dataset = find_dataset(data)
    tests = {name: dataset.test(name) for name in record.categories}
    judged = [name for name, test in tests.items() if len({image.good for image in test}) == 2]
    if not judged:
        raise DatasetError(
            f"no category of {run} has good and defective test images.",
            next_step=f"put some into {data}",
        )
    store = FeatureStore(out, settings.model)

    def images(name: str, sources: Sequence[Source]) -> Images:
        index = category_index(sources, record.categories)
        return Images(store.features(name, sources, on_progress), index)

    fit, held_out = (
        images(use, training_sources(record.images, data, use)) for use in ("fit", "held_out")
    )
    test = {
        condition: images(f"test {condition}", sources)
        for condition, sources in judged_sources([tests[name] for name in judged]).items()
    }
    forms = {OWN: model, ALONE: copy.deepcopy(model), PLAIN: copy.deepcopy(model)}
    fit_residual_whitening(forms[ALONE], fit)
    forms[PLAIN].residual_whitening.copy_(torch.eye(model.residual_whitening.shape[1]))
    with varied_images(out, record, model, data, on_progress) as (groups, _):
        varied = {
            name: parts_of(forms, groups[0], record.categories.index(name)) if groups else None
            for name in judged
        }
    products = []
    for number, name in enumerate(judged, 1):
        k = record.categories.index(name)
        products.append(
            Product(
                run.resolve().name,
                name,
                model.part_weights,
                fit=parts_of(forms, fit, k),
                varied=varied[name],
                held_out=parts_of(forms, held_out, k),
                test={condition: parts_of(forms, one, k) for condition, one in test.items()},
                defective=np.array([not image.good for image in tests[name]]),
            )
        )
        on_progress("parts of the maps", number, len(judged))
    return products


@torch.inference_mode()
def parts_of(forms: Mapping[str, HVQTrans], images: Images, k: int) -> Parts:
    """Parts of the maps of one category's images, by form; the first form's network serves all."""
    network = next(iter(forms.values()))
    found: dict[str, list[Tensor]] = {name: [] for name in forms}
    for batch, label in batches_of(network, [images], k):
        rebuilt = network.reconstruct(network.normalise(batch), label)
        for name, form in forms.items():
            found[name].append(form.map_parts(batch, rebuilt, label))
    return {name: torch.cat(parts, dim=1) for name, parts in found.items()}


def judged_sources(categories: Sequence[Sequence[DatasetImage]]) -> dict[str, list[Source]]:
    """Test images as they are and by disturbance, category by category."""
    code = " ".join(sha256_of(Path(str(one.__file__))) for one in (disturbances, versions))
    found: dict[str, list[Source]] = {condition: [] for condition in (CLEAN, *STRENGTHS)}
    for images in categories:
        for number, (image, source) in enumerate(zip(images, sources_of(images), strict=True)):
            found[CLEAN].append(source)
            for name, strength in STRENGTHS.items():
                key = f"{source.key} {name} {strength} {number} {code}"
                read = _disturber(image.path, name, number)
                found[name].append(replace(source, key=key, read=read))
    return found


def _disturber(path: Path, name: str, number: int) -> Callable[[int], Pixels]:
    disturb = DISTURBANCES[name][STRENGTHS[name]]
    return lambda side: fit_image(disturb(read_image(path), Shot(number, side)), side)
