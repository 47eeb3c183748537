"""What PyTorch's modules give against the tensors of a graph that bear their names.

A graph that is compared with one exported anew shows what was changed after the export. It shows no
fault of the export itself, which would be in both. This does: its reference is the model as it was
trained, with nothing folded and nothing exported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hvq_edge.bundle.verification import Bisection, TensorError
from hvq_edge.export.graph.view import module_of
from hvq_edge.export.verify.bisect import TOLERANCE_FLOAT, first_outside, relative_error, values_of
from hvq_edge.model.backbone import SamePadConv
from hvq_edge.model.hvq_trans import HVQTrans

PYTORCH_MODULES = "PyTorch, module by module"
_COMPARED = (nn.Linear, nn.LayerNorm, SamePadConv)
_FOLDED = (".query", ".key", ".value")
"""The attention's scale is folded into some of these, others are looked up. Folding leaves the
outputs of all other linears, norms and convolutions as they are."""


def bisect_modules(
    model: HVQTrans,
    graph: Path,
    feed: Mapping[str, NDArray[Any]],
    *,
    image: str,
    tolerance: float = TOLERANCE_FLOAT,
) -> Bisection:
    """Compare every module's output that a float32 graph has too.

    Args:
        model: in eval mode, on the CPU.
        graph: the float32 graph that was exported from it.
        feed: ``frames``, and ``category`` (of the model's) where the model does not choose it.
        image: its name.
        tolerance: largest relative error that is right.
    """
    outputs = module_outputs(model, feed)
    proto = onnx.load(graph)
    writers = dict(_last_tensors(proto, outputs))
    tensors = [node.output[0] for node in writers.values()]
    values = values_of(proto, tensors, feed)
    errors = [
        TensorError(
            tensor=node.output[0],
            module=name,
            operator=node.op_type,
            error=relative_error(outputs[name], values[node.output[0]]),
        )
        for name, node in writers.items()
        if values[node.output[0]].shape == outputs[name].shape
    ]
    return first_outside(
        errors, precision="fp32", against=PYTORCH_MODULES, image=image, tolerance=tolerance
    )


def module_outputs(
    model: HVQTrans, feed: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]]:
    """Return what each linear, layer norm and convolution gives, by the module's name."""
    found: dict[str, NDArray[np.float32]] = {}

    def keep(name: str, output: Tensor) -> None:
        found[name] = output.numpy()

    chosen = feed.get("category")
    with ExitStack() as hooks, torch.inference_mode():
        for name, module in model.named_modules():
            if isinstance(module, _COMPARED) and not name.endswith(_FOLDED):
                hook = module.register_forward_hook(
                    lambda _module, _inputs, output, name=name: keep(name, output)
                )
                hooks.callback(hook.remove)
        category = None if chosen is None else torch.from_numpy(chosen.astype(np.int64))
        model(torch.from_numpy(feed["frames"]), category)
    return found


def _last_tensors(
    proto: onnx.ModelProto, outputs: Mapping[str, NDArray[Any]]
) -> Iterator[tuple[str, onnx.NodeProto]]:
    """Give each module's last node, in the order of the graph."""
    last: dict[str, int] = {}
    for place, node in enumerate(proto.graph.node):
        scope = module_of(node)
        while scope:  # a node of backbone.stem.conv is one of backbone.stem too
            if scope in outputs:
                last[scope] = place
            scope = scope.rpartition(".")[0]
    for name, place in sorted(last.items(), key=lambda entry: entry[1]):
        yield name, proto.graph.node[place]
