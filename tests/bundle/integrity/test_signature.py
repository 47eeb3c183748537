"""A signature covers every byte, and whatever differs from it is named."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
from helpers.graphs import save_bundle

from hvq_edge.bundle.integrity.content import look, safe_name, seal
from hvq_edge.bundle.integrity.keys import new_key, read_private_key, read_public_keys
from hvq_edge.bundle.integrity.signature import require_signature, sign_bundle
from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.cli.app import main
from hvq_edge.errors import BundleError, GateFailed, InputError, OutputError


@pytest.fixture(scope="module")
def office(tmp_path_factory) -> Path:
    """The private key; its public one has ``.pub`` appended."""
    key = tmp_path_factory.mktemp("keys") / "office"
    new_key(key)
    return key


@pytest.fixture
def public(office) -> Path:
    return office.with_name("office.pub")


@pytest.fixture
def bundle(tmp_path) -> Path:
    folder = save_bundle(tmp_path / "bundle", precisions=("fp32", "int8")).path
    (folder / "verify.json").write_text('{"passed": true, "precisions": {}}')
    (folder / "eval-int8").mkdir()
    (folder / "eval-int8" / "metrics.json").write_text("{}")
    return folder


@pytest.fixture
def signed(bundle, office) -> Path:
    sign_bundle(bundle, office)
    return bundle


def test_signing_takes_in_the_reports(bundle, office, public):
    _, taken_in = sign_bundle(bundle, office)
    assert set(taken_in) == {"verify.json", "eval-int8/metrics.json"}
    found = require_signature(bundle, public)
    assert set(found.bundle.manifest.files) == {
        "model.fp32.onnx",
        "model.int8.onnx",
        "verify.json",
        "eval-int8/metrics.json",
    }
    assert found.unsigned_engines == ()
    before = (bundle / "bundle.json").read_bytes(), (bundle / "bundle.sig").read_bytes()
    assert sign_bundle(bundle, office)[1] == ()
    assert before == ((bundle / "bundle.json").read_bytes(), (bundle / "bundle.sig").read_bytes())


def test_every_changed_file_is_named_wherever_the_byte_is(signed, public):
    names = list(open_bundle(signed).manifest.files)
    for name in names:
        path = signed / name
        right = path.read_bytes()
        for place in {0, len(right) // 2, len(right) - 1}:
            path.write_bytes(right[:place] + bytes([right[place] ^ 1]) + right[place + 1 :])
            with pytest.raises(GateFailed, match=f"{name} was changed") as caught:
                require_signature(signed, public)
            assert sum(other in caught.value.cause for other in names) == 1
        path.write_bytes(right)
    require_signature(signed, public)


def test_every_byte_of_the_manifest_counts(signed, public):
    """Each one of the signed file, changed alone: none passes, none raises anything unforeseen."""
    path = signed / "bundle.json"
    right = path.read_bytes()
    for place in range(0, len(right), 7):
        path.write_bytes(right[:place] + bytes([right[place] ^ 1]) + right[place + 1 :])
        with pytest.raises((GateFailed, BundleError)):
            require_signature(signed, public)
    path.write_bytes(right)
    path = signed / "bundle.sig"
    content = json.loads(path.read_text())
    for change in ({"signature": "AAAA"}, {"signature": "not base64 é"}, {"key_id": "0" * 16}):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(GateFailed):
            require_signature(signed, public)
    path.write_text(json.dumps({**content, "algorithm": "none"}))
    with pytest.raises(BundleError, match="not a signature"):
        require_signature(signed, public)


def test_added_removed_and_linked_files_are_named(signed, public, tmp_path):
    (signed / "eval-int8" / "extra.html").write_text("")
    (signed / "verify.json").unlink()
    elsewhere = shutil.move(signed / "model.int8.onnx", tmp_path / "elsewhere")
    (signed / "model.int8.onnx").symlink_to(elsewhere)
    with pytest.raises(GateFailed) as caught:
        require_signature(signed, public)
    for said in (
        "eval-int8/extra.html was added",
        "verify.json is missing",
        "model.int8.onnx was changed",  # the same bytes, but whoever owns the target may change it
    ):
        assert said in caught.value.cause


def test_engines_built_later_run_only_when_signed_too(signed, public, office):
    (signed / "engines").mkdir()
    (signed / "engines" / "a.plan").write_bytes(b"plan")
    assert require_signature(signed, public).unsigned_engines == ("engines/a.plan",)
    with pytest.raises(GateFailed, match=r"engines/a.plan was added"):
        require_signature(signed, public, engines=True)
    sign_bundle(signed, office)
    assert require_signature(signed, public, engines=True).unsigned_engines == ()
    (signed / "engines" / "a.plan").write_bytes(b"plam")
    with pytest.raises(GateFailed, match=r"engines/a.plan was changed"):
        require_signature(signed, public)


def test_thresholds_learnt_on_the_device_need_a_key_that_is_trusted(signed, public, tmp_path):
    opened = open_bundle(signed)
    write_manifest(signed, opened.manifest.model_copy(update={"notes": ("learnt here",)}))
    with pytest.raises(GateFailed, match="does not hold"):
        require_signature(signed, public)
    device = tmp_path / "device"
    new_key(device)
    sign_bundle(signed, device)
    with pytest.raises(GateFailed, match="signed by the key"):
        require_signature(signed, public)
    both = tmp_path / "trusted.pem"
    both.write_bytes(public.read_bytes() + (tmp_path / "device.pub").read_bytes())
    assert require_signature(signed, both).bundle.manifest.notes == ("learnt here",)


def test_what_was_exported_is_never_taken_in_anew(bundle, office):
    with (bundle / "model.fp32.onnx").open("ab") as file:
        file.write(b"x")
    before = (bundle / "bundle.json").read_bytes()
    with pytest.raises(GateFailed, match=r"model.fp32.onnx was changed"):
        sign_bundle(bundle, office)
    assert (bundle / "bundle.json").read_bytes() == before
    assert not (bundle / "bundle.sig").exists()


def test_a_report_written_again_is_taken_in_anew(signed, office, public):
    (signed / "verify.json").write_text('{"passed": false, "precisions": {}}')
    with pytest.raises(GateFailed, match=r"verify.json was changed"):
        require_signature(signed, public)
    assert sign_bundle(signed, office)[1] == ("verify.json",)
    require_signature(signed, public)


def test_a_link_is_not_signed(bundle, office):
    (bundle / "notes.txt").symlink_to("/etc/hostname")
    with pytest.raises(GateFailed, match=r"notes.txt is a link"):
        sign_bundle(bundle, office)


@pytest.mark.parametrize(
    "name", ["../out", "/etc/passwd", "a/../b", "c:x", "a\\b", "", "bundle.sig"]
)
def test_a_manifest_that_names_a_file_elsewhere(bundle, name):
    opened = open_bundle(bundle)
    files = {**opened.manifest.files, name: opened.manifest.files["model.fp32.onnx"]}
    write_manifest(bundle, opened.manifest.model_copy(update={"files": files}))
    with pytest.raises(BundleError, match="no bundle may hold"):
        look(open_bundle(bundle))


def test_names_that_cannot_both_be_there(bundle):
    record = open_bundle(bundle).manifest.files["model.fp32.onnx"]
    for pair in (("a", "a/b"), ("Notes", "notes"), ("A/x", "a/y")):
        manifest = open_bundle(bundle).manifest
        files = {"model.fp32.onnx": record, **dict.fromkeys(pair, record)}
        changed = manifest.model_copy(update={"files": files, "models": {}})
        with pytest.raises(BundleError, match="cannot both"):
            look(type(open_bundle(bundle))(bundle, changed))


def test_names_with_spaces_and_umlauts_are_fine():
    assert safe_name("eval-int8/Prüfung 1.json")
    assert not safe_name("a\x00b")


def test_sealing_twice_changes_nothing(bundle):
    first, new = seal(open_bundle(bundle))
    assert len(new) == 2
    assert seal(first)[1] == ()


# Keys.


def test_a_private_key_is_for_its_owner_alone(tmp_path):
    key = tmp_path / "key"
    public = new_key(key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for path in (key, public):
        content = path.read_bytes()
        with pytest.raises(OutputError, match="exists"):
            new_key(key)
        assert path.read_bytes() == content
    key.chmod(0o644)
    with pytest.raises(InputError, match="read by others") as caught:
        read_private_key(key)
    assert "chmod 600" in caught.value.next_step


def test_files_that_are_no_keys(tmp_path, public):
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("hello")
    rubbish.chmod(0o600)
    with pytest.raises(InputError, match="not a private key"):
        read_private_key(rubbish)
    with pytest.raises(InputError, match="no public key"):
        read_public_keys(rubbish)
    with pytest.raises(InputError, match="cannot be read"):
        read_public_keys(tmp_path / "absent")
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    other = generate_private_key(SECP256R1())
    rubbish.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InputError, match="another kind"):
        read_private_key(rubbish)
    rubbish.write_bytes(
        other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(InputError, match="another kind"):
        read_public_keys(rubbish)


# The command line.


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return int(caught.value.code or 0), out, err


def test_sign_and_check_from_the_command_line(bundle, tmp_path, capsys):
    key, pub = tmp_path / "k", tmp_path / "k.pub"
    assert run(capsys, "sign", "--new-key", key)[0] == 0
    code, _, err = run(capsys, "bundle", "check", bundle, "--require-signature", pub)
    assert code == 1
    assert "is not signed" in err
    code, out, _ = run(capsys, "bundle", "check", bundle)
    assert code == 0
    assert "not in the manifest yet: verify.json" in out
    code, out, _ = run(capsys, "sign", bundle, "--key", key, "--json")
    assert code == 0
    name = json.loads(out)["key_id"]
    code, out, _ = run(capsys, "bundle", "check", bundle, "--require-signature", pub)
    assert code == 0
    assert name in out
    (bundle / "model.int8.onnx").write_bytes(b"")
    (bundle / "new").write_text("")
    code, out, err = run(capsys, "bundle", "check", bundle, "--json")
    assert code == 1
    found = json.loads(out)
    assert (found["passed"], found["changed"], found["added"]) == (
        False,
        ["model.int8.onnx"],
        ["new"],
    )
    assert "model.int8.onnx was changed" in err
    assert run(capsys, "sign", bundle)[0] == 2
    assert run(capsys, "sign", bundle, "--key", key, "--new-key", key)[0] == 2


def test_a_calibrated_bundle_says_without_a_key_that_its_signature_is_old(
    signed, public, tmp_path, capsys
):
    assert run(capsys, "bundle", "check", signed)[0] == 0
    changed = open_bundle(signed).manifest.model_copy(update={"notes": ("calibrated",)})
    write_manifest(signed, changed)
    code, _, err = run(capsys, "bundle", "check", signed)
    assert code == 1
    assert "bundle.json was changed after that" in err
    assert "hvq-edge sign again" in err
    code, out, _ = run(capsys, "bundle", "check", signed, "--json")
    assert (code, json.loads(out)["signature_fits"]) == (1, False)
    packed = tmp_path / "b.hvq"
    code, _, err = run(capsys, "bundle", "pack", signed, "-o", packed)
    assert code == 1
    assert "changed after signing" in err
    assert not packed.exists()


def test_a_signature_without_the_sum_of_its_manifest_is_still_one(signed, public):
    path = signed / "bundle.sig"
    content = json.loads(path.read_text())
    del content["manifest_sha256"]
    path.write_text(json.dumps(content))
    require_signature(signed, public)


def test_packing_says_what_it_took_in(bundle, tmp_path, capsys):
    code, out, _ = run(capsys, "bundle", "pack", bundle, "-o", tmp_path / "b.hvq")
    assert code == 0
    assert "Taken into bundle.json: verify.json" in out
