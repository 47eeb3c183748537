"""A small dataset laid out as VisA is unpacked, for several tests."""

import csv
from pathlib import Path

import cv2
import numpy as np
from helpers.images import make_texture, scratch, write_png

HEADER = ["object", "split", "label", "image", "mask"]
OBJECTS = {"candle": {"grain": 1.2, "mean": 150.0}, "pcb1": {"grain": 3.0, "mean": 90.0}}


def write_visa(root: Path, *, train: int = 6, test: int = 3) -> Path:
    """Two objects; masks hold the kinds' numbers 1, 2, ... as VisA's do, not 255."""
    rows = []
    for number, (name, look) in enumerate(OBJECTS.items()):
        seed = 1000 * (number + 7)
        for i in range(train + test):
            image = f"{name}/Data/Images/Normal/{i:04}.JPG"
            write_jpeg(root / image, make_texture(seed + i, **look))
            rows.append([name, "train" if i < train else "test", "normal", image, ""])
        for i in range(test):
            image = f"{name}/Data/Images/Anomaly/{i:03}.JPG"
            mask = f"{name}/Data/Masks/Anomaly/{i:03}.png"
            damaged, marked = scratch(make_texture(seed + 500 + i, **look))
            write_jpeg(root / image, damaged)
            write_png(root / mask, np.where(marked > 0, i + 1, 0).astype(np.uint8))
            rows.append([name, "test", "anomaly", image, mask])
        # The published folder has this too; nobody reads it.
        (root / name / "image_anno.csv").write_text("image,label\n")
    write_split(root, [HEADER, *rows])
    return root


def write_jpeg(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", image)[1].tobytes())


def write_split(root: Path, rows: list[list[str]]) -> None:
    path = root / "split_csv" / "1cls.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def read_split(root: Path) -> list[list[str]]:
    with (root / "split_csv" / "1cls.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))
