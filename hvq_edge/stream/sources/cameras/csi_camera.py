"""Cameras on a Jetson's CSI connector: ``csi://0``, through GStreamer and NVIDIA's camera stack."""

from __future__ import annotations

from collections import deque

from hvq_edge.errors import MissingCapability
from hvq_edge.stream.sources.cameras.gstreamer import pipeline_opener
from hvq_edge.stream.sources.cameras.live_capture import LiveCapture
from hvq_edge.stream.sources.cameras.opencv_capture import ANY_FORMAT, CaptureFormat


def csi_pipeline(sensor: int, width: int = 1920, height: int = 1080, rate: int = 30) -> str:
    """Return the GStreamer pipeline from a CSI sensor, newest image only.

    ``nvarguscamerasrc`` debayers on the image signal processor; ``nvvidconv`` brings the image
    from device memory to BGRx, and ``videoconvert`` to BGR (NVIDIA, Jetson Linux Developer Guide,
    Accelerated GStreamer).
    """
    return (
        f"nvarguscamerasrc sensor-id={sensor} "
        f"! video/x-raw(memory:NVMM),width={width},height={height},framerate={rate}/1 "
        "! nvvidconv ! video/x-raw,format=BGRx "
        "! videoconvert ! video/x-raw,format=BGR "
        "! appsink drop=true max-buffers=1"
    )


def open_csi_camera(sensor: int, wanted: CaptureFormat = ANY_FORMAT) -> LiveCapture:
    """Open a CSI camera.

    Args:
        sensor: its number.
        wanted: resolution and rate other than 1920x1080 at 30 a second.

    Raises:
        MissingCapability: nothing here reads pipelines, or the camera cannot be opened.
    """
    told: deque[str] = deque(maxlen=1)
    pipeline = csi_pipeline(sensor, **wanted.given())
    reopen = pipeline_opener(pipeline, f"csi://{sensor}", told.append)
    reader = reopen()
    if reader is None:
        because = "".join(f": {reason}" for reason in told)
        raise MissingCapability(
            f"the CSI camera csi://{sensor} cannot be opened{because}.",
            next_step="check the cable and the sensor's device tree, restart the camera service "
            "(sudo systemctl restart nvargus-daemon), and test it alone: "
            f"gst-launch-1.0 nvarguscamerasrc sensor-id={sensor} ! fakesink",
        )
    return LiveCapture(reopen, f"csi://{sensor}", reader)
