"""float16 graphs: what is float16 and what is not, and that the numbers are float16's."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.small_graphs import default_nodes
from onnx import TensorProto, helper, numpy_helper

from benchmarks.accuracy.fp16_emulation import emulate_fp16
from hvq_edge.calibration.quantise import activations_of, quantise_graph
from hvq_edge.export.fp16.convert import FP16_PAIR_OPSET, fp16_nodes, to_fp16
from hvq_edge.export.fp16.islands import HEADROOM, find_islands
from hvq_edge.export.graph.view import GraphView, module_of
from hvq_edge.export.lint.check import check_graph_file
from hvq_edge.export.lint.precision import FLOAT_MODULES, FP16_MAX


def run(model: onnx.ModelProto, **feed: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


@pytest.mark.parametrize("mode", ["auto", "input", "one"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_graph_in_float16_is_sound_and_near(small_graphs, mode, precision, tmp_path):
    graph = onnx.load(small_graphs[mode, precision])
    before = graph.SerializeToString()
    fp16 = to_fp16(graph)
    assert graph.SerializeToString() == before
    onnx.checker.check_model(fp16, full_check=True)
    path = tmp_path / "fp16.onnx"
    onnx.save(fp16, path)
    assert not [finding for finding in check_graph_file(path) if finding.severity == "error"]
    assert path.stat().st_size < small_graphs[mode, precision].stat().st_size
    opset = next(entry.version for entry in fp16.opset_import if not entry.domain)
    assert opset == (FP16_PAIR_OPSET if precision == "int8" else graph.opset_import[0].version)
    assert [(v.name, v.type.tensor_type.elem_type) for v in fp16.graph.output] == [
        (v.name, v.type.tensor_type.elem_type) for v in graph.graph.output
    ]
    names = [node.name for node in fp16.graph.node]
    assert len(set(names)) == len(names)
    side = graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    frames = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    feed = {"frames": frames}
    if mode == "input":
        feed["category"] = np.array([0, 1, 1], np.int32)
    exact = run(graph, **feed)
    for found in (run(fp16, **feed), run(emulate_fp16(fp16), **feed)):
        same = (exact["codes"] == found["codes"]).all((1, 2))
        error = np.abs(exact["map"] - found["map"]).max() / np.abs(exact["map"]).max()
        assert 0 < error < (0.05 if same.all() else 1.0)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_decides_stays_in_float32_and_weights_do_not(small_graphs, precision):
    fp16 = to_fp16(onnx.load(small_graphs["auto", precision]))
    view = GraphView(fp16)
    types = view.types
    for node in view.nodes:
        decides = module_of(node).partition(".")[0] in FLOAT_MODULES
        if (
            decides or node.op_type in ("LayerNormalization", "Softmax")
        ) and node.op_type != "Cast":
            assert TensorProto.FLOAT16 not in {types.get(name) for name in node.input}, node.name
        if node.op_type == "Conv":
            assert {types[name] for name in node.input} == {TensorProto.FLOAT16}, node.name
    linears = [n for n in view.nodes if n.op_type == "MatMul" and "feedforward" in n.name]
    assert linears
    assert all(types[name] == TensorProto.FLOAT16 for n in linears for name in n.input)


def test_a_pair_keeps_its_steps(small_graphs):
    graph = onnx.load(small_graphs["auto", "fp32"])
    layers = default_nodes(graph)
    ranges = dict.fromkeys(activations_of(graph, layers), 3.3)
    quantised = quantise_graph(graph, ranges, layers)
    fp16 = to_fp16(quantised)
    scales = {t.name: numpy_helper.to_array(t) for t in fp16.graph.initializer}
    for tensor in quantised.graph.initializer:
        if tensor.name.endswith("_scale") and f"{tensor.name}_fp16" in scales:
            stored = numpy_helper.to_array(tensor)
            np.testing.assert_array_equal(scales[f"{tensor.name}_fp16"].astype(np.float32), stored)


def chain(weight: float) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Identity", ["x"], ["x0"], "top/Identity"),
        helper.make_node("MatMul", ["x0", "w"], ["h"], "encoder.0.first/MatMul"),
        helper.make_node("Relu", ["h"], ["r"], "encoder.0.first/Relu"),
        helper.make_node("MatMul", ["r", "v"], ["o"], "encoder.0.second/MatMul"),
        helper.make_node("Identity", ["o"], ["y"], "top/Identity_2"),
    ]
    w = np.full((1, 1), weight, np.float32)
    body = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(1 / w, "v")],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_values_are_rounded_as_float16_and_islands_are_not():
    graph = chain(300.0)
    assert fp16_nodes(graph) == (
        "encoder.0.first/MatMul",
        "encoder.0.first/Relu",
        "encoder.0.second/MatMul",
    )
    x = np.array([[1.0003], [1000.0]], np.float32)
    y = run(emulate_fp16(to_fp16(graph)), x=x)["y"]
    assert y[0] == 1, "the next float16 after 1 is 1.001"
    assert not np.isfinite(y[1]), "300 000 is beyond float16: this is what islands are for"
    y = run(to_fp16(graph, fp16_nodes(graph)), x=x)["y"]
    np.testing.assert_allclose(y, x, rtol=1e-6)


def test_a_constant_beyond_float16_keeps_its_node_in_float32():
    assert "encoder.0.first/MatMul" in fp16_nodes(chain(6e4))
    assert "encoder.0.first/MatMul" not in fp16_nodes(chain(7e4))


def test_nodes_near_the_limit_become_islands(small_graphs, tmp_path):
    import cv2

    path = small_graphs["one", "fp32"]
    graph = onnx.load(path)
    side = graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    images = []
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        images.append(tmp_path / f"{i}.png")
        cv2.imwrite(str(images[-1]), noise)
    usual = find_islands(path, images, side)
    assert usual.islands == ()
    assert usual.nodes == len(fp16_nodes(graph))
    assert 0 < usual.amax < FP16_MAX / HEADROOM
    # The same net with one layer's weights as large as float16 holds.
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    layer = next(n for n in graph.graph.node if n.name.endswith("feedforward.linear1/MatMul"))
    entry = weights[layer.input[1]]
    weight = numpy_helper.to_array(entry)
    largest = weight * (np.float32(6e4) / np.abs(weight).max())
    entry.CopyFrom(numpy_helper.from_array(largest, entry.name))
    loud = tmp_path / "loud.onnx"
    onnx.save(graph, loud)
    found = find_islands(loud, images, side)
    assert layer.name in found.islands
    assert found.amax < FP16_MAX / HEADROOM
    frames = np.stack([cv2.imread(str(p))[..., ::-1] for p in images])
    exact = run(graph, frames=frames)["codes"]
    kept, all_fp16 = (
        (run(emulate_fp16(to_fp16(graph, islands)), frames=frames)["codes"] == exact).mean()
        for islands in (found.islands, ())
    )
    assert kept > 0.9
    assert all_fp16 < 0.5, "without islands the layer's values are infinite"
