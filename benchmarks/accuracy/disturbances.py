"""What a camera does to images that the dataset's camera did not: pure functions of pixels.

Images are uint8 ``[height, width, 3]``, RGB, before the model's own fit. Every function gives the
same shape, but for :func:`resampled`, and the image itself where its strength is 0. The same
arguments give the same pixels. Where an image is moved, it is mirrored at its border: a real
camera would see more of the same.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np

from hvq_edge.data.versions import (
    Pixels,
    blurred,
    brightened,
    contrasted,
    jpeg,
    levels,
    moved,
    noisy,
    rounded,
    tinted,
)
from hvq_edge.errors import MissingCapability

FULL_HD = 1920 * 1080
"""Pixels of the camera whose bit rate :func:`h264` speaks of."""
FRAMES_PER_SECOND = 25
MOVING = 12
"""Frames in which a part comes to its place before :func:`h264` takes the last one."""
RESAMPLING = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)


def h264(image: Pixels, megabits: float) -> Pixels:
    """Take the last frame of a video in which the part comes to its place.

    Args:
        image: the part in its place.
        megabits: a second, of a camera with 1920x1080 pixels and 25 frames a second; an image of
            fewer pixels gets as many bits a pixel.

    Raises:
        MissingCapability: neither PyAV nor the program ``ffmpeg`` is there.
    """
    height, width = image.shape[:2]
    even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    video = [levels(moved(even, step / 100, 0)) for step in range(MOVING - 1, -1, -1)]
    bits = round(1e6 * megabits * even.shape[0] * even.shape[1] / FULL_HD)
    # As cameras encode: no frame waits for later ones. One thread: the same on all machines.
    options = {"preset": "veryfast", "tune": "zerolatency", "threads": "1"}
    options |= {"maxrate": str(bits), "bufsize": str(bits)}
    if find_spec("av") is not None:
        last = _through_pyav(video, bits, options)
    elif shutil.which("ffmpeg"):
        last = _through_ffmpeg(video, bits, options)
    else:
        raise MissingCapability("H.264 needs PyAV or ffmpeg.", next_step="pip install av")
    return levels(last[:height, :width])


def gamma(image: Pixels, exponent: float) -> Pixels:
    """Raise levels, as shares of 255, to a power."""
    return rounded(255 * (image / 255) ** exponent)


def resampled(image: Pixels, side: int, method: int) -> Pixels:
    """Resize to a square by one of OpenCV's methods, which do not average: ``[side, side, 3]``."""
    return levels(cv2.resize(image, (side, side), interpolation=method))


class Shot(NamedTuple):
    """Which image is disturbed, and for which model."""

    number: int
    """Of the image: where a disturbance goes two ways, even ones go one and odd ones the other."""
    side: int
    """Of the model's input, in pixels."""

    @property
    def sign(self) -> int:
        """1 or -1."""
        return -1 if self.number % 2 else 1

    @property
    def direction(self) -> tuple[float, float]:
        """A unit vector; images in a row have very different ones."""
        return float(np.cos(2.4 * self.number)), float(np.sin(2.4 * self.number))


Disturb = Callable[[Pixels, Shot], Pixels]


def _strengths(
    label: str, values: Sequence[float], apply: Callable[[Pixels, float, Shot], Pixels]
) -> Mapping[str, Disturb]:
    return {label.format(value): partial(_applied, apply, value) for value in values}


def _applied(
    apply: Callable[[Pixels, float, Shot], Pixels], value: float, image: Pixels, shot: Shot
) -> Pixels:
    return apply(image, value, shot)


def _either_way(apply: Callable[[Pixels, float], Pixels]) -> Callable[..., Pixels]:
    return lambda image, per_cent, shot: apply(image, shot.sign * per_cent / 100)


DISTURBANCES: Mapping[str, Mapping[str, Disturb]] = {
    "JPEG": _strengths("quality {}", (95, 75, 50), lambda i, q, _: jpeg(i, int(q))),
    "H.264": _strengths("{} Mbit/s", (8, 4, 2), lambda i, rate, _: h264(i, rate)),
    "blur": _strengths(
        "{} px",
        (0.5, 1, 2),  # of the model's input: what reaches it is the same for every camera
        lambda i, px, shot: blurred(i, *(px * n / shot.side for n in i.shape[1::-1])),
    ),
    "noise": _strengths("{} levels", (2, 5, 10), lambda i, s, shot: noisy(i, s, shot.number)),
    "brightness": _strengths("±{} %", (5, 10, 20), _either_way(brightened)),
    "contrast": _strengths("±{} %", (5, 10, 20), _either_way(contrasted)),
    "white balance": _strengths("±{} %", (5, 10, 20), _either_way(tinted)),
    "gamma": _strengths("{}", (1.1, 1.25, 1.5), lambda i, g, shot: gamma(i, g**shot.sign)),
    "shift": _strengths(
        "{} %",
        (1, 2, 4),
        lambda i, p, shot: moved(i, *(p / 100 * along for along in shot.direction)),
    ),
    "rotation": _strengths("±{}°", (1, 2, 5), lambda i, a, shot: moved(i, degrees=shot.sign * a)),
    "scale": _strengths("±{} %", (2, 5, 10), _either_way(lambda i, s: moved(i, scale=1 + s))),
    "resampling": {
        name: partial(_applied, lambda i, m, shot: resampled(i, shot.side, int(m)), method)
        for name, method in zip(("bilinear", "bicubic", "nearest"), RESAMPLING, strict=True)
    },
}
"""By name: three strengths, the mildest first, by what they are called."""


def _through_pyav(video: Sequence[Pixels], bits: int, options: Mapping[str, str]) -> Pixels:
    import av

    file = BytesIO()
    with av.open(file, "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=dict(options))
        stream.height, stream.width = video[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", bits
        for image in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r", format="h264") as container:
        *_, last = container.decode(video=0)
        return levels(last.to_ndarray(format="rgb24"))


def _through_ffmpeg(video: Sequence[Pixels], bits: int, options: Mapping[str, str]) -> Pixels:
    height, width = video[0].shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    given = [word for key, value in options.items() for word in (f"-{key}", value)]
    size = ["-s", f"{width}x{height}", "-r", str(FRAMES_PER_SECOND)]
    coded = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-b:v", str(bits), *given, "-f", "h264"]
    data = np.stack(video).tobytes()
    for words in ([*raw, *size, "-i", "-", *coded], ["-f", "h264", "-i", "-", *raw]):
        command = ["ffmpeg", "-v", "error", *words, "-"]
        data = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
    return levels(np.frombuffer(data, np.uint8).reshape(-1, height, width, 3)[-1])
