"""ONNX Runtime's providers for GPUs, on a machine without one: named, chosen, no fall-back.

ONNX Runtime itself is real, and so is its fall-back. What computes on a GPU has run nowhere.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnxruntime
from helpers.engine_bench import both, cache, plant  # noqa: F401  # fixtures
from helpers.graphs import expected, frames, save_bundle
from helpers.images import write_png
from helpers.known_answers import compute_wrongly, give_answers
from helpers.onnxruntime_stand_in import gpu_build, plug_in  # noqa: F401  # a fixture
from typer.testing import CliRunner

from hvq_edge.cli.app import app, main
from hvq_edge.doctor.software import onnxruntime as look_at_onnxruntime
from hvq_edge.errors import GateFailed, MissingCapability, SettingsError
from hvq_edge.runtime.choice.measured_choice import Candidate, key_for
from hvq_edge.runtime.cpu import onnxruntime_providers as providers
from hvq_edge.runtime.cpu.onnxruntime_providers import PROVIDERS, may_be_tried, with_provider
from hvq_edge.runtime.open_engine import choose, open_engine

CUDA, TENSORRT, RTX = PROVIDERS


def test_a_provider_is_part_of_the_backend():
    assert with_provider("auto", None) == "auto"
    assert with_provider("onnxruntime", "cpu") == "onnxruntime"
    names = [with_provider("onnxruntime", name) for name in ("cuda", "tensorrt", "tensorrt-rtx")]
    assert names == [CUDA, TENSORRT, RTX]
    with pytest.raises(SettingsError, match="'rocm' is none of cpu, cuda, tensorrt, tensorrt-rtx"):
        with_provider("onnxruntime", "rocm")
    with pytest.raises(SettingsError, match="the backend is openvino"):
        with_provider("openvino", "cuda")


@pytest.mark.parametrize("backend", PROVIDERS)
def test_one_that_is_not_here_names_its_package(tmp_path, backend):
    bundle = save_bundle(tmp_path / "b")
    with pytest.raises(MissingCapability) as caught:
        open_engine(bundle, backend=backend)
    provider = PROVIDERS[backend]
    assert (provider.package if provider.plugin else provider.name) in caught.value.cause
    assert f"pip install {provider.package}" in caught.value.next_step


def test_onnx_runtimes_silent_fall_back_is_an_error(tmp_path, monkeypatch, capsys):
    """This build knows no CUDA: told that it does, it really falls back to the processor."""
    bundle = save_bundle(tmp_path / "b")
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        alone = onnxruntime.InferenceSession(
            bundle.read("model.fp32.onnx"), providers=["CUDAExecutionProvider"]
        )
    assert alone.get_providers() == ["CPUExecutionProvider"]
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(
            MissingCapability, match=r"CUDAExecutionProvider .* does not run here: fell back to CPU"
        ),
    ):
        open_engine(bundle, backend=CUDA)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("backend", "settings"),
    [(CUDA, {"use_tf32": "0"}), (TENSORRT, {"trt_engine_cache_enable": "1"}), (RTX, {})],
)
def test_the_provider_asked_for_is_opened_with_its_options(
    tmp_path, monkeypatch, gpu_build, cache, backend, settings
):
    plug_in(monkeypatch, devices=1)
    bundle = give_answers(save_bundle(tmp_path / "b", "auto"))
    given = frames(3)
    for _ in range(2):  # a plugin is registered once for a process
        with open_engine(bundle, backend=backend) as engine:
            assert engine.info.backend == backend
            assert PROVIDERS[backend].package in engine.info.device
            np.testing.assert_allclose(
                engine.run(given)["score"], expected(given, "auto")["score"], rtol=1e-5
            )
    ((name, options),) = gpu_build.opened[-1]
    place = options.pop("trt_engine_cache_path", "")
    assert (name, options) == (PROVIDERS[backend].name, settings)
    assert bool(place) == (backend == TENSORRT)
    other = compute_wrongly(bundle)
    with pytest.raises(GateFailed, match=f"fp32 on {backend} computes wrongly"):
        open_engine(other, backend=backend)
    ((_, options),) = gpu_build.opened[-1]
    assert options.get("trt_engine_cache_path", "other") != place, "an engine of other weights"


def test_one_that_fails_while_it_opens_is_not_the_graphs_fault(tmp_path, monkeypatch, gpu_build):
    def refuse(*_, **__):
        raise RuntimeError("Please install TensorRT libraries")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(MissingCapability, match="does not run here: Please install TensorRT"):
        open_engine(save_bundle(tmp_path / "b"), backend=TENSORRT)


def test_a_plugin_that_cannot_be_used_says_why(tmp_path, monkeypatch):
    bundle = save_bundle(tmp_path / "b")

    def refuse(*_):
        raise RuntimeError("libcuda.so.1: cannot open shared object file")

    plug_in(monkeypatch, devices=1, register=refuse)
    with pytest.raises(MissingCapability, match=r"cannot be registered .*libcuda\.so\.1"):
        open_engine(bundle, backend=RTX)
    plug_in(monkeypatch, devices=0)
    with pytest.raises(MissingCapability, match="finds no GPU that it runs on"):
        open_engine(bundle, backend=RTX)


def test_the_precision_for_a_named_provider_is_measured(plant, tmp_path):
    four = save_bundle(tmp_path / "b4", precisions=("fp16", "fp32", "int8", "int8-fp16"))
    (four.path / "verify.json").write_text('{"precisions": {"int8-fp16": {"passed": false}}}')
    delays = {"fp32": 0.010, "int8": 0.030, "fp16": 0.004, "int8-fp16": 0.001}
    bench = plant(delays={Candidate(CUDA, name): delay for name, delay in delays.items()})
    choice = choose(four, backend=CUDA)
    assert (choice.backend, choice.precision) == (CUDA, "fp16")
    assert "fp16 on onnxruntime-cuda: 4.0 ms an image, fp32 on onnxruntime-cuda 10.0" in (
        choice.reason
    )
    assert [one.candidate.precision for one in bench.opened] == ["fp32", "int8", "fp16"]
    assert choose(four, backend=CUDA) == choice
    assert len(bench.opened) == 3, "the times were kept"


def test_auto_takes_a_provider_that_is_here_and_fastest(plant, both, monkeypatch):
    delays = {(one, name): 0.01 for one in ("openvino", "onnxruntime") for name in ("fp32", "int8")}
    delays |= {(CUDA, "fp32"): 0.002, (CUDA, "int8"): 0.005}
    plant(delays={Candidate(*one): delay for one, delay in delays.items()})
    assert choose(both).backend == "openvino", "there is no GPU"
    monkeypatch.setattr("hvq_edge.runtime.choice.choose_graph.may_be_tried", lambda: (CUDA,))
    choice = choose(both)
    assert (choice.backend, choice.precision) == (CUDA, "fp32")
    assert "hvq-edge verify has not run fp32 on onnxruntime-cuda; fp32 on" in choice.reason
    assert choose(both) == choice


def found_by_verify(bundle, **passed):
    verdicts = {name: {"passed": one} for name, one in passed.items()}
    fine = {name: {"passed": True} for name in bundle.manifest.models}
    kept = {"precisions": fine, "providers": {CUDA: verdicts}}
    (bundle.path / "verify.json").write_text(json.dumps(kept))


def test_what_verify_did_not_pass_on_a_provider_is_not_taken(plant, both, monkeypatch):
    delays = {(one, name): 0.01 for one in ("openvino", "onnxruntime") for name in ("fp32", "int8")}
    delays |= {(CUDA, "fp32"): 0.002, (CUDA, "int8"): 0.005}
    bench = plant(delays={Candidate(*one): delay for one, delay in delays.items()})
    monkeypatch.setattr("hvq_edge.runtime.choice.choose_graph.may_be_tried", lambda: (CUDA,))
    found_by_verify(both, fp32=False, int8=True)
    choice = choose(both)
    assert (choice.backend, choice.precision) == (CUDA, "int8")
    assert choice.reason.startswith("int8: verified; int8 on onnxruntime-cuda: 5.0 ms an image")
    assert "; without fp32 on onnxruntime-cuda: hvq-edge verify did not pass it" in choice.reason
    opened = len(bench.opened)
    assert choose(both) == choice
    assert len(bench.opened) == opened, "the times were kept"
    assert choose(both, precision="fp32").backend == "openvino"
    asked = choose(both, precision="fp32", backend=CUDA)
    assert asked.reason == "fp32: as asked; hvq-edge verify did not pass fp32 on onnxruntime-cuda"
    found_by_verify(both, int8=False)
    (named, on_cuda) = choose(both, backend=CUDA), "hvq-edge verify has not run fp32"
    assert named.reason.startswith(f"fp32: hvq-edge verify did not pass int8; {on_cuda}")
    found_by_verify(both, fp32=False, int8=False)
    assert choose(both).backend == "openvino"
    assert choose(both, backend=CUDA).precision == "fp32", "there is no other"


def test_auto_tries_nothing_without_a_gpu_and_what_is_installed_with_one(tmp_path, monkeypatch):
    assert may_be_tried() == ()
    device = tmp_path / "nvidiactl"
    device.touch()
    monkeypatch.setattr(providers, "_DEVICES", (str(device),))
    assert may_be_tried() == ()
    known = {"onnxruntime-gpu": "1.31.1", "onnxruntime-ep-nv-tensorrt-rtx-cu13": "0.5.0"}
    monkeypatch.setattr(providers, "_installed", known.get)
    assert may_be_tried() == (CUDA,)
    monkeypatch.setattr(providers, "find_spec", lambda _: object())
    assert may_be_tried() == (CUDA, RTX)


def test_times_depend_on_the_plugin_and_the_driver(tmp_path, monkeypatch):
    driver = tmp_path / "version"
    driver.write_text("NVRM version: 580.95\nGCC version: 13\n")
    monkeypatch.setattr(providers, "_DRIVER", driver)
    found = key_for({}, ("onnxruntime", RTX), None).versions
    plain = found["onnxruntime"]
    package = PROVIDERS[RTX].package
    assert found[RTX] == f"{plain}, {package} unknown, NVRM version: 580.95"


def test_the_command_line_and_the_settings_take_it(tmp_path, monkeypatch, capsys):
    bundle = save_bundle(tmp_path / "b")
    write_png(tmp_path / "parts" / "0.png", frames(1)[0])
    runs = {
        "predict": [tmp_path / "parts", "--bundle", bundle.path],
        "stream": ["--camera", tmp_path / "parts", "--bundle", bundle.path, "--no-display"],
    }
    for command, arguments in runs.items():
        for provider, code, said in (
            ("cuda", 3, "pip install onnxruntime-gpu"),
            ("rocm", 2, "is none of cpu, cuda"),
        ):
            words = [command, *arguments, "--backend", "onnxruntime", "--provider", provider]
            with pytest.raises(SystemExit) as ended:
                main([str(word) for word in words])
            printed = capsys.readouterr()
            assert ended.value.code == code, printed
            assert said in " ".join(printed.err.split())
    helped = CliRunner().invoke(app, ["eval", "--help"], env={"COLUMNS": "200"}).output
    assert "--provider" in helped


def test_doctor_lists_those_that_compute_here(monkeypatch, gpu_build):
    (found,) = look_at_onnxruntime()
    assert found.state == "ok"
    assert found.found.endswith("providers: cpu")
    plug_in(monkeypatch, devices=0)
    monkeypatch.setattr(providers, "find_spec", lambda _: object())
    tried = providers.providers_found()
    assert tried == {CUDA: "", TENSORRT: "", RTX: tried[RTX]}
    assert "finds no GPU" in tried[RTX]
    answers = iter(("1.32.0", tried))
    monkeypatch.setattr("hvq_edge.doctor.software.run_isolated", lambda _: next(answers))
    found, plugin = look_at_onnxruntime()
    assert found.found == "1.32.0; providers: cpu, cuda, tensorrt"
    assert (plugin.name, plugin.state, plugin.found) == (RTX, "note", tried[RTX])
