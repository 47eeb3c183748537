"""Lint rules: what some engine refuses or gets wrong, TensorRT 10.3 first of all.

TensorRT and TensorRT-RTX share the parser that onnx-tensorrt publishes. What a reason says of a
refusal was tried on TensorRT-RTX 1.7, which is newer than 10.3 and takes more; where it takes what
the matrix for older versions rules out, the reason says so.
"""

from __future__ import annotations

import re

from onnx import TensorProto

from hvq_edge.export.graph.view import GraphView, attributes
from hvq_edge.export.lint.contract import ONNX_DOMAINS
from hvq_edge.export.lint.rule import Hits, rule

MOST_TOPK = 3840
# Operators that the ONNX parser of TensorRT 10.3 imports, the oldest that graphs must build on: the
# rows marked Y of onnx-tensorrt's support matrix as of TensorRT 8.5 (``docs/operators.md``), and
# what its ``docs/Changelog.md`` adds up to 10.3. Left out: what opset 18 does not have or has
# withdrawn (Scatter, Upsample, GroupNormalization, DeformConv ...), what is not ONNX (ImageScaler,
# ScaledTanh ...), what came after 10.3 (windows in 10.4, STFT in 10.5) and what came at a time that
# the changelog does not tell (Gelu, Mish, CastLike).
# https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md
_MATRIX_OF_8_5 = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil
Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace
DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather
GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
GridSample GRU HardSwish HardSigmoid Identity If InstanceNormalization IsNaN LeakyRelu Less
LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean
MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu
QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize ReverseSequence RNN RoiAlign Round Scan ScatterElements
ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth
Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
_ADDED_BY_10_3 = "LayerNormalization IsInf Hardmax"  # 8.6, 8.6, 9.2

TENSORRT_10_3 = frozenset(f"{_MATRIX_OF_8_5} {_ADDED_BY_10_3}".split())
"""Names in the ONNX domain itself."""


@rule(
    "An operator that it does not know it takes for a plugin, finds none, and the build on JetPack "
    "6 ends; the list is onnx-tensorrt's support matrix (export/lint/engines.py)."
)
def operators(graph: GraphView) -> Hits:
    """Only operators that the parser of TensorRT 10.3 imports."""
    for node in graph.nodes:
        if node.domain in ONNX_DOMAINS and node.op_type not in TENSORRT_10_3:
            yield node.name, f"TensorRT 10.3 has no importer for {node.op_type}"


@rule(
    "TensorRT takes uint8 as an input that is cast, and nowhere else: a Transpose of uint8 is "
    "refused, so the Cast comes first."
)
def uint8_only_cast(graph: GraphView) -> Hits:
    """Nothing but Cast reads ``frames`` or any other uint8 value."""
    for name, value in graph.types.items():
        if value != TensorProto.UINT8:
            continue
        for node in graph.readers[name]:
            if node.op_type not in ("Cast", "QuantizeLinear", "DequantizeLinear"):
                yield node.name, f"{node.op_type} reads {name}, which is uint8"


@rule("TensorRT's TopK ends at K = 3840 and always sorts; a constant K keeps the shapes static.")
def topk(graph: GraphView) -> Hits:
    """TopK has a constant K of at most 3840, sorted."""
    for node in graph.nodes:
        if node.op_type != "TopK":
            continue
        k = graph.constant(node.input[1])
        if k is None:
            yield node.name, "K is not a constant"
        elif int(k.max()) > MOST_TOPK:
            yield node.name, f"K is {int(k.max())}, above {MOST_TOPK}"
        if attributes(node).get("sorted", 1) != 1:
            yield node.name, "sorted is 0"


@rule(
    "The parser has no antialias, keeps no aspect ratio, crops nothing, and knows these modes; "
    "OpenVINO and ONNX Runtime agree on them as well."
)
def resize(graph: GraphView) -> Hits:
    """Resize without antialias, stretched, in a mode that all engines have."""
    allowed = {
        "antialias": (0,),
        "keep_aspect_ratio_policy": ("stretch",),
        "mode": ("nearest", "linear", "cubic"),
        "coordinate_transformation_mode": (
            *("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn"),
            *("asymmetric", "align_corners"),
        ),
        "nearest_mode": ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
    }
    for node in graph.nodes:
        if node.op_type == "Resize":
            for name, value in attributes(node).items():
                if name in allowed and value not in allowed[name]:
                    yield node.name, f"{name} is {value}"


@rule(
    "onnx-tensorrt's support matrix rules out both, and its changelog lifts neither up to 10.3 "
    "(TensorRT-RTX 1.7 takes an ellipsis)."
)
def einsum(graph: GraphView) -> Hits:
    """Einsum without an ellipsis and without a label twice in a term."""
    for node in graph.nodes:
        if node.op_type != "Einsum":
            continue
        equation = str(attributes(node)["equation"])
        terms = re.split(",|->", equation.replace(" ", ""))
        if "..." in equation or any(len(set(term)) < len(term) for term in terms):
            yield node.name, f"the equation {equation} has an ellipsis or a diagonal"


@rule("The parser takes one output of MaxPool; positions of the maxima are refused.")
def maxpool_positions(graph: GraphView) -> Hits:
    """MaxPool gives no positions."""
    for node in graph.nodes:
        if node.op_type == "MaxPool" and any(node.output[1:]):
            yield node.name, f"gives positions as {node.output[1]}"


RULES = (
    operators,
    uint8_only_cast,
    topk,
    resize,
    einsum,
    maxpool_positions,
)
