"""A model repository: Triton's own schema takes it, export and build write it."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("tritonclient.grpc", reason="needs the server extra")
from helpers.graphs import GRID, LEVELS, SIDE, frames, save_bundle
from helpers.plans import save_plan
from helpers.triton_server import read_config
from tritonclient.grpc import model_config_pb2

from hvq_edge.cli.app import main
from hvq_edge.errors import BundleError, OutputError
from hvq_edge.export import triton_model
from hvq_edge.export.build.run import BuildResult
from hvq_edge.export.triton_repository import write_triton_repository
from hvq_edge.runtime.cpu.openvino_engine import PROPERTIES
from hvq_edge.runtime.tensorrt.engine_file import BuildOptions, read_record

ALL_FILES = ("fp32", "fp16", "int8", "int8-fp16")


@pytest.mark.parametrize("mode", ["one", "auto", "input"])
def test_the_configuration_is_of_tritons_schema(tmp_path, mode):
    bundle = save_bundle(tmp_path / "b", mode, precisions=ALL_FILES)
    folders = write_triton_repository(bundle, tmp_path / "repository")
    names = ["hvq_edge_int8_fp16", "hvq_edge_fp16", "hvq_edge_int8", "hvq_edge_fp32"]
    assert [folder.name for folder in folders] == names
    for folder in folders:
        config = read_config(folder)
        assert config.name == folder.name
        assert config.platform == "onnxruntime_onnx"
        assert config.max_batch_size == 8
        assert config.dynamic_batching.max_queue_delay_microseconds == 1000
        assert list(config.dynamic_batching.preferred_batch_size) == [8]
        assert not config.ensemble_scheduling.step
        tensors = {one.name: one for one in (*config.input, *config.output)}
        assert list(tensors["frames"].dims) == [SIDE, SIDE, 3]
        assert tensors["frames"].data_type == model_config_pb2.TYPE_UINT8
        assert list(tensors["codes"].dims) == [LEVELS, GRID * GRID]
        assert ("category" in {one.name for one in config.input}) == (mode == "input")
        assert ("margin" in tensors) == (mode == "auto")
        precision = folder.name.removeprefix("hvq_edge_").replace("_", "-")
        graph = bundle.model_file(precision)
        assert (folder / "1" / "model.onnx").read_bytes() == graph.read_bytes()


def test_an_engine_is_taken_where_there_is_one(tmp_path):
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "fp16"))
    options = BuildOptions(opt_batch=4, max_batch=4)
    plan = save_plan(bundle, precision="fp16", options=options)
    fp16, fp32 = write_triton_repository(bundle, tmp_path / "repository")
    config = read_config(fp16)
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 4)
    assert (fp16 / "1" / "model.plan").read_bytes() == plan.read_bytes()
    assert read_config(fp32).platform == "onnxruntime_onnx"


def test_an_engine_of_another_graph_is_refused(tmp_path):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle, onnx_sha256="0" * 64)
    with pytest.raises(BundleError, match="built from another model"):
        write_triton_repository(bundle, tmp_path / "repository")
    assert not list((tmp_path / "repository").glob("hvq*"))


def test_other_models_are_left_alone(tmp_path):
    bundle = save_bundle(tmp_path / "b")
    other = tmp_path / "repository" / "somebody_elses"
    other.mkdir(parents=True)
    (folder,) = write_triton_repository(bundle, tmp_path / "repository")
    write_triton_repository(bundle, tmp_path / "repository")  # ours are replaced
    (folder / "config.pbtxt").write_text('name: "hvq_edge_fp32"\n')
    with pytest.raises(OutputError, match="not a model of hvq-edge"):
        write_triton_repository(bundle, tmp_path / "repository")
    assert sorted(path.name for path in (tmp_path / "repository").iterdir()) == [
        "hvq_edge_fp32",
        "somebody_elses",
    ]


def test_a_changed_graph_is_not_served(tmp_path):
    bundle = save_bundle(tmp_path / "b")
    path = bundle.path / "model.fp32.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="SHA-256"):
        write_triton_repository(bundle, tmp_path / "repository")


@pytest.mark.parametrize("as_json", [False, True])
def test_export_writes_it(tmp_path, monkeypatch, capsys, as_json):
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "int8"))
    monkeypatch.setattr("hvq_edge.export.export_bundle.export_run", lambda *_, **__: bundle)
    words = ["export", "run", "--int8", "--triton", str(tmp_path / "repository")]
    with pytest.raises(SystemExit) as ended:
        main([*words, *(["--json"] if as_json else [])])
    assert ended.value.code == 0
    names = {path.name for path in (tmp_path / "repository").iterdir()}
    assert names == {"hvq_edge_fp32", "hvq_edge_int8"}
    said = capsys.readouterr().out
    assert ("Triton model" in said) != as_json


def test_export_writes_it_for_the_python_backend(tmp_path, monkeypatch, capsys):
    bundle = save_bundle(tmp_path / "b", precisions=ALL_FILES)
    save_plan(bundle, precision="fp32")
    monkeypatch.setattr("hvq_edge.export.export_bundle.export_run", lambda *_, **__: bundle)
    words = ["export", "run", "--triton", str(tmp_path / "repository"), "--triton-backend"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "python"])
    assert ended.value.code == 0
    said = capsys.readouterr().out.replace("\n", "")
    # On a processor float16 gains nothing, and an engine for GPUs does not run.
    assert {path.name for path in (tmp_path / "repository").iterdir()} == {
        "hvq_edge_fp32",
        "hvq_edge_int8",
    }
    assert "hvq_edge_int8" in said
    assert "fp16" not in said.partition("Triton model")[2]
    for folder in (tmp_path / "repository").iterdir():
        config = read_config(folder)
        assert (config.backend, config.platform, config.max_batch_size) == ("python", "", 8)
        assert config.dynamic_batching.max_queue_delay_microseconds == 1000
        assert {path.name for path in (folder / "1").iterdir()} == {"model.onnx", "model.py"}
    for arguments in ([*words, "onnx"], ["export", "run", "--triton-backend", "python"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2


def test_build_writes_its_engine_into_it(tmp_path, monkeypatch):
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "fp16"))
    plan = save_plan(bundle, precision="fp16", options=BuildOptions(max_batch=4))
    newer = save_plan(bundle, "10.16.1", "fp16")  # which another machine built
    os.utime(newer, (time.time() + 60,) * 2)
    built = BuildResult(plan, read_record(plan), "there was none")
    monkeypatch.setattr("hvq_edge.export.build.run.build_run", lambda *_, **__: built)
    words = ["build", str(bundle.path), "--backend", "tensorrt"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--triton", str(tmp_path / "repository")])
    assert ended.value.code == 0
    (folder,) = (tmp_path / "repository").iterdir()
    config = read_config(folder)
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 4)


def test_no_server_runs_what_auto_would_build_of_tensorrt_rtx(tmp_path, monkeypatch, capsys):
    bundle = save_bundle(tmp_path / "b")
    installed = {"tensorrt": "a_library_that_is_not_there", "tensorrt-rtx": "json"}
    monkeypatch.setattr("hvq_edge.runtime.tensorrt.library.MODULES", installed)
    monkeypatch.setattr("hvq_edge.export.build.run.build_run", None)
    with pytest.raises(SystemExit) as ended:
        main(["build", str(bundle.path), "--triton", str(tmp_path / "repository")])
    assert ended.value.code == 2
    assert "not those of TensorRT-RTX" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "repository").exists()


def test_on_a_servers_processor_a_batch_is_judged_frame_by_frame(tmp_path, monkeypatch):
    openvino = pytest.importorskip("openvino")
    graph = save_bundle(tmp_path / "b").model_file("fp32").read_bytes()
    batches, compile_model = [], openvino.Core.compile_model

    def watched(core, model, *arguments):
        batches.extend(port.partial_shape[0] for port in model.inputs)
        return compile_model(core, model, *arguments)

    monkeypatch.setattr(openvino.Core, "compile_model", watched)
    run, given = triton_model._openvino(graph, PROPERTIES), frames(3)
    assert batches == [1], "for any batch it rounds INT8 otherwise"
    together = run({"frames": given})
    singles = [run({"frames": given[i : i + 1]}) for i in range(3)]
    for name, values in together.items():
        np.testing.assert_array_equal(values, np.concatenate([one[name] for one in singles]))
