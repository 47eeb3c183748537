"""Graphs of other methods as their own library writes them, for ``peers.py`` to time.

    make peers                                      # an environment of its own, then this
    .peers/bin/python -m benchmarks.speed.peer_graphs .peers/graphs

anomalib builds each model and exports it as it does for a user: sizes, layers and image sides are
its defaults, with its normalisation before and its thresholds behind. The batch is fixed at one
image, which is the fastest that OpenVINO has. Beside each float32 file stand two in INT8 by NNCF's
defaults, as anomalib's ``INT8_PTQ`` has them: one of the OpenVINO model, one of the ONNX graph for
ONNX Runtime.

Weights, memories and statistics are random and the images are noise: nothing is downloaded, and the
files are for the clock only. Of what a training would make, the sizes are right.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

MVTEC_IMAGES, MVTEC_PRODUCTS = 3629, 15
"""Good training images of MVTec AD: PatchCore's memory is a share of the patches of one product."""
STRIDE = 8
"""Pixels a patch of PatchCore's grid, that of layer2."""
CALIBRATION_IMAGES = 8
LIBRARIES = ("anomalib", "timm", "torch", "nncf", "openvino", "onnxruntime")
RECORD = "peers.json"


class Peer(NamedTuple):
    """One model."""

    name: str
    side: int
    """Pixels of its square image; Dinomaly crops that to 392."""
    make: Callable[[int], Any]
    """Builds it for a side."""
    transformer: bool = False
    """NNCF has a setting for these."""
    products: int = 1
    """That one graph serves; 0: as many as there are."""


def padim(side: int) -> Any:  # noqa: ANN401  # anomalib is not installed beside the project
    """PaDiM (Defard et al., ICPR 2020): a Gaussian of 100 channels at each position of layer1."""
    import torch
    from anomalib.models import Padim

    model = Padim(pre_trained=False, pre_processor=Padim.configure_pre_processor((side, side)))
    positions, channels = (side // 4) ** 2, model.model.n_features
    root = torch.randn(positions, channels, channels) / channels**0.5
    model.model.gaussian.mean = torch.randn(channels, positions)
    model.model.gaussian.inv_covariance = root @ root.mT + torch.eye(channels)
    return model


def patchcore(share: float) -> Callable[[int], Any]:
    """PatchCore (Roth et al., CVPR 2022) that keeps a share of one product's patches."""

    def make(side: int) -> Any:  # noqa: ANN401
        import torch
        from anomalib.models import Patchcore

        model = Patchcore(
            backbone="resnet18",
            pre_trained=False,
            coreset_sampling_ratio=share,
            pre_processor=Patchcore.configure_pre_processor((side, side)),
        )
        patches = MVTEC_IMAGES / MVTEC_PRODUCTS * (side // STRIDE) ** 2
        channels = sum(model.model.feature_extractor.out_dims)
        model.model.memory_bank = torch.randn(round(patches * share), channels)
        return model

    return make


def named(name: str, **settings: str) -> Callable[[int], Any]:
    """Return a maker of a model that needs no more than its class and settings."""

    def make(side: int) -> Any:  # noqa: ANN401
        import anomalib.models

        model = getattr(anomalib.models, name)
        return model(**settings, pre_processor=model.configure_pre_processor((side, side)))

    return make


PEERS = (
    Peer("PaDiM, ResNet-18", 256, padim),
    Peer("PaDiM, ResNet-18, 224 px", 224, padim),
    Peer("PatchCore 1 %, ResNet-18", 256, patchcore(0.01)),
    Peer("PatchCore 10 %, ResNet-18", 256, patchcore(0.1)),
    Peer("STFPM, ResNet-18", 256, named("Stfpm")),
    Peer("STFPM, ResNet-18, 224 px", 224, named("Stfpm")),
    Peer("EfficientAD-S", 256, named("EfficientAd")),
    Peer("SuperSimpleNet, ResNet-18", 256, named("Supersimplenet", backbone="resnet18")),
    Peer("SuperSimpleNet, Wide ResNet-50", 256, named("Supersimplenet")),
    Peer(
        "Dinomaly-S",
        448,
        named("Dinomaly", encoder_name="vit_small_patch14_reg4_dinov2"),
        transformer=True,
        products=0,
    ),
)
"""STFPM: Wang et al., BMVC 2021. EfficientAD: Batzner et al., WACV 2024. SuperSimpleNet: Rolih et
al., ICPR 2024, whose published backbone is the larger one. Dinomaly: Guo et al., CVPR 2025, one
model for all products. Two of them at the side that ours has, too."""


def noise(side: int) -> Iterator[np.ndarray]:
    """Give images as these graphs take them."""
    for seed in range(CALIBRATION_IMAGES):
        yield np.random.default_rng(seed).random((1, 3, side, side), dtype=np.float32)


def write(peer: Peer, folder: Path) -> dict[str, object]:
    """Write a peer's three files; return what the record says of them."""
    import nncf
    import onnx
    import openvino
    import torch

    torch.manual_seed(0)
    model = peer.make(peer.side).eval()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        written = model.to_onnx(
            scratch, input_size=(peer.side, peer.side), dynamic_axes={}, opset_version=18
        )
        graph = onnx.load(written)  # its weights lie beside it
    source = folder / "fp32.onnx"
    onnx.save(graph, source)
    settings: dict[str, Any] = {"subset_size": CALIBRATION_IMAGES}
    if peer.transformer:
        settings["model_type"] = nncf.ModelType.TRANSFORMER
    name = graph.graph.input[0].name
    images = nncf.Dataset(list(noise(peer.side)))
    quantised = nncf.quantize(openvino.convert_model(source), images, **settings)
    openvino.save_model(quantised, folder / "int8.xml", compress_to_fp16=False)
    images = nncf.Dataset([{name: image} for image in noise(peer.side)])
    onnx.save(nncf.quantize(graph, images, **settings), folder / "int8.onnx")
    return {"name": peer.name, "folder": folder.name, "products": peer.products}


def random_weights_only() -> None:
    """Make timm build backbones without fetching their weights: some models ask for them always."""
    import timm

    create = timm.create_model
    timm.create_model = lambda *given, **more: create(*given, **{**more, "pretrained": False})


def main() -> None:
    """Write all, and the record that names them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    random_weights_only()
    rows = []
    for place, peer in enumerate(PEERS):
        rows.append(write(peer, folder / f"{place:02d}"))
        print(f"{peer.name}: written", flush=True)
    record = {"versions": {name: version(name) for name in LIBRARIES}, "peers": rows}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
