"""The engine that asks a Triton server: results, faults, and a line that outlives it."""

from __future__ import annotations

import re
import runpy
import shutil
import signal
import sys
import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from helpers.patience import PATIENCE_SECONDS, until

pytest.importorskip("onnx")
pytest.importorskip("tritonclient.grpc", reason="needs the server extra")
from helpers.graphs import CATEGORIES, GRID, LEVELS, SIDE, expected, frames, save_bundle
from helpers.images import write_png
from helpers.known_answers import answers_of, compute_wrongly, give_answers
from helpers.paths import ROOT
from helpers.plans import same
from helpers.running_line import DEFECT_EVERY, RunningLine, parts, save_line_bundle
from helpers.thresholds import threshold_at
from helpers.triton_server import TritonServer, why_not
from tritonclient.utils import InferenceServerException

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.errors import (
    BundleError,
    GateFailed,
    InputError,
    MissingCapability,
    ServerFailed,
    SettingsError,
)
from hvq_edge.runtime.triton import engine as engine_module
from hvq_edge.runtime.triton.engine import GRAPH_PARAMETER, TritonEngine, open_triton_engine
from hvq_edge.stream.inspection import open_stream_engine
from hvq_edge.stream.inspector import NOT_JUDGED

MODES = ("one", "auto", "input")


# The engine, against a real server. Loading a model takes most of the time: what is served already
# is not loaded again.


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    lacking = why_not()
    if lacking:
        pytest.skip(lacking)
    with TritonServer(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    saved = {mode: save_bundle(folder / mode, mode) for mode in MODES}
    several = save_bundle(folder / "several", precisions=("fp32", "int8", "fp16"))
    other = compute_wrongly(save_bundle(folder / "other"))
    return {**saved, "several": several, "other": other, "line": save_line_bundle(folder / "line")}


@pytest.mark.parametrize("mode", MODES)
def test_results_are_those_of_the_graph(server, bundles, mode):
    bundle = server.serve(bundles[mode])
    with open_triton_engine(f"grpc://{server.address}", bundle) as engine:
        assert (engine.info.backend, engine.info.precision) == ("triton", "fp32")
        assert re.fullmatch(rf"{server.address}, Triton [\d.]+, python", engine.info.device)
        for seed, batch in enumerate((1, 3, 19)):
            given = frames(batch, seed)
            category = np.arange(batch, dtype=np.int32) % len(CATEGORIES)
            category = category if mode == "input" else None
            same(engine.run(given, category), expected(given, mode, category))
    assert set(server.batches("hvq_edge_fp32")) == {1, 3, 8}


def test_the_example_judges_by_the_server_and_the_bundles_thresholds(
    server, bundles, tmp_path, monkeypatch, capsys
):
    manifest = bundles["auto"].manifest
    images = frames(6)
    wanted = expected(images, "auto")
    limit = float(np.sort(wanted["score"])[2:4].mean())
    thresholds = {"fp32": dict.fromkeys(manifest.categories, threshold_at(limit))}
    bundle = server.serve(bundles["auto"])
    copy = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    write_manifest(copy, manifest.model_copy(update={"thresholds": thresholds}))
    for i, image in enumerate(images):
        write_png(tmp_path / f"images/{i}.png", image[:, :, ::-1])
    example = str(ROOT / "examples/triton_client.py")
    monkeypatch.setattr(sys, "argv", [example, server.address, str(copy), f"{tmp_path}/images"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(example, run_name="__main__")
    assert stop.value.code == 1
    said = [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines()]
    names = [manifest.categories[int(chosen)] for chosen in wanted["category"]]
    verdicts = ["reject" if score > limit else "pass" for score in wanted["score"]]
    assert [line[2] for line in said] == verdicts
    assert [line[1] for line in said] == names
    assert {"reject", "pass"} == set(verdicts)


def test_frames_of_eight_clients_share_batches(server, bundles):
    bundle = server.serve(bundles["input"])
    faults, done = [], threading.Event()

    def camera(engine, seed):
        given, category = frames(1, seed), np.array([seed % len(CATEGORIES)], np.int32)
        try:
            while not done.is_set():
                same(engine.run(given, category), expected(given, "input", category))
        except BaseException as error:
            faults.append(error)

    def shared():
        found = server.batches("hvq_edge_fp32")
        return any(found.get(size, 0) > before.get(size, 0) for size in range(2, 9))

    before = server.batches("hvq_edge_fp32")
    with ExitStack() as opened:
        engines = [
            opened.enter_context(open_triton_engine(server.address, bundle)) for _ in range(8)
        ]
        # A ninth camera shares an engine: its threads take turns.
        given = list(enumerate([*engines, engines[0]]))
        threads = [threading.Thread(target=camera, args=(one, seed)) for seed, one in given]
        for thread in threads:
            thread.start()
        try:
            until(lambda: faults or shared(), "frames of several clients in one batch")
        finally:
            done.set()
            for thread in threads:
                thread.join(PATIENCE_SECONDS)
    assert faults == []


def test_a_stream_chooses_the_category_of_a_servers_model(server, bundles):
    bundle = server.serve(bundles["input"])
    given = frames(2)
    with open_stream_engine(bundle, category="nut", server=f"grpc://{server.address}") as engine:
        assert engine.info.backend == "triton"
        same(engine.run(given), expected(given, "input", np.array([1, 1])))
        engine.choose("bolt")
        same(engine.run(given), expected(given, "input", np.array([0, 0])))
    with pytest.raises(InputError, match="must be told the category"):
        open_stream_engine(bundle, server=f"grpc://{server.address}")


def test_auto_takes_what_the_server_has_verify_passed_and_computes_rightly(server, bundles):
    bundle = server.serve(bundles["several"])
    verdict = bundle.path / "verify.json"
    with open_triton_engine(server.address, bundle) as engine:
        assert engine.info.precision == "int8"
    verdict.write_text('{"precisions": {"int8": {"passed": false}}}')
    with open_triton_engine(server.address, bundle) as engine:
        assert engine.info.precision == "fp32"
    with open_triton_engine(server.address, bundle, precision="int8") as engine:
        assert engine.info.precision == "int8"
    with pytest.raises(BundleError, match="has no model hvq_edge_fp16: "):
        open_triton_engine(server.address, bundle, precision="fp16")
    with pytest.raises(SettingsError, match="'int9' is none of"):
        open_triton_engine(server.address, bundle, precision="int9")
    verdict.unlink()
    # Graph and repository are the same: what runs them is wrong.
    answers = answers_of(bundle)
    wrong = replace(answers.precisions["int8"], score=answers.precisions["int8"].score + 1)
    told = give_answers(bundle, replace(answers, precisions={**answers.precisions, "int8": wrong}))
    with open_stream_engine(told, server=server.address) as engine:
        assert engine.info.precision == "fp32"
    with pytest.raises(GateFailed, match="int8 on triton computes wrongly"):
        open_stream_engine(told, precision="int8", server=server.address)


def test_onnx_runtime_does_where_openvino_is_not_installed(server, bundles):
    bundle = server.serve(bundles["auto"], {"import openvino\n": "import openvino_is_not_there\n"})
    given = frames(3)
    with open_triton_engine(server.address, bundle) as engine:
        same(engine.run(given), expected(given, "auto"))


def test_a_wrong_graph_is_refused(server, bundles, monkeypatch):
    monkeypatch.setattr("hvq_edge.runtime.triton.engine.RECHECK_S", 0.0)
    bundle, other = server.serve(bundles["line"]), bundles["other"]
    with open_triton_engine(server.address, bundle) as engine:
        with pytest.raises(BundleError, match="runs another hvq_edge_fp32"):
            open_triton_engine(server.address, other)
        model = server.repository / "hvq_edge_fp32"
        shutil.copyfile(other.path / "model.fp32.onnx", model / "1" / "model.onnx")
        with pytest.raises(InferenceServerException, match="write the repository again"):
            server.load(model)
        server.serve(other)
        with pytest.raises(BundleError, match="thresholds would not fit"):
            engine.run(frames(1))


def test_a_server_that_fails_later(server, bundles, monkeypatch):
    broken = {"results = self._run(feed)": "raise MemoryError(f'no memory for {len(given)}')"}
    bundle = server.serve(bundles["other"], broken)
    engine = open_triton_engine(server.address, bundle)
    with pytest.raises(ServerFailed, match="fails: no memory for 1"):
        engine.run(frames(1))
    monkeypatch.setattr(engine, "_timeout", 1.0)  # no sooner: opening may take longer here
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(ServerFailed, match=r"no answer within 1 s"):
            engine.run(frames(1))
    finally:
        server.signal(signal.SIGCONT)
    engine.close()
    engine.close()
    with pytest.raises(InputError, match="closed"):
        engine.run(frames(1))


def test_a_line_outlives_its_server(server, bundles, tmp_path):
    """Killed and started again while two cameras and two other clients ask it."""
    bundle = server.serve(bundles["line"])
    folders = [tmp_path / "first", tmp_path / "second"]
    images, fed = parts(400), 0
    for folder in folders:
        folder.mkdir()
    done = threading.Event()

    def other_client():
        with open_triton_engine(server.address, bundle) as engine:
            while not done.is_set():
                with suppress(ServerFailed):
                    engine.run(frames(4))

    others = [threading.Thread(target=other_client) for _ in range(2)]
    words = [word for folder in folders for word in ("--camera", f"watch:{folder}")]
    with RunningLine(
        tmp_path, "--bundle", bundle.path, *words, "--server", server.address, backend="auto"
    ) as line:

        def feed(verdict, count):
            nonlocal fed
            seen = sum(one["verdict"] == verdict for one in line.decisions())

            def enough():
                nonlocal fed
                for folder in folders:
                    write_png(folder / f"{fed:04}.png", images[fed % len(images)])
                fed += 1
                found = sum(one["verdict"] == verdict for one in line.decisions())
                return found >= seen + count

            until(enough, f"{count} more {verdict}", pause=0.05)

        for other in others:
            other.start()
        try:
            feed("pass", 4)
            server.kill()
            feed("no_decision", 4)
            server.start()
            feed("pass", 4)
        finally:
            done.set()
            for other in others:
                other.join(PATIENCE_SECONDS)
        until(lambda: len(line.decisions()) == 2 * fed, "a decision for each image")
        line.stop()
        counts = line.assert_it_fits()
    assert counts["frames"] == 2 * fed
    assert counts["dropped"] == 0
    assert counts["no_decision"] >= 4
    assert len({(one["camera"], one["image"]) for one in line.decisions()}) == 2 * fed
    for one in line.decisions():
        if one["verdict"] == "no_decision":
            assert one["reason"] == NOT_JUDGED
        else:
            assert (one["verdict"] == "reject") == (
                int(Path(one["image"]).stem) % DEFECT_EVERY == 3
            )
    assert line.said.count("frames are no_decision until it answers") == 1
    assert "cannot be reached" in line.said
    assert line.said.count("it answers again") == 1


@pytest.mark.parametrize(
    "lie",
    [
        {},
        {"score": np.zeros((1, 7), np.float32)},
        {"score": np.array([[b"high"]], object)},
        {"map": np.zeros((1, 2), np.float32)},
        {"map": np.zeros((1, GRID + 1, GRID), np.float32)},
        {"margin": None},
    ],
)
def test_an_answer_of_another_shape_is_a_failure_of_the_server(tmp_path, monkeypatch, lie):
    """A line goes on without decisions then, and ends with any other exception."""
    bundle = save_bundle(tmp_path / "b", "auto")
    one = np.zeros((1, 1), np.float32)
    maps, codes = np.zeros((1, GRID, GRID), np.float32), np.zeros((1, LEVELS, GRID**2), np.int32)
    truth = {"score": one, "map": maps, "codes": codes, "margin": one, "category": one.astype("i4")}
    graph = bundle.manifest.files[bundle.manifest.models["fp32"]].sha256
    config = SimpleNamespace(
        max_batch_size=1,
        platform="none",
        parameters={GRAPH_PARAMETER: SimpleNamespace(string_value=graph)},
    )
    client = MagicMock()
    client.get_model_config.return_value.config = config
    client.infer.return_value.as_numpy = {**truth, **lie}.get
    library = MagicMock(InferenceServerClient=lambda *_, **__: client)
    monkeypatch.setattr(engine_module, "_client_library", lambda: (library, OSError))
    engine = TritonEngine("127.0.0.1:1", bundle, "fp32")
    frames = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    if not lie:
        assert engine.run(frames)["score"] == [0.0]
        return
    with pytest.raises(ServerFailed, match=f"without {next(iter(lie))}"):
        engine.run(frames)


def test_no_server_there(tmp_path):
    with pytest.raises(ServerFailed, match="cannot be reached"):
        open_triton_engine("127.0.0.1:9", save_bundle(tmp_path / "b"), timeout=5)


@pytest.mark.parametrize(
    "url",
    [
        *("", "somewhere", "http://a:8000", "host:port", "grpc://:8001"),
        # Passwords that end the host's part, or that Python refuses.
        *("me:80/s3cret@h:8001", "grpc://me:80?s3cret@h:8001", "me:80#s3cret@h:8001"),
        *("grpc://me:[s3cret@h:8001", "grpc://me:s3cret\u2100@h:8001"),
    ],
)
def test_addresses_that_are_none(tmp_path, url):
    with pytest.raises(SettingsError, match="no address of a Triton server") as refused:
        open_triton_engine(url, save_bundle(tmp_path / "b"))
    assert "s3cret" not in str(refused.value)


def test_without_the_client(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(MissingCapability, match="tritonclient cannot be imported"):
        open_triton_engine("host:8001", save_bundle(tmp_path / "b"))
