"""The four files of a net of the `paper` preset's size, without training it.

    python -m benchmarks.gpu.paper_graphs DATA FOLDER

Its weights are random, so what it says of an image means nothing; its layers, their shapes and
types are those that a trained one has, which is what `benchmarks/gpu/rtx_engines.py FOLDER` builds.
Ranges for int8 come from real images: good ones of DATA, the same number of each category.
"""

import argparse
from pathlib import Path

import torch

from hvq_edge.bundle.manifest import CategoryMode
from hvq_edge.calibration.images.calibration_image import CalibrationImage
from hvq_edge.common.atomic import sha256_of
from hvq_edge.data.dataset import find_dataset
from hvq_edge.export.graph.onnx_graph import export_graph
from hvq_edge.export.precision_files import (
    FILE_NAMES,
    Material,
    PrecisionOptions,
    write_precision_files,
)
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.settings import ModelSettings, load_settings

CATEGORIES = 15
"""As in MVTec AD, which the paper's net was trained on."""
ALL_FILES = PrecisionOptions(int8=True, fp16=True)


def random_net(settings: ModelSettings, categories: int, seed: int = 0) -> HVQTrans:
    """Return a net that was never trained, in eval mode, with a classifier that chooses."""
    torch.manual_seed(seed)
    net = HVQTrans(settings, categories).eval()
    net.classifier.fitted.fill_(True)
    torch.nn.init.normal_(net.classifier.centres)
    return net.requires_grad_(False)


def save_graphs(
    net: HVQTrans,
    folder: Path,
    images: list[CalibrationImage],
    *,
    mode: CategoryMode = "auto",
    options: PrecisionOptions = ALL_FILES,
) -> None:
    """Write the files of a net: all four, of one that chooses the category itself.

    Args:
        net: see :func:`random_net`.
        folder: for the files; made where it is missing.
        images: for the ranges of int8.
        mode: ``one`` writes the graph of the first category.
        options: which files beside the float32 one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / FILE_NAMES["fp32"]
    export_graph(net, source, mode, 0 if mode == "one" else None)
    material = Material(
        run=folder,
        source=source,
        size=net.tiling.frame_shape,
        mode=mode,
        categories=(),
        images=images,
        rule="good images of each category",
        held_out=(),
    )
    write_precision_files(material, options)


def good_images(data: Path, each: int) -> list[CalibrationImage]:
    """Return the first good training images of each category, categories in turn."""
    found = find_dataset(data)
    columns = [found.train_good(name)[:each] for name in found.categories]
    return [
        CalibrationImage(image.path, image.category, sha256_of(image.path))
        for row in zip(*columns, strict=False)
        for image in row
    ]


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="a folder of images, as train takes it")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=8, help="images of each category")
    arguments = parser.parse_args()
    net = random_net(load_settings("paper").model, CATEGORIES)
    save_graphs(net, arguments.folder, good_images(arguments.data, arguments.each))


if __name__ == "__main__":
    main()
