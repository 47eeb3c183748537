"""A model repository that Triton's own schema takes, and the engine that asks such a server."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
from helpers.patience import PATIENCE_SECONDS

pytest.importorskip("onnx")
pytest.importorskip("tritonclient.grpc", reason="needs the server extra")
from helpers.graphs import CATEGORIES, GRID, LEVELS, SIDE, expected, frames, save_bundle
from helpers.known_answers import answers_of, give_answers
from helpers.plans import same, save_plan
from helpers.triton_stand_in import read_config, serving
from tritonclient.grpc import model_config_pb2

from hvq_edge.bundle.manifest import open_bundle, record_of, write_manifest
from hvq_edge.cli.app import main
from hvq_edge.errors import (
    BundleError,
    GateFailed,
    HvqEdgeError,
    InputError,
    MissingCapability,
    OutputError,
    SettingsError,
)
from hvq_edge.export.build.run import BuildResult
from hvq_edge.export.triton_repository import write_triton_repository
from hvq_edge.runtime.tensorrt.engine_file import BuildOptions, read_record
from hvq_edge.runtime.triton.engine import open_triton_engine
from hvq_edge.stream.inspection import open_stream_engine

ALL_FILES = ("fp32", "fp16", "int8", "int8-fp16")
MODES = ("one", "auto", "input")


def repository_of(bundle, tmp_path):
    write_triton_repository(bundle, tmp_path / "repository")
    return tmp_path / "repository"


# The repository.


@pytest.mark.parametrize("mode", MODES)
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


def test_build_writes_its_engine_into_it(tmp_path, monkeypatch):
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "fp16"))
    plan = save_plan(bundle, precision="fp16")
    built = BuildResult(plan, read_record(plan), "there was none")
    monkeypatch.setattr("hvq_edge.export.build.run.build_run", lambda *_, **__: built)
    with pytest.raises(SystemExit) as ended:
        main(["build", str(bundle.path), "--triton", str(tmp_path / "repository")])
    assert ended.value.code == 0
    (folder,) = (tmp_path / "repository").iterdir()
    assert read_config(folder).platform == "tensorrt_plan"


# The engine.


@pytest.mark.parametrize("mode", MODES)
def test_results_are_those_of_the_graph(tmp_path, mode):
    bundle = save_bundle(tmp_path / "b", mode)
    with serving(repository_of(bundle, tmp_path)) as (address, server):
        with open_triton_engine(f"grpc://{address}", bundle) as engine:
            assert (engine.info.backend, engine.info.precision) == ("triton", "fp32")
            assert address in engine.info.device
            assert "Triton 2.73.0, onnxruntime_onnx" in engine.info.device
            for seed, batch in enumerate((1, 3, 19)):
                given = frames(batch, seed)
                category = np.arange(batch, dtype=np.int32) % len(CATEGORIES)
                category = category if mode == "input" else None
                same(engine.run(given, category), expected(given, mode, category))
        assert server.models["hvq_edge_fp32"].batches == [1, 3, 8, 8, 3]


def test_many_cameras_share_one_engine(tmp_path):
    bundle = save_bundle(tmp_path / "b")
    faults = []
    with (
        serving(repository_of(bundle, tmp_path)) as (address, _),
        open_triton_engine(address, bundle) as engine,
    ):

        def camera(seed):
            given = frames(1, seed)
            try:
                for _ in range(5):
                    same(engine.run(given), expected(given, "one"))
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=camera, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert faults == []


def test_a_stream_chooses_the_category_of_a_servers_model(tmp_path):
    bundle = save_bundle(tmp_path / "b", "input")
    given = frames(2)
    with serving(repository_of(bundle, tmp_path)) as (address, _):
        with open_stream_engine(bundle, category="nut", server=f"grpc://{address}") as engine:
            assert engine.info.backend == "triton"
            same(engine.run(given), expected(given, "input", np.array([1, 1])))
            engine.choose("bolt")
            same(engine.run(given), expected(given, "input", np.array([0, 0])))
        with pytest.raises(InputError, match="must be told the category"):
            open_stream_engine(bundle, server=f"grpc://{address}")
    one = save_bundle(tmp_path / "one")
    with (
        serving(repository_of(one, tmp_path / "of one")) as (address, _),
        open_stream_engine(one, server=address) as engine,
    ):
        same(engine.run(given), expected(given, "one"))


def test_auto_takes_what_the_server_has_and_verify_passed(tmp_path):
    bundle = save_bundle(tmp_path / "b", precisions=ALL_FILES)
    repository = repository_of(bundle, tmp_path)
    shutil.rmtree(repository / "hvq_edge_int8_fp16")
    verdict = bundle.path / "verify.json"
    with serving(repository) as (address, _):
        with open_triton_engine(address, bundle) as engine:
            assert engine.info.precision == "fp16"
        verdict.write_text('{"precisions": {"fp16": {"passed": false}}}')
        with open_triton_engine(address, bundle) as engine:
            assert engine.info.precision == "int8"
        with open_triton_engine(address, bundle, precision="fp16") as engine:
            assert engine.info.precision == "fp16"
        with pytest.raises(
            BundleError, match="has no model hvq_edge_int8_fp16: Request for unknown"
        ):
            open_triton_engine(address, bundle, precision="int8-fp16")
        with pytest.raises(SettingsError, match="'int9' is none of"):
            open_triton_engine(address, bundle, precision="int9")


def test_a_server_that_computes_wrongly_judges_nothing(tmp_path):
    """Graph and repository are the same: what runs them is wrong."""
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "int8"))
    answers = answers_of(bundle)
    wrong = replace(answers.precisions["int8"], score=answers.precisions["int8"].score + 1)
    bundle = give_answers(
        bundle, replace(answers, precisions={**answers.precisions, "int8": wrong})
    )
    with serving(repository_of(bundle, tmp_path)) as (address, _):
        with open_stream_engine(bundle, server=address) as engine:
            assert engine.info.precision == "fp32"
        with pytest.raises(GateFailed, match="int8 on triton computes wrongly"):
            open_stream_engine(bundle, precision="int8", server=address)


def test_a_model_of_another_bundle_is_refused(tmp_path):
    bundle = save_bundle(tmp_path / "b")
    repository = repository_of(bundle, tmp_path)
    path = bundle.path / "model.fp32.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    files = {path.name: record_of(path)}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": files}))
    with (
        serving(repository) as (address, _),
        pytest.raises(BundleError, match="runs another hvq_edge_fp32"),
    ):
        open_triton_engine(address, open_bundle(bundle.path))


def test_a_server_that_fails_later(tmp_path):
    bundle = save_bundle(tmp_path / "b")
    with serving(repository_of(bundle, tmp_path)) as (address, server):
        engine = open_triton_engine(address, bundle, timeout=2.0)
        server.broken = "CUDA out of memory"
        with pytest.raises(HvqEdgeError, match="fails: CUDA out of memory"):
            engine.run(frames(1))
        server.broken = ""
        server.held_up.clear()
        with pytest.raises(HvqEdgeError, match=r"no answer within 2 s"):
            engine.run(frames(1))
        server.held_up.set()
        given = frames(2)
        same(engine.run(given), expected(given, "one"))
    with pytest.raises(MissingCapability, match="cannot be reached"):
        engine.run(frames(1))
    engine.close()
    engine.close()
    with pytest.raises(InputError, match="closed"):
        engine.run(frames(1))


def test_no_server_there(tmp_path):
    with pytest.raises(MissingCapability, match="cannot be reached"):
        open_triton_engine("127.0.0.1:9", save_bundle(tmp_path / "b"), timeout=5)


@pytest.mark.parametrize("url", ["", "somewhere", "http://a:8000", "host:port", "grpc://:8001"])
def test_addresses_that_are_none(tmp_path, url):
    with pytest.raises(SettingsError, match="no address of a Triton server"):
        open_triton_engine(url, save_bundle(tmp_path / "b"))


def test_without_the_client(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(MissingCapability, match="tritonclient cannot be imported"):
        open_triton_engine("host:8001", save_bundle(tmp_path / "b"))
