"""Benchmarks that no other test runs, on something small: they end, and print what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.commands import benchmark as run
from helpers.images import scratch, write_png
from helpers.paths import ROOT
from helpers.small_graphs import SMALL as SMALL_NET
from helpers.triton_server import why_not

from benchmarks import tiles_image
from benchmarks.accuracy import added_on_device, defect_groups, known_defects, new_centre, tiles
from benchmarks.live_page_image import CHROMIUM
from hvq_edge.data.images import read_image
from hvq_edge.export.export_run import export_run


def rows(printed: str) -> list[list[str]]:
    """The cells of all rows of all tables, but their headings."""
    lines = printed.splitlines()
    found = []
    for above, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|") and not re.match(r"\|[ :]*-", line):
            found.append([one.strip() for one in line.strip().strip("|").split("|")])
        elif line.startswith("|") and above:
            found.pop()  # what stood above the line of dashes
    return found


def is_picture(path: Path) -> None:
    image = cv2.imread(str(path))
    assert image is not None, path
    assert image.std() > 10, "it shows something"


def test_verdicts_of_rules_side_by_side(small_run, monkeypatch, capsys):
    printed = rows(run("accuracy.verdicts", monkeypatch, capsys, small_run))
    for _, *numbers in printed[:-2]:
        assert all(0 <= float(one) <= 100 for one in numbers if one != "–")
    assert [row[0] for row in printed[-2:]] == ["solar_cell_mono", "solar_cell_poly"]
    assert all(row[2].endswith(" of 8") for row in printed[-2:])


def test_known_defects_of_a_run(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(known_defects, "GIVEN", (4,))
    options = ("--out", tmp_path, "--draws", 1, "--only", "solar_cell_mono")
    printed = rows(run("accuracy.known_defects", monkeypatch, capsys, small_run, *options))
    assert [row[:2] for row in printed] == [["solar_cell_mono", "any kind, 4"]]


@pytest.mark.long
def test_drift_of_lines_drawn_from_judged_images(
    small_bundle, solar_cells, tmp_path, monkeypatch, capsys
):
    options = ("--rows", tmp_path / "rows.npz", "--lines", 1, "--quiet-lines", 1, "--parts", 1000)
    arguments = (small_bundle.parent, solar_cells, *options)
    printed = run("accuracy.drift", monkeypatch, capsys, *arguments)
    assert re.search(r"watch beside engine: [\d.]+% of its time", printed)
    kinds = [row[0] for row in rows(printed)]
    assert any(re.match(r"darker to .*, solar_cell_mono", one) for one in kinds)
    assert kinds.count("solar_cell_poly") == 3, "quiet lines, at each bound"


@pytest.mark.long
def test_int8_layer_by_layer(small_run, monkeypatch, capsys):
    options = ("--images", 4, "--threads", 1, "--rounds", 2)
    printed = run("accuracy.int8", monkeypatch, capsys, small_run, *options)
    assert "4 held-out images" in printed
    assert len(rows(printed)) > 5


def test_a_product_added_on_a_device_and_with_the_run(
    small_bundle, bolts: Path, tmp_path, monkeypatch, capsys
):
    data = tmp_path / "data"
    for number, path in enumerate(sorted(bolts.iterdir())):
        folder = "train/good" if number < 12 else "test/good"
        target = data / "bolt" / folder / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        if number >= 12:
            write_png(data / "bolt/test/scratch" / path.name, scratch(read_image(path))[0])
    options = ["--category", "bolt", "--images", "12", "--out", str(tmp_path / "out")]
    added_on_device.main([str(small_bundle.parent), str(data), *options])
    ((name, count, *cells),) = rows(capsys.readouterr().out)
    assert (name, count) == ("bolt", "12")
    assert len(cells) == 7, "fp32, int8, the run, and verdicts of both files"

    def fail(*_: object) -> None:
        raise AssertionError("this was already done")

    monkeypatch.setattr(added_on_device, "run", fail)
    added_on_device.main([str(small_bundle.parent), str(data), *options])
    assert rows(capsys.readouterr().out) == [[name, count, *cells]]


def test_rejects_that_look_alike(small_bundle, solar_cells, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(solar_cells, data)
    test = data / "solar_cell_mono/test"
    for path in sorted((test / "good").iterdir())[:4]:
        write_png(test / "scratch" / path.with_suffix(".png").name, scratch(read_image(path))[0])
        mask = scratch(read_image(path))[1]
        name = f"{path.stem}_mask.png"
        write_png(data / "solar_cell_mono/ground_truth/scratch" / name, mask)
    with_masks = defect_groups.measure(small_bundle, data)["mask"]
    ((kinds, seen),) = with_masks.values()
    assert sorted(set(kinds)) == ["scratch"]
    assert {*defect_groups.SCALED, "features"} <= seen[0].keys()
    assert all(np.isfinite(one).all() for each in seen for one in each.values())
    defect_groups.main([str(small_bundle), str(data)])
    assert "A kind alone, by features" in capsys.readouterr().out


def test_parts_that_no_centre_reaches(small_bundle, solar_cells, bolts, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(solar_cells, data)
    for number, path in enumerate(sorted(bolts.iterdir())):
        for name in ("bolt", "other bolt"):
            folder = data / name / ("train/good" if number % 2 else "test/good")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    new_centre.main([str(small_bundle), str(data)])
    printed = rows(capsys.readouterr().out)
    assert [row[:2] for row in printed if row[1] == "none"] == [
        ["bolt", "none"],
        ["other bolt", "none"],
    ]
    assert all(0 <= float(one) <= 100 for row in printed for one in row[2:])


@pytest.mark.long
def test_tiles_and_their_picture(solar_cells, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tiles, "LEARNT", 4)
    monkeypatch.setattr(tiles, "TESTED", 4)
    data, runs = tmp_path / "data", tmp_path / "runs"
    cells = data / "solar_cell_mono"
    shutil.copytree(solar_cells / "solar_cell_mono", cells)
    for path in sorted((cells / "train/good").iterdir())[:4]:  # nine make a module
        path.rename(cells / "test/good" / path.name)
    options = ["--tiles", "1x1", "4x4", "--kinds", cells.name, "--epochs", "1"]
    tiles.main([str(data), *options, "--out", str(runs)])
    printed = rows(capsys.readouterr().out)
    assert [row[0] for row in printed] == ["1x1", "4x4, apart", "4x4, shared"]
    assert printed[0][-1] == "x 1.0"
    # After one epoch nobody knows what is found: the third and fourth are those with small defects.
    scores = iter(np.full(4, one) for one in (1.0, 1.0, 0.0, 2.0))
    monkeypatch.setattr(tiles_image, "scores_of", lambda *_: next(scores))
    out = tmp_path / "tiles.jpg"
    said = run("tiles_image", monkeypatch, capsys, cells, runs / cells.name, out)
    assert "Found of 4: 0 without tiles, 4 with" in said
    is_picture(out)


@pytest.mark.long
def test_what_folding_is_worth(small_run, monkeypatch, capsys):
    printed = rows(run("speed.folding", monkeypatch, capsys, small_run, "--rounds", 1))
    assert len(printed) > 5


def test_a_soak_of_the_whole_inspector(small_bundle, monkeypatch, capsys):
    arguments = ("--bundle", small_bundle, "--frames", 200)
    printed = run("speed.soak", monkeypatch, capsys, *arguments)
    assert re.search(
        r"frames 200 = \d+ pass \+ \d+ reject \+ \d+ no decision \+ 0 dropped", printed
    )
    assert "log: 200 decisions, whole: True" in printed


def test_requests_beside_a_line(small_bundle, bolts: Path, tmp_path, monkeypatch, capsys):
    from benchmarks.speed import requests_beside_a_line

    monkeypatch.setattr(requests_beside_a_line, "TURN_SECONDS", 0.5)
    image = next(bolts.iterdir())
    for options in ([], ["--explain"]):
        arguments = (small_bundle, bolts, image, "--senders", 1, "--rounds", 1, *options)
        printed = run("speed.requests_beside_a_line", monkeypatch, capsys, *arguments)
        assert [row[0] for row in rows(printed)] == ["0", "1"]
        assert re.search(r"memory: \d+ MiB before, \d+ MiB after", printed)


def test_what_tensorrt_rtx_makes_of_graphs(small_bundle, monkeypatch, capsys):
    pytest.importorskip("tensorrt_rtx")
    arguments = (small_bundle, "--chips", "8.9")
    printed = rows(run("gpu.rtx_engines", monkeypatch, capsys, *arguments))
    assert [row[:2] for row in printed] == [["fp32", "8.9"], ["int8", "8.9"]]
    assert [row[-1] for row in printed] == ["none", "none"]


def test_files_of_a_net_that_nobody_trained(solar_cells, tmp_path, monkeypatch, capsys):
    from benchmarks.gpu import paper_graphs
    from hvq_edge.run.settings import ModelSettings

    net = paper_graphs.random_net(ModelSettings(**SMALL_NET), 2)
    paper_graphs.save_graphs(net, tmp_path, paper_graphs.good_images(solar_cells, 2))
    names = {path.name for path in tmp_path.glob("*.onnx")}
    assert names == {f"model.{one}.onnx" for one in ("fp16", "fp32", "int8", "int8-fp16")}


@pytest.mark.long
def test_pictures_of_judged_cells(solar_bundle, solar_cells, tmp_path, monkeypatch, capsys):
    run_folder = solar_bundle.parent
    run("overlay_image", monkeypatch, capsys, run_folder, solar_cells, tmp_path)
    for name in ("overlay.jpg", "predict.jpg", "explain.jpg"):
        is_picture(tmp_path / name)


def test_the_picture_of_what_was_learnt(small_bundle, solar_cells, tmp_path, monkeypatch, capsys):
    cells = sorted((solar_cells / "solar_cell_mono/test/good").iterdir())[:2]
    out = tmp_path / "learn.png"
    run("learning_image", monkeypatch, capsys, small_bundle, small_bundle, *cells, out)
    is_picture(out)


needs_chromium = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason="it photographs in Chromium"
)


@pytest.mark.long
@needs_chromium
def test_pictures_of_a_review(solar_run, solar_cells, tmp_path, monkeypatch, capsys):
    from helpers.one_trace import one_trace

    with one_trace():
        bundle = export_run(solar_run, tmp_path / "bundle", exemplars=True)
    run("review_image", monkeypatch, capsys, bundle.path, solar_cells, tmp_path)
    for name in ("review.jpg", "shift-report.jpg", "alike.jpg", "explain-click.jpg"):
        is_picture(tmp_path / name)


@pytest.mark.long
@needs_chromium
def test_pictures_of_the_live_page(solar_bundle, solar_cells, tmp_path, monkeypatch, capsys):
    images = solar_cells / "solar_cell_mono/test"
    arguments = (solar_bundle, images, tmp_path / "page.png", "--seconds", 3, "--all")
    run("live_page_image", monkeypatch, capsys, *arguments)
    for name in ("page.png", "page-dark.png", "page-phone.png"):
        is_picture(tmp_path / name)


@pytest.mark.long
def test_a_triton_server_beside_an_engine(small_bundle, monkeypatch, capsys):
    lacks = why_not()
    if lacks:
        pytest.skip(lacks)
    options = ("--clients", 1, "--rounds", 1, "--seconds", 1)
    printed = rows(run("speed.triton", monkeypatch, capsys, small_bundle, *options))
    assert len(printed) >= 1


def test_a_picture_of_an_example(small_run, small_bundle, tmp_path, monkeypatch, capsys):
    assert small_bundle == small_run / "bundle"
    photos = tmp_path / "washers"
    render = ROOT / "examples/rendered_washers.py"
    command = [sys.executable, render, photos, "--train", "2", "--test", "4"]
    subprocess.run(command, check=True)
    monkeypatch.chdir(ROOT)
    for name in ("washers.jpg", "inspector.svg"):
        arguments = (small_run, photos, tmp_path, "--only", name)
        run("example_images", monkeypatch, capsys, *arguments)
    is_picture(tmp_path / "washers.jpg")
    drawn = (tmp_path / "inspector.svg").read_text(encoding="utf-8")
    assert "examples/inspector.py" in drawn.replace("&#160;", " ")
    assert drawn.count("<text") > 8, "eight parts, and the command"
