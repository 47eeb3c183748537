"""Which precisions ``auto`` may use on a CPU, and in words why it came to one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hvq_edge.bundle.precision import FOR_CPUS, FOR_GPUS, PRECISIONS, Precision
from hvq_edge.bundle.verification import Verdicts
from hvq_edge.runtime.choice.measured_choice import SAME_SPEED, Measurement

CPU_ORDER = (FOR_CPUS, PRECISIONS)
"""The float16 precisions are made for GPUs: on a CPU they come in where nothing else is left."""
GPU_ORDER = FOR_GPUS[::-1]
"""float32 first: at equal speed it is taken."""


def usable_precisions(
    available: Collection[Precision],
    verdicts: Verdicts,
    groups: Sequence[Sequence[Precision]] = CPU_ORDER,
) -> tuple[Precision, ...]:
    """Return the precisions that ``auto`` may use, the preferred one first.

    ``fp32``, which the others are held to, needs no verdict; another one must not have failed.

    Args:
        available: what the bundle has.
        verdicts: see :func:`read_verdicts`.
        groups: the first that has a usable one gives them.

    Returns:
        At least one. Where all have failed it is the bundle's first, and ``fp32`` for a bundle
        without graphs: opening that says what is wrong.
    """
    sound = [name for name in available if name == "fp32" or verdicts.get(name, True)]
    for group in groups:
        usable = tuple(name for name in group if name in sound)
        if usable:
            return usable
    return tuple(available)[:1] or ("fp32",)


def why_chosen(
    chosen: Precision,
    available: Collection[Precision],
    verdicts: Verdicts,
    measured: Measurement | None,
) -> str:
    """Return in words why ``auto`` came to a precision.

    Args:
        chosen: that precision.
        available: what the bundle has.
        verdicts: see :func:`read_verdicts`.
        measured: the times of the candidates; ``None`` where there was only one.
    """
    if chosen != "fp32":
        if chosen not in verdicts:
            return "not verified yet: run hvq-edge verify"
        passed = verdicts[chosen]
        return "verified" if passed else "hvq-edge verify did not pass it, but there is no other"
    if "int8" not in available:
        return "the bundle has no int8 model"
    if not verdicts.get("int8", True):
        return "hvq-edge verify did not pass int8"
    times = measured.milliseconds if measured else {}
    int8, float32 = (
        [time for one, time in times.items() if one.precision == name] for name in ("int8", "fp32")
    )
    if not int8:
        return "int8 does not run here"
    if min(int8) < min(float32):
        return f"int8 is less than {100 * (SAME_SPEED - 1):.0f} % faster here"
    return "int8 is no faster here"
