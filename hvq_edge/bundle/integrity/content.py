"""What is in a bundle's folder, against what its manifest says."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hvq_edge.bundle.manifest import MANIFEST_NAME, FileRecord, record_of, write_manifest
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.verification import VERIFY_NAME
from hvq_edge.common.atomic import sha256_of
from hvq_edge.errors import BundleError, GateFailed
from hvq_edge.runtime.tensorrt.engine_file import ENGINES_FOLDER

SIGNATURE_NAME = "bundle.sig"
CARD_NAME = "MODEL.md"
"""The model card: what is in the bundle, for people."""
_APART = (MANIFEST_NAME, SIGNATURE_NAME)
"""No file can hold its own hash, nor that of a signature over it."""
MADE_AFTER_EXPORT = (
    VERIFY_NAME,
    "verify/",
    "eval-",
    "bench",
    "acceptance.html",
    CARD_NAME,
    f"{ENGINES_FOLDER}/",
)
"""How names begin of what other commands write into a bundle, and may write again."""


@dataclass(frozen=True)
class Content:
    """How a bundle's folder differs from its manifest; names relative, with forward slashes."""

    files: tuple[str, ...]
    """Those the manifest names."""
    changed: tuple[str, ...]
    """Other bytes than the manifest says, or a link in the place of a file."""
    missing: tuple[str, ...]
    added: tuple[str, ...]
    """In the folder and not in the manifest."""
    engines: tuple[str, ...]
    """Engines that are not in the manifest: this device built them."""

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong whether it is signed or not, in words."""
        return (
            *(f"{name} was changed" for name in self.changed),
            *(f"{name} is missing" for name in self.missing),
        )


def safe_name(name: str) -> bool:
    r"""Tell whether a manifest's or an archive's name stays within the folder on any system.

    Example:
        >>> [safe_name(name) for name in ("eval-int8/metrics.json", "../x", "/x", "c:x", "a\\b")]
        [True, False, False, False, False]
    """
    parts = name.split("/")
    return (
        0 < len(name) <= 512
        and name.isprintable()
        and not any(part in ("", ".", "..") for part in parts)
        and not any(sign in name for sign in "\\:")
    )


def check_names(bundle: Bundle) -> None:
    """Check every name of the manifest before any file is opened by it.

    Raises:
        BundleError: a name leads out of the folder, or two cannot both be there.
    """
    manifest = bundle.manifest
    for name in (*manifest.files, *manifest.models.values()):
        if not safe_name(name) or name in _APART:
            raise BundleError(
                f"the manifest of {bundle.path} names {name!r}, which no bundle may hold.",
                next_step="do not use this bundle; ask where it came from",
            )
    folders = _folders(manifest.files)
    seen: dict[str, str] = {}
    for name in (*manifest.files, *folders):
        before = seen.setdefault(name.casefold(), name)
        if before != name or (name in folders and name in manifest.files):
            raise BundleError(
                f"the manifest of {bundle.path} names {before!r} and {name!r}, which cannot both "
                "be there on every file system.",
                next_step="rename one of them, then run hvq-edge sign again",
            )


def look(bundle: Bundle) -> Content:
    """Compare every byte of a bundle's folder with the manifest.

    Raises:
        BundleError: the manifest names a file outside the folder.
    """
    check_names(bundle)
    listed = bundle.manifest.files
    here = dict(_walk(bundle.path))
    changed = tuple(
        name
        for name, record in listed.items()
        if name in here and not (here[name] and _same(bundle.path / name, record))
    )
    extra = [name for name in here if name not in listed and name not in _APART]
    return Content(
        files=tuple(listed),
        changed=changed,
        missing=tuple(name for name in listed if name not in here),
        added=tuple(name for name in extra if not name.startswith(f"{ENGINES_FOLDER}/")),
        engines=tuple(name for name in extra if name.startswith(f"{ENGINES_FOLDER}/")),
    )


def seal(bundle: Bundle) -> tuple[Bundle, tuple[str, ...]]:
    """Put every file of the folder into the manifest, so that a signature covers all of them.

    What ``export`` wrote must still be as it was. What other commands wrote since (reports,
    engines) is taken in as it is now.

    Args:
        bundle: an opened bundle.

    Returns:
        The bundle with its new manifest, and the names that are new or other than before.

    Raises:
        GateFailed: a file of the export is changed or missing, or there is a link.
        BundleError: a name that no bundle may hold.
        OutputError: the manifest cannot be written.
    """
    content = look(bundle)
    here = dict(_walk(bundle.path))
    faults = [f"{name} is a link or no file" for name, plain in here.items() if not plain]
    later = [name for name in content.changed if name.startswith(MADE_AFTER_EXPORT)]
    faults += [f"{name} was changed" for name in content.changed if name not in later]
    gone = [name for name in content.missing if name.startswith(MADE_AFTER_EXPORT)]
    faults += [f"{name} is missing" for name in content.missing if name not in gone]
    if faults:
        raise GateFailed(
            f"the bundle {bundle.path} is not as it was exported: {'; '.join(faults)}.",
            next_step="run hvq-edge export again, or copy the whole bundle again",
        )
    new = (*later, *content.added, *content.engines)
    if not new and not gone:
        return bundle, ()
    files = {name: record for name, record in bundle.manifest.files.items() if name not in gone}
    files.update({name: record_of(bundle.path / name) for name in new})
    sealed = Bundle(bundle.path, bundle.manifest.model_copy(update={"files": files}))
    check_names(sealed)
    write_manifest(bundle.path, sealed.manifest)
    return sealed, (*new, *gone)


def _walk(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield each name below a folder, and whether it is a plain file; links are not followed."""
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            for name, plain in _walk(path):
                yield f"{path.name}/{name}", plain
        else:
            yield path.name, stat.S_ISREG(mode)


def _same(path: Path, record: FileRecord) -> bool:
    return path.stat().st_size == record.bytes and sha256_of(path) == record.sha256


def _folders(names: Iterable[str]) -> set[str]:
    return {str(parent) for name in names for parent in PurePosixPath(name).parents} - {"."}
