"""An engine made elsewhere is refused in words, before the library sees it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from hvq_edge.errors import BundleError
from hvq_edge.runtime.tensorrt.engine_file import (
    BuildOptions,
    EngineRecord,
    Here,
    check_engine,
    differences,
    engine_stem,
    read_record,
    this_platform,
)

HERE = Here(
    backend="tensorrt",
    backend_version="10.3.0",
    onnx_sha256="a" * 64,
    compute_capability="8.7",
    gpu_name="Orin",
    driver="12.6",
    platform="linux-aarch64",
)


def record(**changes) -> EngineRecord:
    options = {
        name: changes.pop(name) for name in ("hardware", "version_compatible") if name in changes
    }
    return EngineRecord(
        **{
            "backend": "tensorrt",
            "backend_version": "10.3.0",
            "precision": "int8-fp16",
            "onnx_sha256": "a" * 64,
            "compute_capabilities": ("8.7",),
            "platform": "linux-aarch64",
            "gpu_name": "Orin",
            "driver": "12.6",
            "options": BuildOptions(**options),
            "workspace": 1,
            "peak_memory": 2,
            "build_seconds": 3.5,
            "bytes": 4,
            "plan_sha256": hashlib.sha256(b"plan").hexdigest(),
            "hvq_edge_version": "0",
            "created": "2026-01-01T00:00:00+00:00",
            **changes,
        }
    )


def test_names():
    assert engine_stem("tensorrt", "10.3.0", ("8.7",), "int8") == "tensorrt-10.3.0-sm87-int8"
    assert (
        engine_stem("tensorrt-rtx", "1.7.1.116", ("8.6", "12.0"), "fp32")
        == "tensorrt-rtx-1.7.1.116-sm86-sm120-fp32"
    )


def test_this_platform_is_lower_case():
    assert this_platform() == this_platform().lower() != "-"


def test_nothing_differs():
    assert differences(record(), HERE) == ()


@pytest.mark.parametrize(
    ("built", "here", "said"),
    [
        ({"onnx_sha256": "b" * 64}, {}, "graph: built for bbbbbbbbbbbb…, here is aaaaaaaaaaaa…"),
        ({"backend": "tensorrt-rtx"}, {}, "backend: built for tensorrt-rtx, here is tensorrt"),
        ({}, {"backend_version": "10.16.1"}, "built for 10.3.0, here is 10.16.1"),
        ({"version_compatible": True}, {"backend_version": "10.2.0"}, "here is 10.2.0"),
        ({"platform": "linux-x86_64"}, {}, "platform: built for linux-x86_64, here is linux-aarch"),
        ({"compute_capabilities": ("8.6", "8.9")}, {}, "built for 8.6, 8.9, here is 8.7"),
        ({"hardware": "ampere+"}, {"compute_capability": "7.5"}, "here is 7.5"),
        ({"hardware": "same-compute-capability"}, {"compute_capability": "8.9"}, "here is 8.9"),
    ],
)
def test_what_blocks_is_named_with_the_command(tmp_path, built, here, said):
    place = replace(HERE, **here)
    with pytest.raises(BundleError) as caught:
        check_engine(tmp_path / "engines" / "x.plan", record(**built), place)
    assert said in caught.value.cause
    assert f"hvq-edge build {tmp_path} --backend tensorrt --precision int8-fp16" in (
        caught.value.next_step
    )


def test_all_that_blocks_is_said_at_once(tmp_path):
    place = replace(HERE, backend_version="11.0.0", compute_capability="8.9", onnx_sha256="c" * 64)
    with pytest.raises(BundleError) as caught:
        check_engine(tmp_path / "engines/x.plan", record(), place)
    assert all(name in caught.value.cause for name in ("graph", "backend_version", "8.9"))


@pytest.mark.parametrize(
    ("built", "here", "field"),
    [
        ({}, {"driver": "13.0"}, "driver"),
        ({}, {"gpu_name": "Orin Nano"}, "gpu_name"),
        ({"version_compatible": True}, {"backend_version": "10.16.1"}, "backend_version"),
        ({"version_compatible": True}, {"backend_version": "11.4.0"}, "backend_version"),
        ({"hardware": "ampere+"}, {"compute_capability": "8.9"}, "compute_capability"),
    ],
)
def test_what_does_not_block_is_told(tmp_path, built, here, field):
    (one,) = check_engine(tmp_path / "engines/x.plan", record(**built), replace(HERE, **here))
    assert (one.field, one.blocks) == (field, False)


def test_an_engine_for_several_gpus_made_without_one():
    place = replace(HERE, backend="tensorrt-rtx", compute_capability="8.9")
    made = record(
        backend="tensorrt-rtx",
        compute_capabilities=("8.6", "8.9"),
        gpu_name=None,
        driver=None,
    )
    assert differences(made, place) == ()


def test_the_command_for_an_rtx_card_names_it(tmp_path):
    place = replace(HERE, backend="tensorrt-rtx", compute_capability="12.0")
    with pytest.raises(BundleError) as caught:
        check_engine(tmp_path / "engines/x.plan", record(backend="tensorrt-rtx"), place)
    assert caught.value.next_step.endswith("--compute-capability 12.0")


def save(folder, made: EngineRecord, content: bytes = b"plan"):
    plan = folder / "tensorrt-10.3.0-sm87-int8.plan"
    plan.write_bytes(content)
    plan.with_suffix(".json").write_text(made.model_dump_json())
    return plan


def test_a_record_is_read_back(tmp_path):
    assert read_record(save(tmp_path, record())) == record()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda plan: plan.write_bytes(b"other"), "not the engine that was built"),
        (lambda plan: plan.unlink(), "cannot be read"),
        (lambda plan: plan.with_suffix(".json").unlink(), "cannot be read"),
        (lambda plan: plan.with_suffix(".json").write_text("{"), "not an engine's record"),
        (lambda plan: plan.with_suffix(".json").write_bytes(b"\xff\xfe"), "not an engine's record"),
        (
            lambda plan: plan.with_suffix(".json").write_text(
                record().model_dump_json().replace("hvq-edge-engine/1", "hvq-edge-engine/9")
            ),
            "not an engine's record",
        ),
    ],
)
def test_a_spoilt_engine(tmp_path, spoil, said):
    plan = save(tmp_path, record())
    spoil(plan)
    with pytest.raises(BundleError, match=said) as caught:
        read_record(plan)
    assert "hvq-edge build" in caught.value.next_step
