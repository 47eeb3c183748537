"""Who takes part in a benchmark: engines of a bundle, the PyTorch model, graphs of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np

from hvq_edge.bench.peer_graph import PEER_BACKENDS, PeerGraph, open_peer
from hvq_edge.bundle.opened import Bundle
from hvq_edge.errors import BundleError, RunError, SettingsError
from hvq_edge.run.record import RECORD_NAME, read_run
from hvq_edge.runtime.choice.choose_graph import graph_backends_here
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.open_engine import BACKENDS, open_engine
from hvq_edge.runtime.tensorrt.engine_file import engine_backend
from hvq_edge.runtime.tensorrt.find_engine import built_precision

TORCH = "PyTorch fp32"
FOR_CPUS = ("fp32", "int8")
"""Precisions that are worth running on a CPU."""
_NOISE = 0


class Opened(Protocol):
    """An entrant once it is open: an engine or a peer's graph."""

    def close(self) -> None:
        """Free its memory."""
        ...


@dataclass(frozen=True)
class Entrant:
    """One that takes part. Its values are plain, so that a child process can open it too."""

    name: str
    kind: Literal["engine", "torch", "peer"]
    target: str
    """Bundle, run or ONNX file."""
    backend: str
    precision: str = ""
    threads: int | None = None
    side: int = 224
    """Side of a peer's image in pixels, where its graph leaves that open."""

    def open(self) -> Opened:
        """Open it.

        Raises:
            HvqEdgeError: it cannot be opened here.
        """
        if self.kind == "peer":
            return open_peer(Path(self.target), self.backend, self.threads, self.side)
        return open_engine(
            Path(self.target),
            backend=self.backend,
            precision=self.precision or "auto",
            threads=self.threads,
        )


def call_of(opened: Opened, batch: int) -> Callable[[], object]:
    """Return a call that judges a batch of noise.

    Args:
        opened: what :meth:`Entrant.open` gave.
        batch: images in the call.
    """
    if isinstance(opened, PeerGraph):
        return opened.call(batch)
    engine = cast("Engine", opened)
    shape = (batch, *engine.info.frame_shape, 3)
    frames = np.random.default_rng(_NOISE).integers(0, 256, shape, dtype=np.uint8)
    given = np.zeros(batch, np.int32) if engine.info.category_mode == "input" else None
    return partial(engine.run, frames, given)


def entrants_of(
    bundle: Bundle,
    *,
    run: Path | None = None,
    backends: Sequence[str] = (),
    precisions: Sequence[str] = (),
    peers: Sequence[Path] = (),
    threads: int | None = None,
) -> list[Entrant]:
    """List who takes part; the reference, PyTorch where it is at hand, comes first.

    Args:
        bundle: the bundle.
        run: its training run; ``None``: the bundle's parent folder, if it is that.
        backends: to compare; empty: all that are installed and can run the bundle.
        precisions: precisions to compare; empty: float32 and INT8, and those of built engines.
        peers: ONNX files with one image as input.
        threads: CPU threads of one call.

    Raises:
        SettingsError: an unknown backend, or torch asked for without a run.
        RunError: ``run`` is no finished run.
        BundleError: no engine of a TensorRT backend that was asked for, or nobody takes part.
    """
    unknown = [name for name in backends if name not in BACKENDS]
    if unknown:
        raise SettingsError(
            f"backends {', '.join(map(repr, unknown))} are none of {', '.join(BACKENDS)}.",
            next_step="use these names, separated by commas",
        )
    found = []
    reference = _reference(bundle, run)
    if reference is not None and (not backends or "torch" in backends or run is not None):
        found.append(Entrant(TORCH, "torch", str(reference), "torch", "fp32", threads))
    elif "torch" in backends:
        raise SettingsError(
            "PyTorch runs a training run, and none is at hand.", next_step="name it with --run RUN"
        )
    has = tuple(bundle.manifest.models)
    for backend in (name for name in backends or _usable(bundle) if name != "torch"):
        gpu = engine_backend(backend)
        wanted: Sequence[str] = precisions or [name for name in FOR_CPUS if name in has] or has
        if gpu is not None:
            wanted = precisions or [built_precision(bundle, gpu, "auto")]
        found += [
            Entrant(f"{backend} {name}", "engine", str(bundle.path), backend, name, threads)
            for name in wanted
        ]
    for peer in peers:
        names = [name for name in PEER_BACKENDS if not backends or name in backends]
        found += [
            Entrant(
                f"{name} {peer.name}",
                "peer",
                str(peer),
                name,
                threads=threads,
                side=bundle.manifest.input_side,
            )
            for name in names
            if find_spec(name)
        ]
    return found


def _reference(bundle: Bundle, run: Path | None) -> Path | None:
    """Return the run that a bundle came from, where PyTorch can run it."""
    if run is None and not (bundle.path.parent / RECORD_NAME).is_file():
        return None
    folder = run or bundle.path.parent
    try:
        record = read_run(folder)
    except RunError:
        if run is None:
            return None
        raise
    if record.checkpoint_sha256 != bundle.manifest.checkpoint_sha256:
        if run is None:
            return None
        raise RunError(
            f"{run} is not the run that {bundle.path} was exported from.",
            next_step="name that run, or run hvq-edge export again",
        )
    return folder if find_spec("torch") else None


def _usable(bundle: Bundle) -> list[str]:
    usable: list[str] = [*graph_backends_here()]
    for name in ("tensorrt", "tensorrt-rtx"):
        backend = engine_backend(name)
        if backend is None or not find_spec(name.replace("-", "_")):
            continue
        try:
            built_precision(bundle, backend, "auto")
        except BundleError:
            continue
        usable.append(name)
    return usable
