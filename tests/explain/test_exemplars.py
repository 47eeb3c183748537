"""Exemplars: the nearest cells of good images, kept as a file that is held against itself."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import torch
from helpers.commands import exit_code

from hvq_edge.data.images import read_frame
from hvq_edge.errors import DatasetError, InputError
from hvq_edge.evaluation.explain_run import RunInsight
from hvq_edge.explain.exemplars import (
    PATCH,
    choose_exemplars,
    exemplars_name,
    patch_of,
    read_exemplars,
    write_exemplars,
)
from hvq_edge.model.codebook import perplexity

NAME = "solar_cell_poly"


@pytest.fixture(scope="module")
def insight(small_run):
    return RunInsight(small_run)


@pytest.fixture(scope="module")
def found(insight):
    return insight.exemplars(NAME)


def test_of_the_cells_that_choose_a_code_the_nearest_are_kept_one_an_image():
    index = np.array([[0, 0, 2], [0, 2, 2], [2, 2, 2]])
    distance = np.array([[3, 1, 5], [2, 4, 1], [9, 8, 7]], np.float32)
    book = choose_exemplars("top", 4, index, distance, most=2)
    assert book.usage.tolist() == [3, 0, 6, 0]
    assert [(one.image, one.token, one.distance) for one in book.of(0)] == [(0, 1, 1), (1, 0, 2)]
    assert [(one.image, one.token, one.distance) for one in book.of(2)] == [(1, 2, 1), (0, 2, 5)]
    assert book.of(1) == []
    assert book.usual.tolist() == [2, 0, 6, 0]
    assert book.dead == 2
    assert book.share(2) == pytest.approx(2 / 3)
    assert book.perplexity == pytest.approx(float(perplexity(torch.tensor([3.0, 0, 6, 0]))))


def test_exemplars_of_a_run_are_nearest(insight, found, small_run):
    """Against all distances of all good training images, without any of the product's lookups."""
    model, record = insight._model, insight.record
    label = torch.tensor([record.categories.index(NAME)])
    own = [one for one in record.images if one.use == "fit" and one.category == NAME]
    assert found.looked_at == len(own)
    top = [book.name for book in found.codebooks].index("top")
    code = int(found.codebooks[top].usage.argmax())
    every = []
    for one in own:
        frame = torch.from_numpy(read_frame(f"{record.data}/{one.path}", found.shape)[None])
        with torch.no_grad():
            tokens = model.encode(model.features(frame))[-1][0].double()
        distances = torch.cdist(tokens, model.codes_of(top, label)[0].double())
        mine = distances.argmin(1) == code
        every += [
            (float(distances[token, code]), one.sha256, int(token)) for token in mine.nonzero()
        ]
    assert found.codebooks[top].usage[code] == len(every)
    best: dict[str, tuple[float, int]] = {}
    for distance, image, token in sorted(every):
        best.setdefault(image, (distance, token))
    wanted = [(image, token) for image, (_, token) in best.items()][:3]
    kept = found.codebooks[top].of(code)
    assert [(found.sha256[one.image], one.token) for one in kept] == wanted
    assert found.codebooks[top].usual[code] == pytest.approx(
        np.median([distance for distance, _, _ in every]), rel=1e-4
    )


def test_their_images_are_those_that_were_looked_at(insight, found):
    paths = {one.sha256: one.path for one in insight.record.images}
    assert 0 < len(found.images) == len(set(found.sha256)) <= found.looked_at
    for number in (0, len(found.images) - 1):
        frame = read_frame(f"{insight.record.data}/{paths[found.sha256[number]]}", found.shape)
        assert np.abs(found.pixels(number).astype(int) - frame).mean() < 8  # JPEG


def test_every_cell_counts_once_in_each_codebook(found):
    cells = found.looked_at * (found.shape[0] // 16) ** 2
    assert [int(book.usage.sum()) for book in found.codebooks] == [cells] * len(found.codebooks)
    assert [book.name for book in found.codebooks] == ["level 0", "level 1", "top", "prototypes"]


def test_they_are_kept_until_the_weights_are_others(insight, found, small_run):
    path = small_run / exemplars_name(insight.categories.index(NAME))
    before = path.stat()
    again = insight.exemplars(NAME)
    assert (again.sha256, path.stat().st_mtime_ns) == (found.sha256, before.st_mtime_ns)
    content = path.read_bytes()
    write_exemplars(path, type(found)(**{**vars(found), "checkpoint_sha256": "0" * 64}))
    assert insight.exemplars(NAME).checkpoint_sha256 == insight.record.checkpoint_sha256
    path.write_bytes(content[:1000])  # half-written by somebody else
    assert insight.exemplars(NAME).sha256 == found.sha256
    with pytest.raises(InputError, match="no category"):
        insight.exemplars("other")


@pytest.fixture
def moved_run(small_run, tmp_path):
    """A copy of the run whose training images are not where they were."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "checkpoint.pt"):
        shutil.copy(small_run / name, run)
    record = json.loads((run / "run.json").read_text("utf-8"))
    record["data"] = str(tmp_path / "gone")
    (run / "run.json").write_text(json.dumps(record), "utf-8")
    return run


def test_images_that_are_gone_are_said(moved_run, capsys):
    with pytest.raises(DatasetError, match="missing"):
        RunInsight(moved_run).exemplars(NAME)
    assert exit_code("explain", "--codebook", "--bundle", str(moved_run)) == 2
    assert "put the images back" in capsys.readouterr().err
    assert not (moved_run / "exemplars").exists()


def test_kept_exemplars_outlive_the_images(moved_run, found, small_run):
    shutil.copytree(small_run / "exemplars", moved_run / "exemplars")
    assert RunInsight(moved_run).exemplars(NAME).sha256 == found.sha256


def broken(content: bytes, **changes: object) -> bytes:
    with np.load(io.BytesIO(content)) as file:
        arrays = {**file, **changes}
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()


def test_a_file_that_lies_is_refused(found, tmp_path):
    path = tmp_path / "0.npz"
    write_exemplars(path, found)
    content = path.read_bytes()
    assert read_exemplars(content).sha256 == found.sha256
    far = np.where(found.codebooks[0].image >= 0, len(found.images), -1).astype(np.int32)
    nan = np.full_like(found.codebooks[1].distance, np.nan)
    noise = np.zeros(sum(map(len, found.images)), np.uint8)
    changes = [
        {"format": "hvq-edge-exemplars/0"},
        {"0.image": far},
        {"1.distance": nan},
        {"2.usage": found.codebooks[2].usage[:-1]},
        {"3.token": found.codebooks[3].token + 10_000},
        {"jpeg": noise},
        {"sha256": np.array(["0"])},
    ]
    for change in changes:
        with pytest.raises(ValueError, match=r"\w"):
            read_exemplars(broken(content, **change))
    with pytest.raises(ValueError, match=r"\w"):
        read_exemplars(content[: len(content) // 2])


@pytest.mark.parametrize("side", [64, 224])
def test_a_patch_lies_in_the_image_and_holds_its_cell(side):
    grid = side // 16
    for token in range(grid**2):
        one = patch_of(token, (side, side))
        assert 0 <= one.left <= side - PATCH
        assert 0 <= one.top <= side - PATCH
        row, column = divmod(token, grid)
        assert (one.left + one.cell_left, one.top + one.cell_top) == (16 * column, 16 * row)
        assert 0 <= one.cell_left <= PATCH - 16
