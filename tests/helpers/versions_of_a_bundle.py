"""Packed bundles that tell themselves apart by a note, and the device they are installed on."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.graphs import save_bundle

from hvq_edge.bundle.integrity.content import look
from hvq_edge.bundle.integrity.pack import pack_bundle
from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle


def make(folder: Path, note: str) -> Path:
    bundle = save_bundle(folder / note)
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"notes": (note,)}))
    pack_bundle(bundle.path, folder / f"{note}.hvq")
    return folder / f"{note}.hvq"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {note: make(folder, note) for note in "abcd"}


@pytest.fixture
def device(tmp_path) -> Path:
    return tmp_path / "device"


def in_use(device: Path) -> str:
    """The note of the bundle in use, after a look at every byte of it."""
    bundle = open_bundle(device / "current")
    found = look(bundle)
    assert found.faults == found.added == ()
    return bundle.manifest.notes[0]
