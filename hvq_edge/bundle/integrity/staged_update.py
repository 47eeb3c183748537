"""Updates of a device that a power cut cannot spoil, and the way back.

::

    DIR/versions/3f2a…/     a whole bundle each, named by what it holds
    DIR/current             a link to the one in use: give DIR/current to hvq-edge stream
    DIR/history.json        the order in which they came into use

A new version is written beside the others, brought to the disk (``fsync`` of every file and
folder), tried, and only then does the link change, by one rename. Before that moment the old
version is in use, after it the new one; there is no third state.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from filelock import FileLock, Timeout
from pydantic import Field

from hvq_edge.bundle.integrity.content import SIGNATURE_NAME, look
from hvq_edge.bundle.integrity.keys import read_public_keys
from hvq_edge.bundle.integrity.pack import unpack_bundle
from hvq_edge.bundle.integrity.signature import require_signature
from hvq_edge.bundle.manifest import MANIFEST_NAME
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.common.atomic import output_error
from hvq_edge.common.plain_file import read_plain
from hvq_edge.common.records import Strict, kept_record
from hvq_edge.errors import BundleError, GateFailed, HvqEdgeError, InputError, OutputError

VERSIONS = "versions"
CURRENT = "current"
HISTORY = "history.json"
KEPT = 3
_SAY_WHAT_IT_IS = (MANIFEST_NAME, SIGNATURE_NAME)
"""Files of a bundle that its name among the versions is made of."""

Test = Callable[[Bundle], None]
"""Raises what is wrong with a version before it comes into use."""


_VERSION = r"^[0-9a-f]{16}(-[1-9][0-9]*)?$"
"""What install calls a version."""
_LEFT_BEHIND = re.compile(r"\.[0-9]+\.staged|\.\.[0-9]+\.staged\.[0-9a-f]{8}\.tmp(\.former)?")
"""What an update that was cut leaves behind among the versions."""


class History(Strict):
    """The content of ``history.json``."""

    # A name that install does not give could lead out of the folder.
    versions: tuple[Annotated[str, Field(pattern=_VERSION)], ...] = ()
    """Each of them was in use, the last one last."""


@dataclass(frozen=True)
class Switched:
    """What an update or a rollback did."""

    version: str
    bundle: Bundle
    former: str | None
    removed: tuple[str, ...] = ()


def install_bundle(
    file: Path,
    into: Path,
    *,
    trusted: Path | None = None,
    test: Test | None = None,
    keep: int = KEPT,
) -> Switched:
    """Bring a packed bundle into use, or leave everything as it was.

    Args:
        file: what ``hvq-edge bundle pack`` wrote.
        into: the device's folder of versions; made where it is not there.
        trusted: public keys of which one must have signed it.
        test: called with the new version before it comes into use.
        keep: versions to keep, the new one included; at least 2, for a way back.

    Raises:
        BundleError: the file is damaged or no bundle.
        GateFailed: it is not signed as asked.
        HvqEdgeError: what ``test`` raised.
        OutputError: it cannot be written, or another update is running.
    """
    if file.is_dir():
        raise BundleError(
            f"{file} is a folder, not a packed bundle.",
            next_step=f"run hvq-edge bundle pack {file}, then install the file that it writes",
        )
    if not file.is_file():  # before anything is made
        raise BundleError(
            f"there is no file {file}.", next_step="write one with hvq-edge bundle pack"
        )
    with _only_one(into):
        _clear(into)
        former = current_version(into)
        staged = into / VERSIONS / f".{os.getpid()}.staged"
        bundle = unpack_bundle(file, staged)
        try:
            if trusted is not None:
                require_signature(bundle, trusted)
            name = _place(into, staged)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        bundle = open_bundle(into / VERSIONS / name)
        try:
            if trusted is not None:  # of the very folder that the link will name
                bundle = require_signature(bundle, trusted).bundle
            if test is not None:
                test(bundle)
        except BaseException:
            if name != former and name not in _history(into).versions:
                shutil.rmtree(bundle.path, ignore_errors=True)
            raise
        known = _history(into).versions
        before: tuple[str, ...] = ()
        if former in known:
            before = known[: known.index(former) + 1]
        elif former is not None and re.fullmatch(_VERSION, former):  # else somebody set the link
            before = (former,)
        history = (*(one for one in before if one != name), name)[-max(keep, 2) :]
        # First the way back, then the step: cut between the two, it is a version longer than
        # the link says, which rollback ignores.
        _write_history(into, history)
        _switch(into, name)
        return Switched(name, bundle, former, _remove_others(into, history))


def roll_back(into: Path, *, trusted: Path | None = None) -> Switched:
    """Bring the version before the current one back into use, after checking every byte of it.

    A version that is damaged, or not signed as asked, is passed over.

    Args:
        into: the device's folder of versions.
        trusted: public keys of which one must have signed it.

    Raises:
        InputError: nothing is installed there, or no earlier version, or ``trusted`` holds no key.
        GateFailed: no earlier version is whole and signed as asked.
        OutputError: it cannot be written, or an update is running.
    """
    if not (into / CURRENT).is_symlink():
        raise InputError(
            f"no bundle is installed in {into}.",
            next_step=f"run hvq-edge bundle install FILE.hvq --into {into}",
        )
    if trusted is not None:
        read_public_keys(trusted)  # a fault of that file is not one of every version
    with _only_one(into):
        former = current_version(into)
        known = _history(into).versions
        earlier = known[: known.index(former)] if former in known else known
        faults = []
        for name in reversed(earlier):
            try:
                bundle = _whole(into / VERSIONS / name)
                if trusted is not None:
                    require_signature(bundle, trusted)
            except HvqEdgeError as error:
                faults.append(error.cause)
                continue
            except OSError as error:
                faults.append(f"{into / VERSIONS / name} cannot be read: {error.strerror}.")
                continue
            _switch(into, name)
            return Switched(name, bundle, former)
    if not faults:
        raise InputError(
            f"{into} has no earlier version to go back to; {former} is in use.",
            next_step=f"run hvq-edge bundle install FILE.hvq --into {into} with another bundle",
        )
    raise GateFailed(
        f"{into} has no earlier version to go back to: {' '.join(faults)}",
        next_step=f"run hvq-edge bundle install FILE.hvq --into {into} with a good bundle",
    )


def current_version(into: Path) -> str | None:
    """Return the name of the version in use; ``None``: none is."""
    link = into / CURRENT
    return link.readlink().name if link.is_symlink() else None


def _place(into: Path, staged: Path) -> str:
    """Bring a staged version to the disk under its own name; return that."""
    digest = hashlib.sha256()
    for part in _SAY_WHAT_IT_IS:
        digest.update(_content(staged / part) or b"")
    name = digest.hexdigest()[:16]
    number = 1
    target = into / VERSIONS / name
    while os.path.lexists(target):
        if _same_version(staged, target):
            return target.name
        number += 1  # damaged or planted, and perhaps in use: leave it, go beside it
        target = target.with_name(f"{name}-{number}")
    try:
        _bring_to_disk(staged)
        os.rename(staged, target)  # noqa: PTH104  # beside the other steps that the tests cut
        _sync(target.parent)
    except OSError as error:
        raise output_error(target, error) from error
    return target.name


def _switch(into: Path, name: str) -> None:
    link = into / CURRENT
    temporary = into / f".{CURRENT}.tmp"
    try:
        temporary.unlink(missing_ok=True)
        os.symlink(f"{VERSIONS}/{name}", temporary)  # noqa: PTH211
        os.replace(temporary, link)  # noqa: PTH105
        _sync(into)
    except OSError as error:
        raise output_error(link, error) from error


def _whole(folder: Path) -> Bundle:
    """Open a version; raise where it is or holds a link, or is other than its manifest says."""
    bundle = open_bundle(folder)
    linked = any(stat.S_ISLNK(one.st_mode) for one in _statuses(folder))
    faults = ("there is a link, which install never writes",) if linked else look(bundle).faults
    if faults:
        raise BundleError(f"{folder} is damaged: {'; '.join(faults)}.")
    return bundle


def _same_version(staged: Path, there: Path) -> bool:
    """Tell whether a version that lies there is, file by file, the one that came.

    Its own manifest cannot say so: whoever put the folder there wrote that too. Engines that the
    device built into it are its own.
    """
    try:
        # What has a second name somewhere can be written to there, whatever the rights here are.
        if any(one.st_nlink > 1 and not stat.S_ISDIR(one.st_mode) for one in _statuses(there)):
            return False
        same = all(_content(staged / one) == _content(there / one) for one in _SAY_WHAT_IT_IS)
        return same and not look(_whole(there)).added
    except (HvqEdgeError, OSError):
        return False


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    """Yield the status of a folder and of all that lies in it; links are not followed."""
    for path in (folder, *folder.rglob("*")):
        yield path.lstat()


def _content(path: Path) -> bytes | None:
    return read_plain(path, follow=False) if os.path.lexists(path) else None


def _history(into: Path) -> History:
    return (
        kept_record(into / HISTORY, History) or History()
    )  # then there is no way back, but a way forward


def _write_history(into: Path, versions: tuple[str, ...]) -> None:
    path = into / HISTORY
    temporary = into / f".{HISTORY}.tmp"
    try:
        temporary.unlink(missing_ok=True)  # whatever was put there is not written through
        with temporary.open("x", encoding="utf-8") as file:
            file.write(History(versions=versions).model_dump_json() + "\n")
        _sync(temporary)
        os.replace(temporary, path)  # noqa: PTH105
        _sync(into)
    except OSError as error:
        raise output_error(path, error) from error


def _remove_others(into: Path, keep: tuple[str, ...]) -> tuple[str, ...]:
    """Remove versions that are neither kept nor in use; a disk of a device is small.

    What is called otherwise than install calls them is somebody else's, and stays.

    Returns:
        The names of those that are gone.
    """
    current = current_version(into)
    others = [
        path
        for path in sorted((into / VERSIONS).iterdir())
        if re.fullmatch(_VERSION, path.name) and path.name not in keep and path.name != current
    ]
    for path in others:
        shutil.rmtree(path, ignore_errors=True)
    return tuple(path.name for path in others if not os.path.lexists(path))


def _clear(into: Path) -> None:
    """Remove what an update that was cut left behind."""
    try:
        (into / VERSIONS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(into, error) from error
    for path in (into / VERSIONS).iterdir():
        if _LEFT_BEHIND.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _bring_to_disk(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):  # what is deeper first
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _only_one(into: Path) -> Iterator[None]:
    if into.exists() and not into.is_dir():
        raise OutputError(
            f"{into} is a file, not a folder of versions.",
            next_step="name a folder with --into; it is made where it is not there",
        )
    if (into / VERSIONS).is_symlink():
        raise OutputError(
            f"{into / VERSIONS} is a link: what lies in it may be changed from elsewhere.",
            next_step=f"put the folder itself in its place; {into} may be a link",
        )
    try:
        into.mkdir(parents=True, exist_ok=True)
        lock = FileLock(into / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"another update of {into} is running.", next_step="wait for it, then look again"
        ) from error
    except OSError as error:
        raise output_error(into, error) from error
    try:
        yield
    finally:
        lock.release()
