import hashlib
import shutil
from pathlib import Path

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.common.atomic import sha256_of
from hvq_edge.data.content import choose_share
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.findings import LEAST_TO_FIT
from hvq_edge.data.splits import check_unchanged, split_training
from hvq_edge.errors import DatasetError, ImageError


def fingerprint(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


contents = st.lists(st.integers(0, 10_000).map(fingerprint), min_size=1, max_size=60, unique=True)
shares = st.floats(0.01, 0.89)


@given(hashes=contents, share=shares, key=st.text(max_size=4), leave=st.integers(0, 4))
def test_without_copies_the_share_is_exact(hashes, share, key, leave):
    chosen = choose_share(hashes, share, key, leave=leave)
    most = len(hashes) - leave
    assert len(chosen) == max(min(max(int(share * len(hashes) + 0.5), 1), most), 0)
    assert chosen <= set(hashes)


@given(hashes=contents, share=shares, order=st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_matter(hashes, share, order):
    mixed = list(hashes)
    order.shuffle(mixed)
    assert choose_share(hashes, share, "0", leave=2) == choose_share(mixed, share, "0", leave=2)


@given(hashes=contents.filter(lambda found: len(found) >= 4), share=shares)
def test_an_added_image_moves_at_most_one_other(hashes, share):
    *before, added = hashes
    earlier = choose_share(before, share, "0", leave=2)
    later = choose_share(hashes, share, "0", leave=2) - {added}
    assert len(earlier ^ later) <= 1


@given(copies=st.lists(st.integers(1, 6), min_size=2, max_size=20), share=shares)
def test_copies_go_together_and_both_sides_get_their_least(copies, share):
    hashes = [fingerprint(i) for i, count in enumerate(copies) for _ in range(count)]
    if len(hashes) < LEAST_TO_FIT + 1:
        return
    chosen = choose_share(hashes, share, "0", leave=LEAST_TO_FIT)
    taken = sum(content in chosen for content in hashes)
    assert taken >= 1
    assert len(hashes) - taken >= LEAST_TO_FIT


def test_another_key_gives_another_choice():
    hashes = [fingerprint(i) for i in range(40)]
    assert len({choose_share(hashes, 0.25, str(seed), leave=2) for seed in range(5)}) == 5


def test_every_good_training_image_gets_a_record(mvtec_folder):
    dataset = find_dataset(mvtec_folder)
    records = split_training(dataset, 0.25, seed=0)
    assert len(records) == 16
    for record, image in zip(records, dataset.train_good(), strict=True):
        assert mvtec_folder / record.path == image.path
        assert "\\" not in record.path
        assert record.category == image.category
        assert record.sha256 == sha256_of(image.path)
    for category in dataset.categories:
        uses = [record.use for record in records if record.category == category]
        assert uses.count("held_out") == 2
    assert records == split_training(dataset, 0.25, seed=0)
    assert any(split_training(dataset, 0.25, seed=seed) != records for seed in (1, 2, 3))


def test_copies_land_on_the_same_side(mvtec_folder):
    for path in sorted((mvtec_folder / "bolt/train/good").iterdir()):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    sides = {}
    for record in split_training(find_dataset(mvtec_folder), 0.3, seed=0):
        sides.setdefault(record.sha256, set()).add(record.use)
    assert len(sides) == 16
    assert all(len(uses) == 1 for uses in sides.values())


@pytest.mark.parametrize("suffix", [".bmp", ".tiff", ".webp", ".jpg"])
def test_copies_in_another_format_land_on_the_same_side(mvtec_folder, suffix):
    """Lossless ones under any name, lossy ones under the name of the original."""
    good = mvtec_folder / "bolt/train/good"
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    for path in sorted(good.iterdir()):
        stem = path.stem if suffix == ".jpg" else f"copy of {path.stem}"
        assert cv2.imwrite(str(good / f"{stem}{suffix}"), cv2.imread(str(path)), options)
    uses = {}
    for record in split_training(find_dataset(mvtec_folder), 0.3, seed=0):
        if record.category == "bolt":
            uses.setdefault(Path(record.path).stem.removeprefix("copy of "), []).append(record.use)
    assert len(uses) == 8
    assert all(len(use) == 2 and len(set(use)) == 1 for use in uses.values())
    assert {use[0] for use in uses.values()} == {"fit", "held_out"}


def test_copies_in_another_format_are_tested_or_learnt_together(plain_folder):
    for path in sorted((plain_folder / "good").iterdir()):
        cv2.imwrite(str(path.with_name(f"x{path.stem}.bmp")), cv2.imread(str(path)))
    splits = {}
    for image in find_dataset(plain_folder).images:
        if image.good:
            splits.setdefault(image.path.stem.removeprefix("x"), set()).add(image.split)
    assert all(len(split) == 1 for split in splits.values())


def test_the_split_of_images_without_copies_is_that_of_their_files(mvtec_folder):
    """So that a run of an earlier version is still tested on images it has not learnt."""
    records = split_training(find_dataset(mvtec_folder), 0.25, seed=0)
    for category in ("bolt", "tile"):
        own = [record for record in records if record.category == category]
        chosen = choose_share([record.sha256 for record in own], 0.25, "0", leave=LEAST_TO_FIT)
        assert {record.sha256 for record in own if record.use == "held_out"} == chosen


def test_one_image_saved_in_ten_ways_is_too_few(mvtec_folder):
    good = mvtec_folder / "tile/train/good"
    image = cv2.imread(str(good / "000.png"))
    for number in range(8):
        cv2.imwrite(str(good / f"{number:03}.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, number])
    with pytest.raises(DatasetError, match="8 good training images, 1 of them different"):
        split_training(find_dataset(mvtec_folder), 0.15, seed=0)


def test_images_that_cannot_be_read_stop_a_training_before_it_begins(mvtec_folder):
    for number in range(3):
        (mvtec_folder / f"tile/train/good/{number:03}.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"000.png .*it is empty.* 2 more images cannot be read"):
        split_training(find_dataset(mvtec_folder), 0.15, seed=0)


@pytest.mark.parametrize("kept", [1, 2])
def test_too_few_images_are_refused(mvtec_folder, kept):
    for path in sorted((mvtec_folder / "tile/train/good").iterdir())[kept:]:
        path.unlink()
    with pytest.raises(DatasetError, match=rf"'tile' has {kept} .*at least 3 are needed"):
        split_training(find_dataset(mvtec_folder), 0.15, seed=0)


def test_copies_of_one_image_are_too_few(mvtec_folder):
    paths = sorted((mvtec_folder / "tile/train/good").iterdir())
    for path in paths[1:]:
        shutil.copy(paths[0], path)
    with pytest.raises(DatasetError, match="8 good training images, 1 of them different"):
        split_training(find_dataset(mvtec_folder), 0.15, seed=0)


def test_three_images_are_enough(mvtec_folder):
    for path in sorted((mvtec_folder / "tile/train/good").iterdir())[3:]:
        path.unlink()
    records = split_training(find_dataset(mvtec_folder), 0.8, seed=0)
    uses = [record.use for record in records if record.category == "tile"]
    assert sorted(uses) == ["fit", "fit", "held_out"]


def test_progress_counts_the_images(mvtec_folder):
    told = []
    split_training(find_dataset(mvtec_folder), 0.2, 0, lambda *call, **_: told.append(call[1:3]))
    assert told == [(i, 16) for i in range(1, 17)]


def test_missing_images_are_named_and_counted(mvtec_folder):
    records = split_training(find_dataset(mvtec_folder), 0.25, seed=0)
    check_unchanged(records, mvtec_folder)
    for i in range(5):
        (mvtec_folder / f"bolt/train/good/{i:03}.png").unlink()
    with pytest.raises(DatasetError) as caught:
        check_unchanged(records, mvtec_folder)
    assert "5 of 16 are missing (bolt/train/good/000.png" in caught.value.cause
    assert "004.png" not in caught.value.cause
    assert caught.value.next_step


def test_a_changed_image_is_seen(mvtec_folder):
    records = split_training(find_dataset(mvtec_folder), 0.25, seed=0)
    path = mvtec_folder / "tile/train/good/003.png"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DatasetError, match=r"1 of 16 are of another content .*003\.png"):
        check_unchanged(records, mvtec_folder)


def test_a_missing_data_folder_is_said(mvtec_folder):
    records = split_training(find_dataset(mvtec_folder), 0.25, seed=0)
    shutil.rmtree(mvtec_folder)
    with pytest.raises(DatasetError, match="16 of 16 are missing"):
        check_unchanged(records, mvtec_folder)
