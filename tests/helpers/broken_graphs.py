"""For each lint rule, edits of an exported graph that break it and no other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from helpers.graph_edits import (
    add_constant,
    change_type,
    first,
    insert,
    pair,
    set_attribute,
    set_value,
    value_of,
    weight_above,
)
from onnx import TensorProto, helper, numpy_helper

Edit = Callable[[onnx.ModelProto], None]


def unknown_attribute(model):
    set_attribute(first(model, "Softmax"), "colour", 1)


def other_input_name(model):
    for node in model.graph.node:
        node.input[:] = ["images" if name == "frames" else name for name in node.input]
    model.graph.input[0].name = "images"


def odd_side(model):
    for dimension in model.graph.input[0].type.tensor_type.shape.dim[1:3]:
        dimension.dim_value = 63


def int64_codes(model):
    cast = next(node for node in model.graph.node if "codes" in node.output)
    writer = next(node for node in model.graph.node if cast.input[0] in node.output)
    writer.output[0] = "codes"
    model.graph.node.remove(cast)
    output = next(value for value in model.graph.output if value.name == "codes")
    output.type.tensor_type.elem_type = TensorProto.INT64


def further_output(model):
    name = first(model, "Softmax").output[0]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4))


def other_score_name(model):
    for value in (*model.graph.output, *model.graph.value_info):
        value.name = "scores" if value.name == "score" else value.name
    next(n for n in model.graph.node if "score" in n.output).output[0] = "scores"


def no_margin(model):
    """Left out of the outputs, but read, so that its nodes are not spare."""
    model.graph.output.remove(next(v for v in model.graph.output if v.name == "margin"))
    writer = next(node for node in model.graph.node if "category" in node.output)
    writer.output[0] = "category_alone"
    zero = add_constant(model, 0, np.int32)
    whole = helper.make_node("Cast", ["margin"], ["whole"], "top/Cast_90", to=TensorProto.INT32)
    nothing = helper.make_node("Mul", ["whole", zero], ["nothing"], "top/Mul_90")
    read = ["category_alone", "nothing"]
    model.graph.node.extend(
        [whole, nothing, helper.make_node("Add", read, ["category"], "top/Add_90")]
    )


def opset_19(model):
    model.opset_import[0].version = 19


def newer_ir(model):
    model.ir_version = 11


def idle_domain(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def contrib_operator(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    node = first(model, "Relu")
    change_type(node, "QuickGelu")
    node.domain = "com.microsoft"


def baked_batch(model):
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    node = next(n for n in model.graph.node if n.op_type == "Reshape" and n.input[1] in constants)
    shape = numpy_helper.to_array(constants[node.input[1]]).copy()
    assert shape[0] in (0, -1)
    shape[0] = 1
    if sum(node.input[1] in other.input for other in model.graph.node) == 1:
        model.graph.initializer.remove(constants[node.input[1]])
    node.input[1] = add_constant(model, shape, np.int64)


def second_varying_dimension(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"


def size_at_run_time(model):
    last = next(node for node in model.graph.node if "score" in node.output)
    size = helper.make_node("Size", ["map"], ["size"], "top/Size")
    as_float = helper.make_node("Cast", ["size"], ["size_f"], "top/Cast_90", to=TensorProto.FLOAT)
    last.output[0] = "score_alone"
    added = helper.make_node("Mul", ["score_alone", "size_f"], ["score"], "top/Mul_90")
    model.graph.node.extend([size, as_float, added])


def operator_of_opset_18(model):
    change_type(first(model, "Relu"), "Mish")


def uint8_transpose(model):
    cast = next(node for node in model.graph.node if node.input[0] == "frames")
    insert(model, cast, 0, ("Transpose", [], {"perm": [0, 2, 1, 3]}))


def some_float64(model):
    there = ("Cast", [], {"to": TensorProto.DOUBLE})
    back = ("Cast", [], {"to": TensorProto.FLOAT})
    insert(model, first(model, "Relu"), 0, there, back)


def on_score(model, *nodes):
    """Put nodes on the way from the map, as [batch, tokens], to a second maximum."""
    tokens = add_constant(model, [0, 16], np.int64)
    last = next(node for node in model.graph.node if "score" in node.output)
    last.output[0] = "score_alone"
    axis = add_constant(model, [1], np.int64)
    end = helper.make_node("ReduceMax", ["map", axis], ["of_map"], "top/ReduceMax_90", keepdims=0)
    joined = helper.make_node("Max", ["of_map", "score_alone"], ["score"], "top/Max_90")
    model.graph.node.extend([end, joined])
    insert(model, model.graph.node[-2], 0, ("Reshape", [tokens], {}), *nodes)


def topk_above_3840(model):
    repeats = add_constant(model, [1, 300], np.int64)
    k = add_constant(model, [3841], np.int64)
    on_score(model, ("Tile", [repeats], {}), ("TopK", [k], {"more_outputs": ["positions"]}))


def unsorted_topk(model):
    k = add_constant(model, [2], np.int64)
    on_score(model, ("TopK", [k], {"more_outputs": ["positions"], "sorted": 0}))


def resize_with(**attributes):
    def edit(model):
        sizes = add_constant(model, [64, 64], np.int64)
        resize = ("Resize", ["", "", sizes], {"mode": "linear", "axes": [2, 3], **attributes})
        insert(model, first(model, "Conv"), 0, resize)

    edit.__name__ = "resize_with_" + "_".join(attributes)
    return edit


def einsum_with_ellipsis(model):
    node = first(model, "MatMul", "encoder.0.self_attention/")
    change_type(node, "Einsum")
    set_attribute(node, "equation", "...ij,...jk->...ik")


def small_epsilon(model):
    set_attribute(first(model, "LayerNormalization"), "epsilon", 1e-12)


def sums_in_bfloat16(model):
    set_attribute(first(model, "LayerNormalization"), "stash_type", TensorProto.BFLOAT16)


def mean_as_well(model):
    first(model, "LayerNormalization").output.append("mean_as_well")


def positions_of_maxima(model):
    pool = ("MaxPool", [], {"kernel_shape": [1, 1], "more_outputs": ["positions"]})
    insert(model, first(model, "Conv"), 0, pool)


def uint8_pair(model):
    quantise = first(model, "QuantizeLinear")
    zero = add_constant(model, 0, np.uint8)
    for node in model.graph.node:
        if node is quantise or quantise.output[0] in node.input:
            node.input[2] = zero


def pair_without_zero_point(model):
    """ONNX says that QuantizeLinear without a zero point gives uint8."""
    quantise = first(model, "QuantizeLinear")
    for node in model.graph.node:
        if node is quantise or quantise.output[0] in node.input:
            del node.input[2]


def int32_bias(model):
    node = first(model, "MatMul", "input_projection")
    add = next(n for n in model.graph.node if node.output[0] in n.input)
    bias = value_of(model, next(name for name in add.input if name != node.output[0]))
    scale = add_constant(model, 0.01)
    set_int = np.zeros(bias.dims, np.int32)
    quantised = add_constant(model, set_int, np.int32)
    place = list(model.graph.node).index(add)
    inputs = [quantised, scale]
    label = "input_projection/DequantizeLinear_90"
    model.graph.node.insert(place, helper.make_node("DequantizeLinear", inputs, ["bias"], label))
    add.input[list(add.input).index(bias.name)] = "bias"
    model.graph.initializer.remove(bias)


def zero_point_3(model):
    set_value(value_of(model, first(model, "QuantizeLinear").input[2]), lambda old: old + 3)


def dead_channel(model):
    weights = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
    scale = next(value_of(model, n.input[1]) for n in weights if value_of(model, n.input[1]).dims)
    set_value(scale, lambda old: np.where(np.arange(len(old)) == 0, 0, old))


def scales_of_an_activation(model):
    insert(model, first(model, "Conv"), 0, *pair(model, scale=[0.1, 0.2, 0.3]))


def relu_of_int8(model):
    first_quantise = first(model, "QuantizeLinear")
    dequantise = next(n for n in model.graph.node if first_quantise.output[0] in n.input)
    insert(model, dequantise, 0, ("Relu", [], {}))


def rounded_distances(model):
    insert(model, first(model, "MatMul", "codebooks.0"), 0, *pair(model))


def limit_to_fp16(model):
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) == 1:
            set_value(tensor, lambda old: np.clip(old, -6e4, 6e4))


def fp16_softmax(model):
    limit_to_fp16(model)
    softmax = first(model, "Softmax")
    insert(model, softmax, 0, ("Cast", [], {"to": TensorProto.FLOAT16}))
    del model.graph.value_info[:]  # the file's notes on types no longer hold
    reader = next(node for node in model.graph.node if softmax.output[0] in node.input)
    insert(model, reader, 0, ("Cast", [], {"to": TensorProto.FLOAT}))


def fp16_file_with_large_constant(model):
    there, back = (("Cast", [], {"to": t}) for t in (TensorProto.FLOAT16, TensorProto.FLOAT))
    insert(model, first(model, "Relu"), 0, there, back)
    limit_to_fp16(model)
    set_value(weight_above(model, 8)[1], lambda old: np.where(old == old.max(), 1e5, old))


def weights_elsewhere(model):
    _, tensor = weight_above(model, 1024)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def numbered_name(model):
    first(model, "Conv").name = "node_Conv_7"


def name_twice(model):
    one, other = [node for node in model.graph.node if node.op_type == "Softmax"][:2]
    other.name = one.name


def weight_twice(model):
    node, weight = weight_above(model, 512)
    copied = onnx.TensorProto()
    copied.CopyFrom(weight)
    copied.name = "the same again"
    model.graph.initializer.append(copied)
    place = list(model.graph.node).index(node)
    again = helper.make_node("MatMul", [node.input[0], copied.name], ["again"], "added/MatMul")
    maximum = helper.make_node("Max", ["again", "once"], [node.output[0]], "added/Max")
    list(model.graph.node)[place].output[0] = "once"
    model.graph.node.insert(place + 1, again)
    model.graph.node.insert(place + 2, maximum)


def spare_constant(model):
    add_constant(model, np.arange(3.0))


def spare_node(model):
    model.graph.node.append(helper.make_node("Relu", ["map"], ["nothing"], "top/Relu_90"))


def identity(model):
    insert(model, first(model, "Softmax"), 0, ("Identity", [], {}))


def cast_to_itself(model):
    insert(model, first(model, "Softmax"), 0, ("Cast", [], {"to": TensorProto.FLOAT}))


def unfolded_constant(model):
    node, _ = weight_above(model, 8)
    insert(model, node, 1, ("Neg", [], {}))


def one_nan(model):
    set_value(weight_above(model, 8)[1], lambda old: np.where(old == old.max(), np.nan, old))


def one_infinity(model):
    set_value(weight_above(model, 8)[1], lambda old: np.where(old == old.max(), -np.inf, old))


def path_in_a_node(model):
    first(model, "Conv").doc_string = 'File "/home/anna/line 3/export.py", line 12'


def windows_path(model):
    model.metadata_props.add(key="made from", value=r"C:\Users\anna\runs\latest")


def user_name(model):
    model.graph.doc_string = "made by factory-user-7 on Monday"


FLOAT_EDITS: dict[str, list[Edit]] = {
    "valid-onnx": [unknown_attribute],
    "inputs": [other_input_name],
    "outputs": [int64_codes, further_output, other_score_name, no_margin],
    "opset": [opset_19],
    "ir-version": [newer_ir],
    "domains": [idle_domain, contrib_operator],
    "static-shapes": [baked_batch],
    "data-dependent": [size_at_run_time],
    "operators": [operator_of_opset_18],
    "uint8-only-cast": [uint8_transpose],
    "element-types": [some_float64],
    "topk": [topk_above_3840, unsorted_topk],
    "resize": [
        resize_with(antialias=1),
        resize_with(keep_aspect_ratio_policy="not_larger"),
        resize_with(coordinate_transformation_mode="half_pixel_symmetric"),
    ],
    "einsum": [einsum_with_ellipsis],
    "layer-normalisation": [small_epsilon, sums_in_bfloat16, mean_as_well],
    "maxpool-positions": [positions_of_maxima],
    "decisions-in-float": [rounded_distances, fp16_softmax],
    "fp16-range": [fp16_file_with_large_constant],
    "no-external-data": [weights_elsewhere],
    "file-size": [spare_node],  # with a limit of a thousand bytes; see below
    "node-names": [numbered_name, name_twice],
    "duplicate-constants": [weight_twice],
    "unused-constants": [spare_constant],
    "unread-nodes": [spare_node],
    "idle-nodes": [identity, cast_to_itself],
    "folded-constants": [unfolded_constant],
    "finite-constants": [one_nan, one_infinity],
    "no-traces": [path_in_a_node, windows_path, user_name],
}


INT8_EDITS: dict[str, list[Edit]] = {
    "quantised-to-int8": [uint8_pair, pair_without_zero_point],
    "float-biases": [int32_bias],
    "zero-points": [zero_point_3],
    "scales": [dead_channel, scales_of_an_activation],
    "quantised-pairs": [relu_of_int8],
}
