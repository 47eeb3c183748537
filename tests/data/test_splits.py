import hashlib
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.common.atomic import sha256_of
from hvq_edge.data import content
from hvq_edge.data.content import choose_share, read_content
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.findings import LEAST_TO_FIT
from hvq_edge.data.images import decode_levels
from hvq_edge.data.splits import LEAST_OF_A_DAY, check_unchanged, split_training
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
    records = split_training(dataset, 0.25, seed=0).images
    assert len(records) == 16
    for record, image in zip(records, dataset.train_good(), strict=True):
        assert mvtec_folder / record.path == image.path
        assert "\\" not in record.path
        assert record.category == image.category
        assert record.sha256 == sha256_of(image.path)
    for category in dataset.categories:
        uses = [record.use for record in records if record.category == category]
        assert uses.count("held_out") == 2
    assert records == split_training(dataset, 0.25, seed=0).images
    assert any(split_training(dataset, 0.25, seed=seed).images != records for seed in (1, 2, 3))


def test_copies_land_on_the_same_side(mvtec_folder):
    for path in sorted((mvtec_folder / "bolt/train/good").iterdir()):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    sides = {}
    for record in split_training(find_dataset(mvtec_folder), 0.3, seed=0).images:
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
    for record in split_training(find_dataset(mvtec_folder), 0.3, seed=0).images:
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


def test_an_image_is_decoded_once_until_it_changes(plain_folder, monkeypatch):
    """The plain layout and the split both look for copies."""
    decoded = []

    def decode(data, path):
        decoded.append(path)
        return decode_levels(data, path)

    monkeypatch.setattr(content, "decode_levels", decode)
    first = split_training(find_dataset(plain_folder), 0.2, 0)
    good = sorted(decoded)
    assert len(good) == len(set(good)) > len(first.images) > 0
    assert split_training(find_dataset(plain_folder), 0.2, 0) == first
    assert sorted(decoded) == good
    changed = plain_folder / first.images[0].path
    image = cv2.imread(str(changed))
    image[0, 0] ^= 1
    cv2.imwrite(str(changed), image)
    split_training(find_dataset(plain_folder), 0.2, 0)
    assert sorted(decoded) == sorted([*good, changed])
    assert read_content(changed).sha256 == sha256_of(changed)


def test_the_split_of_images_without_copies_is_that_of_their_files(mvtec_folder):
    """So that a run of an earlier version is still tested on images it has not learnt."""
    records = split_training(find_dataset(mvtec_folder), 0.25, seed=0).images
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
    records = split_training(find_dataset(mvtec_folder), 0.8, seed=0).images
    uses = [record.use for record in records if record.category == "tile"]
    assert sorted(uses) == ["fit", "fit", "held_out"]


def test_progress_counts_the_images(mvtec_folder):
    told = []
    split_training(find_dataset(mvtec_folder), 0.2, 0, lambda *call, **_: told.append(call[1:3]))
    assert told == [(i, 16) for i in range(1, 17)]


def test_missing_images_are_named_and_counted(mvtec_folder):
    records = split_training(find_dataset(mvtec_folder), 0.25, seed=0).images
    check_unchanged(records, mvtec_folder)
    for i in range(5):
        (mvtec_folder / f"bolt/train/good/{i:03}.png").unlink()
    with pytest.raises(DatasetError) as caught:
        check_unchanged(records, mvtec_folder)
    assert "5 of 16 are missing (bolt/train/good/000.png" in caught.value.cause
    assert "004.png" not in caught.value.cause
    assert caught.value.next_step


def test_images_in_a_folder_that_is_closed_to_this_user(mvtec_folder, monkeypatch):
    records = split_training(find_dataset(mvtec_folder), 0.25, seed=0).images

    def closed(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", closed)
    with pytest.raises(ImageError, match=r"cannot be read: Permission denied\.") as caught:
        check_unchanged(records, mvtec_folder)
    assert "as a user who may read" in caught.value.next_step


def test_a_changed_image_is_seen(mvtec_folder):
    records = split_training(find_dataset(mvtec_folder), 0.25, seed=0).images
    path = mvtec_folder / "tile/train/good/003.png"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DatasetError, match=r"1 of 16 are of another content .*003\.png"):
        check_unchanged(records, mvtec_folder)


def test_a_missing_data_folder_is_said(mvtec_folder):
    records = split_training(find_dataset(mvtec_folder), 0.25, seed=0).images
    shutil.rmtree(mvtec_folder)
    with pytest.raises(DatasetError, match="16 of 16 are missing"):
        check_unchanged(records, mvtec_folder)


def named(folder: Path, names: list[str]) -> Path:
    """A category ``bolt`` whose good images differ and have these names."""
    good = folder / "bolt/train/good"
    good.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_named(good, name)
    return folder


def write_named(folder: Path, name: str) -> None:
    """A small image whose pixels its name decides."""
    pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (24, 24, 3), np.uint8)
    assert cv2.imwrite(str(folder / f"{name}.png"), pixels)


def of_days(**counts: int) -> list[str]:
    return [f"{day[1:]}-{i}" for day, count in counts.items() for i in range(count)]


def held_out(folder: Path) -> tuple[set[str], dict[str, str]]:
    records, sources = split_training(find_dataset(folder), 0.2, seed=0)
    return {Path(one.path).name for one in records if one.use == "held_out"}, sources


@pytest.mark.parametrize("kept", [3, 30])
def test_what_the_layout_keeps_apart_sets_the_threshold(mvtec_folder, kept):
    """In the layout of MVTec AD 2, whatever days the names say."""
    named(mvtec_folder, of_days(d20240501=LEAST_OF_A_DAY, d20240502=LEAST_OF_A_DAY))
    folder = mvtec_folder / "bolt/validation/good"
    folder.mkdir(parents=True)
    for i in range(kept):
        write_named(folder, f"new{i}")
    (mvtec_folder / "bolt/validation/bad").mkdir()
    dataset = find_dataset(mvtec_folder)
    assert "bolt: validation/bad is ignored; only validation/good sets thresholds." in dataset.notes
    records, sources = split_training(dataset, 0.2, seed=0)
    bolts = [one for one in records if one.category == "bolt" and one.use == "held_out"]
    assert {one.path for one in bolts} == {f"bolt/validation/good/new{i}.png" for i in range(kept)}
    assert sources == {"bolt": "good images of validation/good"}, "tile has a random share"
    assert sum(one.category == "tile" and one.use == "held_out" for one in records) == 2


def test_a_copy_of_an_image_that_is_kept_apart_is_not_learnt_from(mvtec_folder):
    folder = mvtec_folder / "bolt/validation/good"
    folder.mkdir(parents=True)
    shutil.copy(mvtec_folder / "bolt/train/good/000.png", folder / "again.png")
    names, _ = held_out(mvtec_folder)
    assert {"again.png", "000.png"} <= names
    for path in (mvtec_folder / "bolt/train/good").iterdir():
        shutil.copy(path, folder / path.name)
    with pytest.raises(DatasetError, match="2 of them to learn from"):
        split_training(find_dataset(mvtec_folder), 0.2, seed=0)


def test_the_latest_day_is_held_out(tmp_path):
    few = LEAST_OF_A_DAY - 1
    days = of_days(d20240501=40, d20240502=LEAST_OF_A_DAY, d20240503=few)
    names, sources = held_out(named(tmp_path, days))
    assert names == {f"20240502-{i}.png" for i in range(LEAST_OF_A_DAY)}, "the last day has too few"
    assert sources == {"bolt": "good images of 2024-05-02, another day by file names"}


@pytest.mark.parametrize(
    "names",
    [
        of_days(d20240501=100),
        of_days(d20240501=81, d20240502=LEAST_OF_A_DAY - 1),
        of_days(d20240501=LEAST_OF_A_DAY, d20240502=LEAST_OF_A_DAY + 1),
        [*of_days(d20240501=40, d20240502=40), "another"],
        [f"{20240501 + i}" for i in range(31)],
    ],
    ids=["one day", "few of the other", "most of the other", "one without", "serial numbers"],
)
def test_where_days_are_not_clear_a_random_share_is_held_out(tmp_path, names):
    found, sources = held_out(named(tmp_path, names))
    assert sources == {}
    assert len(found) == round(0.2 * len(names))


def test_copies_under_names_of_two_days_count_once(tmp_path):
    folder = named(tmp_path, of_days(d20240501=60, d20240502=LEAST_OF_A_DAY - 1))
    good = folder / "bolt/train/good"
    for i in range(10):
        shutil.copy(good / "20240502-0.png", good / f"20240502-copy{i}.png")
    assert held_out(folder)[1] == {}, "copies are no images of that day"
