"""The layers that TensorRT-RTX compiled, read from what its builder logs.

With a verbose logger and detailed profiling verbosity it writes a line a layer: name, kind, the
tensors that go in and out with their types, and the ONNX nodes it came from. That shows without a
GPU in which type each product is computed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

_LINE = re.compile(
    r"Name: (?P<name>\S+), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>.*?), "
    r"Constants: (?P<constants>.*?), Outputs: (?P<outputs>.*?), TacticName: (?P<tactic>[^,]*), "
    r"StreamId: .*?, Metadata: (?P<nodes>.*)"
)
_TYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_PRODUCTS = ("gemm", "correlation", "runtime_fusion")
_ATTENTION = "_gemm_mha"  # both products of an attention and its softmax in one kernel
_FLOATS = frozenset({"Float", "Half", "BFloat16"})


@dataclass(frozen=True)
class CompiledLayer:
    """One kernel, or one wait for another stream."""

    name: str
    kind: str
    """``gemm``, ``correlation`` (a convolution), ``runtime_fusion`` (a product with what follows
    it), ``kgen`` (elementwise, written for the purpose), ``signal`` ..."""
    inputs: tuple[str, ...]
    """Type of each tensor: ``Float``, ``Half``, ``Int8``, ``Int32``, ``UInt8``, ``Bool`` ..."""
    constants: tuple[str, ...]
    """The same of weights; of a product the first is the weight itself."""
    outputs: tuple[str, ...]
    nodes: frozenset[str]
    """Names of ONNX nodes that went into it; an epilogue in a kernel of its own has its product's
    name too."""

    @property
    def is_product(self) -> bool:
        """Whether it is a convolution or a matrix product."""
        return self.kind in _PRODUCTS or self.name.startswith(_ATTENTION)

    @property
    def factors(self) -> frozenset[str]:
        """Types of what a product multiplies.

        Constants that follow the weight are scales and biases.
        """
        return frozenset(self.inputs + self.constants[: max(2 - len(self.inputs), 0)])


def parse_layers(log: str) -> tuple[CompiledLayer, ...]:
    """Return the layers in a builder's log, in order; lines of other form are left out."""
    return tuple(_layer(found) for found in map(_LINE.search, log.splitlines()) if found)


def check_layers(
    layers: Iterable[CompiledLayer], factors: Mapping[str, str], casts: Collection[str]
) -> list[str]:
    """Hold compiled layers against what the graph says.

    Args:
        layers: see :func:`parse_layers`.
        factors: in which type the graph computes each product, by node:
            :func:`benchmarks.gpu.typed_nodes.factor_types`.
        casts: names of the nodes that change a type: Cast, QuantizeLinear, DequantizeLinear.

    Returns:
        What differs: a product that is missing or computed in another type, and a change from one
        float type to another that the graph does not have.
    """
    layers = tuple(layers)
    faults = []
    products = [layer for layer in layers if layer.is_product]
    for name, wanted in sorted(factors.items()):
        own = [layer for layer in products if name in layer.nodes]
        if not own and not _is_elementwise(name, wanted, layers, casts):
            faults.append(f"{name} is in no product")
        faults += [
            f"{name} is {wanted} in the graph and computed in {', '.join(sorted(layer.factors))}"
            for layer in own
            if layer.factors != {wanted}
        ]
    for layer in layers:
        before = _FLOATS & frozenset(layer.inputs + layer.constants)
        after = _FLOATS & frozenset(layer.outputs)
        if before and after - before and not layer.nodes & frozenset(casts):
            faults.append(
                f"{layer.name} turns {', '.join(sorted(before))} into {', '.join(sorted(after))}"
            )
    return faults


def _is_elementwise(
    name: str, wanted: str, layers: Iterable[CompiledLayer], casts: Collection[str]
) -> bool:
    """Tell whether a product became part of elementwise kernels, as tiny ones do, in its type.

    One of them may take in a cast of the graph, and what comes before that, as well: then it must
    have a factor of the product's type and give that type out.
    """
    own = [layer for layer in layers if name in layer.nodes]
    kinds: set[str] = set()
    for layer in own:
        if layer.nodes & frozenset(casts) and wanted in layer.constants:
            kinds.update(layer.outputs)
        else:
            kinds.update(layer.inputs + layer.constants)
    return bool(own) and kinds & _FLOATS == {wanted}


def _layer(found: re.Match[str]) -> CompiledLayer:
    inputs, constants, outputs = (
        tuple(_TYPE.findall(found[part])) for part in ("inputs", "constants", "outputs")
    )
    nodes = frozenset(_NODE.findall(found["nodes"]))
    return CompiledLayer(found["name"], found["kind"], inputs, constants, outputs, nodes)
