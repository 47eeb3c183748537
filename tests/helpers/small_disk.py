"""A file system that is soon full: a tmpfs, where one can be mounted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.paths import with_helpers


@contextmanager
def mounted_tmpfs(folder: Path, size: int | str) -> Iterator[Path]:
    """Make a folder a file system of ``size`` bytes (or ``1m``); skips the test where it cannot."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


PRIVATE_MOUNT = ("unshare", "--map-root-user", "--mount")


def in_private_mount(mount_options: str, code: str, folder: Path) -> str:
    """Run Python in a mount namespace of its own with a small disk at ``folder``.

    The mount is seen by that process alone and goes with it, root or not.
    """
    script = f'mount -t tmpfs -o {mount_options} tmpfs "$1" || exit 77; exec "$2" -c "$3" "$1"'
    try:
        done = subprocess.run(
            [*PRIVATE_MOUNT, "sh", "-c", script, "sh", folder, sys.executable, code],
            capture_output=True,
            text=True,
            env=with_helpers(),
        )
    except FileNotFoundError:
        pytest.skip("unshare (util-linux) is not installed")
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"this machine allows no private mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout
