"""The public way to inspect: from a bundle and a camera to decisions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.common.redaction import shown_server
from hvq_edge.data.images import rgb_from_memory
from hvq_edge.errors import ImageError, InputError, SettingsError
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.fixed_category import ChosenCategoryEngine, check_takes_category
from hvq_edge.runtime.open_engine import AUTO, open_engine
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.settings import Policy
from hvq_edge.stream.sources.open_source import open_source
from hvq_edge.stream.sources.source import Frame, Image, Source, arrived, lost
from hvq_edge.verdict.decision import Decision

CameraAddress = int | str | Path
"""The address of a source; see :func:`hvq_edge.stream.sources.open_source.parse_address`."""


class MemoryImages:
    """Images that a program gives, each once, in order.

    One that cannot be used is a lost frame with the reason. The iterable is asked for the next
    image when there is room for it, on the thread that captures; what it raises ends the
    inspection.

    Args:
        images: each as :func:`hvq_edge.data.images.rgb_from_memory` takes it.
    """

    live = False
    name = "images"
    frames_per_second = None

    def __init__(self, images: Iterable[object]) -> None:
        self._images = images
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        """Give one frame an image."""
        for index, image in enumerate(self._images):
            if self._closed.is_set():
                return
            try:
                yield arrived(index, rgb_from_memory(image))
            except ImageError as error:
                yield lost(index, error.cause)

    def close(self) -> None:
        """End the iteration after the image under way."""
        self._closed.set()


def inspect(
    bundle: Path | str | Bundle,
    camera: CameraAddress | Image | Iterable[Any] = 0,
    *,
    precision: str = "auto",
    backend: str = "auto",
    category: str | None = None,
    policy: Policy | None = None,
) -> Iterator[Decision]:
    """Inspect one camera, video or folder of images, or several at once; or images from memory.

    Args:
        bundle: a bundle's folder, or the run's that has it; or an opened bundle.
        camera: a camera number, ``csi://0``, ``rtsp://...``, ``genicam://SERIAL``,
            ``gst:PIPELINE``, a video or image file, a folder of images, ``watch:FOLDER`` or
            ``img_%04d.png``; or a list of these, which one engine judges together:
            ``Decision.camera`` tells them apart. Or an image from memory (uint8
            ``[height, width, 3]`` RGB, or a Pillow image), or an iterable of such images, which
            need not end: it is asked for the next one when there is room for it.
        precision: ``fp32``, ``fp16``, ``int8``, ``int8-fp16`` or ``auto``.
        backend: ``openvino``, ``onnxruntime`` or ``auto``.
        category: judge every frame as this category; not with a graph that chooses itself.
        policy: ``latest``: the newest frame wins, older ones are dropped; ``all``: none is dropped.
            By default ``latest`` for a camera and ``all`` for files.

    Returns:
        An iterator over decisions, one a frame that is not dropped. Everything is open when this
        function returns, and closed when the iterator ends or is closed.

    Raises:
        InputError: the bundle, an option or the source cannot be used.
        MissingCapability: the camera, or a library, is not there.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(Path(bundle))
    engine = open_stream_engine(opened, precision=precision, backend=backend, category=category)
    sources: list[Source] = []
    try:
        for one in _several(camera):
            opened_one = one if isinstance(one, MemoryImages) else open_source(one)
            sources.append(opened_one)  # those before a fault are closed
        inspector = Inspector(engine, opened, sources, policy=policy)
    except BaseException:
        for source in sources:
            source.close()
        engine.close()
        raise
    return _decisions(inspector, engine)


def _several(
    camera: CameraAddress | Image | Iterable[Any],
) -> Sequence[CameraAddress | MemoryImages]:
    """Return the sources that a camera stands for: addresses, or one of images from memory."""
    if isinstance(camera, (int, str, Path)):
        return [camera]
    if isinstance(camera, Sequence):
        addresses = [one for one in camera if isinstance(one, (int, str, Path))]
        if len(addresses) == len(camera):
            return addresses
        if addresses:
            raise InputError(
                "addresses of cameras and images from memory are mixed in one list.",
                next_step="inspect them one after the other",
            )
    if isinstance(camera, Iterable) and getattr(camera, "ndim", 4) == 4:
        return [MemoryImages(camera)]
    return [MemoryImages([rgb_from_memory(camera)])]


def open_stream_engine(
    bundle: Bundle,
    *,
    precision: str = "auto",
    backend: str = "auto",
    category: str | None = None,
    server: str | None = None,
    on_choice: Callable[[str], None] | None = None,
) -> Engine:
    """Open the engine for a stream: one that needs no category from frame to frame.

    For a bundle that must be told what it sees it is a
    :class:`hvq_edge.runtime.fixed_category.ChosenCategoryEngine`, which begins with ``category``.

    Args:
        bundle: whose model runs.
        precision: a precision or ``auto``.
        backend: a backend of this machine or ``auto``; not with ``server``.
        category: what the frames show; not with a graph that chooses itself.
        server: address of a Triton server that runs the bundle's model, instead of this machine.
        on_choice: see :func:`hvq_edge.runtime.open_engine.open_engine`.

    Raises:
        InputError: the graph needs a category and none is given, or it has no such one; see also
            :func:`hvq_edge.runtime.open_engine.open_engine` and
            :func:`hvq_edge.runtime.triton.engine.open_triton_engine`.
        SettingsError: a backend together with a server.
        GateFailed: the engine gives other answers than the bundle's known ones.
    """
    mode = bundle.manifest.category_mode
    if category is None and mode == "input":
        raise InputError(
            f"the bundle {bundle.path} must be told the category of what it sees.",
            next_step=f"name it with --category: {', '.join(bundle.manifest.categories)}",
        )
    if category is not None:
        check_takes_category(bundle, category)  # before a server is asked
    if server is None:
        engine = open_engine(bundle, precision=precision, backend=backend, on_choice=on_choice)
    elif backend == AUTO:
        from hvq_edge.runtime.triton.engine import open_triton_engine

        engine = open_triton_engine(server, bundle, precision=precision)
    else:
        raise SettingsError(
            f"backend {backend} runs on this machine, and the server {shown_server(server)} has "
            "its own.",
            next_step="leave out one of the two",
        )
    if category is None or mode == "one":
        return engine
    return ChosenCategoryEngine(engine, category)


def _decisions(inspector: Inspector, engine: Engine) -> Iterator[Decision]:
    try:
        with inspector:
            yield from inspector
    finally:
        engine.close()
