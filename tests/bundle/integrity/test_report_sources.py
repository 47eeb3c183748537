"""No report is signed that is older than the thresholds or results it speaks of."""

from __future__ import annotations

import pytest
from helpers.graphs import save_bundle
from helpers.thresholds import threshold_at

from hvq_edge.bundle.integrity.keys import new_key
from hvq_edge.bundle.integrity.signature import doubts_without_key, require_signature, sign_bundle
from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import put_thresholds, save_threshold
from hvq_edge.cli.app import main
from hvq_edge.errors import GateFailed
from hvq_edge.evaluation.acceptance.page import write_acceptance


@pytest.fixture
def key(tmp_path):
    new_key(tmp_path / "office")
    return tmp_path / "office"


@pytest.fixture
def bundle(tmp_path):
    saved = save_bundle(tmp_path / "bundle")
    update = {"thresholds": {"fp32": {"bolt": threshold_at(0.5)}}}
    write_manifest(saved.path, saved.manifest.model_copy(update=update))
    write_acceptance(saved.path)
    return open_bundle(saved.path)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_a_report_of_what_is_there_is_signed(bundle, key):
    assert "acceptance.html" in sign_bundle(bundle.path, key)[1]
    assert sign_bundle(bundle.path, key)[1] == (), "and again"


def test_a_report_older_than_the_thresholds_is_refused_or_made_again(bundle, key, capsys):
    put_thresholds(bundle, {"fp32": {"bolt": threshold_at(0.7)}})
    before = (bundle.path / "bundle.json").read_bytes()
    assert run("sign", bundle.path, "--key", key) == 1
    said = capsys.readouterr().err
    assert "older than what it speaks of: the thresholds changed since" in said
    assert f"hvq-edge report {bundle.path}" in said
    assert not (bundle.path / "bundle.sig").exists()
    assert (bundle.path / "bundle.json").read_bytes() == before
    assert run("sign", bundle.path, "--key", key, "--report") == 0
    require_signature(bundle.path, key.with_name("office.pub"))


@pytest.mark.parametrize("name", ["verify.json", "eval-int8/metrics.json", "bench.json"])
def test_a_report_older_than_a_result_is_refused(bundle, key, name):
    (bundle.path / name).parent.mkdir(exist_ok=True)
    (bundle.path / name).write_text("{}")
    with pytest.raises(GateFailed, match=f"{name} changed since"):
        sign_bundle(bundle.path, key)


def test_a_report_that_does_not_say_what_it_was_made_of_is_refused(bundle, key):
    (bundle.path / "acceptance.html").write_text("<html></html>")
    with pytest.raises(GateFailed, match="does not say what it was made of"):
        sign_bundle(bundle.path, key)


def test_undone_to_what_was_signed_the_signature_holds_again(bundle, key, capsys):
    sign_bundle(bundle.path, key)
    save_threshold(bundle, "fp32", "bolt", 0.6)
    put_thresholds(bundle, {"fp32": {"bolt": threshold_at(0.7)}})
    assert run("calibrate", bundle.path, "--undo") == 0
    assert "its signature no longer holds" in capsys.readouterr().err
    assert run("calibrate", bundle.path, "--undo") == 0
    assert "signature" not in capsys.readouterr().err
    require_signature(bundle.path, key.with_name("office.pub"))


def test_a_signature_that_does_not_hold_is_said_without_a_key(bundle, key, capsys):
    assert doubts_without_key(bundle) == ()
    sign_bundle(bundle.path, key)
    assert doubts_without_key(open_bundle(bundle.path)) == ()
    (bundle.path / "acceptance.html").write_text("other")
    assert doubts_without_key(open_bundle(bundle.path)) == ("acceptance.html was changed",)
    save_threshold(bundle, "fp32", "bolt", 0.6)
    (late, _) = doubts_without_key(open_bundle(bundle.path))
    assert "bundle.json was changed after it was signed" in late
    (bundle.path / "acceptance.html").unlink()
    write_acceptance(bundle.path)
    assert run("bundle", "check", bundle.path) == 1
    assert "bundle.json was changed after that" in capsys.readouterr().err
    (bundle.path / "bundle.sig").write_text("{")
    assert "is not a signature" in doubts_without_key(bundle)[0]
