"""`hvq-edge data check`: what it prints of what it found, as text and as JSON."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.images import make_texture, scratch, write_png
from rich.console import Console
from typer.testing import CliRunner

from hvq_edge.cli.app import app
from hvq_edge.cli.data import HEADINGS, MOST_LISTED, check_table
from hvq_edge.data.check import check_dataset
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.findings import FindingKind
from hvq_edge.data.splits import LEAST_OF_A_DAY, split_training
from hvq_edge.errors import GateFailed


@pytest.fixture
def spoilt(mvtec_folder) -> Path:
    """One of each kind of fault that does not hide another, and a copy."""
    bolt, tile = mvtec_folder / "bolt", mvtec_folder / "tile"
    shutil.copy(bolt / "train/good/000.png", bolt / "test/good/[bold]leak.png")
    shutil.copy(tile / "test/good/001.png", tile / "test/scratch/twice.png")
    shutil.copy(tile / "train/good/001.png", tile / "train/good/copy.png")
    (bolt / "test/good/cut.jpg").write_bytes(b"\xff\xd8\xff")
    masks = bolt / "ground_truth/scratch"
    write_png(masks / "000_mask.png", np.zeros((96, 96), np.uint8))
    write_png(masks / "001_mask.png", np.full((96, 96), 255, np.uint8))
    write_png(masks / "002_mask.png", scratch(make_texture(0, height=48))[1])
    (masks / "003_mask.png").rename(masks / "300_mask.png")
    for i in range(2):
        write_png(mvtec_folder / f"nut/train/good/{i}.png", make_texture(9000 + i))
    write_png(bolt / "test/scratch/000_mask.png", np.eye(96, dtype=np.uint8))
    write_png(tile / "train/good/dark.png", np.zeros((96, 96), np.uint8))
    for i in range(4):
        still = make_texture(7000)
        still[0, 0, 0] = i  # a level or so of one pixel
        write_png(mvtec_folder / f"rig/train/good/{i}.png", still)
        deep = 16 * make_texture(8000 + i).astype(np.uint16)
        write_png(mvtec_folder / f"mono12/train/good/{i}.png", deep)
    for seed, place in ((8100, "left"), (8101, "right")):
        deep = 16 * make_texture(seed).astype(np.uint16)
        write_png(mvtec_folder / f"mono12/test/dent/{place}/0.png", deep)
    write_png(mvtec_folder / "mono12/ground_truth/dent/0_mask.png", np.eye(96, dtype=np.uint8))
    return mvtec_folder


def test_every_kind_of_finding_has_a_heading_and_can_happen(spoilt):
    from typing import get_args

    found = check_dataset(spoilt)
    assert set(HEADINGS) == set(get_args(FindingKind))
    kinds = [one.kind for one in found.faults]
    assert {*kinds, *(one.kind for one in found.copies)} == set(HEADINGS)
    assert kinds == [kind for kind in HEADINGS if kind != "copies"], "in that order"


def test_json(spoilt):
    done = CliRunner().invoke(app, ["data", "check", str(spoilt), "--json"])
    assert isinstance(done.exception, GateFailed)
    record = json.loads(done.stdout)
    assert (record["layout"], record["fit"]) == ("mvtec", False)
    assert record["data"] == str(spoilt.resolve())
    bolt = record["categories"][0]
    assert (bolt["category"], bolt["train_good"], bolt["smallest"]) == ("bolt", 8, [96, 96])
    assert (bolt["leaked"], bolt["unreadable"], bolt["mask_faults"]) == (1, 1, 6)
    assert record["faults"][0] == {
        "kind": "unreadable",
        "categories": ["bolt"],
        "paths": ["bolt/test/good/cut.jpg"],
        "detail": record["faults"][0]["detail"],
    }
    assert [one["kind"] for one in record["copies"]] == ["copies"]
    assert any("nut: there are no test images" in note for note in record["notes"])


def test_faults_are_listed_with_their_paths(spoilt):
    done = CliRunner().invoke(app, ["data", "check", str(spoilt)])
    assert done.exit_code != 0
    assert "14 faults in" in str(done.exception)
    for line in (
        "bolt/train/good/000.png = bolt/test/good/[bold]leak.png: the same image in train and",
        "bolt/test/good/cut.jpg: cannot be used: it is",
        "nut: 2 good training images can be read",
        "tile/train/good/001.png = tile/train/good/copy.png: the same image, all in train",
    ):
        assert line in done.stdout
    for heading in HEADINGS.values():
        assert f"{heading} (1):" in done.stdout


def test_a_clean_folder_ends_with_0(mvtec_folder):
    done = CliRunner().invoke(app, ["data", "check", str(mvtec_folder)])
    assert done.exit_code == 0, done.output
    assert "Nothing was found" in done.stdout
    rows = {
        row[0]: row[1:]
        for row in (re.split(r"\s+", line.strip()) for line in done.stdout.splitlines())
        if row[0] in ("bolt", "tile", "all")
    }
    assert rows["bolt"] == ["8", "4", "4", "4", "96x96", "96x96", "0", "0", "0"]
    assert rows["all"] == ["16", "8", "8", "4", "0", "0", "0"]


def test_what_training_holds_out_is_said_as_training_says_it(mvtec_folder):
    """Good images of validation, of another day, and a random share."""
    for i in range(3):
        write_png(mvtec_folder / f"bolt/validation/good/{i}.png", make_texture(4000 + i))
    good = mvtec_folder / "tile/train/good"
    for path in good.iterdir():
        path.unlink()
    for i in range(2 * LEAST_OF_A_DAY + 1):
        day = 20240531 if i <= LEAST_OF_A_DAY else 20240602
        write_png(good / f"{day}-{i}.png", make_texture(5000 + i, height=24, width=24))
    for i in range(4):
        write_png(mvtec_folder / f"nut/train/good/{i}.png", make_texture(6000 + i))
    done = CliRunner().invoke(app, ["data", "check", str(mvtec_folder), "--json"])
    bolt, nut, tile = json.loads(done.stdout)["categories"]
    assert (bolt["train_good"], bolt["validation_good"], bolt["held_out"]) == (8, 3, 3)
    days = {"2024-05-31": LEAST_OF_A_DAY + 1, "2024-06-02": LEAST_OF_A_DAY}
    assert (tile["days"], tile["days_said_by"]) == (days, "file names")
    assert (nut["days"], nut["held_out"], nut["held_out_from"]) == ({}, 0, "")
    records, sources = split_training(find_dataset(mvtec_folder), 0.2, seed=0)
    assert sources == {"bolt": bolt["held_out_from"], "tile": tile["held_out_from"]}
    held = [one.category for one in records if one.use == "held_out"]
    assert (held.count("bolt"), held.count("tile")) == (bolt["held_out"], tile["held_out"])

    shown = CliRunner().invoke(app, ["data", "check", str(mvtec_folder)]).stdout
    assert re.search(r"^bolt +8 +3 +4 +4 ", shown, re.MULTILINE), "apart from those learnt from"
    for line in (
        "Training images of tile: 2 days by file names, 2024-05-31 to 2024-06-02.",
        "Held out of bolt for its threshold: good images of validation/good (3 images).",
        f"Held out of tile for its threshold: {tile['held_out_from']} ({LEAST_OF_A_DAY} images).",
        "Held out of nut for thresholds: a random share of the good training images.",
    ):
        assert line in shown


def test_days_need_a_package_that_a_device_lacks(mvtec_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    found = check_dataset(mvtec_folder)
    assert found.fit
    assert any("Pillow is not installed" in note for note in found.notes)


def test_which_good_images_the_plain_layout_tests_with(plain_folder):
    done = CliRunner().invoke(app, ["data", "check", str(plain_folder), "--json"])
    (category,) = json.loads(done.stdout)["categories"]
    tested = [image.path for image in find_dataset(plain_folder).test() if image.good]
    names = [path.relative_to(plain_folder).as_posix() for path in tested]
    assert category["test_by_content"] == names
    assert len(names) == category["test_good"] == 2
    shown = CliRunner().invoke(app, ["data", "check", str(plain_folder)]).stdout
    assert f"as test images, chosen by content: 2 good images, {', '.join(names)}." in shown


def test_many_masks_are_said_once_for_a_category(mvtec_folder):
    for path in (mvtec_folder / "bolt/test/scratch").iterdir():
        write_png(path.with_name(f"{path.stem}_mask.png"), np.eye(96, dtype=np.uint8) * 255)
    done = CliRunner().invoke(app, ["data", "check", str(mvtec_folder)])
    lines = [line for line in done.stdout.splitlines() if "masks belong in" in line]
    names = ", ".join(f"bolt/test/scratch/00{i}_mask.png" for i in range(3))
    assert lines == [
        f"  bolt: 4 files, {names} and 1 more (--json lists all): among the images, and left out; "
        "masks belong in ground_truth"
    ]
    assert "Notes" not in done.stdout, "what is listed is not noted again"


def test_many_findings_of_one_kind_are_cut_with_the_number_left_out(mvtec_folder):
    for i in range(MOST_LISTED + 5):
        (mvtec_folder / f"tile/train/good/broken {i:03}.png").write_bytes(b"")
    done = CliRunner().invoke(app, ["data", "check", str(mvtec_folder)])
    assert f"leaves it out ({MOST_LISTED + 5}):" in done.stdout
    assert done.stdout.count("/broken 0") == MOST_LISTED
    assert "and 5 more; --json lists all" in done.stdout


def test_the_table_fits_a_narrow_terminal(mvtec_folder):
    (mvtec_folder / "bolt").rename(mvtec_folder / "a product with a rather long name")
    write_png(mvtec_folder / "tile/train/good/x.png", make_texture(1, height=1500, width=2000))
    console = Console(width=80, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.capture() as capture:
        console.print(check_table(check_dataset(mvtec_folder)))
    shown = capture.get()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "2000x1500" in shown


def executable(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hvq_edge", "data", "check", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1", "TERM": "dumb"},
    )


def test_help(tmp_path):
    done = executable("--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "DIR" in done.stdout
    assert "exit code 1" in done.stdout
    assert "--json" in done.stdout


def test_the_executable_and_its_exit_codes(mvtec_folder, tmp_path):
    done = executable("mvtec", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "Checking images: 32/32" in done.stderr
    shutil.copy(mvtec_folder / "tile/train/good/001.png", mvtec_folder / "tile/test/good/x.png")
    done = executable("mvtec", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert "Error: 1 fault in mvtec" in done.stderr
    assert "Next:  correct what is listed" in done.stderr
    (fault,) = json.loads(done.stdout)["faults"]
    assert fault["paths"] == ["tile/train/good/001.png", "tile/test/good/x.png"]
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        done = executable(folder, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert folder in done.stderr
        assert "Next:" in done.stderr
