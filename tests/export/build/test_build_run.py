"""Engines in a bundle: built once, recorded, never half-written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers.engine_builds import ORIN, build
from helpers.graphs import save_bundle
from helpers.paths import with_helpers
from helpers.patience import PATIENCE_SECONDS
from helpers.tensorrt_stand_in import RTX, tensorrt

from hvq_edge.cli.app import main
from hvq_edge.errors import BundleError, HvqEdgeError, MissingCapability, SettingsError
from hvq_edge.export.build import run as module
from hvq_edge.export.build.run import build_run
from hvq_edge.runtime.cuda.device import CudaDevice
from hvq_edge.runtime.tensorrt import library as tensorrt_library
from hvq_edge.runtime.tensorrt.engine_file import BuildOptions, read_record


def no_gpu():
    raise MissingCapability("this machine has no NVIDIA driver: none.", next_step="install it")


@pytest.fixture
def bundle(tmp_path):
    """A bundle with all four precisions."""
    return save_bundle(tmp_path / "Bündel", precisions=("fp32", "fp16", "int8", "int8-fp16")).path


def test_an_engine_and_its_record(bundle):
    result = build(bundle, precision="int8")
    assert result.engine_file == bundle / "engines" / "tensorrt-10.3.0-sm87-int8.plan"
    assert result.engine_file.read_bytes() == b"plan"
    record = read_record(result.engine_file)
    assert record == result.record
    manifest = json.loads((bundle / "bundle.json").read_text())
    assert record.onnx_sha256 == manifest["files"]["model.int8.onnx"]["sha256"]
    assert (record.gpu_name, record.driver) == ("Orin", "12.6")
    assert record.compute_capabilities == ("8.7",)
    assert record.bytes == 4
    assert result.reason == "there was none"


def test_it_is_built_once(bundle):
    library = tensorrt("10.3.0")
    first, second = (build(bundle, library, precision="fp32") for _ in range(2))
    assert len(library.builds) == 1
    assert (second.reason, second.record) == ("", first.record)
    assert build(bundle, library, precision="fp32", force=True).reason == "asked for"
    assert len(library.builds) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": BuildOptions(max_batch=16)}, "max_batch: 8 before, now 16"),
        ({"options": BuildOptions(tf32=True)}, "tf32: False before, now True"),
        ({"device": lambda: CudaDevice("Orin Nano", "8.7", "12.6", 9, 8 << 30, False)}, "Orin Na"),
    ],
)
def test_what_differs_is_named_and_built_again(bundle, change, said):
    build(bundle, precision="fp32")
    result = build(bundle, precision="fp32", **change)
    assert said in result.reason
    assert build(bundle, precision="fp32", **change).reason == ""


def test_another_graph_under_the_same_name(bundle, tmp_path):
    build(bundle, precision="fp32")
    other = save_bundle(tmp_path / "other", "auto", categories=("bolt", "nut")).path
    for name in ("bundle.json", "model.fp32.onnx"):
        (bundle / name).write_bytes((other / name).read_bytes())
    assert build(bundle, precision="fp32").reason.startswith("graph: ")


@pytest.mark.parametrize("ending", [".plan", ".json"])
def test_a_spoilt_engine_is_built_again(bundle, ending):
    first = build(bundle, precision="fp32")
    first.engine_file.with_suffix(ending).write_bytes(b"half of it")
    assert first.engine_file.stem in build(bundle, precision="fp32").reason
    assert read_record(first.engine_file).bytes == 4


def test_a_changed_graph_is_refused(bundle):
    (bundle / "model.fp32.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="not the file that was exported"):
        build(bundle, precision="fp32")
    assert not (bundle / "engines").exists()


def test_the_timing_cache_serves_all_precisions(bundle):
    for precision in ("fp32", "int8"):
        build(bundle, precision=precision)
    cache = bundle / "engines" / "tensorrt-10.3.0-sm87.timing"
    assert cache.read_bytes() == b"++"


def test_rtx_needs_no_gpu(bundle):
    library = tensorrt(RTX)
    result = build(
        bundle, library, device=no_gpu, precision="fp32", capabilities=("8.6", "8.9", "12.0")
    )
    assert result.engine_file.name == "tensorrt-rtx-1.7.1.116-sm86-sm89-sm120-fp32.plan"
    assert (result.record.gpu_name, result.record.driver) == (None, None)
    assert not list(result.engine_file.parent.glob("*.timing"))


def test_rtx_for_the_gpu_that_is_there(bundle):
    ada = CudaDevice("NVIDIA RTX 4000", "8.9", "13.0", 20 << 30, 19 << 30, False)
    library = tensorrt(RTX)
    result = build(bundle, library, device=lambda: ada, precision="fp32")
    assert result.record.compute_capabilities == ("8.9",)
    assert library.builds[0][1]._chips == {0: "SM89"}


# What is chosen.


def test_auto_takes_what_gpus_are_best_at(bundle):
    assert build(bundle).record.precision == "int8-fp16"
    (bundle / "verify.json").write_text(
        json.dumps({"precisions": {"int8-fp16": {"passed": False}, "fp16": {"passed": True}}})
    )
    assert build(bundle).record.precision == "fp16"


def test_auto_with_what_there_is(tmp_path):
    assert build(save_bundle(tmp_path / "b").path).record.precision == "fp32"


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        (("tensorrt", "tensorrt_rtx"), "tensorrt"),
        (("tensorrt_rtx",), "tensorrt-rtx"),
    ],
)
def test_the_backend_that_is_installed(bundle, monkeypatch, installed, chosen):
    monkeypatch.setattr(module, "find_spec", lambda name: name in installed or None)
    asked = []

    def load(backend):
        asked.append(backend)
        return tensorrt(RTX if backend == "tensorrt-rtx" else "10.3.0")

    monkeypatch.setattr(module, "load_backend", load)
    ada = CudaDevice("RTX", "8.9", "13.0", 20 << 30, 19 << 30, False)
    result = build_run(bundle, precision="fp32", device=lambda: ada)
    assert asked == [chosen] == [result.record.backend]


@pytest.mark.parametrize("backend", ["auto", "tensorrt", "tensorrt-rtx"])
def test_a_library_that_is_missing_ends_with_3(bundle, monkeypatch, capsys, backend):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    monkeypatch.setattr(
        tensorrt_library, "MODULES", {"tensorrt": "no_trt", "tensorrt-rtx": "no_trt"}
    )
    with pytest.raises(SystemExit) as exit_:
        main(["build", str(bundle), "--backend", backend, "--compute-capability", "8.6"])
    assert exit_.value.code == 3
    said = capsys.readouterr().err
    wanted = {"tensorrt": "libnvinfer", "tensorrt-rtx": "hvq-edge[rtx]"}.get(backend, "hvq-edge[rt")
    assert wanted in said


def test_a_library_whose_own_library_is_missing(bundle, monkeypatch, tmp_path):
    """pip's stub packages of TensorRT."""
    (tmp_path / "broken_trt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(tensorrt_library, "MODULES", {"tensorrt": "broken_trt"})
    with pytest.raises(MissingCapability, match=r"libnvinfer\.so\.10"):
        build_run(bundle, backend="tensorrt", device=lambda: ORIN)


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ({"precision": "int9"}, SettingsError, "no 'int9'"),
        ({"backend": "openvino"}, SettingsError, "'openvino' builds no engines"),
        ({"capabilities": ("8.6",)}, SettingsError, "for the GPU that is there, Orin"),
        ({"device": no_gpu}, MissingCapability, "no NVIDIA driver"),
        (
            {"library": tensorrt("10.16.1.11", called="10.13.3"), "backend": "tensorrt"},
            MissingCapability,
            "without code for compute capability 8.7",
        ),
        ({"library": tensorrt(RTX), "device": no_gpu}, MissingCapability, "which GPU to build"),
        ({"library": tensorrt("10.3.0", called="8.5.2")}, MissingCapability, "is too old"),
        ({"options": BuildOptions(opt_batch=9)}, SettingsError, "above the largest"),
    ],
)
def test_what_cannot_be_built(bundle, more, kind, said):
    with pytest.raises(kind, match=said):
        build(bundle, **more)
    assert not (bundle / "engines").exists()


def test_a_precision_that_the_bundle_lacks(tmp_path):
    with pytest.raises(BundleError, match="no fp16 model"):
        build(save_bundle(tmp_path / "b").path, precision="fp16")


# Builds that end early.


def left_in(bundle: Path) -> list[str]:
    return sorted(path.name for path in bundle.rglob("*") if "engines" in path.parts)


@pytest.mark.parametrize("how", ["fails", "interrupted"])
def test_a_build_that_ends_early_leaves_nothing(bundle, how):
    library = tensorrt("10.3.0", error="Error Code 10" if how == "fails" else None)

    def press(stage, done, total, note=""):
        if how == "interrupted":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises((HvqEdgeError, KeyboardInterrupt)):
        build(bundle, library, precision="fp32", on_progress=press)
    assert left_in(bundle) == []
    build(bundle, precision="fp32")  # the lock is free again
    kept = left_in(bundle)
    with pytest.raises((HvqEdgeError, KeyboardInterrupt)):
        build(bundle, library, precision="fp32", force=True, on_progress=press)
    assert left_in(bundle) == kept
    assert read_record(bundle / "engines" / "tensorrt-10.3.0-sm87-fp32.plan")


def test_a_killed_build_leaves_nothing_and_blocks_nobody(bundle):
    script = (
        "import os, signal\nfrom pathlib import Path\n"
        "from helpers.engine_builds import build\n"
        "def kill(*said): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"build(Path({str(bundle)!r}), precision='fp32', on_progress=kill)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=with_helpers())
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert left_in(bundle) == []
    assert build(bundle, precision="fp32").reason == "there was none"


def test_two_at_once_build_once(bundle):
    library = tensorrt("10.3.0")
    began, going_on = threading.Event(), threading.Event()
    waiting, results = [], []

    def first(stage, done, total, note=""):
        began.set()
        assert going_on.wait(PATIENCE_SECONDS)

    def second(stage, done, total, note=""):
        waiting.append(stage)
        going_on.set()

    def run(on_progress):
        results.append(build(bundle, library, precision="fp32", on_progress=on_progress))

    threads = [threading.Thread(target=run, args=(one,)) for one in (first, second)]
    threads[0].start()
    assert began.wait(PATIENCE_SECONDS)
    threads[1].start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert len(library.builds) == 1
    assert waiting[0] == "waiting for another build"
    assert sorted(result.reason for result in results) == ["", "there was none"]


# The command.


def test_the_command(bundle, monkeypatch, capsys):
    monkeypatch.setattr(module, "load_backend", lambda _: tensorrt(RTX))
    words = ["build", str(bundle), "--backend", "tensorrt-rtx", "--precision", "int8"]
    words += ["--compute-capability", "8.6", "--compute-capability", "8.9", "--max-batch", "4"]
    with pytest.raises(SystemExit) as exit_:
        main([*words, "--json"])
    assert exit_.value.code in (0, None)
    printed = json.loads(capsys.readouterr().out)
    plan = Path(printed["engine"])
    assert plan.is_file()
    assert printed["compute_capabilities"] == ["8.6", "8.9"]
    assert printed["options"]["max_batch"] == 4
    with pytest.raises(SystemExit):
        main(words)
    shown = capsys.readouterr()
    assert plan.name in shown.out
    assert "8.6, 8.9" in shown.out
    assert "It was there already" in shown.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hardware-compatibility", "turing"], "hardware: must be"),
        (["--level", "6"], "--level"),
        (["--max-batch", "1"], "at least 2"),
    ],
)
def test_a_wrong_option_ends_with_2(bundle, monkeypatch, capsys, words, said):
    monkeypatch.setattr(module, "load_backend", lambda _: tensorrt(RTX))
    common = ["build", str(bundle), "--backend", "tensorrt-rtx", "--compute-capability", "8.6"]
    with pytest.raises(SystemExit) as exit_:
        main([*common, *words])
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err
