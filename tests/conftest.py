"""Datasets, runs and bundles that several tests share, and what holds for every test."""

import gc
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers import without_torch
from helpers.images import bolt, make_texture, scratch, write_png
from helpers.made_once import MakeOnce, made_once  # noqa: F401  # a fixture
from helpers.traced_once import traced_once  # noqa: F401  # a fixture
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from hvq_edge.bundle.integrity.content import CARD_NAME
from hvq_edge.bundle.manifest import Precision, record_of, write_manifest
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.evaluation.acceptance.model_card import write_card
from hvq_edge.runtime.known_answers import (
    ANSWERS_NAME,
    read_known_answers,
    write_known_answers,
)

Texture = Callable[..., NDArray[np.uint8]]

# How long an example takes says more of the machine than of the code. Every run draws other ones.
busy = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", busy, max_examples=40)
settings.register_profile("thorough", busy, max_examples=400)  # --hypothesis-profile thorough
settings.load_profile("quick")

# What is imported and collected, millions of objects with PyTorch's, stays until the end: Python's
# collector need not walk through it, neither now nor in every test.
gc.disable()

LONGEST = (
    "test_precision_files.py",
    "test_verify.py",
    "test_chaos.py",
    "test_training.py",
    "test_a_week.py",
    "test_tiles.py",
    "test_export.py",
    "test_export_bundle.py",
    "test_end_to_end.py",
    "test_change.py",
    "test_new_category.py",
    "test_rtsp.py",
    "test_learn_bundle.py",
    "test_rtx_build.py",
    "test_accuracy_benchmark.py",
    "test_ablations.py",
    "test_processes.py",
    "test_readme.py",
    "test_update_power_cut.py",
    "test_gige_camera.py",
)
"""What takes longer than its number of tests says, in this order: who comes later finds made what
those before it make once, and need not wait for it."""


def pytest_configure(config: pytest.Config) -> None:
    if find_spec("torch") is None:
        config.pluginmanager.register(without_torch)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: no worker is left alone with it at the end."""
    gc.freeze()
    gc.enable()
    tests = Counter(item.path for item in items)
    place = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (place.get(item.path.name, len(place)), -tests[item.path]))


@pytest.fixture(scope="session", autouse=True)
def hang_ups_reach_what_is_started() -> None:
    """Below nohup, what the tests start would ignore SIGHUP as well; a handler is not passed on."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def own_cache(made_once: MakeOnce) -> Iterator[None]:
    """Tests neither take engine times from the user's cache nor leave any there.

    All workers have the same, so that engine ``auto`` is the same everywhere: INT8 scores of two
    engines differ in the fourth digit. So the machine is never too busy to keep them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(made_once("cache", Path.mkdir)))
        patch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def as_many_threads_as_pytorch() -> Iterator[None]:
    """``OMP_NUM_THREADS`` is for ONNX Runtime and OpenVINO, too, where a test names no number.

    Their threads, one for each core, wait for work by looking for it again and again, which takes
    the core from the other workers: without them ONNX Runtime needs less than half the work.
    """
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    with pytest.MonkeyPatch.context() as patch:
        if threads and find_spec("onnxruntime"):
            import onnxruntime

            opened = onnxruntime.InferenceSession.__init__

            def open_session(self, model, sess_options=None, *arguments, **named) -> None:
                options = sess_options or onnxruntime.SessionOptions()
                options.intra_op_num_threads = options.intra_op_num_threads or threads
                opened(self, model, options, *arguments, **named)

            patch.setattr(onnxruntime.InferenceSession, "__init__", open_session)
        if threads and find_spec("openvino"):
            from hvq_edge.common.openvino_core import openvino_core

            openvino_core().set_property("CPU", {"INFERENCE_NUM_THREADS": threads})
        yield


@pytest.fixture(autouse=True)
def english_again() -> Iterator[None]:
    """A command's ``--language`` is that of a process, which tests share."""
    yield
    if chosen := sys.modules.get("hvq_edge.design.language"):
        chosen._chosen = None


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Ctrl-C interrupts, also where the shell that started this in the background ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def texture() -> Texture:
    return make_texture


@pytest.fixture
def mvtec_folder(tmp_path: Path) -> Path:
    """Categories ``bolt`` (fine, bright, with masks) and ``tile`` (coarse, dark, without)."""
    root = tmp_path / "mvtec"
    for number, (name, look) in enumerate(
        {"bolt": {"grain": 1.2, "mean": 150.0}, "tile": {"grain": 3.0, "mean": 90.0}}.items()
    ):
        seed = 1000 * number
        for i in range(8):
            write_png(root / name / f"train/good/{i:03}.png", make_texture(seed + i, **look))
        for i in range(4):
            write_png(root / name / f"test/good/{i:03}.png", make_texture(seed + 100 + i, **look))
            image, mask = scratch(make_texture(seed + 200 + i, **look))
            write_png(root / name / f"test/scratch/{i:03}.png", image)
            if name == "bolt":
                write_png(root / name / f"ground_truth/scratch/{i:03}_mask.png", mask)
    return root


@pytest.fixture
def plain_folder(tmp_path: Path) -> Path:
    """One category ``Schöne Teile`` in plain layout: 10 good, 3 scratched, 1 loose defective."""
    root = tmp_path / "Schöne Teile"
    for i in range(10):
        write_png(root / f"good/teil {i}.png", make_texture(i))
    for i in range(3):
        write_png(root / f"Kratzer/teil {i}.png", scratch(make_texture(50 + i))[0])
    write_png(root / "sonstiges.png", scratch(make_texture(60))[0])
    return root


@pytest.fixture(scope="session")
def solar_cells(made_once: MakeOnce) -> Path:
    """Real images: 40 good training cells of each kind, 8 good and 8 defective to test."""
    from hvq_edge.data.solar_cells import lay_out_solar_cells

    return made_once(
        "Solarzellen für Tests",
        lambda folder: lay_out_solar_cells(folder, train_good=40, test_each=8),
    )


@pytest.fixture(scope="session")
def bolts(made_once: MakeOnce) -> Path:
    """16 good images of a product that no run of the suite knows."""

    def make(folder: Path) -> None:
        for i in range(16):
            write_png(folder / f"{i:02} ü.png", bolt(i))

    return made_once("bolts", make)


@pytest.fixture(scope="session")
def trained_run(solar_cells: Path, made_once: MakeOnce) -> Path:
    """A run of the tiny preset, trained for a few epochs on real images, as a user would."""
    model = {"width": 32, "feedforward": 64, "codes": 48, "prototypes": 96}
    return made_once("solar", lambda run: train(solar_cells, run, model, epochs=5))


@pytest.fixture(scope="session")
def small_trained_run(solar_cells: Path, made_once: MakeOnce) -> Path:
    """The same of images of 64 pixels for one epoch: it judges badly, and takes seconds."""
    from helpers.small_graphs import SMALL

    return made_once("small", lambda run: train(solar_cells, run, SMALL, epochs=1))


def train(data: Path, run: Path, model: Mapping[str, object], epochs: int) -> None:
    """Train with one version of each image: more of them take most of the time."""
    pytest.importorskip("torch")
    from hvq_edge.cli.app import main

    settings = run.with_suffix(".toml")
    lines = [f"{name} = {value}" for name, value in model.items()]
    settings.write_text("\n".join(["[model]", *lines, "[training]", "versions = 1", ""]))
    arguments = ["train", "--data", str(data), "--preset", "tiny", "--out", str(run)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.parent)
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--settings", str(settings), "--epochs", str(epochs)])
    assert exit_.value.code == 0


@pytest.fixture(scope="session")
def trained_bundles(trained_run: Path, made_once: MakeOnce) -> Path:
    """Folders ``int8`` and ``four files``: that run exported, choosing the category itself."""
    from helpers.one_trace import one_trace

    from hvq_edge.export.export_run import export_run

    def export(folder: Path) -> None:
        with one_trace():
            every = export_run(trained_run, folder / "four files", int8=True, fp16=True)
        without_float16(every, folder / "int8")

    return made_once("bundles", export)


def without_float16(bundle: Bundle, out: Path) -> None:
    """Write what an export without ``fp16`` writes, as one more would take long."""
    manifest = bundle.manifest
    kept: tuple[Precision, ...] = ("fp32", "int8")
    others = [name for precision, name in manifest.models.items() if precision not in kept]
    shutil.copytree(bundle.path, out, ignore=shutil.ignore_patterns(*others))
    answers = read_known_answers(bundle)
    assert answers is not None
    precisions = {one: answers.precisions[one] for one in kept}
    write_known_answers(out / ANSWERS_NAME, replace(answers, precisions=precisions))
    files = {name: record_of(out / name) for name in manifest.files if name not in others}
    changes = {
        "models": {one: manifest.models[one] for one in kept},
        "thresholds": {one: manifest.thresholds[one] for one in kept},
        "fp16": None,
        "files": files,
    }
    smaller = Bundle(out, manifest.model_copy(update=changes))
    files[CARD_NAME] = write_card(smaller)
    write_manifest(out, smaller.manifest)


@pytest.fixture(scope="session")
def small_trained_bundle(small_trained_run: Path, made_once: MakeOnce) -> Path:
    from hvq_edge.export.export_run import export_run

    return made_once("small bundle", lambda out: export_run(small_trained_run, out, int8=True))


@pytest.fixture(scope="session")
def solar_run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A worker's own copy of the trained run."""
    return Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("runs") / "solar"))


@pytest.fixture(scope="session")
def small_run(small_trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A worker's own copy of the small one."""
    return Path(shutil.copytree(small_trained_run, tmp_path_factory.mktemp("runs") / "small"))


@pytest.fixture(scope="session")
def solar_bundle(solar_run: Path, trained_bundles: Path) -> Path:
    """That run exported in float32 and INT8, choosing the category itself."""
    return Path(shutil.copytree(trained_bundles / "int8", solar_run / "bundle"))


@pytest.fixture(scope="session")
def four_files(trained_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of trained weights with all four precisions."""
    out = tmp_path_factory.mktemp("four files") / "bundle"
    return open_bundle(Path(shutil.copytree(trained_bundles / "four files", out)))


@pytest.fixture(scope="session")
def small_bundle(small_run: Path, small_trained_bundle: Path) -> Path:
    """The small run exported in float32 and INT8, choosing the category itself."""
    return Path(shutil.copytree(small_trained_bundle, small_run / "bundle"))


@pytest.fixture(scope="session")
def small_graphs(made_once: MakeOnce) -> dict[tuple[str, str], Path]:
    """Exported files of a small net by category mode and precision."""
    from helpers.small_graphs import save_float, save_int8

    modes = ("auto", "input", "one")

    def make(folder: Path) -> None:
        folder.mkdir()
        for mode in modes:
            save_int8(save_float(folder, mode))

    folder = made_once("small graphs", make)
    return {
        (mode, precision): folder / f"{mode}.{precision}.onnx"
        for mode in modes
        for precision in ("fp32", "int8")
    }
