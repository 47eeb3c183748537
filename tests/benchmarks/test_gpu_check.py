"""The script that owners of GPUs run: without one it says so, with one it measures."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.gpu_stand_in import CudaBindings, PyCuda
from helpers.graphs import frames, save_bundle
from helpers.plans import GPU
from helpers.runtime_stand_in import add_runtime
from helpers.tensorrt_stand_in import tensorrt

from benchmarks.gpu import gpu_check
from benchmarks.gpu.gpu_engine_check import check_engines
from benchmarks.gpu.gpu_finding import Finding, attempt
from benchmarks.gpu.gpu_memory_check import check_memory
from benchmarks.gpu.gpu_torch_check import check_codes, check_latency
from hvq_edge.errors import BundleError, MissingCapability, SettingsError
from hvq_edge.runtime.cuda import device as cuda_device
from hvq_edge.runtime.cuda.memory import open_cuda_memory


class Nearest(torch.nn.Module):
    """A net of one linear, whose codes are close calls."""

    def __init__(self):
        super().__init__()
        self.books = torch.nn.Linear(3, 512)

    def forward(self, frames, category):
        distances = self.books(frames.to(torch.float32).flatten(1, 2) / 255)
        return {
            "codes": distances.argmax(2),
            "score": distances.amax((1, 2)),
            "category": torch.zeros(len(frames), dtype=torch.int32),
        }


def by_name(findings):
    return {one.what: one for one in findings}


def test_without_a_gpu_it_ends_with_3_and_the_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cuda_device, "LIBRARY", "libno-such-driver.so.1")
    out = tmp_path / "check.json"
    assert gpu_check.main([str(tmp_path), "--json", str(out)]) == 3
    said = capsys.readouterr()
    assert "no NVIDIA driver" in said.out
    assert "install NVIDIA's driver" in said.err
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["gpu"] is None
    assert content["findings"][0]["state"] == "not run"
    assert content["versions"]["torch"]


def test_a_run_that_is_none_ends_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "cuda_device", lambda: GPU)
    assert gpu_check.main([str(tmp_path), "--json", str(tmp_path / "check.json")]) == 2
    assert "Next:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (MissingCapability("not here."), "not run", "not here."),
        (SettingsError("not for 9.0."), "not run", "not for 9.0."),
        (ImportError("No module named 'pycuda'"), "not run", "No module named 'pycuda'"),
        (BundleError("changed."), "failed", "changed."),
        (RuntimeError("CUDA error\nmore"), "failed", "RuntimeError: CUDA error"),
    ],
)
def test_a_check_that_raises_is_a_finding(error, state, said):
    def check():
        yield Finding("first", "ok")
        raise error

    assert list(attempt("all", check)) == [Finding("first", "ok"), Finding("all", state, said)]


def test_the_exit_code_and_the_table(tmp_path):
    good, bad = Finding("a", "ok", "1 ms", 1.0), Finding("b", "failed", "why")
    assert gpu_check.exit_code([good, Finding("c", "not run")]) == 0
    assert gpu_check.exit_code([good, bad]) == 1
    table = gpu_check.report([good, bad], GPU, tmp_path / "check.json")
    assert "| b     | failed |    why |" in table
    content = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert content["gpu"]["compute_capability"] == "8.9"
    assert content["findings"][0] == {"what": "a", "state": "ok", "value": "1 ms", "number": 1.0}


@pytest.mark.parametrize("library", [PyCuda, CudaBindings])
def test_memory_streams_and_graphs(library, monkeypatch):
    made = library()
    made.install(monkeypatch)
    found = list(check_memory(open_cuda_memory, lambda: GPU, size=1 << 16, openings=3))
    states = [one.state for one in found]
    assert states == ["ok", "not run" if library is PyCuda else "ok", "ok"]
    assert found[0].number > 0
    assert made.held.nothing


def test_memory_that_leaks_is_a_failure(monkeypatch):
    CudaBindings().install(monkeypatch)
    free = iter((10 << 30, 9 << 30))

    def device():
        return cuda_device.CudaDevice("a", "8.9", "13.0", 20 << 30, next(free), shared=False)

    *_, last = check_memory(open_cuda_memory, device, size=1 << 16, openings=3)
    assert (last.state, last.value) == ("failed", "1024.0 MiB")


def test_a_copy_that_goes_wrong_is_a_failure(monkeypatch):
    made = CudaBindings()
    made.driver.cuMemcpyDtoHAsync = lambda *_: (0,)
    made.install(monkeypatch)
    check = attempt("memory", lambda: check_memory(open_cuda_memory, lambda: GPU, size=1 << 12))
    assert [one.state for one in check] == ["failed"]
    assert made.held.nothing


def test_engines_are_built_and_held_against_the_graph(tmp_path, monkeypatch):
    gpu = CudaBindings()
    gpu.install(monkeypatch)
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "fp16"))
    plan = bundle.model_file("fp32").read_bytes()
    library = add_runtime(tensorrt("10.3.0", plan=plan))
    found = by_name(
        check_engines(
            bundle,
            "tensorrt",
            frames(5),
            lambda: GPU,
            load=lambda _: library,
            runs=6,
        )
    )
    assert {one.state for one in found.values()} == {"ok"}, found
    for label in ("tensorrt fp32", "tensorrt fp16, CUDA graph"):
        assert found[f"{label}: codes equal to ONNX Runtime's"].number == 100
    assert found["tensorrt fp16: one frame"].number > 0
    assert found["tensorrt fp32: frames a second, one ahead"].number > 0
    assert not (bundle.path / "engines").exists(), "the user's bundle is left alone"
    assert gpu.held.nothing


def test_a_library_that_is_missing_is_said_once(tmp_path):
    def missing(_):
        raise MissingCapability("tensorrt_rtx cannot be imported.")

    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "fp16"))
    check = attempt(
        "rtx", lambda: check_engines(bundle, "tensorrt-rtx", frames(1), lambda: GPU, load=missing)
    )
    assert list(check) == [Finding("rtx", "not run", "tensorrt_rtx cannot be imported.")]


def test_a_gpu_that_rtx_does_not_build_for(tmp_path):
    """SM90, an H100, is not in its list."""
    h100 = cuda_device.CudaDevice("H100", "9.0", "13.0", 80 << 30, 79 << 30, shared=False)
    library = add_runtime(tensorrt("1.7.1.116"))
    bundle = save_bundle(tmp_path / "b")
    (found,) = check_engines(
        bundle, "tensorrt-rtx", frames(1), lambda: h100, load=lambda _: library
    )
    assert found.state == "not run"
    assert "not for 9.0" in found.value


def test_the_models_codes_and_latency(monkeypatch):
    torch.manual_seed(0)
    model, given = Nearest(), torch.tensor(frames(4))
    codes = by_name(check_codes(model, given, "cpu"))
    assert 50 < codes["PyTorch bfloat16: equal codes"].number < 100
    assert (
        codes["PyTorch float16: equal codes"].number > codes["PyTorch bfloat16: equal codes"].number
    )
    assert codes["PyTorch bfloat16: largest change of a score, in spreads of the scores"].number > 0
    monkeypatch.setattr(torch, "compile", lambda _: (_ for _ in ()).throw(RuntimeError("no g++")))
    latency = by_name(check_latency(model, given[:1], "cpu", runs=2))
    assert latency["PyTorch on cpu, one frame: eager"].number > 0
    assert latency["PyTorch on cpu, one frame: compiled"].value == "RuntimeError: no g++"
    graph = latency["PyTorch on cpu, one frame: CUDA graph"]
    assert (graph.state, graph.value) == ("not run", "cpu has no CUDA graphs.")
    monkeypatch.setattr(torch, "compile", lambda model: model)
    latency = by_name(check_latency(model, given[:1], "cpu", runs=2))
    assert latency["PyTorch on cpu, one frame: compiled"].state == "ok"
