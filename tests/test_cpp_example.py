"""The C++ program of ``examples/cpp``: built here, and of one mind with Python on real images."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.images import make_texture, write_png
from helpers.looks import ANYTHING
from helpers.paths import ROOT
from helpers.patience import HANG_SECONDS
from helpers.plans import save_plan
from helpers.thresholds import threshold_at

pytest.importorskip("onnx")
from helpers.graphs import CATEGORIES, SIDE, save_bundle

import hvq_edge
from hvq_edge.bundle.integrity.keys import new_key
from hvq_edge.bundle.integrity.signature import sign_bundle
from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.data.images import read_frame
from hvq_edge.runtime.tensorrt.engine_file import BuildOptions
from hvq_edge.verdict.image_limits import CategoryLimits, ImageLimits
from hvq_edge.verdict.placement import learn_placement, small_grey

HEADERS = next(
    (
        folder
        for folder in map(Path, ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime"))
        if (folder / "onnxruntime_cxx_api.h").is_file()
    ),
    None,
)
PACKAGE = find_spec("onnxruntime")
LIBRARIES = sorted(Path(PACKAGE.origin).parent.glob("capi/libonnxruntime.so.*")) if PACKAGE else []
MISSING = [
    name
    for name, found in {
        "cmake": shutil.which("cmake"),
        "g++": shutil.which("g++"),
        "nlohmann-json3-dev": Path("/usr/include/nlohmann/json.hpp").is_file(),
        "libpng-dev": Path("/usr/include/png.h").is_file(),
        "libssl-dev": Path("/usr/include/openssl/evp.h").is_file(),
        "libonnxruntime-dev": HEADERS,
        "onnxruntime's library": LIBRARIES,
    }.items()
    if not found
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return built(tmp_path_factory.mktemp("cpp"), "-O1")


@pytest.fixture(scope="module")
def with_tensorrt(tmp_path_factory):
    """The same with TensorRT's and CUDA's runtimes, for which tests/data/tensorrt_cpp stands."""
    folder, headers = tmp_path_factory.mktemp("cpp"), ROOT / "tests" / "data" / "tensorrt_cpp"
    # They compute with ONNX Runtime, and are all in their headers.
    found = dict.fromkeys(("TENSORRT_INCLUDE", "CUDA_INCLUDE"), headers)
    found |= dict.fromkeys(("TENSORRT_LIB", "CUDART_LIB"), folder / "libonnxruntime.so")
    options = [f"-D{name}={at}" for name, at in found.items()]
    return built(folder, "-O0", "-DHVQ_TENSORRT=ON", *options)


def built(folder: Path, optimised: str, *more: str) -> Path:
    """Built as docs/how-to/cpp.md says, in one piece and hardly optimised: that is faster."""
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(LIBRARIES[-1])
    build = folder / "build"
    quickly = ("-DCMAKE_BUILD_TYPE=None", f"-DCMAKE_CXX_FLAGS={optimised}")
    said = (f"-DONNXRUNTIME_INCLUDE={HEADERS}", f"-DONNXRUNTIME_LIB={folder}/libonnxruntime.so")
    one_piece = "-DCMAKE_UNITY_BUILD=ON"
    for command in (
        ["cmake", "-S", ROOT / "examples/cpp", "-B", build, one_piece, *quickly, *said, *more],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr
    return build / "hvq_judge"


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=HANG_SECONDS
    )


def judged(program: Path, *arguments: object) -> list[dict]:
    done = run(program, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(program: Path, *arguments: object) -> str:
    done = run(program, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def assert_alike(found: dict, result: hvq_edge.Result, tolerance: float = 1e-4) -> None:
    """The program's line says what Python's result says; it knows no part and no contour."""
    expected = result.to_dict()
    del expected["part"]
    expected["image"] = result.name
    for region in expected["regions"]:
        del region["contour"], region["area_mm2"]
    regions, known = found.pop("regions"), expected.pop("regions")
    score, sure = found.pop("score"), expected.pop("score")
    assert found == expected
    assert (score is None) == (sure is None)
    if score is not None:
        assert score == pytest.approx(sure, abs=tolerance)
    assert [region["box"] for region in regions] == [region["box"] for region in known]
    for region, other in zip(regions, known, strict=True):
        assert region["peak"] == pytest.approx(other["peak"], abs=tolerance)
        assert region["area"] == pytest.approx(other["area"], abs=0.1)


@pytest.fixture(scope="module")
def images(solar_cells, tmp_path_factory):
    """Real images in all that a file may be: larger, smaller, wide, grey, with 16 bits, as PPM."""
    folder = tmp_path_factory.mktemp("real images")
    cells = sorted(solar_cells.glob("*/test/*/*.png"))[::3]
    sizes = [(300, 300), (224, 224), (448, 448), (640, 480), (150, 140), (500, 100), (113, 400)]
    for i, path in enumerate(cells):
        cell = cv2.resize(cv2.imread(str(path)), sizes[i % len(sizes)])
        kind = ("png", "grey.png", "deep.png", "alpha.png", "ppm", "pgm")[i % 6]
        if kind in ("grey.png", "pgm"):
            cell = cell[..., 0]
        if kind == "deep.png":
            cell = cell.astype(np.uint16) * 250 + 13
        if kind == "alpha.png":
            cell = np.dstack([cell, np.full(cell.shape[:2], 100, np.uint8)])
        assert cv2.imwrite(str(folder / f"{i:02}.{kind}"), cell)
    dark = cv2.imread(str(cells[0])) // 20
    blurred = cv2.GaussianBlur(cv2.imread(str(cells[1])), (0, 0), 20)
    return [
        *sorted(folder.iterdir()),
        write_png(folder / "dark.png", dark),
        write_png(folder / "blurred.png", blurred),
    ]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_real_images_are_judged_as_by_python(program, solar_bundle, images, precision):
    found = judged(program, "--precision", precision, solar_bundle, *images)
    backend = {"precision": precision, "backend": "onnxruntime"}
    with hvq_edge.load(solar_bundle, **backend) as model:
        # PPM and PGM are the program's own: Python reads the same pixels from PNG.
        results = [model.predict(read(path)) for path in images]
    assert {line["verdict"] for line in found} == {"pass", "reject", "no_decision"}
    assert any(line["regions"] for line in found)
    for line, result, path in zip(found, results, images, strict=True):
        assert line.pop("image") == str(path)
        assert_alike({**line, "image": ""}, result)


def read(path: Path) -> np.ndarray:
    levels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return levels[..., ::-1]


def test_what_the_graph_sees_is_what_python_gives_it_to_the_pixel(program, tmp_path):
    bundle, seen = save_bundle(tmp_path / "bundle").path, tmp_path / "seen.ppm"
    sides = np.random.default_rng(0).integers(16, 300, (12, 2)).tolist()
    for seed, (height, width) in enumerate([*sides, (SIDE, SIDE), (128, 128), (192, 64), (32, 32)]):
        image = make_texture(seed, height=height, width=width, grain=0.6)
        path = write_png(tmp_path / f"{height}x{width}.png", image)
        judged(program, "--frame", seen, bundle, path)
        assert np.array_equal(read(seen), read_frame(path, SIDE)), path.name


@pytest.mark.parametrize("mode", ["one", "input", "auto"])
def test_the_category_is_the_only_one_a_given_one_or_the_graphs(program, tmp_path, mode):
    bundle = save_bundle(tmp_path / "bundle", mode)
    scores = {"bolt": 0.3, "nut": 10.6}
    thresholds = {"fp32": {name: threshold_at(limit) for name, limit in scores.items()}}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"thresholds": thresholds}))
    shades = {"red": (200, 60, 60), "green": (50, 140, 50), "blue": (30, 30, 250)}
    images = []
    for name, shade in shades.items():
        image = np.full((90, 70, 3), shade, np.uint8)
        image[:30, :20] //= 2
        images.append(write_png(tmp_path / f"{name}.png", image[..., ::-1]))
    given = ["--category", "nut"] if mode == "input" else []
    found = judged(program, *given, bundle.path, *images)
    category = "nut" if given else None
    with hvq_edge.load(bundle.path, backend="onnxruntime", category=category) as model:
        for line, path in zip(found, images, strict=True):
            assert_alike(line, model.predict(str(path)))
    expected = {"one": ["bolt"] * 3, "input": ["nut"] * 3, "auto": list(CATEGORIES)}
    assert [line["category"] for line in found] == expected[mode]
    wrong = {"input": ([], "must be told"), "auto": (["--category", "nut"], "chooses")}
    options, word = wrong.get(mode, (["--category", "screw"], "no category 'screw'"))
    assert word in refused(program, *options, bundle.path, *images)


def test_a_category_mode_of_another_time_is_refused(program, tmp_path):
    bundle = save_bundle(tmp_path / "bundle")
    manifest = bundle.path / "bundle.json"
    content = json.loads(manifest.read_text("utf-8")) | {"category_mode": "several"}
    manifest.write_text(json.dumps(content), "utf-8")
    image = write_png(tmp_path / "part.png", make_texture(0))
    assert "category mode 'several'" in refused(program, bundle.path, image)


def test_a_camera_that_moved_leads_to_no_decision(program, tmp_path):
    def plate(seed: int, left: int) -> np.ndarray:
        image = make_texture(seed, height=SIDE, width=SIDE, mean=60.0) // 2
        cv2.rectangle(image, (left, 16), (left + 30, 44), (170 + seed,) * 3, -1)
        cv2.circle(image, (left + 9, 28), 5, (40, 40, 40), -1)
        return image

    placement = learn_placement([small_grey(plate(seed, 17 + seed % 2)) for seed in range(30)])
    assert placement is not None
    anything = ImageLimits(brightness_low=0, brightness_high=255, contrast_low=0, sharpness_low=0)
    bundle = save_bundle(tmp_path / "bundle")
    limits = CategoryLimits(image=anything, usual=ANYTHING, placement=placement)
    update = {
        "category_limits": {"bolt": limits},
        "thresholds": {"fp32": {"bolt": threshold_at(9.0)}},
    }
    write_manifest(bundle.path, bundle.manifest.model_copy(update=update))
    images = [write_png(tmp_path / f"{at}.png", plate(99, at)) for at in (17, 27)]
    found = judged(program, bundle.path, *images)
    assert [line["verdict"] for line in found] == ["pass", "no_decision"]
    with hvq_edge.load(bundle.path, backend="onnxruntime") as model:
        for line, path in zip(found, images, strict=True):
            assert_alike(line, model.predict(str(path)))


def test_no_changed_byte_is_used(program, tmp_path):
    bundle = save_bundle(tmp_path / "bundle", precisions=("fp32", "int8"))
    image = write_png(tmp_path / "part.png", make_texture(0))
    graph = bundle.path / "model.int8.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    assert f"{graph} is not the file that was exported" in refused(program, bundle.path, image)
    graph.unlink()
    assert f"{graph} cannot be read" in refused(program, bundle.path, image)


def test_only_what_the_right_key_signed_is_used(program, tmp_path):
    pytest.importorskip("cryptography")
    bundle = save_bundle(tmp_path / "bundle").path
    image = write_png(tmp_path / "part.png", make_texture(0))
    for name in ("quality", "stranger"):
        new_key(tmp_path / name)
    sign_bundle(bundle, tmp_path / "quality")
    trusted, other = tmp_path / "trusted.pub", tmp_path / "stranger.pub"
    trusted.write_text(other.read_text() + (tmp_path / "quality.pub").read_text())
    assert judged(program, "--require-signature", trusted, bundle, image)
    assert "no key of" in refused(program, "--require-signature", other, bundle, image)
    manifest = open_bundle(bundle).manifest
    raised = {"fp32": {"bolt": threshold_at(1e9)}}
    write_manifest(bundle, manifest.model_copy(update={"thresholds": raised}))
    assert "no key of" in refused(program, "--require-signature", trusted, bundle, image)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("jpeg.png", b"\xff\xd8\xff\xe0 JPEG", "neither PNG nor"),
        ("cut.png", None, "it ends too early"),
        ("tiny.ppm", b"P6\n8 8\n255\n" + bytes(192), "smaller than 16 pixels"),
        ("huge.ppm", b"P6\n99999999 99999999\n255\n", "134 million"),
        ("short.ppm", b"P6\n64 64\n255\n" + bytes(100), "ends too early"),
        ("nothing.ppm", b"P6\n", "no PPM"),
    ],
)
def test_an_image_that_is_none_is_named(program, tmp_path, name, content, word):
    bundle = save_bundle(tmp_path / "bundle").path
    path = write_png(tmp_path / name, make_texture(0))
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    said = refused(program, bundle, path)
    assert name in said
    assert word in said


def test_tensorrt_is_asked_for_in_the_api_and_said_to_be_missing(program, tmp_path):
    bundle = save_bundle(tmp_path / "bundle").path
    image = write_png(tmp_path / "part.png", make_texture(0))
    done = run(program, "--tensorrt", bundle, image)
    assert done.returncode == 3
    assert "TensorRT execution provider is not enabled in this build" in done.stderr


@pytest.fixture
def on_a_gpu(monkeypatch):
    """An Ada card and TensorRT 10.3."""
    monkeypatch.setenv("HVQ_STAND_IN_CAPABILITY", "89")
    monkeypatch.setenv("HVQ_STAND_IN_VERSION", "100300")
    return monkeypatch


def one_image(tmp_path: Path) -> Path:
    return write_png(tmp_path / "part.png", make_texture(0))


@pytest.mark.long
@pytest.mark.parametrize("mode", ["one", "input", "auto"])
def test_an_engine_gives_the_graphs_scores(with_tensorrt, tmp_path, on_a_gpu, mode):
    """The plan is the graph: all but who computes is as on a GPU, and nothing may differ."""
    bundle = save_bundle(tmp_path / "bundle", mode)
    thresholds = {"fp32": dict.fromkeys(CATEGORIES, threshold_at(0.3))}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"thresholds": thresholds}))
    images = [write_png(tmp_path / f"{i}.png", make_texture(i, height=64 + i)) for i in range(3)]
    given = ["--category", "nut"] if mode == "input" else []
    words = [*given, bundle.path, *images]
    assert "no fp32 engine for tensorrt 10.3.0 on" in refused(with_tensorrt, "--plan", *words)
    save_plan(bundle)
    found = judged(with_tensorrt, "--plan", *words)
    assert found == judged(with_tensorrt, *words)
    assert len({line["score"] for line in found}) == len(images)


@pytest.mark.long
def test_only_an_engine_that_fits_is_run(with_tensorrt, tmp_path, on_a_gpu):
    bundle, image = save_bundle(tmp_path / "bundle"), one_image(tmp_path)
    words = ["--plan", bundle.path, image]
    for fits in (
        {},
        {"backend_version": "10.3.0.26"},
        {"backend_version": "10.0.1", "options": BuildOptions(version_compatible=True)},
        {"compute_capabilities": ("8.7",), "options": BuildOptions(hardware="ampere+")},
        {"gpu_name": "another", "driver": "12.4"},
    ):
        save_plan(bundle, **fits)
        assert judged(with_tensorrt, *words)
    for changes, said in (
        ({"onnx_sha256": "0" * 64}, "graph: built for 000000000000, here is"),
        ({"backend": "tensorrt-rtx"}, "backend: built for tensorrt-rtx, here is tensorrt"),
        (
            {"backend_version": "10.16.1.11", "options": BuildOptions(version_compatible=True)},
            "backend_version: built for 10.16.1.11, here is 10.3.0",
        ),
        ({"backend_version": "10.0.1"}, "backend_version: built for 10.0.1, here is 10.3.0"),
        ({"platform": "linux-riscv64"}, "platform: built for linux-riscv64, here is linux-"),
        ({"compute_capabilities": ("8.7",)}, "compute_capability: built for 8.7, here is 8.9"),
        ({"plan_sha256": "0" * 64}, "it is not the engine that was built (SHA-256)"),
    ):
        save_plan(bundle, **changes)
        assert said in refused(with_tensorrt, *words)
    plan = save_plan(bundle)
    other = save_bundle(tmp_path / "other", "auto")
    (plan.parent / plan.name).write_bytes(other.read("model.fp32.onnx"))
    assert "not the engine that was built" in refused(with_tensorrt, *words)
    record = json.loads(plan.with_suffix(".json").read_text("utf-8"))
    record["plan_sha256"] = other.manifest.files["model.fp32.onnx"].sha256
    plan.with_suffix(".json").write_text(json.dumps(record), "utf-8")
    assert "of another graph" in refused(with_tensorrt, *words)
    plan.with_suffix(".json").unlink()
    assert f"{plan.stem}.json cannot be read" in refused(with_tensorrt, *words)


@pytest.mark.long
def test_a_signature_covers_the_engine(with_tensorrt, tmp_path, on_a_gpu):
    pytest.importorskip("cryptography")
    bundle, image = save_bundle(tmp_path / "bundle"), one_image(tmp_path)
    new_key(tmp_path / "key")
    words = ["--plan", "--require-signature", tmp_path / "key.pub", bundle.path, image]
    sign_bundle(bundle.path, tmp_path / "key")
    save_plan(bundle)
    assert "it is not an engine that was signed" in refused(with_tensorrt, *words)
    sign_bundle(bundle.path, tmp_path / "key")
    assert judged(with_tensorrt, *words)


@pytest.mark.long
def test_what_fails_on_a_gpu_is_said(program, with_tensorrt, tmp_path, on_a_gpu):
    bundle, image = save_bundle(tmp_path / "bundle"), one_image(tmp_path)
    told = tmp_path / "calls"
    on_a_gpu.setenv("HVQ_STAND_IN_CALLS", str(told))
    save_plan(bundle, options=BuildOptions(version_compatible=True, dla_core=1))
    words = ["--plan", bundle.path, image]
    assert judged(with_tensorrt, *words)
    assert told.read_text() == "host code allowed\nDLA core 1\n"
    for step, code, said in (
        ("deserialise", 2, "cannot load the engine: Serialization assertion failed"),
        ("context", 3, "too little memory left: out of memory"),
        ("shape", 2, "one frame at a time: batch 1 is below the profile's least"),
        ("execute", 3, "cannot run the engine: an illegal memory access"),
    ):
        on_a_gpu.setenv("HVQ_STAND_IN_FAILS", step)
        done = run(with_tensorrt, *words)
        assert (done.returncode, done.stdout) == (code, ""), step
        assert said in done.stderr
    on_a_gpu.setenv("HVQ_STAND_IN_CAPABILITY", "")
    done = run(with_tensorrt, *words)
    assert (done.returncode, done.stdout) == (3, "")
    assert "CUDA cannot find a GPU: CUDA driver version is insufficient" in done.stderr
    done = run(program, *words)
    assert (done.returncode, done.stdout) == (3, "")
    assert "built without TensorRT: cmake -DHVQ_TENSORRT=ON" in done.stderr
