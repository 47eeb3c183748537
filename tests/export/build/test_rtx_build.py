"""Engines built for real with TensorRT-RTX, which needs no GPU to build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from helpers.small_graphs import save_float, save_int8

from benchmarks.gpu.compiled_layers import check_layers, parse_layers
from benchmarks.gpu.typed_nodes import factor_types, type_changes
from hvq_edge.export.build.engine import build_engine
from hvq_edge.export.build.memory import free_host_memory, memory_budget
from hvq_edge.export.build.versions import version_of
from hvq_edge.export.fp16.convert import to_fp16
from hvq_edge.export.graph.view import module_of
from hvq_edge.export.lint.precision import FLOAT_MODULES
from hvq_edge.model import backbone
from hvq_edge.runtime.tensorrt.engine_file import BuildOptions

tensorrt_rtx = pytest.importorskip(
    "tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'hvq-edge[rtx]'"
)
CHIPS = ("8.6", "8.9", "12.0")


def build(graph: Path, precision: str, *, capabilities=CHIPS, options=None, **more):
    return build_engine(
        tensorrt_rtx,
        version_of(tensorrt_rtx, "tensorrt-rtx"),
        graph,
        precision,
        options or BuildOptions(),
        free_host_memory(),
        capabilities=capabilities,
        **more,
    )


@pytest.fixture(scope="module")
def builds(small_graphs):
    """The engine of each graph and the processor's seconds for it, by category mode, precision."""
    found = {}
    for key, graph in small_graphs.items():
        began = time.process_time()
        engine = build(graph, key[1], log_layers=True)
        found[key] = engine, time.process_time() - began
    return found


@pytest.fixture(scope="module")
def built(builds):
    return {key: engine for key, (engine, _) in builds.items()}


def in_int8(layers, factors) -> set[str]:
    """The graph's products that kernels compute in Int8; an attention's two are in one kernel."""
    products = [layer for layer in layers if layer.is_product and layer.factors == {"Int8"}]
    return {node for layer in products for node in layer.nodes} & set(factors)


def test_every_graph_builds(built):
    assert set(built) == {(mode, p) for mode in ("auto", "input", "one") for p in ("fp32", "int8")}
    for engine in built.values():
        assert len(engine.engine) > 100_000, "weights are in it"


def test_no_graph_takes_far_more_work_to_build_than_another(builds):
    """In processor time, which a busy machine hardly stretches: here it was at most 1.6 times."""
    work = {key: seconds for key, (_, seconds) in builds.items()}
    assert max(work.values()) < 5 * min(work.values()), work


def test_every_product_is_computed_in_the_type_of_the_graph(small_graphs, built):
    """Every quantised convolution and linear in Int8, all else in float, no casts of its own."""
    for key, graph in small_graphs.items():
        model = onnx.load(graph)
        layers = parse_layers(built[key].layers)
        factors = factor_types(model)
        assert check_layers(layers, factors, type_changes(model)) == [], key
        assert set(factors.values()) == ({"Float"} if key[1] == "fp32" else {"Float", "Int8"})
        assert in_int8(layers, factors) == {n for n, kind in factors.items() if kind == "Int8"}, key
        assert bool(in_int8(layers, factors)) == (key[1] == "int8"), key


@pytest.mark.long
@pytest.mark.parametrize(
    ("precision", "types"),
    [
        ("fp32", {"Float"}),
        ("fp16", {"Float", "Half"}),
        ("int8", {"Float", "Int8"}),
        ("int8-fp16", {"Float", "Half", "Int8"}),
    ],
)
def test_all_four_files_of_a_trained_model(four_files, precision, types):
    graph = four_files.model_file(precision)
    model = onnx.load(graph)
    factors = factor_types(model)
    assert set(factors.values()) == types
    for node in model.graph.node:
        if node.name in factors and module_of(node).partition(".")[0] in FLOAT_MODULES:
            in_int8_here = node.name == "prototypes/MatMul" and "Int8" in types
            assert factors[node.name] == ("Int8" if in_int8_here else "Float"), node.name
    layers = parse_layers(build(graph, precision, log_layers=True).layers)
    assert check_layers(layers, factors, type_changes(model)) == []
    assert {kind for one in layers if one.is_product for kind in one.factors} == types


# A backbone and a map as in the `paper` preset: SiLU, squeeze-and-excitation, bilinear taps.
PAPER_LIKE = {
    "backbone": "efficientnet_b4",
    "padding_side": 380,
    "layers": 1,
    "standardise_features": False,
    "tap_resize": "bilinear",
    "normalise_tokens": False,
    "whiten_distance": False,
    "prototypes": 0,
    "map_scale": "published",
    "image_level": "kept",
}


@pytest.fixture(scope="module")
def paper_like(tmp_path_factory) -> dict[str, Path]:
    """The four files of such a net with a small transformer and random weights.

    A stage has its first block and one of those that repeat, which are all alike: every layer of
    the backbone is there in its own size, in half the time.
    """
    scaled_stages = backbone.scaled_stages
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            backbone,
            "scaled_stages",
            lambda name: tuple(replace(stage, repeats=2) for stage in scaled_stages(name)),
        )
        files = {"fp32": save_float(tmp_path_factory.mktemp("paper"), "auto", **PAPER_LIKE)}
    files["int8"] = save_int8(files["fp32"])
    for source, made in (("fp32", "fp16"), ("int8", "int8-fp16")):
        files[made] = files[source].with_name(f"{made}.onnx")
        onnx.save(to_fp16(onnx.load(files[source])), files[made])
    return files


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-fp16"])
def test_all_four_files_of_a_net_like_the_papers(paper_like, precision):
    model = onnx.load(paper_like[precision])
    factors = factor_types(model)
    built = build(paper_like[precision], precision, capabilities=CHIPS[:1], log_layers=True)
    layers = parse_layers(built.layers)
    assert check_layers(layers, factors, type_changes(model)) == []
    int8 = in_int8(layers, factors)
    assert int8 == {name for name, kind in factors.items() if kind == "Int8"}
    assert bool(int8) == precision.startswith("int8")
    distances = [name for name in factors if name.startswith("codebooks.")]
    assert distances
    assert {factors[name] for name in distances} == {"Float"}


def test_distances_are_float(built):
    for (_, precision), engine in built.items():
        distances = [
            layer
            for layer in parse_layers(engine.layers)
            if layer.is_product and any(node.startswith("codebooks.") for node in layer.nodes)
        ]
        assert len(distances) >= 2, precision
        assert {kind for layer in distances for kind in layer.factors} == {"Float"}


def test_the_memory_that_was_planned_suffices(small_graphs):
    """In a process of its own, less what Python took before."""
    graph = small_graphs["auto", "fp32"]
    script = f"""
from pathlib import Path
from hvq_edge.export.build.memory import free_host_memory, peak_host_memory
from hvq_edge.runtime.tensorrt.library import load_backend
from hvq_edge.export.build.engine import build_engine
from hvq_edge.export.graph.view import module_of
from hvq_edge.export.lint.precision import FLOAT_MODULES
from hvq_edge.export.build.versions import version_of
from hvq_edge.runtime.tensorrt.engine_file import BuildOptions
before = peak_host_memory()
module = load_backend("tensorrt-rtx")
version = version_of(module, "tensorrt-rtx")
built = build_engine(
    module, version, Path({str(graph)!r}), "fp32", BuildOptions(), free_host_memory()
)
print(built.peak_memory - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    planned = memory_budget("tensorrt-rtx", graph.stat().st_size, 1 << 20, free_host_memory()).host
    assert planned / 4 < int(done.stdout) < planned


@pytest.fixture(scope="module")
def heard(small_graphs):
    """A build from beginning to end: the engine, and what it said of its progress."""
    said = []
    built = build(small_graphs["one", "int8"], "int8", on_progress=lambda *one: said.append(one))
    return built.engine, said


def test_progress_goes_forward_to_the_end(heard):
    _, said = heard
    done = [one[1] for one in said]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 100)
    assert len({one[3] for one in said if len(one) > 3}) > 3, "phases are named"


def test_ctrl_c_stops_a_build_and_the_next_gives_the_same_size(small_graphs, heard):
    pressed = []

    def press(stage, done, total, note=""):
        if done > 5 and not pressed:
            pressed.append(done)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(small_graphs["one", "int8"], "int8", on_progress=press)
    assert pressed
    sizes = [len(heard[0]), len(build(small_graphs["one", "int8"], "int8").engine)]
    assert max(sizes) - min(sizes) < 0.01 * max(sizes)
