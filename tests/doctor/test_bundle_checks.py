"""The doctor's look at a bundle: its files, thresholds and engines, and what these compute."""

from __future__ import annotations

import re

import pytest
from helpers.engine_bench import cache  # noqa: F401  # a fixture
from helpers.findings import by_name
from helpers.graphs import save_bundle
from helpers.known_answers import compute_wrongly, give_answers
from helpers.looks import texture_looks, used_to
from helpers.thresholds import threshold_at

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.common.child_process import NoAnswer
from hvq_edge.doctor.bundle import bundle as look_at_bundle
from hvq_edge.doctor.bundle import engines, known_answers
from hvq_edge.runtime.tensorrt.engine_file import BuildOptions, EngineRecord, this_platform

SHA = "0" * 64


@pytest.fixture
def bundle(tmp_path):
    return save_bundle(tmp_path / "bundle", "auto", ("fp32", "int8"))


def test_a_bundle(bundle):
    found = by_name(look_at_bundle(bundle.path, "1.0"))
    assert found["bundle"].state == "ok"
    assert "written by hvq-edge 0, here is 1.0" in found["bundle-version"].found
    assert found["thresholds"].state == "missing"
    assert "bolt at fp32" in found["thresholds"].found
    assert f"hvq-edge calibrate {bundle.path}" in found["thresholds"].remedy
    limit = threshold_at(1, images=1, rule="")
    every = dict.fromkeys(bundle.manifest.categories, limit)
    thresholds = {"fp32": every, "int8": every}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"thresholds": thresholds}))
    found = by_name(look_at_bundle(bundle.path, "0"))
    assert (found["thresholds"].state, "bundle-version" in found) == ("ok", False)
    assert found["training-images"].state == "note"
    assert (
        f"not known for {', '.join(bundle.manifest.categories)}" in found["training-images"].found
    )
    (bundle.path / "model.int8.onnx").write_bytes(b"changed")
    (broken,) = look_at_bundle(bundle.path, "0")
    assert (broken.name, broken.state) == ("bundle", "missing")
    assert "is not the file that was exported" in broken.found


def test_a_bundle_of_one_category(tmp_path):
    found = by_name(look_at_bundle(save_bundle(tmp_path / "b").path, "1.0"))
    assert re.search(r"whole \(1 file, .*; 1 category$", found["bundle"].found)


def test_a_bundle_that_knows_its_training_images(tmp_path):
    bundle = used_to(save_bundle(tmp_path / "bundle"), texture_looks(5))
    found = by_name(look_at_bundle(bundle.path, "1.0"))["training-images"]
    assert found.state == "ok"
    assert re.search(r"brightness: bolt 1\d\d \.\. 1\d\d$", found.found)


def test_engines_that_run_here_and_why_others_do_not(bundle):
    assert engines(bundle.path)[0].found == "none in the bundle"
    folder = bundle.path / "engines"
    folder.mkdir()
    digest = bundle.manifest.files["model.fp32.onnx"].sha256
    plan = folder / "tensorrt-10.3.0-sm87-fp32.plan"
    plan.write_bytes(b"plan")
    record = EngineRecord(
        backend="tensorrt",
        backend_version="10.3.0",
        precision="fp32",
        onnx_sha256=digest,
        compute_capabilities=("8.7",),
        platform=this_platform(),
        gpu_name="Orin",
        driver="12.6",
        options=BuildOptions(),
        workspace=0,
        build_seconds=1,
        bytes=4,
        plan_sha256="f" * 64,
        hvq_edge_version="0",
        created="",
    )
    from hvq_edge.common.atomic import sha256_of

    def write(**changes):
        kept = record.model_copy(update={"plan_sha256": sha256_of(plan), **changes})
        plan.with_suffix(".json").write_text(kept.model_dump_json())

    here = {"name": "Orin", "compute_capability": "8.7", "driver": "12.6"}

    def look(version="10.3.0", **changes):
        (found,) = engines(bundle.path, lambda: here | changes, lambda _: version)
        return found

    write()
    assert (look().name, look().state) == (f"engine-{plan.stem}", "ok")
    other = look(compute_capability="8.6")
    assert other.state == "missing"
    assert "8.6" in other.found
    assert "hvq-edge build" in other.remedy
    assert look("10.16.0").state == "missing"
    write(onnx_sha256=SHA)
    assert look().state == "missing"

    def none():
        raise NoAnswer("this machine has no NVIDIA GPU that answers")

    (found,) = engines(bundle.path, none, lambda _: "10.3.0")
    assert "no NVIDIA GPU" in found.found


def test_whether_engines_compute_rightly_here(tmp_path, cache):
    bundle = save_bundle(tmp_path / "b", "auto", ("fp32", "int8"))
    (unknown,) = known_answers(bundle.path)
    assert (unknown.name, unknown.state) == ("computes", "note")
    compute_wrongly(give_answers(bundle), "int8")
    for _ in range(2):
        found = by_name(known_answers(bundle.path))
        for backend in ("onnxruntime", "openvino"):
            right, wrong = (found[f"computes-{name}-{backend}"] for name in ("fp32", "int8"))
            assert right.state == "ok"
            assert right.found.startswith("right on 3 known images: 100.0% of codes equal")
            assert wrong.state == "missing"
            assert wrong.found.startswith("computes wrongly on 3 known images: the map is off")
    assert known_answers(tmp_path / "nowhere") == [], "said twice"


def test_a_bundle_that_is_not_there(tmp_path):
    (found,) = look_at_bundle(tmp_path / "nowhere", "0")
    assert found.state == "missing"
    assert engines(tmp_path / "nowhere") == [], "said twice"
