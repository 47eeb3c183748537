"""A bundle as one file, ``NAME.hvq``: a zip archive of a narrow kind.

Every member is stored without compression (weights hardly compress), in the order of their names
and with one fixed date, so the same bundle gives the same bytes anywhere. And nothing in an archive
can be larger than the archive: what unpacks to more is refused before a byte is written.
"""

from __future__ import annotations

import shutil
import stat
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hvq_edge.bundle.integrity.content import SIGNATURE_NAME, check_names, look, safe_name, seal
from hvq_edge.bundle.integrity.signature import (
    MOST_SIGNATURE_BYTES,
    outdated,
    read_signature,
    signed_faults,
)
from hvq_edge.bundle.manifest import MANIFEST_NAME, BundleManifest
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.common.atomic import atomic_file, atomic_folder
from hvq_edge.common.plain_file import open_plain
from hvq_edge.common.wording import counted
from hvq_edge.errors import BundleError, GateFailed, OutputError

SUFFIX = ".hvq"
MOST_MANIFEST_BYTES = 16 << 20
MOST_FILES = 10_000
_DATE = (1980, 1, 1, 0, 0, 0)
"""The first that a zip archive can hold."""
_MODE = (stat.S_IFREG | 0o644) << 16
_UNIX = 3
_ENCRYPTED = 0x1
_BROKEN = (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError, struct.error)
"""What zipfile raises over an archive that lies about itself."""
_DO_NOT_USE = "do not use this file; ask for it again where it came from"


@dataclass(frozen=True)
class Packed:
    """What packing did with files that were not in the manifest."""

    taken_in: tuple[str, ...]
    """New in ``bundle.json``, or other than before."""
    left_behind: tuple[str, ...]
    """Engines built after signing."""


def pack_bundle(folder: Path, out: Path) -> Packed:
    """Write a bundle as one file.

    A signed bundle is packed as it was signed. In an unsigned one, the reports that other commands
    wrote are put into the manifest first, so that they travel too and their bytes are known.

    Args:
        folder: the bundle.
        out: file to write, by custom ``NAME.hvq``.

    Raises:
        BundleError: no bundle there, or a signature that cannot be read.
        GateFailed: a file is not as the manifest says, or was added after signing, or the manifest
            was changed after signing.
        OutputError: the file cannot be written, or would lie in the bundle.
    """
    bundle = open_bundle(folder)
    folder = bundle.path
    if folder.resolve() in out.resolve().parents:
        raise OutputError(
            f"{out} is in the bundle itself: it would take the place of one of its files, or be "
            "packed with them the next time.",
            next_step="name a file outside of the bundle with --out",
        )
    signature = read_signature(folder)
    taken_in: tuple[str, ...] = ()
    if signature is None:
        bundle, taken_in = seal(bundle)
    elif outdated(folder, signature):
        raise GateFailed(
            f"the signature of {folder} does not fit: {MANIFEST_NAME} was changed after signing, "
            "as calibrate does.",
            next_step="run hvq-edge sign again, then pack",
        )
    content = look(bundle)
    faults = signed_faults(content)
    if faults:
        raise GateFailed(
            f"the bundle {folder} is not what its manifest says: {'; '.join(faults)}.",
            next_step="run hvq-edge sign again if that is right, else copy the bundle again",
        )
    names = [MANIFEST_NAME, *([SIGNATURE_NAME] if signature else []), *sorted(content.files)]
    with atomic_file(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = _MODE
            info.create_system = _UNIX
            info.file_size = (folder / name).stat().st_size  # so that zip64 is chosen by size
            with open_plain(folder / name) as source, archive.open(info, "w") as member:
                shutil.copyfileobj(source, member, 1 << 20)
    return Packed(taken_in, content.engines)


def unpack_bundle(file: Path, folder: Path) -> Bundle:
    """Write the bundle that a file holds; nothing appears unless all of it is right.

    Args:
        file: what :func:`pack_bundle` wrote.
        folder: does not exist yet, or is empty.

    Returns:
        The opened bundle; every byte is as its manifest says. Who made it is another question:
        :func:`hvq_edge.bundle.integrity.signature.require_signature`.

    Raises:
        BundleError: the file is damaged, or is no bundle, or holds what no bundle may hold.
        OutputError: ``folder`` exists, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            f"{folder} exists; it is left as it is.", next_step="name a folder that is not there"
        )
    try:
        with open_plain(file) as opened, zipfile.ZipFile(opened) as archive:
            members = _checked_members(file, archive)
            bundle = Bundle(folder, _manifest(file, archive, members))
            _check_complete(file, bundle, members)
            with atomic_folder(folder) as temporary:
                for name in members:
                    _extract(archive, members[name], temporary / name)
                content = look(Bundle(temporary, bundle.manifest))
                if content.faults or content.added or content.engines:
                    raise BundleError(
                        f"{file} is damaged: {'; '.join(signed_faults(content, engines=True))}.",
                        next_step=_DO_NOT_USE,
                    )
    except FileNotFoundError as error:
        raise BundleError(
            f"there is no file {file}.", next_step="write one with hvq-edge bundle pack"
        ) from error
    except _BROKEN as error:
        raise BundleError(
            f"{file} is no packed bundle, or is cut short: {error}.", next_step=_DO_NOT_USE
        ) from error
    return bundle


def _checked_members(file: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name, after looking at everything a header can lie about."""
    listed, size = archive.infolist(), file.stat().st_size
    if len(listed) > MOST_FILES:
        raise _refused(file, f"it has {len(listed)} members, more than {MOST_FILES}")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in listed:
        name = info.orig_filename  # as it stands in the file: zipfile cuts it at a NUL
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not safe_name(name) or name != info.filename:
            raise _refused(file, f"it has a member {name!r}, which leads elsewhere")
        if kind not in (0, stat.S_IFREG):
            raise _refused(file, f"its member {name} is a link or no plain file")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise _refused(file, f"its member {name} is compressed")
        if info.flag_bits & _ENCRYPTED:
            raise _refused(file, f"its member {name} is encrypted")
        if not 0 <= info.header_offset < size:
            raise _refused(file, f"its member {name} lies outside of it")
        if name in members:
            raise _refused(file, f"it has two members {name}")
        members[name] = info
    total = sum(info.file_size for info in listed)
    if total > size:  # members that lie upon each other
        raise _refused(file, f"its members are larger than the file ({total} bytes)")
    return members


def _manifest(
    file: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
) -> BundleManifest:
    info = members.get(MANIFEST_NAME)
    if info is None:
        raise _refused(file, f"it has no {MANIFEST_NAME}")
    if info.file_size > MOST_MANIFEST_BYTES:
        raise _refused(file, f"its {MANIFEST_NAME} has {info.file_size} bytes")
    try:
        return BundleManifest.model_validate_json(archive.read(info))
    except ValidationError as error:
        raise _refused(
            file,
            f"its {MANIFEST_NAME} is none that this version reads "
            f"({counted(error.error_count(), 'fault')})",
        ) from error


def _check_complete(file: Path, bundle: Bundle, members: dict[str, zipfile.ZipInfo]) -> None:
    check_names(bundle)
    files = bundle.manifest.files
    allowed = {MANIFEST_NAME, SIGNATURE_NAME, *files}
    extra = [name for name in members if name not in allowed]
    missing = [name for name in files if name not in members]
    sizes = [
        name for name in files if name in members and members[name].file_size != files[name].bytes
    ]
    faults = (
        *_in_words(extra, "is not in its manifest"),
        *_in_words(missing, "is missing"),
        *_in_words(sizes, "has another size than its manifest says"),
    )
    if SIGNATURE_NAME in members and members[SIGNATURE_NAME].file_size > MOST_SIGNATURE_BYTES:
        faults = (*faults, f"{SIGNATURE_NAME} is too large")
    if faults:
        raise _refused(file, "; ".join(faults))


def _in_words(names: Iterable[str], what: str) -> tuple[str, ...]:
    return tuple(f"{name} {what}" for name in names)


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    # Not ZipFile.extract: it repairs bad names silently, and these were all checked already.
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _refused(file: Path, why: str) -> BundleError:
    return BundleError(f"{file} is refused: {why}.", next_step=_DO_NOT_USE)
