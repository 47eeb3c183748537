"""``hvq-edge stream``: inspect cameras, a video or a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hvq_edge.cli.console import results
from hvq_edge.cli.options import JsonOption
from hvq_edge.verdict.defaults import FALSE_REJECT

INTERRUPTED = 130
"""Share of good parts that calibrated thresholds reject at most, unless another is given."""

_CAMERAS = "Cameras"
_TRIGGERS = "Triggers"
_MODEL = "Model and engine"
_DECISIONS = "Decisions"
_OUTPUT = "What is recorded and shown"
_PAGE = "Live page"
_CALIBRATION = "Calibration"
_SETTINGS = "Settings file"


def stream(
    camera: Annotated[
        list[str] | None,
        typer.Option(
            "--camera",
            help="Number of a USB camera (0), csi://0, rtsp://..., gst:PIPELINE, a video file, a "
            "folder of images, watch:FOLDER, or img_%04d.png. May be given several times.",
            show_default=False,
            rich_help_panel=_CAMERAS,
        ),
    ] = None,
    play: Annotated[
        bool,
        typer.Option(
            "--play",
            help="Show a file as a camera would: at its own rate, over and over.",
            rich_help_panel=_CAMERAS,
        ),
    ] = False,
    max_frames: Annotated[
        int | None,
        typer.Option(
            "--max-frames",
            min=1,
            help="Stop each camera after N frames.",
            show_default=False,
            rich_help_panel=_CAMERAS,
        ),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            "--resolution",
            help="WIDTHxHEIGHT to ask a USB or CSI camera for.",
            rich_help_panel=_CAMERAS,
            show_default=False,
        ),
    ] = None,
    fps: Annotated[
        int | None,
        typer.Option(
            "--fps",
            help="Frames a second to ask such a camera for.",
            rich_help_panel=_CAMERAS,
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            "--every",
            help="Look at one frame of N, to spare the processor.",
            rich_help_panel=_CAMERAS,
            show_default=False,
        ),
    ] = None,
    rotate: Annotated[
        int | None,
        typer.Option(
            "--rotate",
            help="Turn frames clockwise: 90, 180 or 270.",
            rich_help_panel=_CAMERAS,
            show_default=False,
        ),
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option(
            "--roi",
            help="Look at this rectangle only: X,Y,WIDTH,HEIGHT in pixels.",
            rich_help_panel=_CAMERAS,
            show_default=False,
        ),
    ] = None,
    roi_polygon: Annotated[
        str | None,
        typer.Option(
            "--roi-polygon",
            help="Look at this polygon only: X1,Y1;X2,Y2;X3,Y3;...",
            rich_help_panel=_CAMERAS,
            show_default=False,
        ),
    ] = None,
    trigger_file: Annotated[
        Path | None,
        typer.Option(
            "--trigger-file",
            help="Take a frame when this file appears; the file is removed.",
            rich_help_panel=_TRIGGERS,
            show_default=False,
        ),
    ] = None,
    trigger_port: Annotated[
        int | None,
        typer.Option(
            "--trigger-port",
            help="Take a frame at POST /trigger on this port of 127.0.0.1.",
            rich_help_panel=_TRIGGERS,
            show_default=False,
        ),
    ] = None,
    trigger_frames: Annotated[
        int | None,
        typer.Option(
            "--trigger-frames",
            help="Frames for each trigger. Default: 1.",
            rich_help_panel=_TRIGGERS,
            show_default=False,
        ),
    ] = None,
    trigger_delay: Annotated[
        float | None,
        typer.Option(
            "--trigger-delay",
            help="Seconds from the trigger to the first frame that counts.",
            rich_help_panel=_TRIGGERS,
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            help="Bundle folder that hvq-edge export wrote. Default: runs/latest/bundle.",
            show_default=False,
            rich_help_panel=_MODEL,
        ),
    ] = None,
    require_signature: Annotated[
        Path | None,
        typer.Option(
            "--require-signature",
            help="File of public keys: use the bundle only if one of them signed it.",
            show_default=False,
            rich_help_panel=_MODEL,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="auto, fp32, int8, or for GPUs fp16 or int8-fp16. Default: auto.",
            show_default=False,
            rich_help_panel=_MODEL,
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            help="auto, openvino, onnxruntime, or an engine that hvq-edge build made: tensorrt or "
            "tensorrt-rtx. Default: auto.",
            show_default=False,
            rich_help_panel=_MODEL,
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            help="HOST:PORT of a Triton server that runs the model (hvq-edge export --triton).",
            show_default=False,
            rich_help_panel=_MODEL,
        ),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(
            "--category",
            help="Judge every frame as this category.",
            show_default=False,
            rich_help_panel=_MODEL,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            help="latest: the newest frame wins, older ones are dropped and counted; all: every "
            "frame is decided. Default: latest for cameras, all for files and triggers.",
            show_default=False,
            rich_help_panel=_DECISIONS,
        ),
    ] = None,
    hysteresis: Annotated[
        float | None,
        typer.Option(
            "--hysteresis",
            help="After a reject, pass again only this share below the threshold; for example 0.1.",
            rich_help_panel=_DECISIONS,
            show_default=False,
        ),
    ] = None,
    k_of_n: Annotated[
        str | None,
        typer.Option(
            "--k-of-n",
            help="N frames show one part, and K above the threshold reject it; for example 2/3.",
            rich_help_panel=_DECISIONS,
            show_default=False,
        ),
    ] = None,
    mm_per_pixel: Annotated[
        float | None,
        typer.Option(
            "--mm-per-pixel",
            help="Size of a pixel at the part: gives areas of defects in mm² as well.",
            rich_help_panel=_DECISIONS,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the decision log, rejects/ and annotated.mp4 (of several cameras: "
            "annotated-0-NAME.mp4 and so on). Default: nothing is written.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    video: Annotated[
        bool | None,
        typer.Option(
            "--video/--no-video",
            help="Whether --out gets annotated video. Default: for files, and cameras with "
            "--max-frames.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    display: Annotated[
        bool | None,
        typer.Option(
            "--display/--no-display",
            help="Show the frames in a window; q quits. Default: where there is a screen.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    page: Annotated[
        bool,
        typer.Option(
            "--page", help="Serve the live page; its address is printed.", rich_help_panel=_PAGE
        ),
    ] = False,
    page_host: Annotated[
        str | None,
        typer.Option(
            "--page-host",
            help="Address to serve it on; any but 127.0.0.1 needs --page-token-file.",
            rich_help_panel=_PAGE,
            show_default=False,
        ),
    ] = None,
    page_port: Annotated[
        int | None,
        typer.Option(
            "--page-port",
            help="Port. Default: 8642; 0 takes any that is free.",
            rich_help_panel=_PAGE,
            show_default=False,
        ),
    ] = None,
    page_token_file: Annotated[
        Path | None,
        typer.Option(
            "--page-token-file",
            help="File with the token that the page asks for.",
            rich_help_panel=_PAGE,
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Settings file (TOML); flags win over it.",
            show_default=False,
            rich_help_panel=_SETTINGS,
        ),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            help="Print the settings in force as TOML, and stop.",
            rich_help_panel=_SETTINGS,
        ),
    ] = False,
    calibrate: Annotated[
        int | None,
        typer.Option(
            "--calibrate",
            min=1,
            help="Learn thresholds from N frames of good parts, and stop.",
            show_default=False,
            rich_help_panel=_CALIBRATION,
        ),
    ] = None,
    false_reject: Annotated[
        float | None,
        typer.Option(
            "--false-reject",
            help="With --calibrate: share of good parts rejected at most. Default: 0.01.",
            show_default=False,
            rich_help_panel=_CALIBRATION,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Inspect cameras, a video or a folder of images: pass, reject or no decision.

    Ctrl-C (exit code 130) and SIGTERM (0) stop after the frames already captured; a second Ctrl-C
    stops at once.
    """
    from hvq_edge.cli.stream_flags import check_calibration, numbers, points
    from hvq_edge.cli.stream_run import run_stream
    from hvq_edge.stream.settings import load_stream_settings

    page_flags = {
        "--page": page or None,
        "--page-host": page_host,
        "--page-port": page_port,
        "--page-token-file": page_token_file,
    }
    page_asked = any(value is not None for value in page_flags.values())
    recording = {
        "--out": out,
        "--video": video or None,  # what is not wanted does not come anyway
        "--display": display or None,
        "--max-frames": max_frames,
    }
    check_calibration(calibrate, false_reject, {**recording, **page_flags})
    each_camera: dict[str, Any] = {
        "resolution": numbers("--resolution", resolution, "x", 2),
        "fps": fps,
        "play": play or None,
        "every": every,
        "rotate": rotate,
        "roi": numbers("--roi", roi, ",", 4),
        "roi_polygon": points("--roi-polygon", roi_polygon),
        "trigger_file": trigger_file,
        "trigger_port": trigger_port,
        "trigger_frames": trigger_frames,
        "trigger_delay": trigger_delay,
    }
    settings = load_stream_settings(
        config,
        cameras=camera or [],
        each_camera=each_camera,
        decision={"hysteresis": hysteresis, "k_of_n": k_of_n, "mm_per_pixel": mm_per_pixel},
        page={"host": page_host, "port": page_port, "token_file": page_token_file}
        if page_asked
        else None,
        flags={
            "bundle": bundle,
            "require_signature": require_signature,
            "server": server,
            "policy": policy,
            "precision": precision,
            "backend": backend,
            "category": category,
            "out": out,
            "video": video,
            "display": display,
            "max_frames": max_frames,
        },
        inspects=calibrate is None and not print_config,
    )
    if print_config:
        results.print(settings.to_toml(), end="", markup=False, highlight=False, soft_wrap=True)
        return
    if calibrate is not None:
        from hvq_edge.cli.stream_calibrate import calibrate_stream

        share = FALSE_REJECT if false_reject is None else false_reject
        calibrate_stream(settings, calibrate, share, as_json=as_json)
        return
    if run_stream(settings, as_json=as_json):
        raise typer.Exit(INTERRUPTED)
