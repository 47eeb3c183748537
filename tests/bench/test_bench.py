"""`hvq-edge bench`: fair turns, right percentiles, and nobody's failure is everybody's."""

from __future__ import annotations

import json
import stat
from itertools import count
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from helpers.graphs import save_bundle
from onnx import TensorProto, helper

from hvq_edge.bench import measure as measuring
from hvq_edge.bench.chart import bench_svg
from hvq_edge.bench.entrants import Entrant, entrants_of
from hvq_edge.bench.measure import busy_warning, run_benchmark
from hvq_edge.bench.peer_graph import open_peer
from hvq_edge.bench.report import BenchReport, timing_of
from hvq_edge.bench.resources import high_water, peak_megabytes, watts_of, watts_while
from hvq_edge.bench.rounds import ratios, time_rounds
from hvq_edge.cli.app import main
from hvq_edge.errors import BundleError, InputError, SettingsError


@pytest.fixture
def bundle(tmp_path):
    return save_bundle(tmp_path / "bundle", "auto", ("fp32", "int8"))


def save_peer(path, shape=("b", 3, 64, 64), dtype=TensorProto.FLOAT, inputs=1):
    """The mean of an image, as another tool might export it."""
    named = [helper.make_tensor_value_info(f"in{i}", dtype, shape) for i in range(inputs)]
    nodes = [
        helper.make_node("Cast", ["in0"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["score"], axes=[1, 2, 3], keepdims=0),
    ]
    out = helper.make_tensor_value_info("score", TensorProto.FLOAT, [shape[0]])
    graph = helper.make_graph(nodes, "peer", named, [out])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


# Rounds.


def test_everybody_has_a_turn_in_every_round():
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "ab"}
    ticks = count()
    seconds = time_rounds(runs, 3, runs_a_round=2, warm_ups=1, clock=lambda: float(next(ticks)))
    assert "".join(order) == "ab" + "aaabbb" * 3
    assert seconds["a"].shape == (3, 2)
    assert (seconds["b"] == 1).all()


def test_ratios_are_taken_within_a_round():
    """A round in which the whole machine was ten times slower changes none of them."""
    busy = np.array([1.0, 10.0, 1.0, 1.0])[:, None]
    reference, other = busy * np.full((4, 5), 0.3), busy * np.full((4, 5), 0.1)
    assert ratios(reference, other) == pytest.approx((3, 3, 3))
    spread = ratios(np.arange(1.0, 12)[:, None], np.ones((11, 1)))
    assert spread == pytest.approx((2, 6, 10))


def test_a_timing():
    seconds = np.arange(1, 101).reshape(20, 5) / 1000
    timing = timing_of("a", 4, seconds, seconds * 2)
    assert (timing.p50, timing.runs) == (pytest.approx(50.5), 100)
    assert timing.p90 < timing.p95 < timing.p99 < 100
    assert timing.images_a_second == pytest.approx(4 / 0.0505)
    assert timing.ratio.median == pytest.approx(2)


# Measuring.


def test_a_report_of_real_engines(bundle, tmp_path):
    peer = save_peer(tmp_path / "peer é.onnx")
    one_only = save_peer(tmp_path / "one.onnx", (1, 64, 64, 3), TensorProto.UINT8)
    entrants = entrants_of(bundle, peers=[peer, one_only], threads=1)
    names = [entrant.name for entrant in entrants]
    assert names[:4] == ["openvino fp32", "openvino int8", "onnxruntime fp32", "onnxruntime int8"]
    assert "onnxruntime peer é.onnx" in names
    absent = Entrant("absent", "peer", str(tmp_path / "no.onnx"), "onnxruntime")
    report = run_benchmark(bundle, [*entrants, absent], batches=[1, 2], rounds=2, memory=False)
    assert report.reference == "openvino fp32"
    assert report.batches == (1, 2)
    assert {timing.name for timing in report.timings if timing.batch == 1} == set(names)
    alone = {timing.name for timing in report.timings if timing.batch == 2}
    assert alone == {name for name in names if "one.onnx" not in name}
    assert "no file" in report.failures["absent"]
    assert "its batch is 1" in report.failures["onnxruntime one.onnx, batch 2"]
    first = report.timings[0].ratio
    assert (first.low, first.median, first.high) == (1, 1, 1)
    assert BenchReport.model_validate_json(report.model_dump_json()) == report
    root = ElementTree.fromstring(bench_svg(report))
    texts = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert "onnxruntime peer é.onnx" in texts
    bars = [node for node in root.iter() if node.get("class") in ("bar", "reference")]
    assert len(bars) == len(report.timings)
    assert all(float(bar.get("width")) > 0 for bar in bars)


def test_a_busy_machine_is_said(bundle, monkeypatch):
    assert busy_warning(0.1, 2) == ()
    (warning,) = busy_warning(3.0, 2)
    assert "load 3.0 on 2 processors" in warning
    monkeypatch.setattr(measuring, "load_average", lambda: 99.0)
    entrants = entrants_of(bundle, backends=["onnxruntime"], precisions=["fp32"])
    report = run_benchmark(bundle, entrants, batches=[1], rounds=1, memory=False)
    assert report.load_before == 99
    assert "busy" in bench_svg(report)


def test_nothing_to_measure(bundle, tmp_path):
    with pytest.raises(SettingsError, match="at least one"):
        run_benchmark(bundle, [])
    absent = Entrant("absent", "peer", str(tmp_path / "no.onnx"), "onnxruntime")
    with pytest.raises(InputError, match="no file"):
        run_benchmark(bundle, [absent], memory=False)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"backends": ["opnvino"]}, SettingsError, "'opnvino'"),
        ({"backends": ["torch"]}, SettingsError, "none is at hand"),
        ({"backends": ["tensorrt"]}, BundleError, "no tensorrt engine"),
    ],
)
def test_who_cannot_take_part(bundle, options, error, said):
    with pytest.raises(error, match=said):
        entrants_of(bundle, **options)


# Peers.


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_peer_of_any_layout(tmp_path, backend):
    for number, (shape, dtype) in enumerate(
        [
            (("b", 3, 32, 32), TensorProto.FLOAT),
            (("b", "h", "w", 3), TensorProto.UINT8),
            ((1, 3, 32, 32), TensorProto.FLOAT16),
        ]
    ):
        path = save_peer(tmp_path / f"{number}.onnx", shape, dtype)
        with open_peer(path, backend, 1, 48) as peer:
            peer.call(1)()
            if shape[0] == "b":
                peer.call(3)()
            else:
                with pytest.raises(InputError, match="batch is 1"):
                    peer.call(3)
    for shape in (("b", 5), ("b", 4, 32, 32)):
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "flat",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        )
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
            tmp_path / "flat.onnx",
        )
        with pytest.raises(InputError, match="is no image"):
            open_peer(tmp_path / "flat.onnx", backend, None, 48)
    with pytest.raises(InputError, match="has 2 inputs"):
        open_peer(save_peer(tmp_path / "two.onnx", inputs=2), backend, None, 48)
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(InputError, match="cannot load"):
        open_peer(tmp_path / "text.onnx", backend, None, 48)


# Memory and power.


def test_peak_memory_is_that_of_a_process_of_its_own(bundle, tmp_path):
    entrant = Entrant("a", "engine", str(bundle.path), "onnxruntime", "fp32", 1)
    peak = peak_megabytes(entrant)
    assert 40 < peak < 2000
    assert peak_megabytes(Entrant("b", "engine", str(tmp_path / "no"), "onnxruntime")) is None
    status = tmp_path / "status"
    status.write_text("Name: x\nVmPeak:  99 kB\nVmHWM:\t  250000 kB\n")
    assert high_water(status) == pytest.approx(256.0)
    assert high_water(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("line", "watts"),
    [
        ("RAM 2448/7620MB CPU [3%@729] tj@47C VDD_IN 4563mW/4500mW VDD_CPU 1mW/1mW", 4.563),
        ("RAM 1/2MB POM_5V_IN 2142/2142 POM_5V_GPU 40/40", 2.142),
        ("RAM 2448/7620MB", None),
    ],
)
def test_a_line_of_tegrastats(line, watts):
    assert watts_of(line) == watts


def test_power_while_working(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    calls = count()
    assert watts_while(lambda: next(calls), 0.1) is None
    assert next(calls) == 0, "without the tool nothing is run"
    program = tmp_path / "tegrastats"
    program.write_text("#!/bin/sh\nwhile true; do echo VDD_IN 5000mW/1mW; sleep 0.05; done\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    assert watts_while(lambda: next(calls), 0.4) == 5.0
    assert next(calls) > 1


# The command.


def test_the_command(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0))
    out = tmp_path / "bench.json"
    command = ["bench", str(bundle.path), "--backends", "onnxruntime", "--batch", "1,2"]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--rounds", "1", "--no-memory", "--out", str(out)])
    assert stop.value.code in (0, None)
    printed = capsys.readouterr()
    assert "onnxruntime int8" in printed.out
    assert "memory" not in printed.err, "progress of what is not measured"
    assert printed.err.startswith("Warning: the machine was busy"), "said before the long wait"
    report = BenchReport.model_validate(json.loads(out.read_text()))
    assert report.batches == (1, 2)
    assert out.with_suffix(".svg").read_text().startswith("<svg")
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(bundle.path), "--batch", "1,x"])
    assert stop.value.code == 2
    assert "not whole numbers" in capsys.readouterr().err
