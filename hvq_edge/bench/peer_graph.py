"""Any ONNX graph with one image as input, to time ours beside: an anomalib export, say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.closeable import Closeable
from hvq_edge.common.openvino_core import openvino_core
from hvq_edge.errors import InputError, MissingCapability, SettingsError
from hvq_edge.runtime.cpu.processor import processor_name

PEER_BACKENDS = ("openvino", "onnxruntime")

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "f32": np.float32,
    "f16": np.float16,
    "u8": np.uint8,
}


class PeerGraph(Closeable):
    """An opened graph.

    Args:
        infer: runs the graph on one array.
        shape: shape of its input; ``None`` where a dimension is open.
        dtype: dtype of its input.
        side: side of its image in pixels, where the shape leaves that open.
        path: the file, for messages.
        device: name of the device, for reports.

    Raises:
        InputError: the input is no image.
    """

    def __init__(
        self,
        infer: Callable[[NDArray[Any]], object],
        shape: Sequence[int | None],
        dtype: str,
        *,
        side: int,
        path: Path,
        device: str,
    ) -> None:
        if len(shape) != 4 or dtype not in _DTYPES or 3 not in (shape[1], shape[3]):
            raise InputError(
                f"the input of {path} is no image: {dtype} {list(shape)}.",
                next_step="give a graph with one input [batch, 3, height, width] or "
                "[batch, height, width, 3]",
            )
        self._infer: Callable[[NDArray[Any]], object] | None = infer
        self._shape = [
            place if place is not None else (side if i else None) for i, place in enumerate(shape)
        ]
        self._dtype = _DTYPES[dtype]
        self.device = device

    def call(self, batch: int) -> Callable[[], object]:
        """Return a call on a batch of noise.

        Raises:
            InputError: the graph has another batch, and only that.
        """
        infer = self._infer
        if infer is None:
            raise InputError("the graph is closed.")
        if self._shape[0] not in (None, batch):
            raise InputError(f"its batch is {self._shape[0]} and no other.")
        shape = [batch, *(int(place or 1) for place in self._shape[1:])]
        noise = np.random.default_rng(0).random(shape)
        frames = (noise * 255 if self._dtype is np.uint8 else noise).astype(self._dtype)
        return lambda: infer(frames)

    def close(self) -> None:
        """Free it; calling it twice is fine."""
        self._infer = None


def open_peer(path: Path, backend: str, threads: int | None, side: int) -> PeerGraph:
    """Open a graph as :mod:`hvq_edge.runtime` opens ours: float32 stays float32, latency first.

    Args:
        path: the ONNX file.
        backend: ``openvino`` or ``onnxruntime``.
        threads: of one call; ``None`` leaves it to the library.
        side: pixels a side of its images, where the graph leaves that open.

    Raises:
        SettingsError: another backend.
        MissingCapability: it is not installed.
        InputError: no such file, it cannot be loaded, or its input is not one image.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}.", next_step="name an ONNX file with --peers")
    openers = {"openvino": _openvino, "onnxruntime": _onnxruntime}
    if backend not in openers:
        raise SettingsError(f"{backend} runs no ONNX file of others.")
    try:
        return openers[backend](path, threads, side)
    except ImportError as error:
        raise MissingCapability(
            f"{backend} cannot be imported: {error}.", next_step=f"run pip install {backend}"
        ) from error
    except InputError:
        raise
    except Exception as error:  # the libraries' exceptions share no public base class
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{backend} cannot load {path}: {first}.") from error


def _onnxruntime(path: Path, threads: int | None, side: int) -> PeerGraph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    _check_one(path, len(inputs))
    shape = [place if isinstance(place, int) else None for place in inputs[0].shape]
    return PeerGraph(
        lambda frames: session.run(None, {inputs[0].name: frames}),
        shape,
        inputs[0].type,
        side=side,
        path=path,
        device=f"{processor_name()}, ONNX Runtime {onnxruntime.__version__}",
    )


def _openvino(path: Path, threads: int | None, side: int) -> PeerGraph:
    import openvino

    core = openvino_core()
    model = core.read_model(path)
    _check_one(path, len(model.inputs))
    shape = [
        place.get_length() if place.is_static else None for place in model.inputs[0].partial_shape
    ]
    dtype = model.inputs[0].element_type.get_type_name()
    properties: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    if threads is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
    compiled: dict[int, Any] = {}

    def infer(frames: NDArray[Any]) -> object:
        # Compiled for the batch, as our own engine is: a dynamic shape costs time.
        if len(frames) not in compiled:
            single = model.clone()
            single.reshape(list(frames.shape))
            compiled[len(frames)] = core.compile_model(
                single, "CPU", properties
            ).create_infer_request()
        return compiled[len(frames)].infer([frames])

    return PeerGraph(
        infer,
        shape,
        dtype,
        side=side,
        path=path,
        device=f"{processor_name()}, OpenVINO {openvino.__version__.split('-')[0]}",
    )


def _check_one(path: Path, inputs: int) -> None:
    if inputs != 1:
        raise InputError(
            f"{path} has {inputs} inputs.", next_step="give a graph with one image as input"
        )
