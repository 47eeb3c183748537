"""``runs/latest``: a link to the run that finished last, so that the short commands work.

Imports the standard library only, because the command line reads the default run at its start.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

RECORD_NAME = "run.json"
BUNDLE_FOLDER = "bundle"
DEFAULT_RUN = Path("runs/latest")
DEFAULT_BUNDLE = DEFAULT_RUN / BUNDLE_FOLDER
OR_DEMO = "hvq-edge demo, which tries everything on images of solar cells"
"""For whoever names no run and has none."""


def new_run_folder(preset: str) -> Path:
    """Return a new folder name below ``runs/``."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    return DEFAULT_RUN.parent / f"{preset}-{stamp}"


def point_latest(run: Path) -> None:
    """Make ``runs/latest`` point to ``run``; replaced atomically.

    A real folder of that name is left alone: it is the user's.

    Raises:
        OutputError: the link cannot be written.
    """
    from hvq_edge.common.atomic import output_error

    if run == DEFAULT_RUN or (DEFAULT_RUN.exists() and not DEFAULT_RUN.is_symlink()):
        return
    temporary = DEFAULT_RUN.with_name(f".latest.{os.getpid()}")
    try:
        DEFAULT_RUN.parent.mkdir(parents=True, exist_ok=True)
        temporary.symlink_to(os.path.relpath(run, DEFAULT_RUN.parent))
        temporary.replace(DEFAULT_RUN)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise output_error(DEFAULT_RUN, error) from error
