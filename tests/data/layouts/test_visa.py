"""The layout of VisA: what the published folder gives, and what may be wrong with its table."""

import csv
import shutil
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.visa_folder import HEADER, read_split, write_split, write_visa
from hypothesis import example, given
from hypothesis import strategies as st

from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_full_mask, read_mask
from hvq_edge.data.layouts.visa import COLUMNS, parse_split
from hvq_edge.data.splits import check_unchanged, split_training
from hvq_edge.errors import DatasetError

TABLE = Path("visa/split_csv/1cls.csv")
NORMAL = "candle,train,normal,candle/Data/Images/Normal/0836.JPG,"
ANOMALY = "candle,test,anomaly,candle/Data/Images/Anomaly/053.JPG,candle/Data/Masks/Anomaly/053.png"


def table(*lines: str) -> str:
    return "\n".join([",".join(COLUMNS), *lines, ""])


@pytest.fixture
def visa(tmp_path) -> Path:
    return write_visa(tmp_path / "Vis A")


def refused(root: Path) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        find_dataset(root)
    return caught.value


# The folder.


def test_the_unpacked_folder(visa):
    dataset = find_dataset(visa)
    assert dataset.layout == "visa"
    assert dataset.categories == ("candle", "pcb1")
    assert (dataset.notes, dataset.unused_masks) == ((), ())
    assert len(dataset.train_good("candle")) == 6
    assert all(image.good and image.mask is None for image in dataset.train_good())
    assert [image.defect for image in dataset.test("pcb1")] == ["anomaly"] * 3 + ["good"] * 3
    for image in dataset.test():
        if not image.good:
            images, stem = image.path.parents[1], image.path.stem
            assert image.mask == images.parent / f"Masks/Anomaly/{stem}.png"


def test_the_order_of_the_rows_does_not_matter(visa):
    before = find_dataset(visa)
    header, *rows = read_split(visa)
    write_split(visa, [header, *reversed(rows)])
    assert find_dataset(visa) == before


def test_every_level_of_a_mask_that_is_not_zero_is_a_defect(visa):
    masks = [image.mask for image in find_dataset(visa).test("candle") if image.mask]
    for number, path in enumerate(masks, start=1):
        levels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(levels)) == {0, number}, "as VisA's own: the number of the kind"
        assert np.array_equal(read_full_mask(path), levels > 0)
        assert read_mask(path, 48, 48).any()


@pytest.mark.parametrize(
    "levels",
    [
        np.array([[0, 1], [1, 0]], np.uint16) * np.ones((20, 20, 1, 1), np.uint16),
        np.array([[0, 1], [1, 0]], np.uint16) * np.ones((20, 20, 1, 1), np.uint16) * 256,
    ],
    ids=["1 of 65535", "256 of 65535"],
)
def test_a_mask_of_16_bits(tmp_path, levels):
    mask = levels.transpose(0, 2, 1, 3).reshape(40, 40)
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    assert np.array_equal(read_full_mask(tmp_path / "m.png"), mask > 0)


def test_a_mask_in_a_dark_colour(tmp_path):
    """A blue of 4 is 0 as grey."""
    mask = np.zeros((40, 40, 3), np.uint8)
    mask[5:9, 7:30, 0] = 4
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    assert np.array_equal(read_full_mask(tmp_path / "m.png"), mask[..., 0] > 0)


def test_the_split_of_a_training_survives_a_round_trip(visa):
    records = split_training(find_dataset(visa), 0.2, seed=0).images
    assert len(records) == 12
    check_unchanged(records, visa)


def test_a_folder_prepared_by_the_authors_script(visa, tmp_path):
    """``VisA_pytorch/1cls``: <object>/{train,test}/{good,bad} and ground_truth/bad/<stem>.png."""
    prepared = tmp_path / "VisA_pytorch" / "1cls"
    for name, split, label, image, mask in read_split(visa)[1:]:
        kind = "good" if label == "normal" else "bad"
        to = prepared / name / split / kind / Path(image).name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(visa / image, to)
        if mask:
            to = prepared / name / "ground_truth" / kind / Path(mask).name
            to.parent.mkdir(parents=True, exist_ok=True)
            levels = cv2.imread(str(visa / mask), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(to), np.where(levels > 0, 255, 0))
    ours, theirs = find_dataset(visa), find_dataset(prepared)
    assert theirs.layout == "mvtec"
    assert theirs.notes == ()
    for mine, other in zip(ours.test(), theirs.test(), strict=True):
        assert mine.path.read_bytes() == other.path.read_bytes()
        assert (mine.mask is None) == (other.mask is None)
        if mine.mask and other.mask:
            assert np.array_equal(read_mask(mine.mask, 64, 64), read_mask(other.mask, 64, 64))
    assert [p.path.name for p in ours.train_good()] == [p.path.name for p in theirs.train_good()]
    error = refused(prepared.parent)
    assert f"holds one: {prepared}" in error.cause, "one folder too high"
    assert str(prepared) in error.next_step


def test_what_the_table_leaves_out_is_noted(visa):
    header, *rows = read_split(visa)
    kept = [row for row in rows if "Normal/0008" not in row[3] and "Anomaly/002" not in row[3]]
    (pcb,) = [row for row in kept if row[3] == "pcb1/Data/Images/Anomaly/001.JPG"]
    pcb[1] = "train"
    write_split(visa, [header, *kept])
    dataset = find_dataset(visa)
    notes = "\n".join(dataset.notes)
    assert "candle: 1cls.csv does not list 2 images" in notes
    assert "pcb1: 1 anomalous image in train ignored" in notes
    assert len(dataset.test("pcb1")) == 2 + 1
    assert [(name, mask.name) for name, mask in dataset.unused_masks] == [
        ("candle", "002.png"),
        ("pcb1", "002.png"),
    ]


def test_masks_may_be_missing_from_the_table(visa):
    header, *rows = read_split(visa)
    write_split(visa, [header, *([*row[:4], ""] for row in rows)])
    dataset = find_dataset(visa)
    assert all(image.mask is None for image in dataset.images)
    assert "candle: 3 of 3 defective images have no mask." in dataset.notes


def test_missing_files_are_counted_and_the_first_named(visa):
    shutil.rmtree(visa / "pcb1")
    (visa / "candle/Data/Masks/Anomaly/001.png").unlink()
    error = refused(visa)
    assert "16 of the 30 files that" in error.cause
    assert "candle/Data/Masks/Anomaly/001.png, pcb1/Data/Images/Normal/0000.JPG" in error.cause
    assert "there is no folder pcb1" in error.cause


def test_a_category_needs_good_images_to_learn_from(visa):
    header, *rows = read_split(visa)
    write_split(visa, [header, *(r for r in rows if r[:2] != ["pcb1", "train"])])
    assert "the category 'pcb1' has no good images" in refused(visa).cause


def test_another_table_alone_is_not_taken(visa):
    (visa / "split_csv/1cls.csv").rename(visa / "split_csv/2cls_highshot.csv")
    error = refused(visa)
    assert "1cls.csv does not exist" in error.cause
    assert "holds 2cls_highshot.csv" in error.cause


def test_one_object_is_not_a_dataset(visa):
    error = refused(visa / "candle")
    assert "without the table" in error.cause
    assert "split_csv" in error.next_step


def test_a_category_of_another_layout_beside_it(visa, mvtec_folder):
    shutil.copytree(mvtec_folder / "bolt", visa / "bolt")
    assert "two layouts lie side by side" in refused(visa).cause


def test_a_reserved_name(visa):
    write_split(
        visa, [["auto" if cell == "pcb1" else cell for cell in r] for r in read_split(visa)]
    )
    error = refused(visa)
    assert "cannot be called 'auto'" in error.cause
    assert "1cls.csv" in error.next_step


def test_a_mark_at_the_start_as_excel_writes_it_is_accepted(visa):
    path = visa / "split_csv/1cls.csv"
    before = find_dataset(visa)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert find_dataset(visa) == before


def test_a_table_in_another_encoding(visa):
    path = visa / "split_csv/1cls.csv"
    path.write_bytes(path.read_bytes() + "Prüfling".encode("cp1252"))
    assert "is not UTF-8 text" in refused(visa).cause


# The table.


def test_a_published_row():
    normal, anomaly = parse_split(table(NORMAL, ANOMALY), TABLE)
    assert (normal.line, normal.split, normal.label, normal.mask) == (2, "train", "normal", None)
    assert (anomaly.category, anomaly.split, anomaly.label) == ("candle", "test", "anomaly")
    assert anomaly.image == "candle/Data/Images/Anomaly/053.JPG"
    assert anomaly.mask == "candle/Data/Masks/Anomaly/053.png"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not have the columns"),
        ("\n\n", "does not have the columns"),
        (",".join(COLUMNS), "lists no images"),
        ("object,split,label,image\n" + NORMAL[:-1], "does not have the columns"),
        (table(NORMAL).replace(",", ";"), "'object;split;label;image;mask'"),
        ("mask," + table(NORMAL), "once each"),
        (table('candle,train,"normal'), "is not a CSV file: line 2"),
        (table(NORMAL + "," * 3), "line 2 has 8 fields, the first line 5"),
        (table("candle"), "line 2 has 1 fields"),
        (table(NORMAL.replace("train", "Train")), "the split is 'Train', not train or test"),
        (table(NORMAL.replace("normal", "good")), "the label is 'good', not normal or anomaly"),
        (table(NORMAL + "m.png"), "line 2: a normal image has the mask 'm.png'"),
        (table(NORMAL, NORMAL), "line 3: candle/Data/Images/Normal/0836.JPG is in line 2 too"),
        (
            table(NORMAL, NORMAL.replace("train", "test")),
            "line 3: candle/Data/Images/Normal/0836.JPG is in line 2 too",
        ),
        (
            table(ANOMALY, ANOMALY.replace("Images/Anomaly/053", "Images/Anomaly/054")),
            "line 3: candle/Data/Masks/Anomaly/053.png is in line 2 too",
        ),
        (table("candle,train,normal,,"), "the image '' is not a path inside"),
        (table("candle,train,normal,../secret.png,"), "'../secret.png' is not a path inside"),
        (table("candle,train,normal,a/../../b.png,"), "is not a path inside"),
        (table("candle,train,normal,/etc/passwd,"), "'/etc/passwd' is not a path inside"),
        (table("candle,train,normal,C:\\a.png,"), "is not a path inside"),
        (table("candle,train,normal,a\0.png,"), "1cls.csv"),
        (table("candle,test,anomaly,a.png,../m.png"), "the mask '../m.png' is not a path inside"),
        (table(NORMAL.replace("candle,", "..,")), "the object '..' is not a folder's name"),
        (table(NORMAL.replace("candle,", "a/b,")), "the object 'a/b' is not"),
        (table(NORMAL.replace("candle,", ",")), "the object '' is not"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(text, said):
    with pytest.raises(DatasetError) as caught:
        parse_split(text, TABLE)
    assert said in caught.value.cause
    assert caught.value.next_step


def test_all_faults_are_counted_and_the_first_listed():
    with pytest.raises(DatasetError) as caught:
        parse_split(table(*[f"c,train,bad,{i}.png," for i in range(40)]), TABLE)
    assert "has 40 faults" in caught.value.cause
    assert "line 2:" in caught.value.cause
    assert "and 35 more" in caught.value.cause


names = st.text(
    st.characters(categories=("L", "N", "P", "S"), exclude_characters="/\\"), min_size=1, max_size=9
).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


@st.composite
def tables(draw):
    """Rows that are right, however odd the names: (columns in some order, rows)."""
    files = iter(draw(st.lists(paths, unique=True, min_size=2, max_size=24)))
    rows = []
    for image in files:
        label = draw(st.sampled_from(["normal", "anomaly"]))
        mask = next(files, "") if label == "anomaly" and draw(st.booleans()) else ""
        split = draw(st.sampled_from(["train", "test"]))
        rows.append(dict(zip(HEADER, (draw(names), split, label, image, mask), strict=True)))
    return draw(st.permutations([*HEADER, "comment"])), rows


@given(tables(), st.sampled_from(["\n", "\r\n"]))
def test_a_right_table_is_read_as_it_was_written(written, ending):
    columns, rows = written
    text = StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="x, y", lineterminator=ending)
    writer.writeheader()
    writer.writerows(rows)
    read = parse_split(text.getvalue(), TABLE)
    assert [
        {"object": r.category, "split": r.split, "label": r.label, "image": r.image}
        | {"mask": r.mask or ""}
        for r in read
    ] == rows


@given(
    st.text(max_size=200) | st.text(st.sampled_from('candle,train/normal."\n\r\0'), max_size=200)
)
@example('"')
@example("\r")
@example("a" * 140_000)
def test_any_text_is_read_or_refused(rest):
    for text in (rest, table(rest), table(NORMAL) + rest):
        try:
            rows = parse_split(text, TABLE)
        except DatasetError:
            continue
        assert rows
        for row in rows:
            inside = (Path("root") / row.image).resolve()
            assert inside.is_relative_to(Path("root").resolve())
