"""Every engine is held against the bundle's known answers before its first verdict on a machine.

Once: what came out is kept in the user's cache folder, one readable JSON file for each combination
of all that it depends on. An engine that failed is tried again each time it is asked for.
"""

from __future__ import annotations

import hashlib
import logging
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeVar

from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.atomic import write_text
from hvq_edge.common.cache_folder import default_cache
from hvq_edge.common.records import Measured, Strict, kept_record
from hvq_edge.errors import GateFailed, OutputError
from hvq_edge.runtime.cpu.processor import processor_features
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.known_answers import answers_file, deviation, read_known_answers

logger = logging.getLogger(__name__)

Opened = TypeVar("Opened", bound=Engine)

ELSEWHERE = ("triton",)
"""Backends whose machine may be another the next time, unseen: nothing is kept of them."""


class EngineKey(Strict):
    """What a result depends on: with another key, an engine is tried again."""

    hvq_edge: str
    backend: str
    precision: str
    device: str
    """Processor or GPU, and the library's version."""
    machine: str
    features: str
    """Digest of what the processor can do: by that, libraries choose how they compute."""
    graph: str
    """SHA-256 of the ONNX file."""
    plan: str
    """SHA-256 of an engine for GPUs or of a kept compiled graph; empty where the graph itself was
    loaded."""
    answers: str
    """SHA-256 of the known answers."""


class EngineCheck(Measured):
    """What came out, and a file of the cache."""

    format: Literal["hvq-edge-engine-check/1"] = "hvq-edge-engine-check/1"
    key: EngineKey
    checked: str
    """ISO 8601, UTC."""
    images: int
    faults: tuple[str, ...]
    """In words; empty: it computes as it should."""
    codes: float
    """Share that differs. This and the next: :class:`hvq_edge.runtime.known_answers.Deviation`."""
    map: float
    score: float
    margin: float

    def __str__(self) -> str:
        """What came out, in words."""
        images = f"{self.images} known image{'s' * (self.images > 1)}"
        if self.faults:
            return f"computes wrongly on {images}: {'; '.join(self.faults)}"
        return (
            f"right on {images}: {1 - self.codes:.1%} of codes equal, the map off by "
            f"{self.map:.1g}, the score by {self.score:.1g}"
        )


def check_engine_here(
    engine: Engine, bundle: Bundle, *, afresh: bool = False
) -> EngineCheck | None:
    """Hold an engine against a bundle's known answers, or take what was found before.

    Args:
        engine: just opened, with the categories and the category mode of the bundle.
        bundle: that it runs.
        afresh: whether to run it in any case.

    Returns:
        ``None``: the bundle has no known answers.

    Raises:
        GateFailed: the known answers cannot be read, or lack a model of the bundle.
        BundleError: they were changed.
    """
    key = _key(engine, bundle)
    if key is None:
        return None
    path = _place(key)
    if not afresh and path is not None:
        kept = kept_record(path, EngineCheck)
        if kept is not None and kept.key == key and not kept.faults:
            return kept
    answers = read_known_answers(bundle)
    if answers is None:
        return None
    answer = next(one for name, one in answers.precisions.items() if name == key.precision)
    found, refused = deviation(engine, answers, answer)
    check = EngineCheck(
        key=key,
        checked=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        images=len(answers.frames),
        faults=(f"it {refused}",) if refused else found.beyond(answer.tolerance),
        codes=found.codes,
        map=found.map,
        score=found.score,
        margin=found.margin,
    )
    logger.info("%s on %s: %s", key.precision, key.backend, check)
    if path is not None:
        try:
            write_text(path, check.model_dump_json(indent=2) + "\n")
        except (OutputError, OSError) as error:
            logger.info("checks of engines are not kept, and repeated next time: %s", error)
    return check


def checked(engine: Opened, bundle: Bundle, *, candidate: bool = False) -> Opened:
    """Return an engine that computes as it should; it is closed where it does not.

    A bundle without known answers says nothing about it, and that is said.

    Args:
        engine: see :func:`check_engine_here`.
        bundle: that it runs.
        candidate: whether it is only timed now: then what is not known of it is not said yet.

    Raises:
        GateFailed: it does not, or the known answers cannot be read.
        BundleError: the known answers were changed.
    """
    try:
        check = check_engine_here(engine, bundle)
        if check is not None and check.faults:
            raise GateFailed(
                f"{check.key.precision} on {check.key.backend} {check} ({check.key.device}).",
                next_step="leave backend and precision to auto, or name others: hvq-edge doctor "
                f"--bundle {bundle.path} says which are right here",
            )
        if check is None and not candidate:
            logger.warning(
                "whether %s on %s computes rightly here is not known, because the bundle %s has no "
                "known answers: run hvq-edge export again, which learns them",
                engine.info.precision,
                engine.info.backend,
                bundle.path,
            )
    except BaseException:
        engine.close()
        raise
    return engine


def _key(engine: Engine, bundle: Bundle) -> EngineKey | None:
    info, manifest = engine.info, bundle.manifest
    name = answers_file(bundle)
    graph = next((one for key, one in manifest.models.items() if key == info.precision), None)
    if name is None or graph is None:
        return None
    record = manifest.files.get(graph)
    return EngineKey(
        hvq_edge=version("hvq-edge"),
        backend=info.backend,
        precision=info.precision,
        device=info.device,
        machine=platform.machine(),
        features=hashlib.sha256(processor_features().encode()).hexdigest()[:16],
        graph=record.sha256 if record else "",
        plan=info.plan_sha256,
        answers=manifest.files[name].sha256,
    )


def _place(key: EngineKey) -> Path | None:
    """Return the file for a key; ``None``: nothing is kept of it, or the user has no home."""
    if key.backend in ELSEWHERE:
        return None
    name = hashlib.sha256(key.model_dump_json().encode()).hexdigest()[:16]
    try:
        return default_cache() / "engine-checks" / f"{name}.json"
    except RuntimeError:
        return None
