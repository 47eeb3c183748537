"""Engines on exported graphs: same numbers on each backend, clear errors, safe to share."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from helpers.patience import PATIENCE_SECONDS, until

pytest.importorskip("onnx")
from helpers.graphs import CATEGORIES, GRID, LEVELS, SIDE, expected, frames, save_bundle, save_graph

from hvq_edge.errors import BundleError, InputError, MissingCapability, SettingsError
from hvq_edge.runtime.contract import Graph
from hvq_edge.runtime.cpu.onnxruntime_engine import OnnxRuntimeEngine
from hvq_edge.runtime.cpu.openvino_engine import OpenVinoEngine, OpenVinoThroughput
from hvq_edge.runtime.open_engine import choose, is_run, open_engine

ENGINES = {"onnxruntime": OnnxRuntimeEngine, "openvino": OpenVinoEngine}
MODES = ("one", "input", "auto")


def make(backend, path, mode="one", **options):
    categories = CATEGORIES[:1] if mode == "one" else CATEGORIES
    return ENGINES[backend](Graph(path, "fp32", (SIDE, SIDE), categories, mode), **options)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    return {mode: save_graph(folder / f"{mode}.onnx", mode) for mode in MODES}


@pytest.fixture(params=ENGINES)
def backend(request):
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return request.param


@pytest.mark.parametrize("mode", MODES)
def test_numbers_shapes_and_dtypes(backend, graphs, mode):
    with make(backend, graphs[mode], mode, threads=1) as engine:
        for batch in (3, 1, 5):  # the batch is dynamic
            images = frames(batch, seed=batch)
            given = np.arange(batch, dtype=np.int32) % 3 if mode == "input" else None
            output = engine.run(images, given)
            wanted = expected(images, mode, given)
            assert output["map"].shape == (batch, GRID, GRID)
            assert output["codes"].shape == (batch, LEVELS, GRID**2)
            for name, dtype in {
                "score": np.float32,
                "map": np.float32,
                "codes": np.int32,
                "category": np.int32,
                "margin": np.float32,
            }.items():
                assert output[name].dtype == dtype
                np.testing.assert_allclose(output[name], wanted[name], rtol=1e-5)


def test_a_graph_that_fails_while_it_runs_is_said(backend, graphs, monkeypatch):
    class Broken:
        def set_tensor(self, *_):
            pass

        def infer(self):
            raise RuntimeError("Exception from src/core\n  at line 3: shapes do not fit")

        def run(self, *_):
            return self.infer()

    with make(backend, graphs["one"], threads=1) as engine:
        if backend == "onnxruntime":
            monkeypatch.setattr(engine, "_session", Broken())
        else:
            monkeypatch.setattr(engine, "_requests", [Broken()])
        with pytest.raises(BundleError, match=r"fp32 graph fails while it runs on .*src/core"):
            engine.run(frames(1))


def test_many_frames_at_once_are_judged_as_each_alone(graphs):
    pytest.importorskip("openvino")
    given = frames(7)
    graph = Graph(graphs["one"], "fp32", (SIDE, SIDE), CATEGORIES[:1], "one")
    with OpenVinoEngine(graph) as one, OpenVinoThroughput(graph) as many:
        for count in (7, 1):  # no multiple of any number of cores
            alone, together = one.run(given[:count]), many.run(given[:count])
            assert alone.keys() == together.keys()
            for name, value in alone.items():
                np.testing.assert_array_equal(value, together[name])


def test_float32_stays_float32(backend, graphs):
    """A CPU with bfloat16 must not use it: two frames that differ in one grey level differ."""
    images = np.full((2, SIDE, SIDE, 3), 200, np.uint8)
    images[1, :16, :16] += 1
    images[1, 0, 0, 0] -= 1
    with make(backend, graphs["one"]) as engine:
        heat = engine.run(images)["map"]
    assert heat[1, 0, 0] - heat[0, 0, 0] == pytest.approx(767 / 768 / 255, rel=1e-3)


def test_outputs_outlive_the_next_run(backend, graphs):
    with make(backend, graphs["auto"], "auto") as engine:
        first = engine.run(frames(2, seed=1))
        kept = {name: value.copy() for name, value in first.items()}
        engine.run(frames(2, seed=2))
    for name, value in kept.items():
        np.testing.assert_array_equal(first[name], value)


def test_a_view_and_read_only_frames_are_judged_like_a_copy(backend, graphs):
    images = frames(4)
    with make(backend, graphs["one"]) as engine:
        wanted = engine.run(images[::2, :, ::-1].copy())
        got = engine.run(images[::2, :, ::-1])
        images.setflags(write=False)
        engine.run(images)
    np.testing.assert_array_equal(got["map"], wanted["map"])


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (np.zeros((1, SIDE, SIDE, 3), np.float32), "float32"),
        (np.zeros((SIDE, SIDE, 3), np.uint8), rf"uint8 \[{SIDE}, {SIDE}, 3\]"),
        (np.zeros((1, 3, SIDE, SIDE), np.uint8), rf"\[1, 3, {SIDE}, {SIDE}\]"),
        (np.zeros((1, SIDE, SIDE + 16, 3), np.uint8), rf"\[1, {SIDE}, {SIDE + 16}, 3\]"),
        (np.zeros((0, SIDE, SIDE, 3), np.uint8), "at least one frame"),
        ([[0]], "list"),
    ],
)
def test_wrong_frames_are_refused(backend, graphs, bad, named):
    with make(backend, graphs["one"]) as engine, pytest.raises(InputError, match=named) as caught:
        engine.run(bad)
    assert f"[batch, {SIDE}, {SIDE}, 3]" in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (None, "needs the category"),
        (np.zeros(3, np.int32), r"int32 \[3\]; expected int32 \[2\]"),
        (np.zeros(2, np.float32), "float32"),
        (np.array([0, 3], np.int32), "index 3 is out of range"),
        (np.array([-1, 0], np.int32), "index -1 is out of range"),
        (0, "int"),
    ],
)
def test_wrong_categories_are_refused(backend, graphs, bad, named):
    with make(backend, graphs["input"], "input") as engine, pytest.raises(InputError, match=named):
        engine.run(frames(2), bad)


@pytest.mark.parametrize("mode", ["one", "auto"])
def test_a_category_for_a_graph_that_takes_none_is_refused(backend, graphs, mode):
    with make(backend, graphs[mode], mode) as engine, pytest.raises(InputError, match=mode):
        engine.run(frames(1), np.zeros(1, np.int32))


def test_closing_twice_is_fine_and_running_afterwards_is_not(backend, graphs):
    engine = make(backend, graphs["one"])
    engine.close()
    engine.close()
    with pytest.raises(InputError, match="closed"):
        engine.run(frames(1))


def test_threads_share_an_engine(backend, graphs):
    with make(backend, graphs["auto"], "auto") as engine, ThreadPoolExecutor(4) as pool:
        batches = [frames(1 + seed % 3, seed) for seed in range(40)]
        for images, output in zip(batches, pool.map(engine.run, batches), strict=True):
            np.testing.assert_allclose(
                output["score"], expected(images, "auto")["score"], rtol=1e-5
            )


def test_closing_while_threads_run_gives_results_or_the_closed_error(backend, graphs):
    engine = make(backend, graphs["one"])
    images = frames(1)
    wanted = expected(images, "one")["score"]

    def run_until_closed() -> int:
        for done in range(100_000):
            try:
                score = engine.run(images)["score"]
            except InputError as error:
                return done if "closed" in str(error) else -1
            np.testing.assert_allclose(score, wanted, rtol=1e-5)
            started.append(1)
        raise AssertionError("never closed")

    started: list[int] = []
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(run_until_closed) for _ in range(3)]
        until(lambda: len(started) >= 20)
        engine.close()
        done = [future.result(timeout=PATIENCE_SECONDS) for future in running]
    assert min(done) >= 0
    assert sum(done) >= 20


def test_a_graph_of_another_mode_is_refused(backend, graphs):
    with pytest.raises(BundleError, match="not a graph of category mode auto"):
        make(backend, graphs["one"], "auto")
    with pytest.raises(BundleError, match="its inputs are category, frames"):
        make(backend, graphs["input"], "one")


def test_a_graph_for_another_size_is_refused(backend, graphs):
    with pytest.raises(BundleError, match=rf"frames of \[.*{SIDE}, {SIDE}, 3\], expected .*224"):
        ENGINES[backend](Graph(graphs["one"], "fp32", (224, 224), CATEGORIES[:1], "one"))


def test_a_graph_without_scores_is_refused(backend, tmp_path):
    path = save_graph(tmp_path / "m.onnx", score_name="points")
    with pytest.raises(BundleError, match="its outputs are codes, map, points"):
        make(backend, path)


def test_a_file_that_is_no_graph_is_refused(backend, tmp_path):
    path = tmp_path / "text file.onnx"
    path.write_text("not a graph", encoding="utf-8")
    with pytest.raises(BundleError, match=r"cannot load .*text file\.onnx"):
        make(backend, path)


def test_threads_below_one_are_refused(backend, graphs):
    with pytest.raises(SettingsError, match="threads: 0"):
        make(backend, graphs["one"], threads=0)


def test_a_missing_library_says_what_to_install(backend, graphs, monkeypatch):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(MissingCapability) as caught:
        make(backend, graphs["one"])
    assert caught.value.exit_code == 3
    assert f"pip install {backend}" in caught.value.next_step


# --- open_engine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_backends_agree_on_a_bundle(tmp_path, backend, mode):
    bundle = save_bundle(tmp_path / "b", mode)
    given = np.array([2, 0], np.int32) if mode == "input" else None
    with closing(open_engine(bundle.path, backend=backend)) as engine:
        output = engine.run(frames(2), given)
    assert engine.info.backend == backend
    assert engine.info.categories == bundle.manifest.categories
    for name, value in expected(frames(2), mode, given).items():
        np.testing.assert_allclose(output[name], value, rtol=1e-5)


def test_a_category_can_be_fixed_with_mode_input(tmp_path, backend):
    bundle = save_bundle(tmp_path / "b", "input")
    with closing(open_engine(bundle, backend=backend, category="washer plate")) as engine:
        output = engine.run(frames(2))
        with pytest.raises(InputError, match="category was given"):
            engine.run(frames(2), np.zeros(2, np.int32))
    wanted = expected(frames(2), "input", np.array([2, 2]))
    np.testing.assert_allclose(output["score"], wanted["score"], rtol=1e-5)
    assert engine.info.category_mode == "one"
    assert engine.info.categories == ("washer plate",)
    np.testing.assert_array_equal(output["category"], [0, 0])


def test_the_category_of_a_graph_for_one_may_be_named(tmp_path, backend):
    bundle = save_bundle(tmp_path / "b", "one")
    with closing(open_engine(bundle, backend=backend, category="bolt")) as engine:
        assert engine.info.categories == ("bolt",)
    with pytest.raises(BundleError, match="no category 'nut'; it has bolt"):
        open_engine(bundle, category="nut")


def test_a_graph_that_chooses_takes_no_category(tmp_path):
    bundle = save_bundle(tmp_path / "b", "auto")
    with pytest.raises(InputError, match="chooses the category itself") as caught:
        open_engine(bundle, category="nut")
    assert "--category nut" in caught.value.next_step


def test_unknown_names_list_the_valid_ones(tmp_path):
    bundle = save_bundle(tmp_path / "b")
    with pytest.raises(SettingsError, match="auto, fp32, fp16, int8, int8-fp16"):
        open_engine(bundle, precision="int4")
    with pytest.raises(SettingsError, match=r"auto, openvino, onnxruntime, .*-rtx, torch"):
        open_engine(bundle, backend="openvno")
    with pytest.raises(SettingsError, match="training run"):
        open_engine(bundle, backend="torch")
    with pytest.raises(BundleError, match="no int8 model; it has fp32"):
        open_engine(bundle, precision="int8")


def test_a_changed_model_is_refused(tmp_path, backend):
    bundle = save_bundle(tmp_path / "b")
    path = bundle.path / "model.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match="SHA-256"):
        open_engine(bundle, backend=backend)


def test_neither_bundle_nor_run(tmp_path):
    assert not is_run(tmp_path)
    with pytest.raises(BundleError, match="no bundle at"):
        open_engine(tmp_path)


def test_what_verify_says_decides_which_precisions_are_candidates(tmp_path, backend):
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "int8"))
    verdict = bundle.path / "verify.json"

    def measured():
        """Whether int8 came to be measured on this backend."""
        choice = choose(bundle, "auto", backend, time_limit=0.05)
        assert choice.backend == backend
        assert choice.reason.startswith(choice.precision)
        used = f"int8 on {backend}" in choice.reason
        assert used or choice.precision == "fp32"
        return used

    assert measured()
    for passed in (True, False):
        verdict.write_text(json.dumps({"passed": True, "precisions": {"int8": {"passed": passed}}}))
        assert measured() == passed
    verdict.write_text(json.dumps({"passed": True, "precisions": {"fp32": {"passed": True}}}))
    assert measured()
    verdict.write_text("{")
    assert not measured()


def test_with_one_candidate_nothing_is_measured(tmp_path, backend):
    def chosen(name, *precisions, verdict):
        bundle = save_bundle(tmp_path / name, precisions=precisions)
        (bundle.path / "verify.json").write_text(verdict)
        return choose(bundle, "auto", backend)

    said = '{"precisions": {"int8": {"passed": false}}}'
    assert chosen("float", "fp32", verdict=said).reason == "fp32: the bundle has no int8 model"
    assert chosen("failed", "int8", "fp32", verdict=said).reason == (
        "fp32: hvq-edge verify did not pass int8"
    )
    only = chosen("int8", "int8", verdict=said)
    assert only.precision == "int8"
    assert only.reason == "int8: hvq-edge verify did not pass it, but there is no other"


def test_an_automatic_backend_is_an_installed_one(tmp_path, monkeypatch):
    bundle = save_bundle(tmp_path / "b")
    for installed in ("onnxruntime", "openvino"):
        monkeypatch.setattr(
            "hvq_edge.runtime.choice.choose_graph.find_spec",
            lambda name, installed=installed: object() if name == installed else None,
        )
        assert choose(bundle).backend == installed
    monkeypatch.setattr("hvq_edge.runtime.choice.choose_graph.find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingCapability, match="ONNX Runtime"):
        open_engine(bundle)
