"""What the watch knows, kept beside the decision log from a clean end to the next start.

A lens gathers dust over weeks: a line that is switched off every evening must not learn every
morning what is usual. Only arrays and plain JSON stand in the file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvq_edge.common.atomic import atomic_file
from hvq_edge.stream.drift.watch import DriftWatch

NAME = "drift.npz"
"""In the folder of the decision log."""
_FACTS = "facts"
_VERSION = 1

logger = logging.getLogger(__name__)


def keep(path: Path, watches: Mapping[str, DriftWatch], bundle: str) -> None:
    """Write what all cameras' watches know; what is still being learnt is not kept.

    Args:
        path: of the file; written whole or not at all.
        watches: by camera.
        bundle: precision and hash of the graph that judges: another one has other scores.

    Raises:
        OutputError: it cannot be written.
    """
    arrays: dict[str, Any] = {}
    cameras: dict[str, Any] = {}
    for number, (camera, watch) in enumerate(watches.items()):
        cameras[camera], mine = watch.state(f"{number}/")
        arrays |= mine
    if not arrays and not path.exists():
        return  # a former state must go, but nothing is not worth a file
    facts = {"version": _VERSION, "bundle": bundle, "cameras": cameras}
    arrays[_FACTS] = np.array(json.dumps(facts))
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def go_on(path: Path, watches: Mapping[str, DriftWatch], bundle: str) -> None:
    """Let the watches go on with what was kept; say where they begin anew, and why."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            facts = json.loads(str(kept[_FACTS]))
            if (facts["version"], facts["bundle"]) != (_VERSION, bundle):
                logger.info("drift: the model is another one; what is usual is learnt anew")
                return
            arrays = {name: kept[name] for name in kept.files}
            for camera, watch in watches.items():
                if camera in facts["cameras"]:
                    watch.restore(facts["cameras"][camera], arrays)
    except FileNotFoundError:
        logger.info("drift: nothing is known of a former run; what is usual is learnt first")
    except Exception as error:  # noqa: BLE001  # a damaged file: the line must start
        logger.warning("drift: %s cannot be read, what is usual is learnt anew: %s", path, error)
        for watch in watches.values():
            watch.forget()
