"""Known defects: where they lie, and that they are nothing else."""

import shutil
from pathlib import Path

import pytest
from helpers.images import make_texture, scratch, write_png

from hvq_edge.data.check import check_dataset
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.known_defects import known_defects
from hvq_edge.errors import DatasetError, ImageError


def add_known(folder: Path, count: int = 3, kind: str = "scratch", *, masks: bool = True) -> None:
    """Known defects of bolts: images in ``folder/kind``, masks in ``folder/ground_truth/kind``."""
    for i in range(count):
        image, mask = scratch(make_texture(300 + i, grain=1.2, mean=150.0))
        write_png(folder / kind / f"{i:03}.png", image)
        if masks:
            write_png(folder / f"ground_truth/{kind}/{i:03}_mask.png", mask)


def test_they_lie_beside_the_good_images(mvtec_folder):
    before = find_dataset(mvtec_folder)
    assert known_defects(before) == ()
    add_known(mvtec_folder / "bolt/train")
    dataset = find_dataset(mvtec_folder)
    assert dataset.images == before.images, "neither good nor test images"
    assert dataset.notes == ()
    found = known_defects(dataset)
    assert [(one.category, one.defect, one.path, one.mask) for one in found] == [
        (
            "bolt",
            "scratch",
            f"bolt/train/scratch/{i:03}.png",
            f"bolt/train/ground_truth/scratch/{i:03}_mask.png",
        )
        for i in range(3)
    ]
    assert len({one.sha256 for one in found}) == 3


def test_they_lie_in_a_folder_of_their_own(plain_folder, tmp_path):
    more = tmp_path / "known"
    add_known(more / plain_folder.name, kind="Riss", masks=False)
    (found, *others) = known_defects(find_dataset(plain_folder), more)
    assert len(others) == 2
    assert (found.category, found.defect, found.mask) == (plain_folder.name, "Riss", None)
    assert Path(found.path) == more / plain_folder.name / "Riss/000.png"


def test_a_copy_counts_once(mvtec_folder):
    add_known(mvtec_folder / "bolt/train", masks=False)
    add_known(mvtec_folder / "bolt/train", kind="with masks")
    found = known_defects(find_dataset(mvtec_folder))
    assert [one.mask is not None for one in found] == [True] * 3


@pytest.mark.parametrize(
    ("other", "said"),
    [("train/good/003.png", "a good training image"), ("test/scratch/001.png", "a test image")],
)
def test_a_good_or_a_test_image_is_none(mvtec_folder, tmp_path, other, said):
    add_known(tmp_path / "known/bolt")
    shutil.copy(mvtec_folder / "bolt" / other, tmp_path / "known/bolt/scratch/zz.png")
    with pytest.raises(DatasetError, match=f"scratch/zz.png is {said} as well: .*{other}"):
        known_defects(find_dataset(mvtec_folder), tmp_path / "known")


def test_wrong_folders(mvtec_folder, tmp_path):
    dataset, folder = find_dataset(mvtec_folder), tmp_path / "known"
    with pytest.raises(DatasetError, match="does not exist"):
        known_defects(dataset, folder)
    folder.mkdir()
    with pytest.raises(DatasetError, match="holds no known defects"):
        known_defects(dataset, folder)
    add_known(folder / "blot")
    with pytest.raises(DatasetError, match="blot names no category: there are bolt, tile") as error:
        known_defects(dataset, folder)
    assert "<category>/" in str(error.value.next_step)
    (folder / "blot").rename(folder / "bolt")
    write_png(folder / "bolt/OK/0.png", make_texture(1))
    with pytest.raises(DatasetError, match="OK is called as a folder of good images"):
        known_defects(dataset, folder)


def test_an_unreadable_one(mvtec_folder):
    add_known(mvtec_folder / "bolt/train")
    (mvtec_folder / "bolt/train/scratch/001.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"scratch/001\.png"):
        known_defects(find_dataset(mvtec_folder))


def test_the_check_counts_and_judges_them(mvtec_folder):
    add_known(mvtec_folder / "bolt/train")
    found = check_dataset(mvtec_folder)
    bolt, tile = found.categories
    assert found.fit
    assert (bolt.known_defects, tile.known_defects) == (3, 0)
    assert (bolt.train_good, bolt.test_good, bolt.test_defective) == (8, 4, 4)
    shutil.copy(
        mvtec_folder / "bolt/test/scratch/001.png", mvtec_folder / "bolt/train/scratch/x.png"
    )
    shutil.copy(mvtec_folder / "bolt/train/good/001.png", mvtec_folder / "bolt/train/scratch/y.png")
    kinds = [fault.kind for fault in check_dataset(mvtec_folder).faults]
    assert kinds == ["train_and_test", "good_and_defective"]
