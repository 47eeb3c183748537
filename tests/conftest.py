"""Small synthetic datasets that several tests share.

Pictures are noise smoothed to a texture, so that a blurred or painted one differs from the rest
as it would on a real surface. Each is its own, given by its seed.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hvq_edge.bundle import Bundle

SIDE = 96

Texture = Callable[..., NDArray[np.uint8]]


def make_texture(
    seed: int, *, height: int = SIDE, width: int = SIDE, grain: float = 1.5, mean: float = 128.0
) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]: noise of a grain size in pixels around a mean grey level."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), grain)
    levels = mean + 30.0 * smooth / smooth.std()
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def write_png(path: Path, picture: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return path


def scratch(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A dark stroke over the picture, and its mask (0/255)."""
    side = picture.shape[0]
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.line(mask, (side // 4, side // 4), (3 * side // 4, side // 2), 255, max(side // 16, 1))
    return np.where(mask[..., None] > 0, np.uint8(10), picture), mask


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither take engine times from the user's cache nor leave any there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
            picture, mask = scratch(make_texture(seed + 200 + i, **look))
            write_png(root / name / f"test/scratch/{i:03}.png", picture)
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
def solar_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pictures: 40 good training cells of each kind, 8 good and 8 defective to test."""
    from hvq_edge.data.solar_cells import lay_out_solar_cells

    return lay_out_solar_cells(
        tmp_path_factory.mktemp("real") / "Solarzellen für Tests", train_good=40, test_each=8
    )


@pytest.fixture(scope="session")
def solar_run(solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny preset, trained for a few epochs on real pictures, as a user would."""
    from hvq_edge.cli.app import main

    run = tmp_path_factory.mktemp("runs") / "solar"
    settings = run.with_suffix(".toml")
    settings.write_text("[model]\nwidth = 32\nfeedforward = 64\ncodes = 48\n")
    arguments = ["train", "--data", str(solar_cells), "--preset", "tiny", "--out", str(run)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.parent)
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--settings", str(settings), "--epochs", "6"])
    assert exit_.value.code == 0
    return run


@pytest.fixture(scope="session")
def solar_bundle(solar_run: Path) -> Path:
    """That run exported in float32 and INT8, choosing the category itself."""
    from hvq_edge.export.export_run import export_run

    return export_run(solar_run, solar_run / "bundle", int8=True).path


@pytest.fixture(scope="session")
def four_files(solar_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of trained weights with all four precisions."""
    from hvq_edge.export.export_run import export_run

    out = tmp_path_factory.mktemp("four files") / "bundle"
    return export_run(solar_run, out, int8=True, fp16=True)


@pytest.fixture(scope="session")
def small_graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Exported files of a small net by category mode and precision; ``auto`` has two layers."""
    from small_graphs import save_float, save_int8

    folder = tmp_path_factory.mktemp("small graphs")
    files = {}
    for mode in ("auto", "input", "one"):
        files[mode, "fp32"] = save_float(folder, mode, layers=2 if mode == "auto" else 1)
        files[mode, "int8"] = save_int8(files[mode, "fp32"])
    return files
