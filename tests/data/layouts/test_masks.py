"""To which image a mask belongs: never to two, and never to another one's."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePath

import cv2
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.data.check import check_dataset
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.layouts.masks import MASK_ENDINGS, assign_masks


def masks_of(root):
    """Relative path of the mask of every defective bolt."""
    images = [image for image in find_dataset(root).test("bolt") if not image.good]
    return {
        image.path.relative_to(root / "bolt/test").as_posix(): image.mask
        and image.mask.relative_to(root / "bolt/ground_truth").as_posix()
        for image in images
    }


def nest(root, masks: bool):
    """Two cameras, each with an image 000, and their masks beside each other or in folders."""
    for camera, former in (("camA", "000"), ("camB", "001")):
        for kind, name in (("test", "{}.png"), ("ground_truth", "{}_mask.png")):
            old = root / "bolt" / kind / "scratch" / name.format(former)
            if kind == "test" or masks:
                new = root / "bolt" / kind / "scratch" / camera / name.format("000")
                new.parent.mkdir()
                old.rename(new)


def test_masks_in_folders_as_their_images(mvtec_folder):
    nest(mvtec_folder, masks=True)
    found = masks_of(mvtec_folder)
    for camera in ("camA", "camB"):
        assert found[f"scratch/{camera}/000.png"] == f"scratch/{camera}/000_mask.png"
    assert check_dataset(mvtec_folder).fit


def test_a_mask_of_two_images_belongs_to_none(mvtec_folder):
    nest(mvtec_folder, masks=False)
    (mvtec_folder / "bolt/ground_truth/scratch/001_mask.png").unlink()
    found = masks_of(mvtec_folder)
    assert found["scratch/camA/000.png"] is found["scratch/camB/000.png"] is None
    assert found["scratch/002.png"] == "scratch/002_mask.png"
    (fault,) = check_dataset(mvtec_folder).faults
    assert fault.kind == "mask_shared"
    assert [path.parent.name for path in fault.paths] == ["camA", "camB"]


def test_images_of_one_stem_share_no_mask(mvtec_folder):
    scratch = mvtec_folder / "bolt/test/scratch"
    cv2.imwrite(str(scratch / "000.jpg"), cv2.imread(str(scratch / "001.png")))
    found = masks_of(mvtec_folder)
    assert found["scratch/000.jpg"] is found["scratch/000.png"] is None
    assert [fault.kind for fault in check_dataset(mvtec_folder).faults] == ["mask_shared"]


def test_an_image_right_in_the_folder_keeps_the_mask_of_its_place(mvtec_folder):
    scratch = mvtec_folder / "bolt/test/scratch"
    (scratch / "more").mkdir()
    shutil.copy(scratch / "001.png", scratch / "more/000.png")
    found = masks_of(mvtec_folder)
    assert found["scratch/000.png"] == "scratch/000_mask.png"
    assert found["scratch/more/000.png"] is None


def test_suffixes_and_names_of_masks_in_any_case(mvtec_folder):
    masks = mvtec_folder / "bolt/ground_truth/scratch"
    for old, new in zip(
        sorted(masks.iterdir()),
        ("000_mask.PNG", "001_MASK.png", "002.Png", "003_label.png"),
        strict=True,
    ):
        old.rename(masks / new)
    assert list(masks_of(mvtec_folder).values()) == [
        "scratch/000_mask.PNG",
        "scratch/001_MASK.png",
        "scratch/002.Png",
        "scratch/003_label.png",
    ]


STEMS = st.text("aAbB0_é.", min_size=1, max_size=4).filter(lambda stem: stem.strip("."))
PLACES = st.builds(
    lambda folder, stem, suffix: PurePath(folder) / f"{stem}{suffix}",
    st.sampled_from(["", "x", "y", "X"]),
    STEMS,
    st.sampled_from([".png", ".PNG", ".jpg", ".bmp"]),
)


@given(
    masks=st.lists(
        st.tuples(PLACES, st.sampled_from(MASK_ENDINGS)).map(
            lambda one: one[0].with_name(f"{one[0].stem}{one[1]}{one[0].suffix}")
        ),
        max_size=12,
        unique=True,
    ),
    images=st.lists(PLACES, max_size=12, unique=True),
)
def test_whatever_names_there_are_no_mask_has_two_images(masks, images):
    found = assign_masks(
        {"dent": {place: Path("masks", place) for place in masks}},
        {Path("images", place): ("dent", place) for place in images},
    )
    used = list(found.masks.values())
    assert len(used) == len(set(used))
    assert not set(used) & {mask for mask, _ in found.shared}
    for image, mask in found.masks.items():
        stem = image.stem.casefold()
        assert mask.stem.casefold() in {stem + ending for ending in MASK_ENDINGS}
