"""Everything the doctor looks at, in the order of the table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path

from hvq_edge.doctor import board, cameras, gpu, software
from hvq_edge.doctor import bundle as bundle_checks
from hvq_edge.doctor.finding import Check, CheckResult
from hvq_edge.errors import InputError, MissingCapability


def checks_for(bundle: Path | None) -> list[Check]:
    """Return the checks; those of a bundle where one is named."""
    checks = [
        Check("python", software.python),
        Check("processor", board.processor),
        Check("power-mode", board.power),
        Check("memory", board.memory),
        Check("disk", board.disk),
        Check("opencv", software.opencv),
        Check("images", software.images),
        Check("camera", cameras.cameras),
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
