"""``hvq-edge stream --calibrate``: thresholds from good parts, under the camera that inspects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvq_edge.cli.console import messages, progress_bars

if TYPE_CHECKING:
    from hvq_edge.stream.settings import StreamSettings


def calibrate_stream(
    settings: StreamSettings, frames: int, false_reject: float, *, as_json: bool
) -> None:
    """Learn thresholds from a camera that shows good parts only, and write them to the bundle.

    Args:
        settings: of the stream, whose region, rotation and trigger apply as they will on the line.
        frames: usable frames to take.
        false_reject: share of good parts that may be rejected at most.
        as_json: print one JSON document.

    Raises:
        SettingsError: several cameras, or a signature is required.
        HvqEdgeError: see :func:`hvq_edge.stream.calibrate.calibrate_from_stream`.
    """
    from hvq_edge.bundle.manifest import open_bundle
    from hvq_edge.cli.calibrate import show
    from hvq_edge.cli.stream_engine import open_engine_of
    from hvq_edge.errors import SettingsError
    from hvq_edge.stream.calibrate import calibrate_from_stream
    from hvq_edge.stream.capture.open_cameras import open_cameras

    if len(settings.cameras) > 1:
        raise SettingsError(
            "thresholds are learnt from one camera at a time: they are the bundle's, not a "
            "camera's.",
            next_step="give one --camera with --calibrate",
        )
    if settings.require_signature is not None:
        raise SettingsError(
            "new thresholds would end the signature that is required.",
            next_step="calibrate without --require-signature, then sign the bundle again",
        )
    bundle = open_bundle(settings.bundle)
    with open_engine_of(settings, bundle) as engine:
        cameras = open_cameras(settings.cameras)
        try:
            source = cameras.sources[0]
            messages.print(
                f"Show good parts only to {source.name}: {frames} frames are taken.",
                markup=False,
                soft_wrap=True,
            )
            with progress_bars() as bars:
                done = calibrate_from_stream(
                    engine, bundle, source, frames, false_reject=false_reject, on_progress=bars
                )
        finally:
            cameras.close()
    show(done, {done.precision: done.thresholds}, as_json=as_json)
