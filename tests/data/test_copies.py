"""Copies that lost something are told from photos that look alike."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from helpers.images import make_texture, write_png

from hvq_edge.data.check import check_dataset
from hvq_edge.data.content import read_content
from hvq_edge.data.copies import same_images
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.splits import split_training


def part(seed, noise_seed=None):
    """A photo of one of many parts that look alike, with the noise of a sensor."""
    shared, own = (make_texture(one, height=160, width=120).astype(float) for one in (1, seed))
    noise = np.random.default_rng(seed if noise_seed is None else noise_seed).normal(
        0, 1.5, shared.shape
    )
    return np.rint(0.8 * shared + 0.2 * own + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def parts(tmp_path):
    """Twelve parts to learn from and six to test with."""
    for number in range(12):
        write_png(tmp_path / f"cap/train/good/{number:03}.png", part(100 + number))
    for number in range(6):
        write_png(tmp_path / f"cap/test/good/{number:03}.png", part(200 + number))
    return tmp_path


def kinds(root):
    found = check_dataset(root)
    return [fault.kind for fault in found.faults], [copy.kind for copy in found.copies]


@pytest.mark.parametrize(
    ("name", "options", "scale"),
    [
        ("copyj.jpg", (cv2.IMWRITE_JPEG_QUALITY, 95), 1),
        ("copyj.jpg", (cv2.IMWRITE_JPEG_QUALITY, 50), 1),
        ("copy.webp", (cv2.IMWRITE_WEBP_QUALITY, 60), 1),
        ("small.jpg", (cv2.IMWRITE_JPEG_QUALITY, 85), 0.5),
        ("large.png", (), 1.5),
    ],
)
def test_a_copy_that_lost_something_is_one_whatever_its_name(parts, name, options, scale):
    assert kinds(parts) == ([], [])
    source, copy = parts / "cap/train/good/004.png", parts / "cap/test/good" / name
    image = cv2.resize(cv2.imread(str(source)), None, fx=scale, fy=scale)
    cv2.imwrite(str(copy), image, options)
    found = check_dataset(parts)
    (fault,) = found.faults
    assert (fault.kind, fault.paths) == ("train_and_test", (source, copy))
    assert fault.detail == "the same image, once saved with loss, in train and test"
    assert found.categories[0].leaked == 1


def test_several_copies_of_an_image_are_told(parts):
    good = parts / "cap/train/good"
    image = cv2.imread(str(good / "004.png"))
    for quality in (60, 75, 90):
        name = str(good / f"again {quality}.jpg")
        cv2.imwrite(name, image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    (copies,) = check_dataset(parts).copies
    assert len(copies.paths) == 4


def test_frames_of_a_part_that_nothing_moves_are_no_copies(tmp_path):
    for number in range(12):
        place = "train" if number < 8 else "test"
        write_png(tmp_path / f"rig/{place}/good/{number:03}.png", part(7, noise_seed=number))
    assert kinds(tmp_path) == ([], [])


def test_a_part_before_and_after_it_was_damaged_is_no_copy(parts):
    image = cv2.imread(str(parts / "cap/train/good/004.png"))
    image[80:82, 60:62] -= 55
    write_png(parts / "cap/test/dent/000.png", image)
    before, after = (
        read_content(path).sketch
        for path in (parts / "cap/train/good/004.png", parts / "cap/test/dent/000.png")
    )
    assert np.abs(before - after).max() < 4, "so small that only a closer look tells"
    assert kinds(parts) == ([], [])


@pytest.mark.parametrize("seed", range(4))
def test_training_holds_no_image_out_whose_copy_it_learns_from(parts, seed):
    good = parts / "cap/train/good"
    pairs = {}
    for number in range(12):
        pairs[f"{number:03}.png"] = name = f"shot {number + 50}.jpg"
        cv2.imwrite(str(good / name), cv2.imread(str(good / f"{number:03}.png")))
    uses = {
        record.path.rpartition("/")[2]: record.use
        for record in split_training(find_dataset(parts), 0.25, seed=seed).images
    }
    assert set(uses.values()) == {"fit", "held_out"}
    assert [uses[png] for png in pairs] == [uses[jpg] for jpg in pairs.values()]


def test_the_plain_layout_tests_with_no_copy_of_what_is_learnt(tmp_path):
    for number in range(15):
        path = write_png(tmp_path / f"cap/good/{number:03}.png", part(100 + number))
        cv2.imwrite(str(path.with_name(f"shot {number + 50}.jpg")), cv2.imread(str(path)))
    assert {image.split for image in find_dataset(tmp_path).images} == {"train", "test"}
    assert kinds(tmp_path)[0] == []


def test_other_categories_do_not_say_how_near_images_are(tmp_path):
    """Three frames of a part that nothing moves, beside parts that differ widely."""
    paths = [write_png(tmp_path / f"{n}.png", part(7, noise_seed=n)) for n in range(3)]
    paths += [
        write_png(tmp_path / f"x{n}.png", make_texture(n, height=160, width=120)) for n in range(9)
    ]
    contents = [read_content(path) for path in paths]
    names = same_images(paths, contents, ["rig"] * 3 + ["cap"] * 9)
    assert len(set(names)) == 12
