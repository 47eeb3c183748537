"""Verify runs ONNX Runtime's providers for GPUs, here where the processor stands for a GPU."""

from __future__ import annotations

import io
import json
import shutil

import onnx
import onnxruntime
import pytest
from helpers.graphs import save_bundle
from helpers.onnxruntime_stand_in import gpu_build  # noqa: F401  # a fixture
from onnx import numpy_helper
from rich.console import Console

from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.verification import read_all_verdicts, read_verification
from hvq_edge.cli.app import main
from hvq_edge.cli.verify import verify_table
from hvq_edge.errors import MissingCapability
from hvq_edge.export.verify import runners
from hvq_edge.export.verify.runners import PROVIDER_RUNNERS, runners_of
from hvq_edge.runtime.cpu.onnxruntime_engine import OnnxRuntimeEngine
from hvq_edge.runtime.cpu.onnxruntime_providers import PROVIDERS
from hvq_edge.runtime.open_engine import choose

CUDA, TENSORRT, RTX = PROVIDERS


def test_each_provider_has_a_runner():
    assert list(PROVIDER_RUNNERS) == list(PROVIDERS)


def test_one_that_computes_wrongly_fails_and_leaves_the_file_its_verdict(
    small_bundle, small_run, solar_cells, tmp_path, monkeypatch, capsys, gpu_build
):
    """Float32 is damaged on its way to the GPU; INT8, and every library here, is as it was."""
    right = (small_bundle / "model.fp32.onnx").read_bytes()

    def damaged(content: bytes) -> bytes:
        if content != right:
            return content
        graph = onnx.load_from_string(content)
        norm = next(one for one in graph.graph.initializer if one.name == "decoder_norm.weight")
        norm.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(norm), norm.name))
        return graph.SerializeToString()

    gpu_build.instead = damaged
    path = tmp_path / "bundle"
    shutil.copytree(small_bundle, path)
    words = [str(path), "--data", str(solar_cells), "--run", str(small_run), "--images", "4"]
    with pytest.raises(SystemExit) as ended:
        main(["verify", *words, "--max-changed", "1", "--provider", "cuda", "--json"])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert "fp32 on ONNX Runtime CUDA: map error" in " ".join(printed.err.split())
    found = json.loads(printed.out)
    assert not found["passed"]
    assert list(found["providers"]) == [CUDA]
    verdicts = {name: one["passed"] for name, one in found["providers"][CUDA].items()}
    rows = {(row["runner"], row["precision"]): row for row in found["comparisons"]}
    on_cpu, on_gpu = (rows[name, "int8"] for name in ("ONNX Runtime", "ONNX Runtime CUDA"))
    assert verdicts == {"fp32": False, "int8": not on_gpu["faults"]}
    assert on_gpu["map_error"] == pytest.approx(on_cpu["map_error"]), "the same graph"
    assert found["precisions"]["fp32"]["passed"], "no fault of the file"
    version = found["libraries"]["ONNX Runtime CUDA"]
    assert version.startswith(f"{onnxruntime.__version__}, onnxruntime-gpu")
    assert (path / "verify" / "outputs-fp32-onnx-runtime-cuda.json").is_file()

    bundle = open_bundle(path)
    of_files, on_providers = read_all_verdicts(bundle)
    assert of_files["fp32"]
    assert on_providers == {CUDA: verdicts}
    assert choose(bundle, precision="fp32", backend=CUDA).reason.endswith(
        "hvq-edge verify did not pass fp32 on onnxruntime-cuda"
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(verify_table(read_verification(path / "verify.json")))
    shown = console.export_text()
    assert "…" not in shown, shown
    assert "FAILED" in shown


def test_one_that_was_named_must_run(small_bundle, small_run, solar_cells, tmp_path, capsys):
    """The real ONNX Runtime, which has no CUDA here."""
    path = tmp_path / "bundle"
    shutil.copytree(small_bundle, path)
    words = [str(path), "--data", str(solar_cells), "--run", str(small_run)]
    for name, code, said in (
        ("cuda", 3, "pip install onnxruntime-gpu"),
        ("tensorrt-rtx", 3, "pip install onnxruntime-ep-nv-tensorrt-rtx"),
        ("rocm", 2, "is none of cpu, cuda"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["verify", *words, "--provider", name])
        assert ended.value.code == code
        assert said in " ".join(capsys.readouterr().err.split())
    assert not (path / "verify.json").exists()


def test_onnx_runtimes_fall_back_is_no_verification(tmp_path, monkeypatch):
    """Told that it has CUDA, the real one computes on the processor: that is not its result."""
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(MissingCapability, match="fell back to CPU"),
    ):
        runners_of(save_bundle(tmp_path / "b"), [CUDA])


def test_where_one_that_was_named_does_not_run_those_that_do_are_closed(
    tmp_path, monkeypatch, gpu_build
):
    closed = []
    monkeypatch.setattr(OnnxRuntimeEngine, "close", lambda engine: closed.append(engine))
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "int8"))
    tested, _ = runners_of(bundle, [CUDA])
    assert not closed
    with pytest.raises(MissingCapability):
        runners_of(bundle, [CUDA, RTX])
    assert len(closed) == sum(one.library == PROVIDER_RUNNERS[CUDA] for one in tested) == 2


@pytest.mark.parametrize("mode", ["one", "input"])
def test_those_that_auto_would_try_run_or_say_why_not(tmp_path, monkeypatch, gpu_build, mode):
    bundle = save_bundle(tmp_path / "b", mode)
    assert not gpu_build.opened
    monkeypatch.setattr(runners, "may_be_tried", lambda: (CUDA,))
    tested, _ = runners_of(bundle)
    assert tested[-1].name == "fp32 ONNX Runtime CUDA"
    asked_of = len(gpu_build.opened)
    tested, _ = runners_of(bundle, ["onnxruntime"])
    assert [one.library for one in tested] == ["ONNX Runtime", "OpenVINO"]
    assert len(gpu_build.opened) == asked_of == 1, "cpu was named, which always runs"
    gpu_build.fails = "no kernel image is available"
    tested, not_run = runners_of(bundle)
    assert "fp32 ONNX Runtime CUDA" not in [one.name for one in tested]
    (reason,) = [one.reason for one in not_run if one.runner == "ONNX Runtime CUDA"]
    assert "no kernel image is available" in reason
