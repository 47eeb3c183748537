"""Real images for the demonstration: solar cells of the PyPI package ``elpv-dataset``.

Electroluminescence images of 2,624 cells cut from 44 modules (Deitsch et al., Solar Energy 185,
2019), licensed CC BY-NC-SA 4.0. Each has a probability of being defective, by experts: 0 is good
here, 1 is defective, and the unsure ones between are left out.

Cells of one module were numbered in a row and look alike (same cell type, same exposure), so a
random split would test the model on near-copies of what it learnt. The package does not say where
a module ends; a module has 60 or 72 cells. So each stretch of one type is cut into blocks of 60
consecutive numbers, and every third block is for testing only: at most the ends of blocks share a
module.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from hvq_edge.common.atomic import atomic_folder
from hvq_edge.common.extras import pip_install
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.errors import DatasetError, MissingCapability, OutputError

MARKER_NAME = "solar_cells.json"
_FORMAT = "hvq-edge-solar-cells/1"
_PACKAGE = "elpv_dataset"
_BLOCK = 60
_TEST_EVERY = 3


@dataclass(frozen=True)
class _Cell:
    path: Path
    probability: float
    kind: str


def lay_out_solar_cells(
    out: Path, *, train_good: int, test_each: int, on_progress: ProgressCallback = silent
) -> Path:
    """Copy solar cells into a folder in MVTec layout.

    Categories ``solar_cell_mono`` and ``solar_cell_poly``, each with ``train/good``,
    ``test/good`` and ``test/defective``. The choice is always the same: spread evenly over the
    blocks (see above). Returns at once if ``out`` was made with the same numbers before.

    Args:
        out: the folder to make; one that this function made with other numbers is replaced.
        train_good: good images in ``train/good`` of each category.
        test_each: images in each of ``test/good`` and ``test/defective`` of each category.
        on_progress: told of every file copied.

    Returns:
        ``out``.

    Raises:
        MissingCapability: ``elpv-dataset`` is not installed.
        DatasetError: it does not hold as many images.
        OutputError: ``out`` holds something else, or cannot be written.
    """
    marker = {
        "format": _FORMAT,
        "source": "PyPI package elpv-dataset",
        "licence": "CC BY-NC-SA 4.0",
        "train_good": train_good,
        "test_each": test_each,
    }
    if _read_marker(out) == marker and _count_images(out) == 2 * (train_good + 2 * test_each):
        return out
    copies = _plan(_read_cells(_package_folder()), train_good, test_each)
    with atomic_folder(out) as temporary:
        for done, (cell, place) in enumerate(copies, start=1):
            target = temporary / place / cell.path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            # A copy, not a hard link: editing the demonstration must not edit the package.
            shutil.copyfile(cell.path, target)
            on_progress("Laying out solar cells", done, len(copies))
        (temporary / MARKER_NAME).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    return out


def _read_marker(out: Path) -> object:
    """Return the marker's content, ``None`` for no folder or an empty one.

    Raises:
        OutputError: the folder holds something that this module did not write.
    """
    try:
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return None
        content: object = json.loads((out / MARKER_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and content.get("format") == _FORMAT:
        return content
    raise OutputError(
        f"{out} exists and was not made by the demonstration; it is left as it is.",
        next_step="choose another folder, or remove this one",
    )


def _count_images(out: Path) -> int:
    return sum(1 for _ in out.glob("solar_cell_*/*/*/*.png"))


def _package_folder() -> Path:
    spec = find_spec(_PACKAGE)  # found, not imported: importing it needs Pillow
    places = spec.submodule_search_locations if spec else None
    folder = Path(places[0]) / "data" if places else None
    if folder is None or not (folder / "labels.csv").is_file():
        raise MissingCapability(
            "the solar cell images (PyPI package elpv-dataset) are not installed.",
            next_step=pip_install("demo"),
        )
    return folder


def _read_cells(folder: Path) -> list[_Cell]:
    """Read ``labels.csv``: path, probability and type, separated by blanks, in number order."""
    lines = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line.strip()]
    return [_Cell(folder / path, float(probability), kind) for path, probability, kind in rows]


def _plan(cells: Sequence[_Cell], train_good: int, test_each: int) -> list[tuple[_Cell, str]]:
    """Return each chosen cell with its folder in the layout."""
    plan: list[tuple[_Cell, str]] = []
    for kind in sorted({cell.kind for cell in cells}):
        blocks = _blocks_of(cells, kind)
        tested = [cell for block in blocks[::_TEST_EVERY] for cell in block]
        held = set(tested)
        learnt = [cell for block in blocks for cell in block if cell not in held]
        for place, found, probability, count in (
            ("train/good", learnt, 0.0, train_good),
            ("test/good", tested, 0.0, test_each),
            ("test/defective", tested, 1.0, test_each),
        ):
            sure = [cell for cell in found if cell.probability == probability]
            if count > len(sure):
                raise DatasetError(
                    f"elpv-dataset has {len(sure)} images for {place} of {kind} cells; "
                    f"{count} were asked for.",
                    next_step=f"ask for at most {len(sure)}",
                )
            chosen = [sure[index * len(sure) // count] for index in range(count)]
            plan += [(cell, f"solar_cell_{kind}/{place}") for cell in chosen]
    return plan


def _blocks_of(cells: Sequence[_Cell], kind: str) -> list[list[_Cell]]:
    """Cut the stretches of consecutive cells of one type into blocks."""
    blocks: list[list[_Cell]] = []
    for stretch_kind, group in groupby(cells, key=lambda cell: cell.kind):
        stretch = list(group)
        if stretch_kind == kind:
            blocks += [stretch[i : i + _BLOCK] for i in range(0, len(stretch), _BLOCK)]
    return blocks
