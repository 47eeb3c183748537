"""The public way to inspect: from a bundle and a camera to decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hvq_edge.bundle.manifest import Bundle, open_bundle
from hvq_edge.errors import InputError, SettingsError
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.fixed_category import ChosenCategoryEngine, check_takes_category
from hvq_edge.runtime.open_engine import AUTO, open_engine
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.settings import Policy
from hvq_edge.stream.sources.open_source import open_source
from hvq_edge.stream.sources.source import Source
from hvq_edge.verdict.decision import Decision

CameraAddress = int | str | Path
"""The address of a source; see :func:`hvq_edge.stream.sources.open_source.parse_address`."""


def inspect(
    bundle: Path | str | Bundle,
    camera: CameraAddress | Sequence[CameraAddress] = 0,
    *,
    precision: str = "auto",
    backend: str = "auto",
    category: str | None = None,
    policy: Policy | None = None,
) -> Iterator[Decision]:
    """Inspect one camera, video or folder of images, or several at once.

    Args:
        bundle: a bundle's folder, or an opened bundle.
        camera: a camera number, ``csi://0``, ``rtsp://...``, ``gst:PIPELINE``, a video file, a
            folder of images, ``watch:FOLDER`` or ``img_%04d.png``; or a list of these, which one
            engine judges together: ``Decision.camera`` tells them apart.
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
    several = [camera] if isinstance(camera, (int, str, Path)) else list(camera)
    sources: list[Source] = []
    try:
        for address in several:
            sources.append(open_source(address))
        inspector = Inspector(engine, opened, sources, policy=policy)
    except BaseException:
        for source in sources:
            source.close()
        engine.close()
        raise
    return _decisions(inspector, engine)


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
            f"backend {backend} runs on this machine, and the server {server} has its own.",
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
