"""Exemplars put into a bundle as ``hvq-edge export --exemplars`` does, without exporting again."""

from __future__ import annotations

from pathlib import Path

from hvq_edge.bundle.integrity.content import CARD_NAME
from hvq_edge.bundle.manifest import record_of, write_manifest
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.evaluation.acceptance.model_card import write_card
from hvq_edge.evaluation.explain_run import RunInsight
from hvq_edge.explain.exemplars import exemplars_name, write_exemplars


def put_exemplars(folder: Path, insight: RunInsight) -> Bundle:
    """Put a run's exemplars into a bundle that came from it (tests/export has the command)."""
    bundle = open_bundle(folder)
    files = dict(bundle.manifest.files)
    for index, category in enumerate(bundle.manifest.categories):
        name = exemplars_name(index)
        write_exemplars(folder / name, insight.exemplars(category))
        files[name] = record_of(folder / name)
    with_files = Bundle(folder, bundle.manifest.model_copy(update={"files": files}))
    files[CARD_NAME] = write_card(with_files)
    write_manifest(folder, with_files.manifest.model_copy(update={"files": files}))
    return open_bundle(folder)
