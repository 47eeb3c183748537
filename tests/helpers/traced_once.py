"""Nets of the same form are traced once, for all workers."""

import hashlib
import io
import pickle
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers.made_once import MakeOnce


@pytest.fixture(scope="session", autouse=True)
def traced_once(made_once: MakeOnce) -> Iterator[None]:
    """Nets of the same form are traced once; each graph gets the weights of its own net.

    Tracing is most of an export's time. What is kept is the graph before torch.onnx simplifies it,
    when each weight still has its name in the net.
    """
    if find_spec("torch") is None:
        yield
        return

    import onnx_ir
    import torch

    export = torch.onnx.export

    def traced(net, arguments, *, optimize=True, **named):
        def trace(path: Path) -> None:
            onnx_ir.save(export(net, arguments, optimize=False, **named).model, path)

        model = onnx_ir.load(made_once(f"traced {form_of(net, arguments, repr(named))}", trace))
        weights = net.state_dict()
        for name in weights.keys() & model.graph.initializers.keys():
            weight = onnx_ir.tensor(weights[name].numpy(), name=name)
            model.graph.initializers[name].const_value = weight
        program = torch.onnx.ONNXProgram(model, None)
        if optimize:
            program.optimize()
        return program

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", traced)
        yield


def form_of(net: Any, *others: object) -> str:
    """A digest of all that is in a net and its arguments but the numbers of its weights."""
    from torch import Tensor

    weights = {id(weight): name for name, weight in net.state_dict(keep_vars=True).items()}

    class Form(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            if isinstance(value, (set, frozenset)):
                return sorted(map(repr, value))  # their order is of the process
            if not isinstance(value, Tensor):
                return None
            name = weights.get(id(value))
            return (
                name or value.numpy().tobytes(),
                str(value.dtype),
                (*value.shape, *value.stride()),
            )

    form = io.BytesIO()
    pickler = Form(form)
    pickler.fast = True  # what is equal is written alike, whether it is one object or two
    pickler.dump((net, *others))
    return hashlib.sha256(form.getbuffer()).hexdigest()
