"""Options that several commands share, defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_RUN = Path("runs/latest")

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")]
BundleOption = Annotated[
    Path, typer.Option("--bundle", help="Bundle folder that hvq-edge export wrote.")
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
