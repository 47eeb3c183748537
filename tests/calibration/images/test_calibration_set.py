"""Calibration pictures: balanced, spread, never those of thresholds; a set of the user's own."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.bundle.manifest import Threshold
from hvq_edge.calibration.images.choose_images import choose_calibration, farthest_first
from hvq_edge.calibration.images.own_set import (
    LEAST,
    OwnPicture,
    own_calibration,
    suspicious_pictures,
)
from hvq_edge.data.content import hash_picture
from hvq_edge.errors import InputError
from hvq_edge.run.record import PictureRecord
from hvq_edge.runtime.engine import EngineInfo

CATEGORIES = ("bolt", "nut")


def record_of(counts: dict[str, int], seed: int = 0) -> tuple[list[PictureRecord], np.ndarray]:
    pictures = [
        PictureRecord(path=f"{name}/{i}", category=name, sha256=f"{k:02x}{i:062x}", use=use)
        for k, (name, count) in enumerate(counts.items())
        for i in range(count)
        for use in ("fit", "held_out")
    ]
    fit = sum(counts.values())
    return pictures, np.random.default_rng(seed).normal(size=(fit, 5)).astype(np.float32)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 20), min_size=1), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_any_first_part_is_balanced_and_was_fitted_on(counts, most):
    pictures, features = record_of(counts)
    chosen = choose_calibration(pictures, features, most)
    assert len(chosen) == min(most, sum(counts.values()))
    assert len({picture.sha256 for picture in chosen}) == len(chosen)
    assert all(picture.use == "fit" for picture in chosen)
    for part in range(1, len(chosen) + 1):
        had = {name: sum(p.category == name for p in chosen[:part]) for name in counts}
        open_ones = [had[name] for name in counts if had[name] < counts[name]]
        # Nobody waits while another gets two.
        assert not open_ones or max(had.values()) - min(open_ones) <= 1
    assert choose_calibration(pictures, features, max(1, most - 3)) == chosen[: max(1, most - 3)]


def test_the_order_of_pictures_does_not_matter_and_a_copy_counts_once():
    pictures, features = record_of({"bolt": 9, "nut": 4})
    chosen = choose_calibration(pictures, features)
    fit = [picture for picture in pictures if picture.use == "fit"]
    assert choose_calibration(fit[::-1], features[::-1]) == chosen
    twice = choose_calibration([*fit, *fit], np.concatenate([features, features]))
    assert [picture.sha256 for picture in twice] == [picture.sha256 for picture in chosen]


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
            picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
            cv2.imwrite(str(tmp_path / name / "train" / "good" / f"{name}{i}.png"), picture)
    return tmp_path


def test_own_pictures_come_in_turn(own):
    found = own_calibration(own, CATEGORIES)
    assert [picture.category for picture in found] == list(CATEGORIES) * LEAST
    assert all(hash_picture(picture.path) == picture.sha256 for picture in found)
    assert {p.category for p in own_calibration(own, ("nut",))} == {"nut"}


def test_all_faults_of_a_set_are_named_at_once(own):
    folder = own / "bolt" / "train" / "good"
    shared = hash_picture(folder / "bolt1.png")
    (folder / "bolt0.png").write_bytes(b"not a picture")
    with pytest.raises(InputError) as caught:
        own_calibration(own, (*CATEGORIES, "washer"), {shared})
    said = str(caught.value)
    assert f"only {LEAST - 1} good pictures of bolt, at least {LEAST}" in said
    assert "no good pictures of washer" in said
    assert "bolt0.png cannot be read" in said
    assert "bolt1.png also set thresholds" in said
    assert "nut," not in said
    assert "--calib" in str(caught.value.next_step)


class Fake:
    """An engine whose score is the picture's mean and whose category is its first pixel's."""

    info = EngineInfo("test", "fp32", "none", 32, CATEGORIES, "auto")

    def run(self, frames: np.ndarray, category: object = None) -> dict[str, np.ndarray]:
        assert category is None
        return {
            "score": frames.mean((1, 2, 3)).astype(np.float32),
            "category": (frames[:, 0, 0, 0] > 200).astype(np.int32),
        }


def test_pictures_that_do_not_look_good_are_found(tmp_path):
    pictures = []
    for name, category, level, corner in (
        ("fine", "bolt", 50, 0),
        ("broken", "bolt", 150, 0),
        ("stray", "bolt", 50, 255),
        ("bright", "nut", 150, 255),
    ):
        picture = np.full((32, 32, 3), level, np.uint8)
        picture[0, 0] = corner
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
        pictures.append(OwnPicture(tmp_path / f"{name}.png", category, ""))
    thresholds = {
        "bolt": Threshold(value=100, pictures=1, rule=""),
        "nut": Threshold(value=200, pictures=1, rule=""),
    }
    found = {one.path.stem: one.reason for one in suspicious_pictures(Fake(), pictures, thresholds)}
    assert set(found) == {"broken", "stray"}
    assert "above the threshold of 100.00" in found["broken"]
    assert found["stray"] == "looks like nut"
