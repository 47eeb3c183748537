"""Which files of a folder are images, and which of them are good: whoever filled it."""

from __future__ import annotations

import string

import cv2
import numpy as np
import pytest
from helpers.images import make_texture, write_png
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.layouts.folders import list_images
from hvq_edge.stream.sources.open_source import open_source

SYSTEM_FOLDERS = [
    "@eaDir",
    "@tmp",
    "@Recycle",
    "@Recently-Snapshot",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "__MACOSX",
    ".thumbnails",
    ".@__thumb",
    ".Trash-1000",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "FOUND.000",
]


def names(listing, folder):
    return [path.relative_to(folder).as_posix() for path in listing.images]


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
def test_folders_of_systems_and_network_drives_hold_no_images(mvtec_folder, plain_folder, name):
    before = [find_dataset(root) for root in (mvtec_folder, plain_folder)]
    for place in ("tile/train/good", "tile/test", "tile", "."):
        write_png(mvtec_folder / place / name / "good/thumb.jpg", make_texture(1))
        write_png(mvtec_folder / place / name / "thumb.jpg", make_texture(2))
    for place in ("good", "."):
        write_png(plain_folder / place / name / "good/thumb.jpg", make_texture(3))
    assert [find_dataset(root) for root in (mvtec_folder, plain_folder)] == before
    assert not any(name in frame.name for frame in open_source(plain_folder))


def test_a_file_may_be_called_as_a_folder_of_systems(tmp_path):
    for name in ("#1.png", "@front.png", "$5.png"):
        write_png(tmp_path / name, make_texture(1))
    assert len(list_images(tmp_path).images) == 3


def test_linked_folders_are_followed_each_folder_once(mvtec_folder, tmp_path):
    good = mvtec_folder / "tile/train/good"
    write_png(tmp_path / "elsewhere/deep/a.png", make_texture(1))
    (good / "batch2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(good)
    (good / "again").symlink_to(tmp_path / "elsewhere/deep")
    (good / "around").symlink_to(mvtec_folder)
    (good / "itself").symlink_to("itself")
    (good / "unmounted").symlink_to(tmp_path / "gone")
    listing = list_images(good)
    assert names(listing, good) == [*(f"{i:03}.png" for i in range(8)), "again/a.png"]
    assert {path.name for path in listing.unfollowed} == {
        *("around", "back", "deep", "itself", "unmounted")
    }
    notes = "\n".join(find_dataset(mvtec_folder).notes)
    assert "tile: the link train/good/around is not followed" in notes


@settings(max_examples=25)
@given(links=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_however_folders_are_linked_each_image_is_listed_once(links, tmp_path_factory):
    root = tmp_path_factory.mktemp("linked")
    places = [root / "a", root / "a/b", root / "c", root / "c/d", root / "e", root]
    for number, place in enumerate(places):
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").touch()
    for number, (start, end) in enumerate(links):
        (places[start] / f"link{number}").symlink_to(places[end], target_is_directory=True)
    listed = list_images(root).images
    assert sorted(path.name for path in listed) == [f"{number}.png" for number in range(6)]


@pytest.mark.parametrize("name", ["ok", "OK", "Good", "GOOD", "normal", "Normal", "pass", "Okay"])
def test_good_under_another_name(mvtec_folder, plain_folder, name):
    for place in ("train", "test"):
        (mvtec_folder / "tile" / place / "good").rename(mvtec_folder / "tile" / place / name)
    dataset = find_dataset(mvtec_folder)
    assert len(dataset.train_good("tile")) == 8
    assert sum(image.good for image in dataset.test("tile")) == 4
    assert f"tile: train/{name} is taken for good images, as its name says." in dataset.notes
    (plain_folder / "good").rename(plain_folder / name)
    dataset = find_dataset(plain_folder)
    assert sum(image.good for image in dataset.images) == 10
    assert sum(not image.good for image in dataset.images) == 4


@given(name=st.text(string.ascii_letters + string.digits + " _-é", min_size=1, max_size=8))
@settings(max_examples=50)
def test_other_names_are_kinds_of_defect(name, tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "part"
    write_png(root / "train/good/0.png", make_texture(0, height=16, width=16))
    write_png(root / "test" / name / "0.png", make_texture(1, height=16, width=16))
    (tested,) = find_dataset(root).test()
    known = {"good", "ok", "okay", "normal", "pass", "passed", "gut"}
    assert tested.good == (name.casefold() in known)
    assert tested.good or tested.defect == name


def test_a_category_may_be_called_normal(mvtec_folder):
    (mvtec_folder / "tile").rename(mvtec_folder / "normal")
    assert find_dataset(mvtec_folder).categories == ("bolt", "normal")


def test_a_test_without_good_images_is_noted(mvtec_folder):
    (mvtec_folder / "tile/test/good").rename(mvtec_folder / "tile/test/dent")
    notes = find_dataset(mvtec_folder).notes
    assert "tile: no test image is good, so false rejects cannot be counted." in notes


def test_a_pipe_among_images_is_refused_not_waited_for(mvtec_folder):
    import os

    from hvq_edge.data.check import check_dataset

    os.mkfifo(mvtec_folder / "tile/train/good/pipe.png")
    (fault,) = check_dataset(mvtec_folder).faults
    assert (fault.kind, fault.paths[0].name) == ("unreadable", "pipe.png")
    assert "a pipe or a device" in fault.detail


def mask(kind: str) -> np.ndarray:
    drawn = np.zeros((64, 64), np.uint8)
    cv2.circle(drawn, (30, 30), 9, {"255": 255, "classes": 3}.get(kind, 0), -1)
    return drawn


@pytest.mark.parametrize("kind", ["255", "classes", "empty"])
@pytest.mark.parametrize(
    "name", ["000_mask.png", "000_label.bmp", "000-gt.PNG", "mask_000.tif", "000.mask.jpg"]
)
def test_masks_beside_images_are_no_images(mvtec_folder, name, kind):
    before = find_dataset(mvtec_folder).images
    for place in ("tile/test/scratch", "tile/train/good"):
        suffix = name[name.rindex(".") :]
        path = mvtec_folder / place / name
        path.write_bytes(cv2.imencode(suffix.lower(), mask(kind))[1].tobytes())
    dataset = find_dataset(mvtec_folder)
    assert dataset.images == before
    assert [path.name for _, path in dataset.stray_masks] == [name] * 2
    assert any("2 files are masks by name and content" in note for note in dataset.notes)
    frames = [frame.name for frame in open_source(mvtec_folder / "tile")]
    assert not any(name in frame for frame in frames)


@pytest.mark.parametrize("ending", ["", "_mask"])
@pytest.mark.parametrize("name", ["masken", "bw", "scratch/bw"])
def test_masks_are_known_by_what_they_are(mvtec_folder, plain_folder, name, ending):
    """Black and white, and called as photos in other folders: no kind of defect."""
    for root in (mvtec_folder, plain_folder):
        before = find_dataset(root).images
        for number, image in enumerate([one for one in before if not one.good][:2]):
            test = image.path.parent.parent
            write_png(test / f"{name}/{image.path.stem}{ending}.png", mask("255")[number:])
        dataset = find_dataset(root)
        assert dataset.images == before
        assert len(dataset.stray_masks) == 2
        assert any("2 files are masks" in note for note in dataset.notes)
        frames = [frame.name for frame in open_source(root)]
        assert not any(f"{name}/" in frame for frame in frames)


def test_images_of_a_camera_that_gives_two_levels_are_no_masks(mvtec_folder):
    before = find_dataset(mvtec_folder).images
    for path in (mvtec_folder / "tile").rglob("*.png"):
        write_png(path, (cv2.imread(str(path), 0) > 127).astype(np.uint8) * 255)
    assert find_dataset(mvtec_folder).images == before


def test_a_defect_of_empty_exposures_has_no_names_of_others(mvtec_folder):
    for number in range(3):
        write_png(mvtec_folder / f"tile/test/dark/shot {number}.png", np.zeros((64, 64), np.uint8))
    assert {image.defect for image in find_dataset(mvtec_folder).test("tile")} >= {"dark"}


@pytest.mark.parametrize("name", ["mask", "masks", "Labels", "annotations", "scratch_masks", "gt"])
def test_folders_of_masks_are_no_kind_of_defect(mvtec_folder, plain_folder, name):
    before = [find_dataset(root).images for root in (mvtec_folder, plain_folder)]
    write_png(mvtec_folder / f"tile/test/{name}/0.png", mask("255"))
    write_png(mvtec_folder / f"tile/test/scratch/{name}/cam/0.png", mask("255"))
    write_png(plain_folder / name / "0.png", mask("255"))
    after = [find_dataset(root) for root in (mvtec_folder, plain_folder)]
    assert [dataset.images for dataset in after] == before
    assert [len(dataset.stray_masks) for dataset in after] == [2, 1]


def test_photos_called_as_masks_are_images(mvtec_folder):
    """A label may be what is made, and a mask may be a part of it."""
    before = len(find_dataset(mvtec_folder).images)
    write_png(mvtec_folder / "tile/train/good/000_label.png", make_texture(77))
    write_png(mvtec_folder / "tile/test/label/0.png", make_texture(78))
    dataset = find_dataset(mvtec_folder)
    assert (len(dataset.images), dataset.stray_masks) == (before + 2, ())


@pytest.mark.parametrize("level", [0, 250])
def test_exposures_without_light_or_with_too_much_are_a_defect(mvtec_folder, level):
    """Numbered as the others, and with the few levels of masks."""
    for number in range(3):
        noise = np.random.default_rng(number).integers(level, level + 6, (64, 64))
        write_png(mvtec_folder / f"tile/test/dead/{number:03}.png", noise.astype(np.uint8))
        flat = np.full((64, 64), level, np.uint8)
        write_png(mvtec_folder / f"tile/test/flat/{number:03}.png", flat)
    dataset = find_dataset(mvtec_folder)
    defects = [image.defect for image in dataset.test("tile")]
    assert (defects.count("dead"), defects.count("flat"), dataset.stray_masks) == (3, 3, ())


@pytest.mark.parametrize("name", ["scratch/000_mask.png", "masks/000.png", "scratch/000_gt.jpg"])
def test_soft_and_coloured_masks_are_masks(mvtec_folder, name):
    before = find_dataset(mvtec_folder).images
    drawn = cv2.GaussianBlur(mask("255"), (5, 5), 0)
    if name.endswith("jpg"):
        drawn = np.dstack([np.zeros_like(drawn), np.zeros_like(drawn), mask("255")])
    path = mvtec_folder / "tile/test" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, drawn)[1].tobytes())
    dataset = find_dataset(mvtec_folder)
    assert dataset.images == before
    assert len(dataset.stray_masks) == 1


@pytest.mark.parametrize("name", ["Ground_Truth", "GroundTruth", "ground truth"])
def test_the_folder_of_masks_in_another_spelling(mvtec_folder, name):
    before = [image.mask is not None for image in find_dataset(mvtec_folder).images]
    assert any(before)
    for category in mvtec_folder.iterdir():
        if (category / "ground_truth").is_dir():
            (category / "ground_truth").rename(category / name)
    assert [image.mask is not None for image in find_dataset(mvtec_folder).images] == before


@pytest.mark.parametrize("place", ["good", "masks/scratch", "test/ground_truth/scratch"])
def test_images_where_the_layout_has_none_are_noted(mvtec_folder, place):
    write_png(mvtec_folder / "tile" / place / "x.png", mask("255"))
    write_png(mvtec_folder / "tile/loose.png", make_texture(3))
    notes = find_dataset(mvtec_folder).notes
    assert any(
        note.startswith(f"tile: 1 image in {place.removesuffix('/scratch')} is") for note in notes
    )
    assert "tile: 1 image directly in tile is ignored." in notes
