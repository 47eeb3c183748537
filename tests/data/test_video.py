"""A video of images shows them as they are."""

from __future__ import annotations

import resource

import cv2
import numpy as np
import pytest
from conftest import make_texture

from hvq_edge.data.video import write_video
from hvq_edge.errors import MissingCapability, OutputError
from hvq_edge.stream.sources.video_file import VideoFile


def test_frames_are_their_images(tmp_path):
    grey = [np.repeat(make_texture(seed)[..., :1], 3, 2) for seed in range(3)]
    images = [*grey, np.random.default_rng(0).integers(0, 256, grey[0].shape, np.uint8)]
    write_video(tmp_path / "parts.avi", images, 5.0, len(images))
    frames = [frame.image for frame in VideoFile(tmp_path / "parts.avi")]
    np.testing.assert_array_equal(frames, images)
    assert [file.name for file in tmp_path.iterdir()] == ["parts.avi"]


def test_a_video_that_cannot_be_lossless_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "CAP_FFMPEG", cv2.CAP_OPENCV_MJPEG)
    with pytest.raises(MissingCapability, match="lossless"):
        write_video(tmp_path / "parts.avi", [make_texture(0)], 5.0, 1)
    assert list(tmp_path.iterdir()) == []


def test_no_images_make_no_video(tmp_path):
    with pytest.raises(OutputError, match="no image"):
        write_video(tmp_path / "parts.avi", [], 5.0, 0)


def test_a_full_disk_leaves_no_shorter_video(tmp_path):
    images = [np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)] * 9
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match="of 9 images"):
            write_video(tmp_path / "parts.avi", images, 5.0, len(images))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
