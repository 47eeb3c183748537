"""Known answers: a few real images, and what each precision of a bundle is to say of them.

``hvq-edge export`` learns them and they travel with the bundle, so that every engine is held
against them where it runs (:mod:`hvq_edge.runtime.engine_check`). A library may compute a graph
wrongly on one kind of processor and say nothing.
"""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.manifest import BundleManifest, Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.wording import counted
from hvq_edge.errors import GateFailed
from hvq_edge.runtime.engine import Engine, EngineOutput, Frames

ANSWERS_NAME = "known-answers.npz"
"""As ``hvq-edge export`` writes it."""
CHECK_NAME = "verify/check.npz"
"""As ``hvq-edge verify`` writes it where the export left none."""
MOST_IMAGES = 16
MOST_UNPACKED = 64 << 20
"""Bytes that the file may unpack to: one of 5 MB can hold 5 GB of zeros."""
_FORMAT = "hvq-edge-known-answers/1"
_MARGIN = "margin"
BROKEN_ARCHIVE = (
    *(ValueError, TypeError, KeyError, OverflowError, EOFError, OSError, struct.error),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError),
    *(tokenize.TokenError, SyntaxError, MemoryError),
)
"""What zipfile and numpy raise over a file that lies about itself."""


@dataclass(frozen=True)
class Deviation:
    """How far outputs are from the known ones, each on the image where it is furthest."""

    codes: float = math.inf
    """Share of codes that differ, on the worst level."""
    map: float = math.inf
    """``|other - known| / |known|`` over the cells of a map (Euclidean)."""
    score: float = math.inf
    """Absolute."""
    margin: float = math.inf
    """Absolute; 0 where the category is given."""

    def beyond(self, tolerance: Deviation) -> tuple[str, ...]:
        """Say in words what is further off than it may be; what is no number is."""
        said = {
            "codes": f"{1 - self.codes:.1%} of codes are equal, right are {1 - tolerance.codes:.1%}"
            " or more",
            "map": f"the map is off by {self.map:.2g}, right is up to {tolerance.map:.2g}",
            "score": f"the score is off by {self.score:.3g}, right is up to {tolerance.score:.3g}",
            "margin": f"the margin is off by {self.margin:.2g}, right is up to "
            f"{tolerance.margin:.2g}",
        }
        ours, most = asdict(self), asdict(tolerance)
        return tuple(words for name, words in said.items() if not ours[name] <= most[name])


@dataclass(frozen=True)
class Answer:
    """What is to come out of one precision, and how exactly."""

    category: NDArray[np.int32]
    """``[images]``."""
    score: NDArray[np.float32]
    """``[images]``."""
    map: NDArray[np.float32]
    """``[images, height / 16, width / 16]``."""
    codes: NDArray[np.int32]
    """``[images, levels, tokens]``."""
    margin: NDArray[np.float32] | None
    """``[images]``; ``None`` where the category is given."""
    tolerance: Deviation


@dataclass(frozen=True)
class KnownAnswers:
    """Images, and what is to come out of each precision."""

    frames: Frames
    """``[images, height, width, 3]``."""
    category: NDArray[np.int32]
    """``[images]``: what they show, as an index in the bundle's categories."""
    precisions: Mapping[Precision, Answer]
    """Of every model of the bundle."""


def write_known_answers(path: Path, answers: KnownAnswers) -> None:
    """Write known answers as ``.npz``; the folder must be there."""
    arrays: dict[str, Any] = {
        "format": _FORMAT,
        "frames": answers.frames,
        "category": answers.category,
    }
    for precision, answer in answers.precisions.items():
        for name in ("category", "score", "map", "codes", _MARGIN):
            value = getattr(answer, name)
            if value is not None:
                arrays[f"{precision}.{name}"] = value
        arrays[f"{precision}.tolerance"] = np.array(list(asdict(answer.tolerance).values()))
    np.savez_compressed(path, **arrays)


def answers_file(bundle: Bundle) -> str | None:
    """Return the name of the file of a bundle's known answers; ``None``: its manifest has none."""
    return next(
        (name for name in (ANSWERS_NAME, CHECK_NAME) if name in bundle.manifest.files), None
    )


def read_known_answers(bundle: Bundle) -> KnownAnswers | None:
    """Return a bundle's known answers; ``None``: it has none in its manifest.

    Raises:
        GateFailed: they cannot be read, lack a model of the bundle, or are none that could tell a
            right engine from a wrong one.
        BundleError: the file was changed.
    """
    name = answers_file(bundle)
    if name is None:
        return None
    content = bundle.read(name)
    try:
        arrays = unpacked(content, MOST_UNPACKED)
        if str(arrays["format"]) != _FORMAT:
            raise ValueError(f"it is of another format ({str(arrays['format'])[:40]})")
        return _answers(arrays, bundle.manifest)
    except BROKEN_ARCHIVE as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise GateFailed(
            f"{bundle.path / name} holds no known answers: {why}.",
            next_step="run hvq-edge export again, or copy the bundle again",
        ) from error


def of_nothing(answer: Answer) -> Deviation:
    """Return how far an engine is off that gives no code rightly, and zeros for all else.

    A tolerance that is as large could not tell a right engine from a wrong one.
    """
    scale = max(float(np.abs(values).max()) for values in (answer.map, answer.score))
    return Deviation(codes=1.0, map=1.0, score=scale, margin=1.0)


def deviation(engine: Engine, answers: KnownAnswers, answer: Answer) -> tuple[Deviation, str]:
    """Run an engine on the known images, one at a time as a camera gives them.

    Args:
        engine: of the precision that ``answer`` is of.
        answers: the images.
        answer: what is to come out.

    Returns:
        How far off it is, and in words what no tolerance allows; empty: nothing.
    """
    told = engine.info.category_mode == "input"
    outputs = [
        engine.run(answers.frames[i : i + 1], answers.category[i : i + 1] if told else None)
        for i in range(len(answers.frames))
    ]
    return compare(join(outputs), answer, known_category=engine.info.category_mode != "auto")


def join(outputs: list[EngineOutput]) -> EngineOutput:
    """Return the outputs of several batches as that of one."""
    return EngineOutput(
        score=np.concatenate([one["score"] for one in outputs]),
        map=np.concatenate([one["map"] for one in outputs]),
        codes=np.concatenate([one["codes"] for one in outputs]),
        category=np.concatenate([one["category"] for one in outputs]),
        margin=np.concatenate([one["margin"] for one in outputs]),
    )


def compare(output: EngineOutput, answer: Answer, *, known_category: bool) -> tuple[Deviation, str]:
    """Compare outputs with known ones; see :func:`deviation`."""
    score, heat = output["score"].astype(np.float64), output["map"].astype(np.float64)
    if not (np.isfinite(score).all() and np.isfinite(heat).all()):
        return Deviation(), "gives a score or a map that is not finite"
    if np.isnan(output["margin"]).any():
        return Deviation(), "gives a margin that is no number"
    if not np.array_equal(output["category"], answer.category):
        return Deviation(), "takes a known image for another category"
    if output["codes"].shape != answer.codes.shape or heat.shape != answer.map.shape:
        return Deviation(), "gives codes or a map of another size"
    codes = float((output["codes"] != answer.codes).mean(2).max())
    known = answer.map.astype(np.float64)
    size = np.sqrt((known**2).sum((1, 2)))
    off = np.sqrt(((heat - known) ** 2).sum((1, 2)))
    maps = float((off / np.maximum(size, np.finfo(np.float32).tiny)).max())
    margin = 0.0
    if answer.margin is not None and not known_category:
        margin = float(np.abs(output["margin"].astype(np.float64) - answer.margin).max())
    off_score = float(np.abs(score - answer.score).max())
    return Deviation(codes, maps, off_score, margin), ""


def unpacked(content: bytes, most: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz``; nothing is unpacked or allocated beyond what is allowed.

    Args:
        content: the whole file.
        most: bytes that it may unpack to.

    Raises:
        ValueError: it would be larger, or is no such file; others as zipfile raises them.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(BytesIO(content)) as archive:
        total = sum(info.file_size for info in archive.infolist())
        if total > most:
            raise ValueError(f"it unpacks to {total} bytes, more than {most}")
        for info in archive.infolist():
            with archive.open(info) as member:
                packed = BytesIO(member.read(info.file_size))  # no more, whatever follows in there
            if np.lib.format.read_magic(packed) != (1, 0):
                raise ValueError(f"{info.filename} is of another version")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(packed)
            data = packed.read()
            # numpy would make room for what the header says before it looks for the data.
            if fortran or dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
                raise ValueError(f"{info.filename} is not as large as it says")
            values = np.frombuffer(data, dtype).reshape(shape).copy()
            arrays[info.filename.removesuffix(".npy")] = values
    return arrays


def _answers(arrays: Mapping[str, NDArray[Any]], manifest: BundleManifest) -> KnownAnswers:
    frames, category = _images(arrays, manifest)
    count, tiling = len(frames), manifest.tiling
    precisions: dict[Precision, Answer] = {}
    for name in manifest.models:  # of all: an engine of a model without an answer would go unseen
        if f"{name}.score" not in arrays:
            raise ValueError(f"it has no answer at {name}")
        answer = Answer(
            category=_array(arrays, f"{name}.category", np.int32, (count,)),
            score=_array(arrays, f"{name}.score", np.float32, (count,)),
            map=_array(arrays, f"{name}.map", np.float32, (count, *tiling.map_shape)),
            codes=_array(
                arrays, f"{name}.codes", np.int32, (count, manifest.levels, tiling.tokens)
            ),
            margin=_array(arrays, f"{name}.{_MARGIN}", np.float32, (count,))
            if manifest.category_mode == "auto"
            else None,
            tolerance=Deviation(
                *_array(arrays, f"{name}.tolerance", np.float64, (len(fields(Deviation)),)).tolist()
            ),
        )
        most = asdict(of_nothing(answer))
        for output, value in asdict(answer.tolerance).items():
            if not (value == 0.0 or 0.0 < value < most[output]):
                raise ValueError(f"a tolerance of {value:g} for {output} at {name} tells nothing")
        precisions[name] = answer
    return KnownAnswers(frames, category, precisions)


def _images(
    arrays: Mapping[str, NDArray[Any]], manifest: BundleManifest
) -> tuple[Frames, NDArray[np.int32]]:
    count = len(np.atleast_1d(arrays["frames"]))
    if not 0 < count <= MOST_IMAGES:
        raise ValueError(f"it has {counted(count, 'image')}")
    frames = _array(arrays, "frames", np.uint8, (count, *manifest.frame_shape, 3))
    category = _array(arrays, "category", np.int32, (count,))
    if not ((category >= 0) & (category < len(manifest.categories))).all():
        raise ValueError("an image is of no category of the bundle")
    return frames, category


def _array(
    arrays: Mapping[str, NDArray[Any]], name: str, dtype: type, shape: tuple[int, ...]
) -> NDArray[Any]:
    found = arrays[name]
    if found.dtype != dtype or found.shape != shape:
        raise ValueError(
            f"{name} is {found.dtype} {list(found.shape)}, not {np.dtype(dtype)} {list(shape)}"
        )
    # A tolerance of NaN or infinity would pass every engine.
    if not np.isfinite(found).all():
        raise ValueError(f"{name} is not finite")
    return found
