"""Installing versions of a bundle and going back: the one in use is whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers.graphs import save_bundle
from helpers.patience import PATIENCE_SECONDS
from helpers.versions_of_a_bundle import device, files, in_use  # noqa: F401  # fixtures

from hvq_edge.bundle.integrity.keys import new_key
from hvq_edge.bundle.integrity.pack import pack_bundle
from hvq_edge.bundle.integrity.signature import require_signature, sign_bundle
from hvq_edge.bundle.integrity.staged_update import current_version, install_bundle, roll_back
from hvq_edge.bundle.manifest import record_of, write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.cli.app import main
from hvq_edge.errors import BundleError, GateFailed, InputError, OutputError


def test_update_and_way_back(files, device):
    assert install_bundle(files["a"], device).former is None
    first = current_version(device)
    done = install_bundle(files["b"], device)
    assert (in_use(device), done.former) == ("b", first)
    assert roll_back(device).version == first
    assert in_use(device) == "a"
    with pytest.raises(InputError, match="no earlier version"):
        roll_back(device)
    assert in_use(device) == "a"


def test_what_was_rolled_back_is_not_the_way_back_of_the_next(files, device):
    for note in "ab":
        install_bundle(files[note], device)
    roll_back(device)
    install_bundle(files["c"], device)
    roll_back(device)
    assert in_use(device) == "a"


def test_old_versions_are_removed(files, device):
    for note in "abcd":
        done = install_bundle(files[note], device, keep=3)
    assert len(done.removed) == 1
    assert len(list((device / "versions").iterdir())) == 3
    roll_back(device)
    roll_back(device)
    assert in_use(device) == "b"


def test_what_install_did_not_put_among_the_versions_stays(files, device):
    for name in ("1.0", ".git", ".tmp", "0123456789abcdef-0"):
        (device / "versions" / name).mkdir(parents=True)
    (device / "versions/notes.txt").write_text("of the operator")
    (device / "versions/0123456789abcdef").write_text("a file of such a name")
    for left in (".7.staged", "..7.staged.0a1b2c3d.tmp", "..7.staged.0a1b2c3d.tmp.former"):
        (device / "versions" / left).mkdir()
    done = install_bundle(files["a"], device)
    assert done.removed == ()
    assert {path.name for path in (device / "versions").iterdir()} == {
        *(done.version, "1.0", ".git", ".tmp", "0123456789abcdef-0"),
        *("notes.txt", "0123456789abcdef"),
    }


@pytest.mark.parametrize("place", ["elsewhere", "device/versions/1.0"])
def test_a_link_that_somebody_set_by_hand_is_replaced(files, device, tmp_path, place):
    """What it named is left alone, and is no way back."""
    save_bundle(tmp_path / place)
    device.mkdir(exist_ok=True)
    (device / "current").symlink_to(tmp_path / place)
    done = install_bundle(files["a"], device)
    assert (in_use(device), done.removed) == ("a", ())
    assert (tmp_path / place / "bundle.json").is_file()
    with pytest.raises(InputError, match="no earlier version"):
        roll_back(device)


def test_the_same_version_again(files, device):
    for note in "aba":
        install_bundle(files[note], device)
    assert in_use(device) == "a"
    assert len(list((device / "versions").iterdir())) == 2
    roll_back(device)
    assert in_use(device) == "b"


def test_a_damaged_version_is_not_gone_back_to(files, device):
    for note in "abc":
        install_bundle(files[note], device)
    (_, middle, _) = json.loads((device / "history.json").read_text())["versions"]
    (device / "versions" / middle / "model.fp32.onnx").write_bytes(b"")
    roll_back(device)
    assert in_use(device) == "a"


def test_installing_heals_a_damaged_version(files, device):
    install_bundle(files["a"], device)
    (device / "current" / "model.fp32.onnx").write_bytes(b"")
    install_bundle(files["a"], device)
    assert in_use(device) == "a"


@pytest.mark.parametrize("how", ["unsigned", "other manifest", "added", "link"])
def test_a_planted_version_is_not_taken_for_the_signed_one(tmp_path, device, how):
    """A folder of the right name whose own manifest finds it whole."""
    bundle = save_bundle(tmp_path / "bundle", precisions=("fp32", "int8")).path
    public = new_key(tmp_path / "key")
    sign_bundle(bundle, tmp_path / "key")
    pack_bundle(bundle, tmp_path / "b.hvq")
    planted = install_bundle(tmp_path / "b.hvq", device, trusted=public).bundle.path
    manifest = open_bundle(planted).manifest
    if how == "unsigned":
        (planted / "bundle.sig").unlink()
    elif how == "added":
        (planted / "notes.txt").write_text("not from the office")
    else:
        if how == "link":
            planted = planted.rename(tmp_path / "elsewhere")
            (device / "current").resolve().symlink_to(planted)
        (planted / "model.int8.onnx").write_bytes(b"planted")
        record = record_of(planted / "model.int8.onnx")
        files = {**manifest.files, "model.int8.onnx": record}
        write_manifest(planted, manifest.model_copy(update={"files": files}))
    seen = []
    done = install_bundle(tmp_path / "b.hvq", device, trusted=public, test=seen.append)
    assert done.version != done.former
    assert [one.path for one in seen] == [device / "versions" / done.version]
    current = require_signature(device / "current", public).bundle
    assert current.manifest == manifest
    assert not (device / "current").resolve().is_symlink()


@pytest.mark.parametrize("name", ["bundle.json", "bundle.sig", "model.fp32.onnx"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_version_that_can_be_changed_from_elsewhere_is_not_taken(tmp_path, device, name, link):
    """Byte for byte right, now."""
    bundle = save_bundle(tmp_path / "bundle").path
    public = new_key(tmp_path / "key")
    sign_bundle(bundle, tmp_path / "key")
    pack_bundle(bundle, tmp_path / "b.hvq")
    planted = install_bundle(tmp_path / "b.hvq", device, trusted=public).bundle.path
    (planted / name).rename(tmp_path / "elsewhere")
    link(tmp_path / "elsewhere", planted / name)
    done = install_bundle(tmp_path / "b.hvq", device, trusted=public)
    assert done.version != done.former
    assert (device / "current" / name).lstat().st_nlink == 1
    assert not (device / "current" / name).is_symlink()


@pytest.mark.parametrize("name", ["bundle.json", "model.fp32.onnx", "../../history.json"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(files, device, name):
    version = install_bundle(files["a"], device).bundle.path
    (version / name).unlink()
    os.mkfifo(version / name)
    command = [sys.executable, "-m", "hvq_edge", "bundle", "install", files["a"], "--into", device]
    subprocess.run([*command, "--no-self-test"], check=True, timeout=PATIENCE_SECONDS)
    assert in_use(device) == "a"


def test_a_folder_of_versions_that_is_a_link_is_refused(files, device, tmp_path):
    install_bundle(files["a"], device)
    install_bundle(files["b"], device)
    shutil.move(device / "versions", tmp_path / "elsewhere")
    (device / "versions").symlink_to(tmp_path / "elsewhere")
    for change in (lambda: install_bundle(files["c"], device), lambda: roll_back(device)):
        with pytest.raises(OutputError, match="versions is a link"):
            change()
    assert in_use(device) == "b"


def test_a_version_that_is_a_link_is_not_gone_back_to(files, device, tmp_path):
    for note in "abc":
        install_bundle(files[note], device)
    (_, middle, _) = json.loads((device / "history.json").read_text())["versions"]
    (device / "versions" / middle).rename(tmp_path / "elsewhere")
    (device / "versions" / middle).symlink_to(tmp_path / "elsewhere")
    roll_back(device)
    assert in_use(device) == "a"


@pytest.mark.parametrize("name", ["../../elsewhere", "elsewhere", "/", ".", "0123456789abcdef-0"])
def test_a_history_does_not_lead_out_of_the_folder(files, device, tmp_path, name):
    """A whole bundle lies there, and its name is none that install gives."""
    install_bundle(files["a"], device)
    version = current_version(device)
    save_bundle(tmp_path / "elsewhere")
    if name.strip("/.") and "/" not in name:
        save_bundle(device / "versions" / name)
    (device / "history.json").write_text(json.dumps({"versions": [name, version]}))
    with pytest.raises(InputError, match="no earlier version"):
        roll_back(device)
    assert in_use(device) == "a"


def test_what_stands_where_the_history_is_written_is_not_written_through(files, device, tmp_path):
    install_bundle(files["a"], device)
    (tmp_path / "other").write_text("of somebody else")
    (device / ".history.json.tmp").symlink_to(tmp_path / "other")
    install_bundle(files["b"], device)
    assert (tmp_path / "other").read_text() == "of somebody else"
    roll_back(device)
    assert in_use(device) == "a"


def test_an_engine_that_the_device_built_does_not_make_it_another_version(files, device):
    first = install_bundle(files["a"], device)
    (first.bundle.path / "engines").mkdir()
    (first.bundle.path / "engines" / "tensorrt-10.3.0-sm87-fp32.plan").write_bytes(b"plan")
    assert install_bundle(files["a"], device).version == first.version


def test_a_lost_history_costs_the_way_back_only(files, device):
    for note in "ab":
        install_bundle(files[note], device)
    (device / "history.json").write_text("{cut")
    install_bundle(files["c"], device)
    roll_back(device)
    assert in_use(device) == "b"


def test_what_does_not_pass_is_not_installed(files, device, tmp_path):
    install_bundle(files["a"], device)
    before = sorted(path.name for path in (device / "versions").iterdir())

    def refuse(_: object) -> None:
        raise GateFailed("not good.")

    with pytest.raises(GateFailed, match="not good"):
        install_bundle(files["b"], device, test=refuse)
    with pytest.raises(GateFailed, match="not signed"):
        install_bundle(files["b"], device, trusted=new_key(tmp_path / "key"))
    (tmp_path / "cut.hvq").write_bytes(files["b"].read_bytes()[:-100])
    with pytest.raises(BundleError):
        install_bundle(tmp_path / "cut.hvq", device)
    assert in_use(device) == "a"
    assert sorted(path.name for path in (device / "versions").iterdir()) == before


def test_two_updates_at_once(files, device):
    def second(_: object) -> None:
        with pytest.raises(OutputError, match="another update"):
            install_bundle(files["b"], device)

    install_bundle(files["a"], device, test=second)
    assert in_use(device) == "a"


def test_install_and_rollback_from_the_command_line(tmp_path, device, capsys):
    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        return int(caught.value.code or 0)

    bundle = save_bundle(tmp_path / "bundle").path
    public = new_key(tmp_path / "key")
    versions = []
    for note in ("first", "second"):
        manifest = open_bundle(bundle).manifest
        write_manifest(bundle, manifest.model_copy(update={"notes": (note,)}))
        sign_bundle(bundle, tmp_path / "key")
        assert run("bundle", "pack", bundle, "-o", tmp_path / "b.hvq") == 0
        capsys.readouterr()
        arguments = ("bundle", "install", tmp_path / "b.hvq", "--into", device, "--json")
        assert run(*arguments, "--require-signature", public) == 0
        said = json.loads(capsys.readouterr().out)
        assert "a grey frame" in said["self_test"]
        versions.append(said["version"])
    assert in_use(device) == "second"
    assert run("bundle", "rollback", device) == 0
    assert versions[0] in capsys.readouterr().out
    assert in_use(device) == "first"
    assert run("bundle", "rollback", tmp_path) == 2


def test_an_unsigned_version_is_not_gone_back_to_where_one_must_be_signed(files, device, tmp_path):
    public = new_key(tmp_path / "key")
    for note in "ab":
        install_bundle(files[note], device)
    with pytest.raises(GateFailed, match="not signed"):
        roll_back(device, trusted=public)
    assert in_use(device) == "b"
    with pytest.raises(InputError, match="cannot be read"):
        roll_back(device, trusted=tmp_path / "absent")
    assert roll_back(device).bundle.manifest.notes == ("a",)


def test_a_version_that_is_in_use_already(files, device, capsys):
    for said in ("In use", "Already in use"):
        with pytest.raises(SystemExit) as caught:
            main(["bundle", "install", str(files["a"]), "--into", str(device), "--no-self-test"])
        assert not caught.value.code
        assert capsys.readouterr().out.startswith(said)
    with pytest.raises(SystemExit) as caught:
        main(["bundle", "rollback", str(device)])
    assert caught.value.code == 2
    assert current_version(device) in capsys.readouterr().err


def test_a_file_is_no_folder_of_versions(files, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        install_bundle(files["a"], tmp_path / "file")


def test_nothing_is_installed(tmp_path):
    with pytest.raises(InputError, match="no bundle is installed"):
        roll_back(tmp_path)
