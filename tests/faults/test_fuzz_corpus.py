"""The corpus of benchmarks/fuzz.py, without atheris: what it found once stays mended."""

from __future__ import annotations

import pytest
from helpers.fuzz_targets import TARGETS
from helpers.paths import DATA

CORPUS = DATA / "fuzz"
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_each_target_has_a_corpus_and_all_are_small():
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert sum(path.stat().st_size for path in FILES) < 22_000


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_bytes_from_elsewhere_are_taken_or_refused(file):
    TARGETS[file.parent.name](file.read_bytes())


@pytest.mark.parametrize("target", ["log_row", "log_file", "manifest", "pack"])
def test_a_fault_is_seen(target, monkeypatch):
    """Each target fails where the product raises what it should not."""

    def fail(*_):
        raise KeyError("unforeseen")

    from helpers import fuzz_targets

    for name in ("open_bundle", "unpack_bundle", "verify_log"):
        monkeypatch.setattr(fuzz_targets, name, fail)
    (file, *_) = (CORPUS / target).iterdir()
    with pytest.raises(KeyError):
        TARGETS[target](file.read_bytes())
