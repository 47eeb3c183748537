"""The feature cache: the frozen backbone runs once an image, training reads the result.

A memory-mapped float16 array in the run's folder, which may be larger than memory. It is written to
a temporary file and renamed, and carries the key of what it was made from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hvq_edge.common.atomic import atomic_file, output_error, write_text
from hvq_edge.common.openvino_core import openvino_core
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.data.versions import version_of
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import ImageRecord, RecordedImage
from hvq_edge.run.tiling import FrameShape
from hvq_edge.training.category_limits import FrameLooks
from hvq_edge.verdict.frame_quality import FrameQuality, measure
from hvq_edge.verdict.likeness.look import Look, look_at
from hvq_edge.verdict.placement import SIDE, small_grey

logger = logging.getLogger(__name__)

_BATCH = 8
_FEW = 200
"""Frames that PyTorch has computed by the time OpenVINO has read the backbone and compiled it."""
FeaturePass = Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float16]]
"""Computes raw features, float16 ``[frames, tokens, raw_channels]``, of frames of the model's
input size."""
_Read = TypeVar("_Read")
_Image = TypeVar("_Image", bound=RecordedImage)


def cache_features(
    run: Path,
    model: HVQTrans,
    data: Path,
    images: Sequence[RecordedImage],
    weights: str,
    on_progress: ProgressCallback = silent,
    *,
    name: str = "features",
) -> tuple[NDArray[np.float16], FrameLooks]:
    """Compute raw backbone features of training images, or map those of an earlier call.

    Args:
        run: folder that keeps the cache.
        model: its backbone is used, on the device where it is.
        data: what the images' paths are relative to.
        images: in the order of the result.
        weights: description of the backbone's weights; part of the cache's key.
        on_progress: called after each batch.
        name: of the cache's three files.

    Returns:
        float16 ``[images, tokens, channels]``, read-only memory map, and the frames' looks.

    Raises:
        ImageError: an image cannot be read.
        OutputError: the cache cannot be written.
    """
    settings = model.settings
    tiling = () if model.tiling.count == 1 else (settings.tiles, model.tiling.overlap)
    network = (settings.backbone, settings.input_side, settings.padding_side, settings.tap_resize)
    fine = (model.raw_channels,) if settings.fine_prototypes else ()
    key = _key(images, weights, *network, *fine, *tiling, Look._fields)
    path, grey_path, key_path = _cache_files(run, name)
    kept = _kept(run, name, key, (len(images), model.tiling.tokens, model.raw_channels))
    if kept is not None:
        return kept

    _remove(key_path)  # first: a kill must not leave it beside what it does not name
    looks = FrameLooks([], [], np.zeros((len(images), SIDE, SIDE), np.uint8))
    # Written, not mapped: a full disk is then an error to report and not a SIGBUS.
    with (
        atomic_file(path) as temporary,
        temporary.open("wb") as file,
        ThreadPoolExecutor(2) as readers,
    ):
        _write_header(file, model, len(images))
        compute = feature_pass(model, len(images))
        read = partial(_read, data, model.tiling.frame_shape)
        for start, batch in _read_ahead(readers, read, images):
            frames = [frame for frame, _ in batch]
            looks.looks.extend(look for _, look in batch)
            looks.qualities.extend(measure(frame) for frame in frames)
            looks.greys[start : start + len(frames)] = [small_grey(frame) for frame in frames]
            file.write(compute(frames).tobytes())
            on_progress("backbone features", start + len(frames), len(images))
    with atomic_file(grey_path) as temporary, temporary.open("wb") as file:
        np.save(file, looks.greys)
    values = [(q.brightness, q.contrast, q.sharpness) for q in looks.qualities]
    write_text(key_path, json.dumps({"key": key, "qualities": values, "looks": looks.looks}))
    return np.load(path, mmap_mode="r"), looks


def drop_cache(run: Path, name: str = "features") -> None:
    """Remove what :func:`cache_features` keeps under a name, and nothing else.

    Raises:
        OutputError: it cannot be removed.
    """
    for path in _cache_files(run, name):
        _remove(path)


def _cache_files(run: Path, name: str) -> tuple[Path, Path, Path]:
    """Return the files of features, of small grey frames, and of the key with the looks."""
    return run / f"{name}.npy", run / f"{name}_grey.npy", run / f"{name}.json"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def _kept(
    run: Path, name: str, key: str, shape: tuple[int, int, int]
) -> tuple[NDArray[np.float16], FrameLooks] | None:
    """Map what an earlier call kept; ``None``: nothing, of other images, or it is damaged."""
    path, grey_path, key_path = _cache_files(run, name)
    kept = _read_key(key_path)
    if kept is None or kept["key"] != key or not (path.exists() and grey_path.exists()):
        return None
    try:
        qualities = [FrameQuality(*values) for values in kept["qualities"]]
        looks = FrameLooks(qualities, [Look(*v) for v in kept["looks"]], np.load(grey_path))
        features = np.load(path, mmap_mode="r")
        found = (features.shape, features.dtype, looks.greys.shape)
        if found != (shape, np.float16, (shape[0], SIDE, SIDE)):
            raise ValueError(f"{path} holds {features.dtype} {features.shape}")
        if not len(qualities) == len(looks.looks) == shape[0]:
            raise ValueError(f"{key_path} tells of {len(qualities)} images")
    except (ValueError, EOFError, OSError, TypeError, KeyError) as error:
        logger.info("features are computed again, as those in %s are damaged: %s", run, error)
        return None
    return features, looks


class Versions(NamedTuple):
    """What is known of versions of images: an image's stand together."""

    features: NDArray[np.float16]
    """``[images * versions, tokens, channels]``, raw, read-only memory map."""
    qualities: list[FrameQuality]


@contextmanager
def features_of_versions(
    run: Path,
    model: HVQTrans,
    data: Path,
    images: Sequence[ImageRecord],
    versions: int,
    on_progress: ProgressCallback = silent,
) -> Iterator[Versions]:
    """Compute raw backbone features of versions of training images; they are gone at the end.

    Args:
        run: folder that keeps them meanwhile.
        model: its backbone is used, on the device where it is.
        data: what the images' paths are relative to.
        images: in the order of the result.
        versions: of each image (:mod:`hvq_edge.data.versions`), without the image itself.
        on_progress: called after each batch.

    Raises:
        ImageError: an image cannot be read.
        OutputError: the features cannot be written.
    """
    path = run / "features_versions.npy"
    qualities: list[FrameQuality] = []
    try:
        with (
            atomic_file(path) as temporary,
            temporary.open("wb") as file,
            ThreadPoolExecutor(2) as readers,
        ):
            _write_header(file, model, len(images) * versions)
            compute = feature_pass(model, len(images) * versions)
            read = partial(_read_versions, data, model.tiling.frame_shape, versions)
            for start, batch in _read_ahead(readers, read, images):
                for frames in batch:
                    qualities += [measure(frame) for frame in frames]
                    file.write(compute(frames).tobytes())
                on_progress("features of versions", start + len(batch), len(images))
        yield Versions(np.load(path, mmap_mode="r"), qualities)
    finally:
        path.unlink(missing_ok=True)


def _write_header(file: BinaryIO, model: HVQTrans, rows: int) -> None:
    shape = (rows, model.tiling.tokens, model.raw_channels)
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def feature_pass(model: HVQTrans, frames: int) -> FeaturePass:
    """Return what computes raw backbone features of batches of frames.

    On a CPU, where there are enough frames, OpenVINO compiles the backbone: it took a fifth of the
    time of PyTorch's own operations, and differs from them by what float32 rounds.

    Args:
        model: its backbone is used, on the device where it is.
        frames: how many there will be.
    """
    device = model.feature_mean.device
    if frames > _FEW and device.type == "cpu" and find_spec("openvino") is not None:
        return _compiled_pass(model)

    @torch.inference_mode()
    def compute(batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
        features = model.raw_features(torch.from_numpy(np.stack(batch)).to(device))
        return features.cpu().numpy().astype("<f2")

    return compute


def _compiled_pass(model: HVQTrans) -> FeaturePass:
    import openvino

    class RawFeatures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, frames: Tensor) -> Tensor:
            return self.model.raw_features(frames)

    example = torch.zeros(2, *model.tiling.frame_shape, 3, dtype=torch.uint8)
    shapes = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PyTorch, about its own parts
        program = torch.export.export(RawFeatures(), (example,), dynamic_shapes=shapes)
        graph = openvino.convert_model(program)
    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = openvino_core().compile_model(graph, "CPU", properties)
    return lambda batch: compiled(np.stack(batch))[0].astype("<f2")


def _read_ahead(
    readers: Executor, read: Callable[[_Image], _Read], images: Sequence[_Image]
) -> Iterator[tuple[int, list[_Read]]]:
    """Yield position and content of each batch; the next one is read meanwhile."""

    def submit(start: int) -> list[Future[_Read]]:
        return [readers.submit(read, image) for image in images[start : start + _BATCH]]

    following = submit(0)
    for start in range(0, len(images), _BATCH):
        reading, following = following, submit(start + _BATCH)
        yield start, [reader.result() for reader in reading]


def _read(data: Path, shape: FrameShape, record: RecordedImage) -> tuple[NDArray[np.uint8], Look]:
    image = read_image(data / record.path)
    fitted = fit_image(image, shape)
    return fitted, look_at(image, fitted)


def _read_versions(
    data: Path, shape: FrameShape, versions: int, record: ImageRecord
) -> list[NDArray[np.uint8]]:
    image, seed = read_image(data / record.path), int(record.sha256[:12], 16)
    return [
        fit_image(version_of(image, shape, number, seed), shape)
        for number in range(1, versions + 1)
    ]


def _read_key(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and {"key", "qualities"} <= value.keys() else None


def _key(images: Sequence[RecordedImage], *parts: object) -> str:
    digest = hashlib.sha256(repr(parts).encode())
    for image in images:
        digest.update(image.sha256.encode())
    return digest.hexdigest()
