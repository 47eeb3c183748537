"""Render images of good and defective washers, as a dataset to try things with.

    python examples/rendered_washers.py washers
    hvq-edge train --data washers --preset tiny --out runs/washers
    hvq-edge export runs/washers
    hvq-edge stream --bundle runs/washers/bundle --camera washers/washer/test/defective --out found

The image in the README was made this way: these images are free of other people's rights.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 320


def render_washer(seed: int, defect: str = "") -> NDArray[np.uint8]:
    """Render one washer on a dark belt.

    Args:
        seed: of its place, turn, grain and light.
        defect: empty, `scratch`, `dent` or `burr`.

    Returns:
        uint8 [320, 320, 3], RGB.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    centre = SIDE / 2 + rng.uniform(-5, 5, 2)
    radius = np.hypot(x - centre[0], y - centre[1])
    angle = np.arctan2(y - centre[1], x - centre[0])
    outer, inner = 118 + rng.uniform(-1, 1), 52 + rng.uniform(-1, 1)
    belt = 42 + cv2.GaussianBlur(rng.normal(0, 14, (SIDE, SIDE)), (0, 0), 1.4) * 2
    grooves = 5 * np.sin(radius * 1.9 + rng.uniform(0, 6))  # turned on a lathe
    light = 26 * np.cos(2 * (angle - rng.uniform(-0.15, 0.15)))
    steel = 158 + grooves + light + rng.normal(0, 4, (SIDE, SIDE))
    edge = 6.0
    bevel = np.clip((outer - radius) / edge, 0, 1) * np.clip((radius - inner) / edge, 0, 1)
    image = belt + (steel - belt) * np.clip(bevel * 3, 0, 1) - 25 * (bevel * (1 - bevel)) * 4
    turn = rng.uniform(0, 2 * np.pi)
    middle = (outer + inner) / 2
    spot = centre + middle * np.array([np.cos(turn), np.sin(turn)])
    if defect == "scratch":
        along = np.array([np.cos(turn + 0.9), np.sin(turn + 0.9)]) * rng.uniform(24, 34)
        ends = [tuple(int(v) for v in spot + sign * along) for sign in (-1, 1)]
        scratch = np.zeros((SIDE, SIDE), np.uint8)
        cv2.line(scratch, ends[0], ends[1], 255, 3, cv2.LINE_AA)
        image -= 80 * (scratch / 255.0) * np.clip(bevel * 3, 0, 1)
    elif defect == "dent":
        distance = np.hypot(x - spot[0], y - spot[1])
        image += 60 * np.exp(-((distance / 9) ** 2)) - 75 * np.exp(-((distance / 15) ** 2))
    elif defect == "burr":
        rim = centre + outer * np.array([np.cos(turn), np.sin(turn)])
        image += 110 * np.exp(-((np.hypot(x - rim[0], y - rim[1]) / 9) ** 2))
    tint = image[..., None] + np.array([0, 1, 4], np.float32)
    return np.clip(np.rint(tint), 0, 255).astype(np.uint8)


def main() -> None:
    """Write the folder in MVTec layout."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=120, help="good training images")
    parser.add_argument("--test", type=int, default=30, help="test images of each kind")
    arguments = parser.parse_args()
    parts = {"train/good": arguments.train, "test/good": arguments.test}
    parts["test/defective"] = arguments.test
    seed = 0
    for part, count in parts.items():
        folder = arguments.folder / "washer" / part
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            seed += 1
            defect = ("scratch", "dent", "burr")[i % 3] if part.endswith("defective") else ""
            image = render_washer(seed, defect)
            cv2.imwrite(str(folder / f"{i:03}.png"), image[:, :, ::-1])
    print(f"{arguments.folder}: {arguments.train} to train, {2 * arguments.test} to test")


if __name__ == "__main__":
    main()
