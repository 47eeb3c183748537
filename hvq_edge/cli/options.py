"""Options that several commands share, defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")]
BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Bundle folder that hvq-edge export wrote.")
]
RunOption = Annotated[
    Path | None, typer.Option("--run", help="The run it came from. Default: BUNDLE's parent.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print machine-readable JSON on standard output.")
]
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        help="auto, openvino, onnxruntime, torch, or an engine that hvq-edge build made: tensorrt "
        "or tensorrt-rtx.",
    ),
]
PrecisionOption = Annotated[
    str, typer.Option("--precision", help="auto, fp32, int8, or for GPUs fp16 or int8-fp16.")
]

CALIBRATION = "Calibration"
"""Panel of these options in the help of ``hvq-edge stream``."""
FalseRejectOption = Annotated[
    float | None,
    typer.Option(
        "--false-reject",
        help="Share of good parts that may be rejected at most. Default: 0.01.",
        show_default=False,
        rich_help_panel=CALIBRATION,
    ),
]
ConfidenceOption = Annotated[
    float | None,
    typer.Option(
        "--confidence",
        help="With which that is promised. Default: 0.95.",
        show_default=False,
        rich_help_panel=CALIBRATION,
    ),
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="order-statistics (default): holds for any scores. extreme-value: fewer images, but "
        "rests on a model of the tail.",
        show_default=False,
        rich_help_panel=CALIBRATION,
    ),
]
