"""Tiles: what a tile gives is what the model without tiles gives for that cut of the image."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.one_trace import one_trace
from helpers.small_graphs import SMALL, small_model
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.cli.app import main
from hvq_edge.data.solar_cells import lay_out_solar_cells
from hvq_edge.export.verify.verify import verify_bundle
from hvq_edge.model import load_run
from hvq_edge.model.tiles import Tiles
from hvq_edge.run.tiling import Tiling

TILED = {"tiles": [2, 3], "tile_overlap": 0.3}


@st.composite
def tilings(draw) -> Tiling:
    grid = draw(st.integers(1, 8))
    overlap = draw(st.integers(0, grid // 2))
    return Tiling(16 * grid, draw(st.integers(1, 4)), draw(st.integers(1, 4)), overlap)


@given(tilings())
def test_tiles_cover_the_frame_and_fade_into_one_another(tiling):
    rows, columns = tiling.blends()
    np.testing.assert_allclose(rows.sum(1), 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(columns.sum(1), 1, rtol=0, atol=1e-6)
    cells, tokens = tiling.cells_of_tokens(), tiling.tokens_of_cells()
    assert len(cells) == tiling.tokens
    np.testing.assert_array_equal(cells[tokens], np.arange(np.prod(tiling.map_shape)))
    # A plane stays a plane: no seam.
    slope = np.add.outer(np.arange(tiling.map_shape[0]), 3 * np.arange(tiling.map_shape[1]))
    stitched = Tiles(tiling).stitch(torch.from_numpy(slope.ravel()[cells].astype(np.float32)))
    np.testing.assert_allclose(stitched, slope, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def model():
    return small_model(**TILED, fine_prototypes=8)


@pytest.fixture(scope="module")
def frames(model):
    shape = (2, *model.tiling.frame_shape, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@torch.inference_mode()
def test_a_tile_is_what_the_model_without_tiles_gives(model, frames):
    """Weights, codes and map parts of each cut; a plain loop puts the cuts together."""
    alone = small_model(fine_prototypes=8)
    own = alone.state_dict()
    state = {name: value for name, value in model.state_dict().items() if "map_" not in name}
    alone.load_state_dict({**own, **state})
    category = torch.tensor([0, 1])
    raw = model.raw_features(torch.from_numpy(frames))
    whole = model.standardise(raw)
    rebuilt = model.reconstruct(model.normalise(whole), category)
    parts = model.map_parts(whole, rebuilt, category)
    weighted = model.weighted_parts(parts, category).sum(0)
    tiling, grid = model.tiling, model.tiling.grid
    total, weight = np.zeros((2, *tiling.map_shape)), np.zeros(tiling.map_shape)
    fade = np.minimum(
        np.minimum(np.arange(1, grid + 1), np.arange(grid, 0, -1)), tiling.overlap + 1
    )
    for tile, (top, left) in enumerate(tiling.corners()):
        cut = frames[:, 16 * top :, 16 * left :][:, : tiling.side, : tiling.side]
        ours = slice(tile * grid**2, (tile + 1) * grid**2)
        features = alone.standardise(alone.raw_features(torch.from_numpy(cut.copy())))
        one = alone.reconstruct(alone.normalise(features), category)
        assert torch.equal(one.codes, rebuilt.codes[:, :, ours])
        torch.testing.assert_close(
            alone.map_parts(features, one, category), parts[:, :, ours], rtol=1e-4, atol=1e-4
        )
        place = slice(top, top + grid), slice(left, left + grid)
        total[:, place[0], place[1]] += np.outer(fade, fade) * weighted[:, ours].numpy().reshape(
            2, grid, -1
        )
        weight[place] += np.outer(fade, fade)
    out = model(torch.from_numpy(frames), category)
    np.testing.assert_allclose(out["map"], total / weight, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def few_cells(made_once):
    """Real images, a third of those that other tests share: of tiles each is as much as four."""
    return made_once("few cells", lambda out: lay_out_solar_cells(out, train_good=14, test_each=4))


@pytest.fixture(scope="module")
def run(few_cells, made_once):
    """A tiled run and its bundle, trained by the command."""

    def make(folder):
        settings = folder.with_suffix(".toml")
        keys = {**SMALL, "transport_weight": 0, "layers": 1}
        model = "".join(f"{key} = {v}\n" for key, v in keys.items())
        settings.write_text(f"[model]\n{model}[training]\nversions = 1\n")
        sizes = ["--preset", "tiny", "--epochs", "1", "--settings", str(settings)]
        tiles = ["--tiles", "2x2", "--overlap", "0.25", "--out", str(folder)]
        for command in (
            ["train", "--data", str(few_cells), *sizes, *tiles],
            ["export", str(folder), "--int8"],
        ):
            with pytest.raises(SystemExit) as ended:
                main(command)
            assert ended.value.code == 0

    with one_trace():
        return made_once("tiled", make)


@pytest.mark.long
def test_a_tiled_run_goes_all_the_way(run, few_cells, tmp_path, capsys, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert load_run(copy)[0].tiling.frame_shape == (112, 112)
    manifest = json.loads((copy / "bundle" / "bundle.json").read_text())
    assert (manifest["tiles"], manifest["tile_overlap"]) == ([2, 2], 1)
    found = verify_bundle(copy / "bundle", copy, few_cells, most_images=8).comparisons
    assert {row.precision for row in found} == {"fp32", "int8"}
    for row in found:
        assert row.map_correlation > (0.9999 if row.precision == "fp32" else 0.9)
    image = next((few_cells / "solar_cell_mono" / "test" / "defective").iterdir())
    for command in (
        ["eval", str(copy / "bundle"), "--data", str(few_cells)],
        [
            "explain",
            str(image),
            "--bundle",
            str(copy / "bundle"),
            "--run",
            str(copy),
            "--save",
            str(tmp_path / "why"),
        ],
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 0, capsys.readouterr()
    why = json.loads((tmp_path / "why" / f"{image.stem}.explain.json").read_text())
    assert why["score"] == pytest.approx(sum(why["places"][0]["shares"].values()), abs=1e-4)


def test_tiles_that_cannot_be(tmp_path, few_cells, capsys):
    for tiles in ("2", "9x1", "0x2", "2x0"):
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    "train",
                    "--data",
                    str(few_cells),
                    "--tiles",
                    tiles,
                    "--out",
                    str(tmp_path / "r"),
                ]
            )
        assert ended.value.code == 2
        assert f"--tiles {tiles}: expected rows x columns, 1 to 8" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
