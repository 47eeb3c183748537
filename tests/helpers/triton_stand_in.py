"""A Triton server in this process: gRPC and the KServe v2 protocol for real, ONNX Runtime computes.

It loads a repository as Triton does and refuses what Triton would: a configuration that is not of
its schema, tensors of other names, types or shapes than that says, batches above the largest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

TYPES = {
    model_config_pb2.TYPE_UINT8: ("UINT8", np.uint8),
    model_config_pb2.TYPE_INT32: ("INT32", np.int32),
    model_config_pb2.TYPE_FP32: ("FP32", np.float32),
}


def read_config(model: Path) -> model_config_pb2.ModelConfig:
    text = (model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


class Model:
    def __init__(self, folder: Path) -> None:
        self.config = read_config(folder)
        assert self.config.name == folder.name, "Triton wants the folder to be called as the model"
        file = folder / "1" / "model.onnx"
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self.batches: list[int] = []

    def infer(self, request: Any) -> Any:
        known = {one.name: one for one in self.config.input}
        assert {one.name for one in request.inputs} == set(known)
        feed = {}
        for one, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            name, dtype = TYPES[known[one.name].data_type]
            batch, *shape = one.shape
            assert one.datatype == name
            assert shape == list(known[one.name].dims), f"{one.name}: {shape}"
            if batch > self.config.max_batch_size:
                raise ValueError(
                    f"inference request batch-size must be <= {self.config.max_batch_size}"
                )
            values = np.frombuffer(raw, dtype).reshape(one.shape)
            feed[one.name] = self._reshaped(known[one.name], values)
        self.batches.append(batch)
        wanted = [one.name for one in request.outputs]
        outputs = {one.name: one for one in self.config.output}
        answer = service_pb2.ModelInferResponse(model_name=self.config.name, model_version="1")
        for name, result in zip(wanted, self.session.run(wanted, feed), strict=True):
            kind, dtype = TYPES[outputs[name].data_type]
            assert result.dtype == dtype, f"{name}: {result.dtype}"
            shape = [batch, *outputs[name].dims]
            assert int(np.prod(shape)) == result.size, f"{name}: {result.shape}, not {shape}"
            answer.outputs.add(name=name, datatype=kind, shape=shape)
            answer.raw_output_contents.append(result.tobytes())
        return answer

    @staticmethod
    def _reshaped(config: Any, values: np.ndarray) -> np.ndarray:
        if not config.HasField("reshape"):
            return values
        return values.reshape(len(values), *config.reshape.shape)


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, repository: Path) -> None:
        self.models = {path.name: Model(path) for path in repository.iterdir() if path.is_dir()}
        self.broken = ""
        self.held_up = threading.Event()
        self.held_up.set()

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(name="triton", version="2.73.0")

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}'")
        return service_pb2.ModelConfigResponse(config=self.models[request.name].config)

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.held_up.wait(20)
        if self.broken:
            context.abort(grpc.StatusCode.INTERNAL, self.broken)
        try:
            return self.models[request.model_name].infer(request)
        except (AssertionError, ValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


@contextmanager
def serving(repository: Path) -> Iterator[tuple[str, Server]]:
    """Give the address of a server and the server."""
    made = grpc.server(futures.ThreadPoolExecutor(4))
    service = Server(repository)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, made)
    port = made.add_insecure_port("127.0.0.1:0")
    made.start()
    try:
        yield f"127.0.0.1:{port}", service
    finally:
        service.held_up.set()
        made.stop(grace=None).wait(5)
