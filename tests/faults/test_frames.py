"""Damaged frames: each is a frame without a decision, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.patience import PATIENCE_SECONDS
from helpers.running_line import (
    LONGEST_STOP,
    RunningLine,
    frames_in_order,
    parts,
    save_film,
    save_line_bundle,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_line_bundle(tmp_path_factory.mktemp("frames") / "bundle")


def test_a_video_with_flipped_bytes_is_inspected_to_its_end(bundle, tmp_path):
    """Motion JPEG, a byte in two hundred changed in the middle half of the file."""
    film = save_film(tmp_path / "film.avi", 60)
    content = bytearray(film.read_bytes())
    chosen = np.random.default_rng(0)
    for place in chosen.integers(len(content) // 4, 3 * len(content) // 4, len(content) // 400):
        content[place] ^= 1 << int(chosen.integers(8))
    film.write_bytes(content)
    with RunningLine(tmp_path, "--bundle", bundle.path, "--camera", film) as line:
        assert line.process.wait(PATIENCE_SECONDS) == 0, line.said
    counts = line.assert_it_fits()
    assert counts["dropped"] == 0
    assert 45 <= counts["frames"] <= 60, "what stands after a damaged frame is inspected too"
    damaged = [one for one in line.decisions() if "cannot be decoded" in one["reason"]]
    assert 5 <= len(damaged) == counts["no_decision"]
    assert frames_in_order(line.decisions())


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


IMAGES = 8


def with_broken_images(folder: Path) -> set[int]:
    """Write a folder of images; returns the numbers of those that are broken."""
    folder.mkdir()
    images = [jpeg(image) for image in parts(IMAGES)]
    broken = {1: images[1][: len(images[1]) // 2], 2: b"", 5: b"no image at all"}
    for i, content in enumerate(images):
        (folder / f"{i}.jpg").write_bytes(broken.get(i, content))
    return set(broken)


def test_broken_images_in_a_watched_folder(bundle, tmp_path):
    folder = tmp_path / "images"
    broken = with_broken_images(folder)
    camera = f"watch:{folder}"
    with RunningLine(tmp_path, "--bundle", bundle.path, "--camera", camera) as line:
        line.wait_for(IMAGES - len(line.decisions()))
        (folder / "8.jpg").write_bytes(jpeg(parts(4)[3]))  # the folder is still watched
        line.wait_for(1, "reject")
        assert line.stop() < LONGEST_STOP
    counts = line.assert_it_fits()
    assert (counts["frames"], counts["dropped"]) == (9, 0)
    assert counts["no_decision"] == len(broken)
    assert counts["rejected"] == 2
    told = {one["reason"] for one in line.decisions() if one["verdict"] == "no_decision"}
    for i in broken:
        assert any(f"{i}.jpg" in reason for reason in told), told


def test_broken_images_in_a_folder(bundle, tmp_path):
    folder = tmp_path / "images"
    broken = with_broken_images(folder)
    with RunningLine(tmp_path, "--bundle", bundle.path, "--camera", folder) as line:
        assert line.process.wait(PATIENCE_SECONDS) == 0, line.said
    counts = line.assert_it_fits()
    assert (counts["frames"], counts["dropped"]) == (8, 0)
    lost = {one["frame"] for one in line.decisions() if one["verdict"] == "no_decision"}
    assert lost == broken
