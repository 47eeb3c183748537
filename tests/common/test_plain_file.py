"""Whatever stands in the place of a file, nobody waits for it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from helpers.graphs import save_bundle
from helpers.patience import PATIENCE_SECONDS

from hvq_edge.bundle.integrity.content import look
from hvq_edge.bundle.integrity.signature import doubts_without_key, read_signature
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.verification import read_verdicts
from hvq_edge.common.atomic import sha256_of
from hvq_edge.common.plain_file import open_plain, read_plain
from hvq_edge.errors import BundleError, HvqEdgeError


def ended(function):
    """What a call gives or raises, where it does not wait for ever."""
    found = []

    def call():
        try:
            found.append(function())
        except (OSError, HvqEdgeError) as error:
            found.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert found, "it waits"
    return found[0]


def test_a_plain_file_is_read_and_anything_else_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert read_plain(tmp_path / "file") == read_plain(tmp_path / "link") == b"content"
    with open_plain(tmp_path / "file", follow=False) as file:
        assert file.read(3) == b"con"
    before = len([*Path("/proc/self/fd").iterdir()])
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "none"):
        assert isinstance(ended(lambda path=path: read_plain(path)), OSError)
    with pytest.raises(OSError, match="symbolic"):
        read_plain(tmp_path / "link", follow=False)
    assert len([*Path("/proc/self/fd").iterdir()]) == before, "a descriptor is left open"


def test_no_file_of_a_bundle_is_waited_for(tmp_path):
    bundle = save_bundle(tmp_path / "b")
    for name in ("verify.json", "bundle.sig"):
        os.mkfifo(bundle.path / name)
    (bundle.path / "model.fp32.onnx").unlink()
    os.mkfifo(bundle.path / "model.fp32.onnx")
    assert not any(ended(lambda: read_verdicts(bundle)).values())
    for call in (
        lambda: read_signature(bundle.path),
        lambda: sha256_of(bundle.path / "bundle.sig"),
    ):
        assert "it is a pipe or a device" in str(ended(call))
    assert "it is a pipe or a device" in str(ended(lambda: doubts_without_key(bundle)))
    assert ended(lambda: look(bundle)).changed == ("model.fp32.onnx",)
    for read in (bundle.read, bundle.file):
        assert isinstance(ended(lambda read=read: read("model.fp32.onnx")), BundleError)
    (bundle.path / "bundle.json").unlink()
    os.mkfifo(bundle.path / "bundle.json")
    said = ended(lambda: open_bundle(bundle.path))
    assert "bundle.json cannot be read (it is a pipe or a device, not a plain file)" in said.cause
