"""The layout of VisA (Zou et al., ECCV 2022): one folder an object, and a table that splits it.

Published as ``amazon-science/spot-diff``. The folder is used as it was unpacked; one prepared by
its authors' script is in MVTec layout, and :mod:`hvq_edge.data.layouts.mvtec` reads it. Of the
three published tables ``1cls.csv`` is used: good images alone to learn from.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal, get_args

from hvq_edge.common.wording import counted
from hvq_edge.data.layouts.folders import (
    GOOD,
    CategoryContent,
    DatasetImage,
    is_folder,
    list_images,
    unused_masks,
)
from hvq_edge.data.layouts.masks import mask_notes
from hvq_edge.errors import DatasetError

SPLIT_FOLDER = "split_csv"
SPLIT_FILE = "1cls.csv"

TREE = f"""\
DIR/                                 (VisA as unpacked)
├── {SPLIT_FOLDER}/{SPLIT_FILE}            object,split,label,image,mask: a row an image
└── <object>/Data/
    ├── Images/Normal/*.JPG          good images
    ├── Images/Anomaly/*.JPG         defective images
    └── Masks/Anomaly/*.png          masks (optional)"""

DEFECT = "anomaly"
"""The kind of defect of every defective image: the table tells no kinds apart."""

COLUMNS = ("object", "split", "label", "image", "mask")

_Split = Literal["train", "test"]
_Label = Literal["normal", "anomaly"]
_NAMED_IN_MESSAGES = 5


@dataclass(frozen=True)
class Row:
    """One image, as the table lists it."""

    line: int
    """Line number in the file, from one; for a row over several lines it is the last of them."""
    category: str
    split: _Split
    label: _Label
    image: str
    """Path relative to the dataset's folder, with ``/``."""
    mask: str | None


def is_dataset(root: Path) -> bool:
    """Whether ``root`` is a VisA folder as it was unpacked."""
    return is_folder(root / SPLIT_FOLDER)


def is_object(folder: Path) -> bool:
    """Whether ``folder`` is one object of VisA, which its table splits from the folder above."""
    return is_folder(folder / "Data" / "Images")


def read_dataset(root: Path) -> dict[str, CategoryContent]:
    """List the images of every category that ``split_csv/1cls.csv`` has, by category.

    Raises:
        DatasetError: the table cannot be read or is wrong (:func:`parse_split`), names files that
            are not there, or has a category without good images to learn from.
    """
    table = root / SPLIT_FOLDER / SPLIT_FILE
    rows = parse_split(_read(table), table)
    _check_files(root, table, rows)
    by_category: dict[str, list[Row]] = {}
    for row in rows:
        by_category.setdefault(row.category, []).append(row)
    return {name: _content(root, name, by_category[name]) for name in sorted(by_category)}


def parse_split(text: str, table: Path) -> tuple[Row, ...]:
    """Read a table of images and check every row.

    Further columns and any order of columns are accepted, words only as they are written in
    the published tables.

    Args:
        text: content of the CSV file.
        table: its path, for messages.

    Returns:
        The rows in the file's order; every image and every mask is named once.

    Raises:
        DatasetError: it is no CSV, has no row, lacks a column, or rows have unknown words, paths
            that lead out of the folder, or files that another row has; names the first ones.
    """
    lines = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        header = next(lines, [])
        missing = [name for name in COLUMNS if name not in header]
        if missing or len(set(header)) < len(header):
            raise DatasetError(
                f"{table} does not have the columns {','.join(COLUMNS)} once each; its first line "
                f"is {','.join(header)!r}.",
                next_step="put the published file back, or save the table as CSV with commas",
            )
        raw = [(lines.line_num, fields) for fields in lines if fields]
    except csv.Error as error:
        raise DatasetError(
            f"{table} is not a CSV file: line {lines.line_num}: {error}.",
            next_step="put the published file back, or save the table as CSV with commas",
        ) from error
    if not raw:
        raise DatasetError(
            f"{table} lists no images.",
            next_step=f"put the published file back; the layout is\n{TREE}",
        )
    rows: list[Row] = []
    faults: list[str] = []
    for line, fields in raw:
        if len(fields) != len(header):
            faults.append(f"line {line} has {len(fields)} fields, the first line {len(header)}")
            continue
        cells = dict(zip(header, fields, strict=True))
        found = list(_faults_in(cells))
        faults += [f"line {line}: {fault}" for fault in found]
        if not found:
            rows.append(_row(line, cells))
    faults += _repetitions(rows)
    if faults:
        named = "".join(f"\n  - {fault}" for fault in faults[:_NAMED_IN_MESSAGES])
        more = len(faults) - _NAMED_IN_MESSAGES
        raise DatasetError(
            f"{table} has {counted(len(faults), 'fault')}:{named}"
            + (f"\n  - and {more} more" if more > 0 else ""),
            next_step="correct these lines, or put the published file back",
        )
    return tuple(rows)


def _read(table: Path) -> str:
    """Return the table's text, without the mark that Excel puts at its start."""
    try:
        return table.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        present = ", ".join(sorted(path.name for path in table.parent.iterdir())) or "nothing"
        raise DatasetError(
            f"{table} does not exist; {table.parent} holds {present}.",
            next_step=f"put VisA's {SPLIT_FILE} there; the layout is\n{TREE}",
        ) from None
    except OSError as error:
        raise DatasetError(
            f"{table} cannot be read: {error.strerror}.",
            next_step="check that it is a file that you may read",
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{table} is not UTF-8 text: {error.reason} at byte {error.start}.",
            next_step="put the published file back, or save the table as CSV in UTF-8",
        ) from error


def _faults_in(cells: dict[str, str]) -> Iterator[str]:
    """Yield what is wrong with one row, each as the end of a sentence."""
    name = cells["object"]
    if not _is_plain_name(name):
        yield f"the object {name!r} is not a folder's name"
    for column, known in (("split", get_args(_Split)), ("label", get_args(_Label))):
        if cells[column] not in known:
            yield f"the {column} is {cells[column]!r}, not {' or '.join(known)}"
    for column in ("image", "mask"):
        if (cells[column] or column == "image") and not _is_inside(cells[column]):
            yield f"the {column} {cells[column]!r} is not a path inside the dataset's folder"
    if cells["label"] == "normal" and cells["mask"]:
        yield f"a normal image has the mask {cells['mask']!r}"


def _is_plain_name(name: str) -> bool:
    return name == name.strip() and "/" not in name and _is_inside(name)


def _is_inside(path: str) -> bool:
    """Whether a path is relative and stays below its folder, on every system."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(parts)


def _row(line: int, cells: dict[str, str]) -> Row:
    split: _Split = "train" if cells["split"] == "train" else "test"
    label: _Label = "normal" if cells["label"] == "normal" else "anomaly"
    return Row(line, cells["object"], split, label, cells["image"], cells["mask"] or None)


def _repetitions(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a fault for each file that an earlier row has: an image in train and test, say."""
    first: dict[str, int] = {}
    for row in rows:
        for path in (row.image, row.mask):
            if path is None:
                continue
            if path in first:
                yield f"line {row.line}: {path} is in line {first[path]} too"
            first.setdefault(path, row.line)


def _check_files(root: Path, table: Path, rows: Sequence[Row]) -> None:
    """Check that every file of the table is there.

    Raises:
        DatasetError: some are not; says how many, names the first, and whole objects.
    """
    named = [(row.category, path) for row in rows for path in (row.image, row.mask) if path]
    absent = [(name, path) for name, path in named if not (root / path).is_file()]
    if not absent:
        return
    first = ", ".join(path for _, path in absent[:_NAMED_IN_MESSAGES])
    objects = sorted({name for name, _ in absent if not is_folder(root / name)})
    raise DatasetError(
        f"{len(absent)} of the {len(named)} files that {table} lists are missing: {first}"
        + (", ..." if len(absent) > _NAMED_IN_MESSAGES else "")
        + (f"; there is no folder {', '.join(objects)}" if objects else "")
        + ".",
        next_step=f"unpack VisA again into {root}, or take their rows out of {table}",
    )


def _content(root: Path, name: str, rows: Sequence[Row]) -> CategoryContent:
    used = [row for row in rows if (row.split, row.label) != ("train", "anomaly")]
    images = tuple(
        DatasetImage(
            path=root / row.image,
            category=name,
            split=row.split,
            defect=GOOD if row.label == "normal" else DEFECT,
            mask=root / row.mask if row.mask else None,
        )
        for row in sorted(used, key=lambda row: (row.split == "test", row.image))
    )
    splits = {image.split for image in images}
    if "train" not in splits:
        raise DatasetError(
            f"the category {name!r} has no good images: {SPLIT_FILE} has no row with "
            f"{name},train,normal.",
            next_step="put the published file back, or add rows with good images",
        )
    notes = []
    if len(used) < len(rows):
        left_out = counted(len(rows) - len(used), "anomalous image")
        notes.append(f"{name}: {left_out} in train ignored; only normal ones are learnt from.")
    if "test" not in splits:
        notes.append(f"{name}: there are no test images.")
    notes += _unlisted(root, name, rows)
    listed = [root / row.mask for row in rows if row.mask]
    unused = unused_masks(root / name / "Data" / "Masks", listed)
    defective = [image for image in images if not image.good]
    without = sum(image.mask is None for image in defective)
    more = mask_notes(name, len(defective), without, unused)
    return CategoryContent(images, tuple(notes), unused, mask_notes=tuple(more))


def _unlisted(root: Path, name: str, rows: Iterable[Row]) -> list[str]:
    """Note images of an object that the table does not list."""
    images = root / name / "Data" / "Images"
    listed = {root / row.image for row in rows}
    found = list_images(images).images if is_folder(images) else ()
    others = [path for path in found if path not in listed]
    if not others:
        return []
    count = counted(len(others), "image")
    return [f"{name}: {SPLIT_FILE} does not list {count}, such as {others[0]}; ignored."]
