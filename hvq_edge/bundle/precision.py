"""The precisions of a bundle's graphs: their names, order and flags."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "int8", "int8-fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FOR_CPUS: tuple[Precision, ...] = ("fp32", "int8")
"""Those made for CPUs, the preferred one first."""
FOR_GPUS: tuple[Precision, ...] = ("int8-fp16", "fp16", "int8", "fp32")
"""What ``auto`` takes on a GPU, the preferred one first."""
EXPORT_FLAGS: dict[Precision, str] = {
    "fp32": "",
    "fp16": "--fp16",
    "int8": "--int8",
    "int8-fp16": "--int8 --fp16",
}
"""With which ``hvq-edge export`` makes each."""
