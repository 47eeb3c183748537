"""What runs of a signed bundle are the bytes that were checked, whenever a file is exchanged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.graph_edits import set_value, value_of
from helpers.graphs import expected, frames, save_bundle
from helpers.plans import gpu, opened, same, save_plan  # noqa: F401  # fixtures

from hvq_edge.bundle.integrity.keys import new_key
from hvq_edge.bundle.integrity.signature import require_signature, sign_bundle
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.verification import read_verdicts
from hvq_edge.errors import BundleError
from hvq_edge.runtime.cpu import openvino_engine
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.runtime.tensorrt.engine_file import BuildOptions


@pytest.fixture
def public(tmp_path) -> Path:
    return new_key(tmp_path / "key")


@pytest.fixture
def bundle(tmp_path, public) -> Path:
    folder = save_bundle(tmp_path / "bundle").path
    (folder / "verify.json").write_text('{"precisions": {"fp32": {"passed": true}}}')
    sign_bundle(folder, tmp_path / "key")
    return folder


def exchange(graph: Path) -> None:
    """Put a graph in its place that scores nothing."""
    proto = onnx.load(graph)
    set_value(value_of(proto, "grey_weights"), lambda weights: 0 * weights)
    onnx.save(proto, graph.with_suffix(".evil"))
    os.replace(graph.with_suffix(".evil"), graph)  # noqa: PTH105


@pytest.fixture(params=["onnxruntime", "openvino"])
def exchanged_at_the_last_moment(request, bundle, monkeypatch) -> str:
    """The library is about to load what was just hashed."""
    library = pytest.importorskip(request.param)
    graph = bundle / "model.fp32.onnx"
    if request.param == "onnxruntime":
        session = library.InferenceSession

        def load(*arguments, **options):
            exchange(graph)
            return session(*arguments, **options)

        monkeypatch.setattr(library, "InferenceSession", load)
    else:
        core = openvino_engine.openvino_core()

        class Exchanging:
            def read_model(self, *arguments):
                exchange(graph)
                return core.read_model(*arguments)

            def __getattr__(self, name):
                return getattr(core, name)

        monkeypatch.setattr(openvino_engine, "openvino_core", Exchanging)
    return request.param


def test_a_graph_exchanged_after_it_was_hashed_does_not_run(
    bundle, public, exchanged_at_the_last_moment
):
    signed = require_signature(bundle, public).bundle
    with open_engine(signed, backend=exchanged_at_the_last_moment) as engine:
        same(engine.run(frames(2)), expected(frames(2), "one"))
    with pytest.raises(BundleError, match="SHA-256"):
        open_engine(signed, backend=exchanged_at_the_last_moment)


def test_a_plan_exchanged_after_it_was_hashed_does_not_run(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    plan = save_plan(bundle)

    def memory():
        exchange(plan)
        return gpu_memory()

    from hvq_edge.runtime.cuda.memory import open_cuda_memory as gpu_memory

    with pytest.raises(BundleError, match="was changed while it was opened"):
        opened(bundle, memory=memory)


def test_a_plan_put_there_after_the_signature_was_checked_does_not_run(
    tmp_path, bundle, public, gpu
):
    signed = require_signature(bundle, public, engines=True).bundle
    save_plan(signed)
    with pytest.raises(BundleError, match="not an engine that was signed"):
        opened(signed)
    sign_bundle(bundle, tmp_path / "key")
    with opened(require_signature(bundle, public, engines=True).bundle) as engine:
        np.testing.assert_allclose(
            engine.run(frames(1))["score"], expected(frames(1), "one")["score"], rtol=1e-5
        )


def test_a_plans_record_exchanged_after_the_signature_was_checked_is_found(
    tmp_path, bundle, public, gpu
):
    """It says where the plan may run, and whether the library may run what is in it."""
    plan = save_plan(open_bundle(bundle), options=BuildOptions(version_compatible=True))
    record = plan.with_suffix(".json")
    right = record.read_text()
    sign_bundle(bundle, tmp_path / "key")
    signed = require_signature(bundle, public, engines=True).bundle
    opened(signed).close()
    for change in (("true", "false"), ("8.9", "8.6")):
        record.write_text(right.replace(*change))
        with pytest.raises(BundleError, match=rf"{record.name} is not the file .*SHA-256"):
            opened(signed)
    record.unlink()
    with pytest.raises(BundleError, match="no engine for"):
        opened(signed)


def test_what_verify_said_is_read_as_signed(bundle, public):
    signed = require_signature(bundle, public).bundle
    assert read_verdicts(signed) == {"fp32": True}
    (bundle / "verify.json").write_text('{"precisions": {"int8": {"passed": true}}}')
    with pytest.raises(BundleError, match="SHA-256"):
        read_verdicts(signed)
