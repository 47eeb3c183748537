"""The engine of a run of ``hvq-edge stream``: on this machine, or a server's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvq_edge.bundle.manifest import Bundle
    from hvq_edge.runtime.engine import Engine
    from hvq_edge.stream.settings import StreamSettings


def open_engine_of(
    settings: StreamSettings, bundle: Bundle, on_choice: Callable[[str], None] | None = None
) -> Engine:
    """Open the engine that the settings ask for.

    Args:
        settings: of the stream.
        bundle: whose model runs.
        on_choice: told why it runs so on this machine.

    Raises:
        HvqEdgeError: it cannot be opened; see ``open_stream_engine``.
    """
    from hvq_edge.stream.inspection import open_stream_engine

    return open_stream_engine(
        bundle,
        precision=settings.precision,
        backend=settings.backend,
        category=settings.category,
        server=settings.server,
        on_choice=on_choice,
    )


def signed_bundle(settings: StreamSettings) -> Bundle:
    """Open the bundle of the settings; where a signature is required, only if it holds.

    Raises:
        GateFailed: the signature does not hold.
        BundleError: no bundle there.
    """
    from hvq_edge.bundle.manifest import open_bundle

    if settings.require_signature is None:
        return open_bundle(settings.bundle)
    from hvq_edge.bundle.integrity.signature import require_signature

    # Before the engine is known: an engine of the folder must be signed wherever it may be taken.
    may_run_engines = settings.server is None and settings.backend not in (
        "openvino",
        "onnxruntime",
    )
    return require_signature(
        settings.bundle, settings.require_signature, engines=may_run_engines
    ).bundle
