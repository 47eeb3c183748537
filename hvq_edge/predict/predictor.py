"""``load`` and ``predict``: the verdict on images, as the line would give it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import IOBase
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import calibration_scores_of, thresholds_of, typical_scores_of
from hvq_edge.common.closeable import Closeable
from hvq_edge.data.images import fit_image, rgb_from_memory
from hvq_edge.errors import ImageError, InputError
from hvq_edge.predict.images import NamedImage, find_images
from hvq_edge.predict.result import Result
from hvq_edge.runtime.engine import Engine, EngineInfo
from hvq_edge.stream.capture.part_number import PartReader
from hvq_edge.stream.inspection import open_stream_engine
from hvq_edge.stream.sources.source import Frame, Image
from hvq_edge.verdict.calibration_scores import p_value
from hvq_edge.verdict.decision import decide
from hvq_edge.verdict.decision_rule import DecisionRule
from hvq_edge.verdict.decision_settings import DecisionSettings
from hvq_edge.verdict.image_checks import SeenFrame
from hvq_edge.verdict.judgement import Judgement, judgements

BATCH = 8
"""Images that the engine is given at once: on a processor more are no faster."""


def load(
    target: Path | str | Bundle = "runs/latest",
    *,
    precision: str = "auto",
    backend: str = "auto",
    category: str | None = None,
    on_choice: Callable[[str], None] | None = None,
) -> Predictor:
    """Open what judges images: the model of a run or a bundle, on the engine that is fastest here.

    Args:
        target: a bundle's folder, an opened bundle, or a run that was exported.
        precision: ``fp32``, ``fp16``, ``int8``, ``int8-fp16`` or ``auto``.
        backend: ``openvino``, ``onnxruntime``, ``tensorrt``, ``tensorrt-rtx`` or ``auto``.
        category: judge every image as this category; not with a graph that chooses itself.
        on_choice: told why it is this engine.

    Raises:
        InputError: no bundle there, or an option that does not fit it.
        GateFailed: the engine gives other answers than the bundle's known ones.
        MissingCapability: a library is not installed.

    Example::

        with hvq_edge.load("runs/latest") as model:
            print(model.predict("part.png").verdict)
    """
    bundle = target if isinstance(target, Bundle) else open_bundle(Path(target))
    engine = open_stream_engine(
        bundle, precision=precision, backend=backend, category=category, on_choice=on_choice
    )
    return Predictor(engine, bundle)


class Predictor(Closeable):
    """Judges images with one engine. One thread at a time; closes its engine.

    Args:
        engine: takes no category, or is told one.
        bundle: thresholds of the engine's precision, and image limits.
    """

    def __init__(self, engine: Engine, bundle: Bundle) -> None:
        self._engine = engine
        self._bundle = bundle
        self._precision = engine.info.precision
        self._checks = bundle.checks
        self._rule = DecisionRule(DecisionSettings())
        self._good_scores = calibration_scores_of(bundle, self._precision)
        self._typical = typical_scores_of(bundle, self._precision)
        self.thresholds = thresholds_of(bundle, self._precision)
        """Scores above are rejects; by category."""

    @property
    def info(self) -> EngineInfo:
        """What judges."""
        return self._engine.info

    @property
    def bundle(self) -> Bundle:
        """What it was opened on."""
        return self._bundle

    @overload
    def predict(self, images: list[Any] | tuple[Any, ...]) -> list[Result]: ...
    @overload
    def predict(self, images: object) -> Any: ...  # noqa: ANN401  # a folder gives several
    def predict(self, images: Any) -> Result | list[Result]:
        """Judge an image, or several.

        Args:
            images: the path or the ``http`` address of an image, an array ``[height, width, 3]``
                of uint8, RGB (grey, alpha and uint16 are understood), or a PIL image; or a folder,
                a pattern as ``part_*.png``, a list or another iterable of these.

        Returns:
            A :class:`Result` for one image; for a folder, a pattern or an iterable a list, in
            which an image that cannot be read is no decision, as on the line.

        Raises:
            ImageError: the one image cannot be read.
            InputError: there is no such file, or no image in the folder.
        """
        found, several = _named(images)
        results = list(self.each(found, strict=not several))
        return results if several else results[0]

    def each(
        self,
        images: Iterable[NamedImage],
        *,
        strict: bool = False,
        batch: int = BATCH,
        parts: PartReader | None = None,
    ) -> Iterator[Result]:
        """Judge images one after the other, a batch at a time; give a result for each, in order.

        Args:
            images: read when their turn comes.
            strict: raise at an image that cannot be read; else it is no decision, as on the line.
            batch: images that the engine is given at once.
            parts: finds the serial number of the part that an image shows.

        Raises:
            ImageError: an image cannot be read, with ``strict``.
        """
        waiting = iter(images)
        while taken := list(islice(waiting, batch)):
            began = time.monotonic()
            prepared = [self._prepare(one, strict=strict) for one in taken]
            fit = [one for one in prepared if one.fit]
            asked = iter(self._judge([one.seen.fitted for one in fit if one.seen is not None]))
            for one in prepared:
                number = "" if parts is None else parts.read(one.name, one.image, "")
                yield self._result(one, next(asked) if one.fit else None, began, number)

    def close(self) -> None:
        """Close the engine; calling it twice is fine."""
        self._engine.close()

    def _prepare(self, named: NamedImage, *, strict: bool) -> _Prepared:
        try:
            image = named.read()
            seen = SeenFrame(fit_image(image, self.info.frame_shape))
        except ImageError as error:
            if strict:
                raise
            return _Prepared(named.name, None, None, error.cause)
        return _Prepared(named.name, image, seen, self._checks.before(seen))

    def _judge(self, fitted: list[NDArray[np.uint8]]) -> list[Judgement]:
        if not fitted:
            return []
        return judgements(self._engine.run(np.stack(fitted)), self.info.categories)

    def _result(
        self, one: _Prepared, judgement: Judgement | None, began: float, part: str
    ) -> Result:
        fault = one.fault
        if judgement is not None and one.seen is not None:
            fault = self._checks.after(one.seen, judgement.category)
        lost = fault or "" if one.image is None else ""
        frame = Frame(0, time.time(), one.image, one.name, lost, part=part)
        decision = decide(
            frame,
            fault,
            judgement,
            self.thresholds,
            precision=self._precision,
            latency_ms=(time.monotonic() - began) * 1e3,
        )
        decision = self._rule.apply(decision, frame, self.thresholds)
        category = decision.category or ""
        return Result(
            name=one.name,
            image=one.image,
            threshold=self.thresholds.get(category),
            precision=self._precision,
            decision=replace(
                decision, p_value=p_value(self._good_scores, decision.category, decision.score)
            ),
            typical=self._typical.get(category),
        )


@dataclass(frozen=True, eq=False)
class _Prepared:
    """An image made ready for the engine, or known to be unfit for it."""

    name: str
    image: Image | None
    seen: SeenFrame | None
    fault: str | None

    @property
    def fit(self) -> bool:
        return self.seen is not None and self.fault is None


def _named(images: Any) -> tuple[list[NamedImage], bool]:  # noqa: ANN401  # anything
    """Return images by name, and whether several were asked for."""
    if isinstance(images, (str, Path)):
        found = find_images(images)
        return found, not found[0].alone
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    if isinstance(images, np.ndarray) or hasattr(images, "getexif"):
        return [_held(images)], False
    if not isinstance(images, Iterable) or isinstance(images, (bytes, Mapping, IOBase)):
        raise InputError(
            f"an image cannot be {type(images).__name__}.",
            next_step="give a path, an array, a PIL image, or a list of these",
        )
    return [
        named
        for one in images
        for named in (find_images(one) if isinstance(one, (str, Path)) else [_held(one)])
    ], True


def _held(value: Any) -> NamedImage:  # noqa: ANN401  # an array, or what Pillow gives
    return NamedImage("", "", lambda: rgb_from_memory(value))
