"""A bundle on this machine: whole, of a version that fits, with thresholds, and its engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.precision import FOR_CPUS
from hvq_edge.common.child_process import NoAnswer, run_isolated
from hvq_edge.common.wording import counted
from hvq_edge.doctor.finding import CheckResult
from hvq_edge.errors import BundleError, HvqEdgeError
from hvq_edge.runtime.choice.choose_graph import graph_backends_here
from hvq_edge.runtime.engine_check import check_engine_here
from hvq_edge.runtime.known_answers import answers_file
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.runtime.tensorrt.engine_file import (
    ENGINES_FOLDER,
    EngineBackend,
    EngineRecord,
    Here,
    check_engine,
    read_record,
    this_platform,
)
from hvq_edge.runtime.tensorrt.library import MODULES

CheckState = Literal["right", "wrong", "not run"]
ENGINE_TIMEOUT_S = 120.0
"""Until an engine that was opened to be tried counts as hanging."""

Version = Callable[[EngineBackend], str]
Gpu = Callable[[], dict[str, str]]


def bundle(path: Path, own_version: str) -> list[CheckResult]:
    """Look at a bundle's files, version and thresholds."""
    try:
        opened = open_bundle(path)
        for name in opened.manifest.files:
            opened.file(name)
    except BundleError as error:
        return [
            CheckResult("bundle", "missing", error.cause.rstrip("."), error.next_step or "copy it")
        ]
    manifest = opened.manifest
    size = sum(record.bytes for record in manifest.files.values()) / 1e6
    said = (
        f"{opened.path}: whole ({counted(len(manifest.files), 'file')}, {size:.1f} MB), "
        f"{', '.join(manifest.models)}; "
        f"{counted(len(manifest.categories), 'category', 'categories')}"
    )
    findings = [CheckResult("bundle", "ok", said)]
    if manifest.hvq_edge_version != own_version:
        findings.append(
            CheckResult(
                "bundle-version",
                "note",
                f"written by hvq-edge {manifest.hvq_edge_version}, here is {own_version}",
                "where something differs, run hvq-edge export again with this version",
            )
        )
    findings += [_thresholds(opened), _training_images(opened)]
    return findings


def _training_images(opened: Bundle) -> CheckResult:
    manifest = opened.manifest
    unknown = [name for name in manifest.categories if name not in manifest.category_limits]
    if unknown:
        return CheckResult(
            "training-images",
            "note",
            f"what they look like is not known for {', '.join(unknown)}: the line cannot say "
            "whether a camera's images are like them",
            "train with a folder of good images, and export",
        )
    looks = ", ".join(
        f"{name} {limits.usual.brightness.lowest:.0f} .. {limits.usual.brightness.highest:.0f}"
        for name, limits in manifest.category_limits.items()
    )
    return CheckResult(
        "training-images", "ok", f"the line compares its images with them; brightness: {looks}"
    )


def _thresholds(opened: Bundle) -> CheckResult:
    manifest = opened.manifest
    without = [
        f"{name} at {precision}"
        for precision in manifest.models
        for name in manifest.categories
        if name not in manifest.thresholds.get(precision, {})
    ]
    if without:
        return CheckResult(
            "thresholds",
            "missing",
            f"none for {', '.join(without)}: no decision there",
            f"hvq-edge calibrate {opened.path} --good DIR",
        )
    bounds = [
        threshold.bound
        for learnt in manifest.thresholds.values()
        for threshold in learnt.values()
        if threshold.bound is not None
    ]
    if not bounds:
        return CheckResult("thresholds", "ok", "there, without an upper bound of false rejects")
    worst = max(bounds, key=lambda bound: bound.rate)
    asked_for = any(bound.asked is not None for bound in bounds)
    return CheckResult(
        "thresholds",
        "ok" if worst.met and asked_for else "note",
        f"the weakest: {worst}",
        ""
        if worst.met and asked_for
        else f"for a stated rate: hvq-edge calibrate {opened.path} --good DIR --false-reject 0.01",
    )


def engines(
    path: Path, gpu: Gpu | None = None, version: Version | None = None
) -> list[CheckResult]:
    """Say of each engine in a bundle whether it runs here, and why not.

    Args:
        path: the bundle's folder.
        gpu: gives ``name``, ``compute_capability`` and ``driver``.
        version: of a backend's library.
    """
    try:
        opened = open_bundle(path)
    except BundleError:
        return []  # the line "bundle" has said it
    plans = sorted((opened.path / ENGINES_FOLDER).glob("*.plan"))
    if not plans:
        return [
            CheckResult(
                "engines",
                "note",
                "none in the bundle",
                f"with an NVIDIA GPU: hvq-edge build {opened.path}",
            )
        ]
    return [_engine(opened, plan, gpu or _this_gpu, version or _this_version) for plan in plans]


def known_answers(path: Path) -> list[CheckResult]:
    """Hold each engine that may run a bundle here against its known answers.

    Each is opened in a process of its own. One that was right before is not run again.
    """
    try:
        opened = open_bundle(path)
    except BundleError:
        return []  # the line "bundle" has said it
    if answers_file(opened) is None:
        return [
            CheckResult(
                "computes",
                "note",
                "the bundle has no known answers: whether an engine computes rightly here is not "
                "known",
                "run hvq-edge export again, which learns them",
            )
        ]
    models = opened.manifest.models
    precisions = [one for one in FOR_CPUS if one in models] or list(models)
    wanted: list[tuple[str, str]] = [
        (one, name) for name in precisions for one in graph_backends_here()
    ]
    for plan in sorted((opened.path / ENGINES_FOLDER).glob("*.plan")):
        try:
            record = read_record(plan)
        except BundleError:
            continue  # its own line says it
        wanted.append((record.backend, record.precision))
    return [_computes(path, backend, one) for backend, one in dict.fromkeys(wanted)]


def tried(path: str, backend: str, precision: str) -> tuple[CheckState, str, str]:
    """Open an engine and hold it against the known answers; called in a process of its own.

    Returns:
        What came of it, that in words, and when; or what to do where it does not run.
    """
    opened = open_bundle(Path(path))
    try:
        with open_engine(opened, precision=precision, backend=backend, unchecked=True) as engine:
            found = check_engine_here(engine, opened)
    except HvqEdgeError as error:
        return "not run", error.cause.rstrip("."), error.next_step
    assert found is not None  # the bundle has known answers
    return "wrong" if found.faults else "right", str(found), found.checked


def _computes(path: Path, backend: str, precision: str) -> CheckResult:
    name = f"computes-{precision}-{backend}"
    code = "from hvq_edge.doctor.bundle import tried\nanswer = tried(*arguments)"
    try:
        state, said, more = run_isolated(
            code, str(path), backend, precision, timeout=ENGINE_TIMEOUT_S
        )
    except NoAnswer as error:
        state, said, more = "not run", str(error), ""
    if state == "right":
        return CheckResult(name, "ok", f"{said} (tried {more})")
    if state == "wrong":
        remedy = f"auto leaves it out; update {backend}, or use another engine"
        return CheckResult(name, "missing", said, remedy)
    return CheckResult(name, "missing", f"does not run here: {said}", more or "use another engine")


def _engine(opened: Bundle, plan: Path, gpu: Gpu, version: Version) -> CheckResult:
    name = f"engine-{plan.stem}"
    rebuild = f"hvq-edge build {opened.path}"
    try:
        record = read_record(plan)
        rebuild += f" --backend {record.backend} --precision {record.precision}"
        notes = check_engine(plan, record, _here(opened, record, gpu(), version(record.backend)))
    except BundleError as error:
        return CheckResult(name, "missing", error.cause.rstrip("."), error.next_step or rebuild)
    except NoAnswer as error:
        return CheckResult(
            name, "missing", f"does not run here: {error}", "see gpu and tensorrt above"
        )
    slower = "; ".join(str(note) for note in notes)
    return CheckResult(
        name, "note" if slower else "ok", slower or "runs here", rebuild * bool(slower)
    )


def _here(opened: Bundle, record: EngineRecord, gpu: dict[str, str], version: str) -> Here:
    manifest = opened.manifest
    model = manifest.models.get(record.precision)
    if model is None:
        raise BundleError(f"the bundle has no {record.precision} model it could be built from")
    return Here(
        backend=record.backend,
        backend_version=version,
        onnx_sha256=manifest.files[model].sha256,
        compute_capability=gpu["compute_capability"],
        gpu_name=gpu["name"],
        driver=gpu["driver"],
        platform=this_platform(),
    )


def _this_gpu() -> dict[str, str]:
    code = (
        "from dataclasses import asdict\nfrom hvq_edge.runtime.cuda.device import cuda_device\n"
        "answer = asdict(cuda_device())"
    )
    try:
        found: dict[str, str] = run_isolated(code)
    except NoAnswer as error:
        raise NoAnswer("this machine has no NVIDIA GPU that answers") from error
    return found


def _this_version(backend: EngineBackend) -> str:
    module = MODULES[backend]
    try:
        return str(run_isolated(f"import {module} as t\nanswer = t.__version__"))
    except NoAnswer as error:
        raise NoAnswer(f"{module} cannot be imported") from error
