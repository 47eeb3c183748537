"""Calibration images: balanced, spread, never those of thresholds; a set of the user's own."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.graphs import CATEGORIES, save_bundle
from helpers.thresholds import threshold_at
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.calibration.images.own_set import (
    LEAST,
    CalibrationImage,
    own_calibration,
    suspicious_images,
)
from hvq_edge.calibration.images.training_set import choose_calibration, farthest_first
from hvq_edge.data.content import hash_image
from hvq_edge.errors import InputError
from hvq_edge.run.record import ImageRecord
from hvq_edge.runtime.engine import EngineInfo

CATEGORIES = ("bolt", "nut")


def record_of(counts: dict[str, int], seed: int = 0) -> tuple[list[ImageRecord], np.ndarray]:
    images = [
        ImageRecord(path=f"{name}/{i}", category=name, sha256=f"{k:02x}{i:062x}", use=use)
        for k, (name, count) in enumerate(counts.items())
        for i in range(count)
        for use in ("fit", "held_out")
    ]
    fit = sum(counts.values())
    return images, np.random.default_rng(seed).normal(size=(fit, 5)).astype(np.float32)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 20), min_size=1), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_any_first_part_is_balanced_and_was_fitted_on(counts, most):
    images, features = record_of(counts)
    chosen = choose_calibration(images, features, most)
    assert len(chosen) == min(most, sum(counts.values()))
    assert len({image.sha256 for image in chosen}) == len(chosen)
    assert all(image.use == "fit" for image in chosen)
    for part in range(1, len(chosen) + 1):
        had = {name: sum(p.category == name for p in chosen[:part]) for name in counts}
        open_ones = [had[name] for name in counts if had[name] < counts[name]]
        # Nobody waits while another gets two.
        assert not open_ones or max(had.values()) - min(open_ones) <= 1
    assert choose_calibration(images, features, max(1, most - 3)) == chosen[: max(1, most - 3)]


def test_the_order_of_images_does_not_matter_and_a_copy_counts_once():
    images, features = record_of({"bolt": 9, "nut": 4})
    chosen = choose_calibration(images, features)
    fit = [image for image in images if image.use == "fit"]
    assert choose_calibration(fit[::-1], features[::-1]) == chosen
    twice = choose_calibration([*fit, *fit], np.concatenate([features, features]))
    assert [image.sha256 for image in twice] == [image.sha256 for image in chosen]


def test_it_begins_in_the_middle_and_goes_to_the_ends():
    line = np.array([[0.0], [1.0], [2.0], [4.5], [10.0]], np.float32)  # mean 3.5
    assert farthest_first(line, 5) == [3, 4, 0, 2, 1]
    assert farthest_first(np.zeros((3, 2), np.float32), 9) == [0, 1, 2]


@given(st.integers(0, 10_000), st.integers(2, 8), st.data())
@settings(max_examples=40, deadline=None)
def test_it_covers_within_twice_the_best(seed, count, data):
    points = np.random.default_rng(seed).normal(size=(count, 2))
    k = data.draw(st.integers(1, count))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)

    def radius(centres: tuple[int, ...]) -> float:
        return float(distance[:, list(centres)].min(1).max())

    best = min(radius(centres) for centres in combinations(range(count), k))
    assert radius(tuple(farthest_first(points, k))) <= 2 * best + 1e-9


# The user's own.


@pytest.fixture
def own(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in CATEGORIES:
        (tmp_path / name / "train" / "good").mkdir(parents=True)
        for i in range(LEAST):
            image = rng.integers(0, 256, (32, 32, 3), np.uint8)
            cv2.imwrite(str(tmp_path / name / "train" / "good" / f"{name}{i}.png"), image)
    return tmp_path


def test_own_images_come_in_turn(own):
    found = own_calibration(own, CATEGORIES)
    assert [image.category for image in found] == list(CATEGORIES) * LEAST
    assert all(hash_image(image.path) == image.sha256 for image in found)
    assert {p.category for p in own_calibration(own, ("nut",))} == {"nut"}


def test_all_faults_of_a_set_are_named_at_once(own):
    folder = own / "bolt" / "train" / "good"
    shared = hash_image(folder / "bolt1.png")
    (folder / "bolt0.png").write_bytes(b"not an image")
    with pytest.raises(InputError) as caught:
        own_calibration(own, (*CATEGORIES, "washer"), {shared})
    said = str(caught.value)
    assert f"only {LEAST - 1} good images of bolt, at least {LEAST}" in said
    assert "no good images of washer" in said
    assert "bolt0.png cannot be read" in said
    assert "bolt1.png also set thresholds" in said
    assert "nut," not in said
    assert "--calib" in str(caught.value.next_step)


class Fake:
    """An engine whose score is the image's mean and whose category is its first pixel's."""

    info = EngineInfo("test", "fp32", "none", (32, 32), CATEGORIES, "auto")

    def run(self, frames: np.ndarray, category: object = None) -> dict[str, np.ndarray]:
        assert category is None
        return {
            "score": frames.mean((1, 2, 3)).astype(np.float32),
            "map": np.zeros((len(frames), 2, 2), np.float32),
            "margin": np.ones(len(frames), np.float32),
            "category": (frames[:, 0, 0, 0] > 200).astype(np.int32),
        }


def test_images_that_do_not_look_good_are_found(tmp_path):
    images = []
    for name, category, level, corner in (
        ("fine", "bolt", 50, 0),
        ("broken", "bolt", 150, 0),
        ("stray", "bolt", 50, 255),
        ("bright", "nut", 150, 255),
    ):
        image = np.full((32, 32, 3), level, np.uint8)
        image[0, 0] = corner
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
        images.append(CalibrationImage(tmp_path / f"{name}.png", category, ""))
    thresholds = {
        "bolt": threshold_at(100, images=1, rule=""),
        "nut": threshold_at(200, images=1, rule=""),
    }
    bundle = save_bundle(tmp_path / "bundle", "auto")
    limits = {"fp32": thresholds}
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"thresholds": limits}))
    found = {one.path.stem: one.reason for one in suspicious_images(Fake(), bundle, images)}
    assert set(found) == {"broken", "stray"}
    assert "above threshold 100" in found["broken"]
    assert found["stray"] == "looks like nut"
