"""TensorRT's runtime on the stand-in of a GPU, for engines whose plan is an ONNX file.

``add_runtime`` gives a stand-in of TensorRT (``tensorrt_stand_in``) the names that running takes,
each version's own; ONNX Runtime computes.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from helpers.gpu_stand_in import LazyStream, at
from helpers.tensorrt_stand_in import API, FILES, Enumeration, Library, strict

DTYPES = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(float)": np.float32}


def add_runtime(module: Library, *, batches=(1, 1, 8), fails: str = "") -> Library:
    """Let a stand-in run plans.

    Args:
        module: changed.
        batches: least, best and largest.
        fails: ``deserialise``, ``context``, ``shape``, ``execute`` or ``capture``.
    """
    version = module.__version__
    names = json.loads((API / FILES[version]).read_text(encoding="utf-8"))
    module.TensorIOMode = Enumeration("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
    module.nptype = lambda dtype: DTYPES[dtype]
    module.runtimes = []
    module.executions = 0

    def deserialise(runtime: Any, plan: bytes) -> Any:
        if fails == "deserialise":
            error = SimpleNamespace(name="ERROR")
            runtime._logger.log(error, "Serialization assertion failed")
            return None
        session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
        made = engine()
        made._ports = {port.name: port for port in (*session.get_inputs(), *session.get_outputs())}
        made._inputs = {port.name for port in session.get_inputs()}
        made._session = session
        return made

    def make_runtime(logger: Any) -> Any:
        assert logger._made
        made = strict("Runtime", names["Runtime"], {"deserialize_cuda_engine": deserialise})()
        made._logger = logger
        module.runtimes.append(made)
        return made

    module.Runtime = make_runtime

    def shape(port: Any) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in port.shape)

    def new_context(engine: Any) -> Any:
        if fails == "context":
            return None
        made = context()
        made._engine, made._addresses, made._shapes = engine, {}, {}
        return made

    io = module.TensorIOMode
    engine = strict(
        "ICudaEngine",
        names["ICudaEngine"],
        {
            "num_io_tensors": property(lambda self: len(self._ports)),
            "get_tensor_name": lambda self, i: list(self._ports)[i],
            "get_tensor_mode": lambda self, name: io.INPUT if name in self._inputs else io.OUTPUT,
            "get_tensor_shape": lambda self, name: shape(self._ports[name]),
            "get_tensor_dtype": lambda self, name: self._ports[name].type,
            "get_tensor_profile_shape": lambda self, name, _: tuple(
                (batch, *shape(self._ports[name])[1:]) for batch in batches
            ),
            "create_execution_context": new_context,
        },
    )

    def set_input_shape(self: Any, name: str, wanted: tuple[int, ...]) -> bool:
        if fails == "shape" or not batches[0] <= wanted[0] <= batches[2]:
            return False
        self._shapes[name] = wanted
        return True

    def set_tensor_address(self: Any, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute(self: Any, stream: int) -> bool:
        on = LazyStream.all[stream]
        if fails == "execute" or (fails == "capture" and on.noted is not None):
            return False
        ports = self._engine._ports
        session, inputs = self._engine._session, self._engine._inputs
        addresses, shapes = dict(self._addresses), dict(self._shapes)  # as they are now
        module.executions += 1

        def compute() -> None:
            feed = {
                name: at(addresses[name], wanted, DTYPES[ports[name].type])
                for name, wanted in shapes.items()
            }
            outputs = [name for name in ports if name not in inputs]
            for name, result in zip(outputs, session.run(outputs, feed), strict=True):
                at(addresses[name], result.shape, result.dtype)[...] = result

        on.put(compute)
        return True

    context = strict(
        "IExecutionContext",
        names["IExecutionContext"],
        {
            "set_input_shape": set_input_shape,
            "set_tensor_address": set_tensor_address,
            "execute_async_v3": execute,
        },
    )
    return module
