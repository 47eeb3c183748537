"""Operators that the ONNX parser of TensorRT 10.3 imports, the oldest that graphs must build on.

From the support matrix of onnx-tensorrt as of TensorRT 8.5 (``docs/operators.md``: the rows marked
Y) and what its ``docs/Changelog.md`` adds up to 10.3. Left out: what opset 18 does not have or has
withdrawn (Scatter, Upsample, GroupNormalization, DeformConv ...), what is not ONNX (ImageScaler,
ScaledTanh ...), what came after 10.3 (windows in 10.4, STFT in 10.5) and what came at a time that
the changelog does not tell (Gelu, Mish, CastLike).
https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md
"""

from __future__ import annotations

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
