"""Checking a data set: each fault that a folder can have is found, named and counted."""

import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.images import make_texture, scratch, write_png
from helpers.visa_folder import write_visa

from hvq_edge.data import check as check_module
from hvq_edge.data import content as content_module
from hvq_edge.data.check import check_dataset
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.findings import sentence_of
from hvq_edge.data.splits import split_training


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
