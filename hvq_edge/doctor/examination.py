"""Everything the doctor looks at, in the order of the table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path

from hvq_edge.doctor import board, cameras, gpu, software
from hvq_edge.doctor import bundle as bundle_checks
from hvq_edge.doctor.finding import Check, CheckResult
from hvq_edge.errors import InputError, MissingCapability
from hvq_edge.runtime.tensorrt.library import MODULES

OF_A_GPU = ("gpu", *MODULES, "gpu-memory")
"""Findings that only a machine with a GPU needs to be well."""


def checks_for(bundle: Path | None) -> list[Check]:
    """Return the checks; those of a bundle where one is named."""
    checks = [
        Check("python", software.python),
        Check("processor", board.processor),
        Check("power-mode", board.power),
        Check("memory", board.memory),
        Check("disk", board.disk),
        Check("opencv", software.opencv),
        Check("gstreamer", software.gstreamer),
        Check("images", software.images),
        Check("camera", cameras.cameras),
        Check("genicam", cameras.genicam),
        Check("onnxruntime", software.onnxruntime),
        Check("openvino", software.openvino),
        Check("gpu", gpu.gpu),
        Check("tensorrt", gpu.tensorrt),
        Check("gpu-memory", gpu.gpu_memory),
        Check("training", software.training),
        Check("factory", software.factory),
    ]
    if bundle is not None:
        own = version("hvq-edge")
        checks += [
            Check("bundle", lambda: bundle_checks.bundle(bundle, own)),
            Check("engines", lambda: bundle_checks.engines(bundle)),
            Check("computes", lambda: bundle_checks.known_answers(bundle)),
        ]
    return checks


def without_gpu(findings: Sequence[CheckResult]) -> list[CheckResult]:
    """Put what a machine without a GPU lacks into one line: the processor needs none of it.

    Args:
        findings: of a machine with a GPU they are returned as they are.
    """
    gpu_found = next((one for one in findings if one.name == "gpu"), None)
    if gpu_found is None or gpu_found.state != "note" or "fails" in gpu_found.found:
        return list(findings)  # a driver that fails may be wanted
    lacking = [one.name for one in findings if one.name in OF_A_GPU and one.state == "note"]
    shown = [one for one in findings if one.name not in lacking or one.name == "gpu"]
    also = f" (nor {', '.join(lacking[1:])})" if lacking[1:] else ""
    cause = gpu_found.found.partition(":")[0].removeprefix("this machine has ")
    said = f"{cause}{also}; nothing is needed for the CPU"
    return [CheckResult("gpu", "note", said) if one.name == "gpu" else one for one in shown]


def insist(names: Collection[str], findings: Sequence[CheckResult]) -> None:
    """Insist that named findings are well.

    A name stands for all findings that begin with it. ``camera`` means any camera, and one that is
    well will do; ``opencv-gstreamer`` means that finding alone.

    Raises:
        InputError: a name that no finding has.
        MissingCapability: one or more are not ``ok``; the remedy of the first.
    """
    lacking: list[CheckResult] = []
    for name in names:
        exact = [one for one in findings if one.name == name]
        family = exact or [one for one in findings if one.name.startswith(f"{name}-")]
        if not family:
            known = ", ".join(dict.fromkeys(one.name for one in findings))
            raise InputError(
                f"the doctor looks at nothing called {name!r}.", next_step=f"name one of {known}"
            )
        if not any(one.state == "ok" for one in family):
            lacking.append(family[0])
    if lacking:
        raise MissingCapability(
            "this machine lacks " + "; ".join(f"{one.name} ({one.found})" for one in lacking) + ".",
            next_step=lacking[0].remedy or "see the table",
        )
