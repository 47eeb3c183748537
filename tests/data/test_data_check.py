"""``hvq-edge data check``: each fault a folder can have is found, named and counted."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.images import make_texture, scratch, write_png
from helpers.visa_folder import write_visa
from rich.console import Console
from typer.testing import CliRunner

from hvq_edge.cli.app import app
from hvq_edge.cli.data import HEADINGS, MOST_LISTED, check_table
from hvq_edge.data import check as check_module
from hvq_edge.data import content as content_module
from hvq_edge.data.check import check_dataset
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.findings import FindingKind, sentence_of
from hvq_edge.data.splits import LEAST_OF_A_DAY, split_training
from hvq_edge.errors import GateFailed


def kinds(found):
    return [fault.kind for fault in found.faults]


def only_fault(found):
    (fault,) = found.faults
    return fault


def relative(finding, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in finding.paths]


def test_a_clean_folder(mvtec_folder):
    told = []
    found = check_dataset(mvtec_folder, lambda *call: told.append(call))
    assert found.fit
    assert (found.faults, found.copies, found.notes) == ((), (), ())
    bolt, tile = found.categories
    assert (bolt.category, bolt.train_good, bolt.test_good, bolt.test_defective) == (
        "bolt",
        8,
        4,
        4,
    )
    assert (bolt.masks, tile.masks) == (4, 0), "a category without any mask is as it should be"
    assert bolt.smallest == bolt.largest == (96, 96)
    assert (bolt.unreadable, bolt.leaked, bolt.mask_faults) == (0, 0, 0)
    assert [call[:3] for call in told] == [("Checking images", i, 32) for i in range(1, 33)]


def test_the_other_layouts(plain_folder, tmp_path):
    found = check_dataset(plain_folder)
    assert (found.layout, found.fit) == ("plain", True)
    assert found.categories[0].train_good + found.categories[0].test_good == 10
    found = check_dataset(write_visa(tmp_path / "VisA"))
    assert (found.layout, found.fit) == ("visa", True)
    assert [(one.category, one.masks) for one in found.categories] == [("candle", 3), ("pcb1", 3)]


def test_sizes_are_width_and_height_of_the_smallest_and_largest_area(mvtec_folder):
    write_png(mvtec_folder / "tile/train/good/low.png", make_texture(1, height=40, width=300))
    write_png(mvtec_folder / "tile/train/good/small.png", make_texture(2, height=60, width=50))
    tile = check_dataset(mvtec_folder).categories[1]
    assert (tile.smallest, tile.largest) == ((50, 60), (300, 40))


# One fault at a time.


def test_a_copy_in_another_format_is_a_copy(mvtec_folder):
    source = mvtec_folder / "bolt/train/good/003.png"
    copy = mvtec_folder / "bolt/test/good/renamed.bmp"
    cv2.imwrite(str(copy), cv2.imread(str(source)))
    found = check_dataset(mvtec_folder)
    fault = only_fault(found)
    assert (fault.kind, fault.categories) == ("train_and_test", ("bolt",))
    assert relative(fault, mvtec_folder) == [
        "bolt/train/good/003.png",
        "bolt/test/good/renamed.bmp",
    ]
    assert (found.categories[0].leaked, found.categories[1].leaked) == (1, 0)


def test_copies_are_found_over_categories(mvtec_folder):
    shutil.copy(mvtec_folder / "bolt/train/good/003.png", mvtec_folder / "tile/test/scratch/x.png")
    found = check_dataset(mvtec_folder)
    assert only_fault(found).categories == ("bolt", "tile")
    assert [one.leaked for one in found.categories] == [0, 1], "where the test images lie"


def test_the_same_pixels_in_another_shape_are_another_image(tmp_path):
    for number, shape in enumerate([(32, 64), (64, 32), (16, 128), (128, 16)]):
        flat = np.full((*shape, 3), 90, np.uint8)
        write_png(tmp_path / f"a/{'test' if number else 'train'}/good/{number}.png", flat)
    assert "train_and_test" not in kinds(check_dataset(tmp_path))


def test_an_image_called_good_and_defective(mvtec_folder):
    shutil.copy(mvtec_folder / "tile/test/good/001.png", mvtec_folder / "tile/test/scratch/x.png")
    fault = only_fault(check_dataset(mvtec_folder))
    assert fault.kind == "good_and_defective"
    assert relative(fault, mvtec_folder) == ["tile/test/good/001.png", "tile/test/scratch/x.png"]


def test_copies_within_training_are_no_fault(mvtec_folder):
    shutil.copy(mvtec_folder / "tile/train/good/001.png", mvtec_folder / "tile/train/good/x.png")
    found = check_dataset(mvtec_folder)
    assert found.fit
    (copies,) = found.copies
    assert relative(copies, mvtec_folder) == ["tile/train/good/001.png", "tile/train/good/x.png"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"hello", "text"), (b"\xff\xd8\xff\xe0 cut", "truncated")],
)
@pytest.mark.parametrize(
    "name",
    ["bolt/train/good/x.png", "bolt/test/good/x.jpg", "bolt/ground_truth/scratch/000_mask.png"],
)
def test_a_file_that_cannot_be_read(mvtec_folder, name, content, said):
    (mvtec_folder / name).write_bytes(content)
    found = check_dataset(mvtec_folder)
    fault = only_fault(found)
    assert (fault.kind, relative(fault, mvtec_folder)) == ("unreadable", [name])
    assert said in fault.detail
    assert str(mvtec_folder) not in fault.detail, "the path is said once"
    assert found.categories[0].unreadable == 1


def test_a_mask_of_another_size(mvtec_folder):
    _, mask = scratch(make_texture(0, height=96, width=48))
    write_png(mvtec_folder / "bolt/ground_truth/scratch/002_mask.png", mask)
    fault = only_fault(check_dataset(mvtec_folder))
    assert fault.kind == "mask_size"
    assert fault.detail == "the mask is 48x96, its image 96x96"


@pytest.mark.parametrize(("level", "kind"), [(0, "mask_empty"), (1, "mask_full")])
def test_a_mask_that_marks_nothing_or_everything(mvtec_folder, level, kind):
    name = "bolt/ground_truth/scratch/002_mask.png"
    write_png(mvtec_folder / name, np.full((96, 96), level, np.uint8))
    found = check_dataset(mvtec_folder)
    fault = only_fault(found)
    assert (fault.kind, relative(fault, mvtec_folder)) == (kind, [name])
    assert found.categories[0].mask_faults == 1


def test_a_mask_and_an_image_that_miss_each_other(mvtec_folder):
    masks = mvtec_folder / "bolt/ground_truth/scratch"
    (masks / "002_mask.png").rename(masks / "020_mask.png")
    for root in (mvtec_folder, mvtec_folder / "bolt"):
        found = check_dataset(root)
        assert kinds(found) == ["mask_missing", "mask_unused"]
        assert [fault.categories for fault in found.faults] == [("bolt",)] * 2
        assert [fault.paths[0].name for fault in found.faults] == ["002.png", "020_mask.png"]
        assert found.categories[0].mask_faults == 2


def test_a_visa_mask_that_no_row_names(tmp_path):
    visa = write_visa(tmp_path / "VisA")
    shutil.copy(visa / "pcb1/Data/Masks/Anomaly/000.png", visa / "pcb1/Data/Masks/Anomaly/x.png")
    fault = only_fault(check_dataset(visa))
    assert (fault.kind, fault.categories) == ("mask_unused", ("pcb1",))


@pytest.mark.parametrize("copies", [False, True])
def test_too_few_images_to_train_with(mvtec_folder, copies):
    good = mvtec_folder / "tile/train/good"
    for path in sorted(good.iterdir())[1 if copies else 2 :]:
        path.unlink()
        if copies:
            shutil.copy(good / "000.png", path)
    found = check_dataset(mvtec_folder)
    fault = only_fault(found)
    assert (fault.kind, fault.categories, fault.paths) == ("too_few", ("tile",), ())
    assert ("8 good" if copies else "2 good") in fault.detail


def test_what_check_calls_too_few_is_what_training_refuses(mvtec_folder):
    """Three different images are enough for both."""
    for path in sorted((mvtec_folder / "tile/train/good").iterdir())[3:]:
        path.unlink()
    assert check_dataset(mvtec_folder).fit
    assert split_training(find_dataset(mvtec_folder), 0.15, seed=0)


def test_training_logs_what_check_finds(mvtec_folder, caplog):
    write_png(mvtec_folder / "tile/train/good/dark.png", np.zeros((96, 96), np.uint8))
    found = check_dataset(mvtec_folder)
    assert only_fault(found).kind == "two_levels"
    split_training(find_dataset(mvtec_folder), 0.15, seed=0)
    assert [record.getMessage() for record in caplog.records] == [
        sentence_of(only_fault(found), mvtec_folder)
    ]
    assert "tile/train/good/dark.png: it has two levels at most" in caplog.text


def test_images_of_two_levels_are_what_some_cameras_give(mvtec_folder):
    for number, path in enumerate(sorted((mvtec_folder / "tile").rglob("*.png"))):
        write_png(path, np.where(make_texture(number) > 127, np.uint8(255), np.uint8(0)))
    assert check_dataset(mvtec_folder).fit


@pytest.mark.parametrize(("bits", "said"), [(8, "8"), (10, "10"), (11, "12"), (14, "14")])
def test_levels_of_fewer_bits_in_16_bit_files(mvtec_folder, bits, said):
    for path in (mvtec_folder / "tile").rglob("*.png"):
        levels = cv2.imread(str(path)).astype(np.uint32) * (2**bits - 1) // 255
        write_png(path, levels.astype(np.uint16))
    fault = only_fault(check_dataset(mvtec_folder))
    assert (fault.kind, fault.categories) == ("few_levels", ("tile",))
    assert f"as {said}-bit cameras give them" in fault.detail
    assert f"multiply them by {2 ** (16 - int(said))}" in fault.detail


def test_16_bit_files_that_use_their_range_are_fit(mvtec_folder):
    for path in (mvtec_folder / "tile").rglob("*.png"):
        write_png(path, cv2.imread(str(path)).astype(np.uint16) * 257)
    assert check_dataset(mvtec_folder).fit


def test_images_of_a_still_part_differ_by_the_sensors_noise(tmp_path):
    still = make_texture(3).astype(float)
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(0, 0.5, still.shape)
        noisy = np.rint(still + noise).clip(0, 255).astype(np.uint8)
        write_png(tmp_path / f"rig/train/good/{seed}.png", noisy)
    assert check_dataset(tmp_path).fit


def test_images_are_not_kept(mvtec_folder, monkeypatch):
    """However many there are, only a few decoded ones are alive at a time."""
    alive, most, lock = [0], [0], threading.Lock()

    class Tracked(np.ndarray):
        def __array_finalize__(self, _):
            pass

        def __del__(self):
            with lock:
                alive[0] -= 1

    def read(path):
        image = np.zeros((96, 96, 3), np.uint8).view(Tracked)
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        return image

    monkeypatch.setattr(content_module, "rgb_of", read)
    check_dataset(mvtec_folder)
    assert 1 <= most[0] <= content_module._MOST_THREADS


def test_an_interrupt_does_not_wait_for_the_rest(mvtec_folder, monkeypatch):
    started = []
    real = check_module.read_content
    monkeypatch.setattr(check_module, "read_content", lambda p: (started.append(p), real(p))[1])

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_dataset(mvtec_folder, interrupt)
    assert len(started) < 32


# The command.


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
    assert {*kinds(found), *(one.kind for one in found.copies)} == set(HEADINGS)
    assert kinds(found) == [kind for kind in HEADINGS if kind != "copies"], "in that order"


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
