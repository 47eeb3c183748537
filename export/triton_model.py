"""A model of a Triton server's Python backend: it runs the ONNX graph beside it on the processor.

``hvq-edge export --triton DIR --triton-backend python`` copies this file into a repository as
``model.py``. The server's Python needs NumPy and OpenVINO or ONNX Runtime, nothing of hvq-edge.
https://github.com/triton-inference-server/python_backend
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import site
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

# The server's Python does not read it, and this is imported before NumPy is.
for _folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
    site.addsitedir(_folder)


class TritonPythonModel:
    """What the server makes of this file; it calls the methods by their names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph with OpenVINO, or with ONNX Runtime where that is not installed.

        Args:
            args: the server's: where the model stands, and its configuration as JSON.

        Raises:
            ValueError: the graph is not the one that the configuration names.
        """
        config = json.loads(args["model_config"])
        given = {name: one["string_value"] for name, one in config["parameters"].items()}
        folder = Path(args["model_repository"]) / args["model_version"]
        graph = (folder / "model.onnx").read_bytes()
        digest, wanted = hashlib.sha256(graph).hexdigest(), given["hvq_edge.onnx_sha256"]
        if digest != wanted:
            raise ValueError(
                f"{folder}/model.onnx has the SHA-256 {digest[:12]}, and config.pbtxt says "
                f"{wanted[:12]}: write the repository again"
            )
        self._inputs = [one["name"] for one in config["input"]]
        # One number a frame is of length 1 here, and has no dimension in the graph.
        self._outputs = {one["name"]: one["dims"] in (["1"], [1]) for one in config["output"]}
        try:
            self._run = _openvino(graph, json.loads(given["hvq_edge.openvino"]))
        except ImportError:
            self._run = _onnxruntime(graph, list(self._outputs))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests that the server gathered into one batch."""
        import numpy as np
        import triton_python_backend_utils as server

        # By DLPack: a server that was built before NumPy 2 reads and writes NumPy's arrays wrongly.
        given = [
            {
                name: np.from_dlpack(server.get_input_tensor_by_name(request, name))
                for name in self._inputs
            }
            for request in requests
        ]
        feed = {name: np.concatenate([one[name] for one in given]) for name in self._inputs}
        feed = {name: all_.reshape(-1) if all_.ndim == 2 else all_ for name, all_ in feed.items()}
        try:
            results = self._run(feed)
        except Exception as error:  # noqa: BLE001  # they share no public base class
            failed = server.InferenceResponse(error=server.TritonError(str(error)))
            return [failed for _ in requests]
        ends = np.cumsum([len(one[self._inputs[0]]) for one in given])[:-1]
        answers: list[list[Any]] = [[] for _ in requests]
        for name, single in self._outputs.items():
            whole = results[name].reshape(-1, 1) if single else results[name]
            for answer, part in zip(answers, np.split(whole, ends), strict=True):
                answer.append(server.Tensor.from_dlpack(name, _Given(np.array(part))))
        return [server.InferenceResponse(output_tensors=answer) for answer in answers]


class _Given:
    """An array that is handed over by DLPack.

    The server calls its deleter, and gives the capsule a name that NumPy does not know: NumPy's
    destructor would write a trace into the server's log for each.
    """

    def __init__(self, array: Any) -> None:  # noqa: ANN401  # NumPy is imported when it is found
        self._array = array

    def __dlpack__(self, **_: object) -> object:
        capsule = self._array.__dlpack__()
        ctypes.pythonapi.PyCapsule_SetDestructor(ctypes.py_object(capsule), None)
        return capsule

    def __dlpack_device__(self) -> object:
        return self._array.__dlpack_device__()


def _openvino(graph: bytes, properties: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    import openvino

    core = openvino.Core()
    model = core.read_model(BytesIO(graph))
    # For any batch it would round INT8 otherwise than for the single frames that thresholds and
    # known answers come from, and hardly be faster.
    model.reshape({port: [1, *list(port.partial_shape)[1:]] for port in model.inputs})
    compiled = core.compile_model(model, "CPU", properties)

    def run(feed: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        frames = len(next(iter(feed.values())))
        rows = [
            compiled({name: values[i : i + 1] for name, values in feed.items()})
            for i in range(frames)
        ]
        return {
            name: np.concatenate([row[port] for row in rows])
            for port in compiled.outputs
            for name in port.get_names()
        }

    return run


def _onnxruntime(graph: bytes, outputs: list[str]) -> Callable[[dict[str, Any]], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return lambda feed: dict(zip(outputs, session.run(outputs, feed), strict=True))
