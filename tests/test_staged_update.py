"""A bundle in use is a whole bundle, whenever the power goes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from graphs import CATEGORIES, expected, frames, save_bundle

from hvq_edge.bundle import open_bundle, write_manifest
from hvq_edge.cli.app import main
from hvq_edge.errors import BundleError, GateFailed, InputError, OutputError
from hvq_edge.integrity.content import look
from hvq_edge.integrity.keys import new_key
from hvq_edge.integrity.pack import pack_bundle
from hvq_edge.integrity.self_test import CHECK_NAME, KnownAnswer, self_test, write_known_answer
from hvq_edge.integrity.signature import sign_bundle
from hvq_edge.integrity.staged_update import current_version, install_bundle, roll_back


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


# Power cuts.


class PowerCut(BaseException):
    """No handler of ours may clean up after this one: a dead machine cleans nothing."""


class Power:
    """Cuts at the n-th call into the operating system; from then on every call fails.

    Files that were not brought to the disk before the cut lose their content. The rename that
    brings a version into use may be lost as well until its folder was brought there
    (:meth:`lose_the_switch`). Other renames count as done: nothing depends on their order alone.
    """

    CALLS = ("open", "fsync", "rename", "replace", "symlink", "unlink", "rmdir", "mkdir")

    def __init__(self, patch: pytest.MonkeyPatch, cut_at: int) -> None:
        self.left = cut_at
        self.dead = False
        self.synced: set[int] = set()
        self.log: list[str] = []
        self.unsafe: tuple[Path, str] | None = None
        for name in self.CALLS:
            patch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, real):
        def call(*arguments, **options):
            if self.dead or self.left == 0:
                self.dead = True
                raise PowerCut
            self.left -= 1
            switches = name == "replace" and str(arguments[1]).endswith("current")
            former = str(Path(arguments[1]).readlink()) if switches else ""
            result = real(*arguments, **options)
            if name == "fsync":
                inode = os.fstat(arguments[0]).st_ino
                self.synced.add(inode)
                if self.unsafe and self.unsafe[0].parent.stat().st_ino == inode:
                    self.unsafe = None
            if switches:
                self.log.append("switched")
                self.unsafe = (Path(arguments[1]), former)
            return result

        return call

    def lose_the_switch(self) -> bool:
        """Undo the change of ``current`` if it was not brought to the disk; say whether."""
        if self.unsafe is None:
            return False
        link, former = self.unsafe
        link.unlink()
        link.symlink_to(former)
        return True


def lose_what_was_not_brought_to_disk(device: Path, power: Power) -> None:
    for path in device.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_ino not in power.synced:
            path.write_bytes(b"")


def test_a_power_cut_at_every_step(files, tmp_path, monkeypatch):
    """One update cut at its first call, the next at its second, ... until one comes through."""
    base = tmp_path / "base"
    install_bundle(files["a"], base)
    old = {path.stat().st_ino for path in base.rglob("*")}
    seen, lost = [], 0
    for step in range(400):
        device = tmp_path / "device"
        shutil.rmtree(device, ignore_errors=True)
        # Hard links: what was on the disk before the update began is safe.
        shutil.copytree(base, device, symlinks=True, copy_function=os.link)
        with monkeypatch.context() as patch:
            power = Power(patch, step)
            try:
                install_bundle(files["b"], device)
            except PowerCut:
                done = False
            else:
                done = True
        power.synced |= old
        lose_what_was_not_brought_to_disk(device, power)
        seen.append(in_use(device))
        assert in_use(device) == ("b" if power.log else "a")
        if power.lose_the_switch():
            lost += 1
            assert not done, "what is said to be in use must be on the disk"
            assert in_use(device) == "a"
        if not done:
            install_bundle(files["b"], device)  # the next attempt finds nothing in its way
            assert in_use(device) == "b"
            leftovers = [path.name for path in device.rglob(".*") if path.name != ".lock"]
            assert leftovers == []
        roll_back(device)
        assert in_use(device) == "a"
        if done:
            break
    assert done
    assert step > 20, "what was cut?"
    assert seen == sorted(seen)
    assert {"a", "b"} <= set(seen)
    assert lost, "no cut between the rename and its folder's way to the disk"


def test_a_power_cut_in_a_rollback(files, tmp_path, monkeypatch):
    for step in range(100):
        device = tmp_path / str(step)
        for note in "ab":
            install_bundle(files[note], device)
        with monkeypatch.context() as patch:
            power = Power(patch, step)
            try:
                roll_back(device)
            except PowerCut:
                done = False
            else:
                done = True
        assert in_use(device) == ("a" if power.log else "b")
        if done:
            break
    assert done
    assert step > 2


LOOP = """
import sys
from pathlib import Path
from hvq_edge.integrity.staged_update import install_bundle, roll_back
device, *files = map(Path, sys.argv[1:])
install_bundle(files[0], device)
print("ready", flush=True)
while True:
    for file in files:
        install_bundle(file, device)
    roll_back(device)
"""


def test_killed_at_any_moment(files, device):
    moments = np.random.default_rng().uniform(0, 0.15, 4)
    seen = set()
    for moment in moments:
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, device, *files.values()], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        seen.add(in_use(device))
    assert seen <= set("abcd")
    install_bundle(files["a"], device)
    assert in_use(device) == "a"


# The trial before a version comes into use.


def test_a_grey_frame_where_there_is_no_known_answer(tmp_path):
    assert "a grey frame" in self_test(save_bundle(tmp_path / "bundle"))


@pytest.fixture(params=["one", "input", "auto"])
def answered(request, tmp_path):
    """A bundle that holds the answer to a picture, and what writes another score into it."""
    bundle = save_bundle(tmp_path / "bundle", request.param)
    (bundle.path / "verify").mkdir()
    picture = frames(1)
    number = 0 if request.param == "one" else 1
    known = expected(picture, request.param, np.array([number]))
    category = int(known["category"][0]) if request.param == "auto" else number

    def answer(error: float = 0.0, name: str | None = None):
        write_known_answer(
            bundle.path / CHECK_NAME,
            KnownAnswer(
                picture,
                category if name is None else CATEGORIES.index(name),
                float(known["score"][0]) + error,
                {"fp32": 1e-3},
            ),
        )
        pack_bundle(bundle.path, tmp_path / "b.hvq")
        return open_bundle(bundle.path)

    return answer


def test_the_known_answer(answered):
    assert "the check picture" in self_test(answered())
    with pytest.raises(GateFailed, match="right is"):
        self_test(answered(0.01))


def test_the_known_answer_of_another_category(tmp_path):
    bundle = save_bundle(tmp_path / "bundle", "auto")
    (bundle.path / "verify").mkdir()
    known = expected(frames(1), "auto")
    wrong = (int(known["category"][0]) + 1) % 3
    write_known_answer(
        bundle.path / CHECK_NAME,
        KnownAnswer(frames(1), wrong, float(known["score"][0]), {"fp32": 1e-3}),
    )
    pack_bundle(bundle.path, tmp_path / "b.hvq")
    with pytest.raises(GateFailed, match=CATEGORIES[wrong]):
        self_test(open_bundle(bundle.path))


def test_a_graph_that_does_not_load(tmp_path):
    bundle = save_bundle(tmp_path / "bundle")
    (bundle.path / "model.fp32.onnx").write_bytes(b"no graph")
    with pytest.raises(GateFailed, match="does not run here"):
        self_test(bundle)


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
