import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.commands import exit_code

from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.known_defects import known_defects
from hvq_edge.data.layouts import mvtec, visa
from hvq_edge.data.layouts import plain_folder as plain_layout
from hvq_edge.errors import DatasetError


def relative(images, root):
    return [image.path.relative_to(root).as_posix() for image in images]


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(path.as_posix().encode())
    return path


def test_mvtec_layout_of_many_categories(mvtec_folder):
    dataset = find_dataset(mvtec_folder)
    assert dataset.layout == "mvtec"
    assert dataset.categories == ("bolt", "tile")
    assert dataset.notes == ()
    assert len(dataset.train_good()) == 16
    assert relative(dataset.train_good("bolt"), mvtec_folder) == [
        f"bolt/train/good/{i:03}.png" for i in range(8)
    ]
    tested = dataset.test("tile")
    assert [image.defect for image in tested] == ["good"] * 4 + ["scratch"] * 4
    assert [image.good for image in tested] == [True] * 4 + [False] * 4
    assert len(dataset.test()) == 16


def test_masks_belong_to_the_image_of_their_stem(mvtec_folder):
    for image in find_dataset(mvtec_folder).images:
        if image.category == "bolt" and not image.good:
            expected = mvtec_folder / f"bolt/ground_truth/scratch/{image.path.stem}_mask.png"
            assert image.mask == expected
        else:
            assert image.mask is None


def test_masks_and_images_without_each_other_are_noted(mvtec_folder):
    (mvtec_folder / "bolt/ground_truth/scratch/002_mask.png").rename(
        mvtec_folder / "bolt/ground_truth/scratch/999_mask.png"
    )
    notes = "\n".join(find_dataset(mvtec_folder).notes)
    assert "bolt: 1 of 4 defective images has no mask" in notes
    assert "bolt: 1 mask belongs to no image, such as 999_mask.png" in notes


def test_one_mvtec_category_is_called_as_its_folder(mvtec_folder, monkeypatch):
    assert find_dataset(mvtec_folder / "tile").categories == ("tile",)
    monkeypatch.chdir(mvtec_folder / "bolt")
    dataset = find_dataset(Path())
    assert dataset.categories == ("bolt",)
    assert len(dataset.images) == 16


def test_linked_categories_are_called_as_their_links(mvtec_folder, tmp_path):
    """Two links to folders of one name are two categories, not one of both's images."""
    root = tmp_path / "linked"
    root.mkdir()
    for name in ("first", "second"):
        (root / name).symlink_to(mvtec_folder / "bolt", target_is_directory=True)
    dataset = find_dataset(root)
    assert dataset.categories == ("first", "second")
    assert len(dataset.train_good("first")) == len(dataset.train_good("second")) > 0


def test_plain_folder(plain_folder):
    dataset = find_dataset(plain_folder)
    assert dataset.layout == "plain"
    assert dataset.categories == ("Schöne Teile",)
    assert len(dataset.train_good()) == 8
    tested = dataset.test()
    assert sum(image.good for image in tested) == 2
    assert [image.defect for image in tested if not image.good] == [
        *["Kratzer"] * 3,
        "defective",
    ]


def test_the_split_of_a_plain_folder_follows_the_content(plain_folder):
    before = {image.path.read_bytes(): image.split for image in find_dataset(plain_folder).images}
    for number, path in enumerate(sorted((plain_folder / "good").iterdir(), reverse=True)):
        path.rename(path.with_name(f"renamed {number}.png"))
    after = {image.path.read_bytes(): image.split for image in find_dataset(plain_folder).images}
    assert before == after


def test_plain_folders_of_many_categories(plain_folder, tmp_path):
    root = tmp_path / "many"
    for name in ("b", "a"):
        shutil.copytree(plain_folder, root / name)
    dataset = find_dataset(root)
    assert dataset.layout == "plain"
    assert dataset.categories == ("a", "b")
    assert len(dataset.test("a")) == len(dataset.test("b")) == 6


def test_few_good_images_are_all_kept_for_training(tmp_path):
    for i in range(3):
        touch(tmp_path / f"good/{i}.png")
    dataset = find_dataset(tmp_path)
    assert len(dataset.train_good()) == 3
    assert any("too few good images" in note for note in dataset.notes)


def test_hidden_system_and_mask_files_are_not_images(plain_folder):
    count = len(find_dataset(plain_folder).images)
    for name in (
        ".DS_Store",
        "good/.DS_Store",
        "good/._teil 1.png",
        "good/Thumbs.db",
        ".cache/old.png",
        "Kratzer/.thumbs/teil.png",
        "ground_truth/Kratzer/teil 0_mask.png",
    ):
        touch(plain_folder / name)
    dataset = find_dataset(plain_folder)
    assert len(dataset.images) == count
    assert sum(image.mask is not None for image in dataset.images) == 1


def test_suffixes_in_capitals_count_and_other_files_are_noted(mvtec_folder):
    touch(mvtec_folder / "bolt/train/good/NEW.JPEG")
    touch(mvtec_folder / "bolt/train/good/labels.csv")
    touch(mvtec_folder / "bolt/test/scratch/README")
    dataset = find_dataset(mvtec_folder)
    assert len(dataset.train_good("bolt")) == 9
    assert any("1 .csv, 1 no suffix" in note for note in dataset.notes)


def test_images_in_folders_below_are_found(mvtec_folder):
    touch(mvtec_folder / "bolt/train/good/2026-11-23/late shift/0.png")
    assert len(find_dataset(mvtec_folder).train_good("bolt")) == 9


def test_what_mvtec_layout_passes_over_is_noted(mvtec_folder):
    touch(mvtec_folder / "bolt/train/loose.png")
    touch(mvtec_folder / "bolt/test/loose.png")
    touch(mvtec_folder / "docs/photo.png")
    touch(mvtec_folder / "LICENSES/licence.txt")
    shutil.rmtree(mvtec_folder / "tile/test")
    dataset = find_dataset(mvtec_folder)
    notes = "\n".join(dataset.notes)
    assert "1 image directly in train is ignored" in notes
    assert "1 image directly in test is ignored" in notes
    assert "docs is not a category" in notes
    assert "LICENSES" not in notes  # no images in it: nothing was missed
    assert "tile: there are no test images" in notes
    assert len(dataset.images) == 16 + 8


def empty_folder(root):
    pass


def only_text(root):
    touch(root / "readme.txt")


def no_good_folder(root):
    touch(root / "scratch/0.png")


def empty_good(root):
    (root / "good").mkdir()


def text_in_good(root):
    touch(root / "good/notes.txt")


def train_without_good(root):
    touch(root / "bolt/train/parts/0.png")


def one_of_two_without_good(root):
    touch(root / "tile/train/good/0.png")
    touch(root / "bolt/train/Good images/0.png")


def empty_train_good(root):
    (root / "bolt/train/good").mkdir(parents=True)


def layouts_side_by_side(root):
    touch(root / "bolt/train/good/0.png")
    touch(root / "tile/good/0.png")


def good_inside_and_beside(root):
    touch(root / "good/0.png")
    touch(root / "tile/good/0.png")


def reserved_name(root):
    touch(root / "Auto/train/good/0.png")


@pytest.mark.parametrize(
    ("arrange", "cause", "step"),
    [
        (empty_folder, "holds no images", mvtec.TREE),
        (only_text, "holds no images", plain_layout.TREE),
        (no_good_folder, "no good images: 1 image but no folder called good", mvtec.TREE),
        (no_good_folder, "no good images", visa.TREE),
        (empty_good, "category 'data' has no good images", plain_layout.TREE),
        (text_in_good, "category 'data' has no good images", plain_layout.TREE),
        (train_without_good, "category 'bolt' has no good images", mvtec.TREE),
        (one_of_two_without_good, "category 'bolt' has no good images", mvtec.TREE),
        (empty_train_good, "category 'bolt' has no good images", mvtec.TREE),
        (layouts_side_by_side, "bolt has train/good, tile has good", plain_layout.TREE),
        (good_inside_and_beside, "could be a category or a kind of defect", plain_layout.TREE),
        (reserved_name, "cannot be called 'Auto'", "rename the folder"),
    ],
)
def test_unfit_folders_are_refused_with_the_layout_to_make(tmp_path, arrange, cause, step):
    root = tmp_path / "data"
    root.mkdir()
    arrange(root)
    with pytest.raises(DatasetError) as caught:
        find_dataset(root)
    assert cause in caught.value.cause
    assert step in caught.value.next_step


def test_names_that_are_no_text_are_refused_before_any_work(mvtec_folder, capsys):
    images = sorted(mvtec_folder.rglob("train/good/*.png"))[:2]
    for image in images:
        image.rename(os.fsdecode(os.fsencode(image.parent) + b"/teil_\xfc" + image.name.encode()))
    commands = [["data", "check"], *([["train", "--data"]] if find_spec("torch") else [])]
    for command in commands:
        assert exit_code(*command, str(mvtec_folder)) == 2
        said = capsys.readouterr().err
        assert "not UTF-8: " in said
        assert r"train/good/teil_\udcfc" in said
        assert " and 1 more." in said


def test_names_of_known_defects_are_text_as_well(mvtec_folder, tmp_path):
    dataset, elsewhere = find_dataset(mvtec_folder), tmp_path / "more"
    for folder in (elsewhere / "bolt" / "scratch", mvtec_folder / "bolt" / "train" / "scratch"):
        folder.mkdir(parents=True)
        (folder / os.fsdecode(b"\xe9.png")).write_bytes(b"")
    with pytest.raises(DatasetError, match="not UTF-8"):
        known_defects(dataset, elsewhere)
    with pytest.raises(DatasetError, match="not UTF-8"):
        find_dataset(mvtec_folder)


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        find_dataset(tmp_path / "gone")
    with pytest.raises(DatasetError, match="is a file"):
        find_dataset(touch(tmp_path / "image.png"))
