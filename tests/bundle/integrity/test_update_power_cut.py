"""An update that the power or a kill ends: one whole version is in use after it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.versions_of_a_bundle import device, files, in_use  # noqa: F401  # fixtures

from hvq_edge.bundle.integrity.staged_update import install_bundle, roll_back


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
from hvq_edge.bundle.integrity.staged_update import install_bundle, roll_back
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
