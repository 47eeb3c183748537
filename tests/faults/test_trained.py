"""A trained model, real images and some that are damaged: the counts fit there too."""

from __future__ import annotations

from pathlib import Path

from helpers.patience import PATIENCE_SECONDS
from helpers.running_line import RunningLine

IMAGES = 12
BROKEN = (2, 5, 9)


def test_damaged_images_between_real_ones(solar_cells: Path, solar_bundle: Path, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    found = sorted(solar_cells.glob("*/test/*/*.png"))
    found = found[:: len(found) // IMAGES][:IMAGES]
    for i, path in enumerate(found):
        content = path.read_bytes()
        whole = i not in BROKEN
        (folder / f"{i:02}.png").write_bytes(content if whole else content[: len(content) // 3])
    arguments = ["--bundle", solar_bundle, "--camera", folder, "--precision", "int8"]
    with RunningLine(tmp_path, *arguments) as line:
        assert line.process.wait(PATIENCE_SECONDS) == 0, line.said
    counts = line.assert_it_fits()
    assert (counts["frames"], counts["dropped"]) == (IMAGES, 0)
    lost = {one["frame"] for one in line.decisions() if one["score"] is None}
    assert lost >= set(BROKEN)
    assert counts["passed"] + counts["rejected"] >= IMAGES // 2
    saved = {path.stem.rpartition("-")[2] for path in (line.out / "rejects").glob("*.png")}
    assert len(saved) == counts["rejected"]
