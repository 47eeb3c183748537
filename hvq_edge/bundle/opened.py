"""An opened bundle: its folder, its checked manifest, and files that are what the manifest says."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from hvq_edge.bundle.manifest import MANIFEST_NAME, BundleManifest, FileRecord
from hvq_edge.bundle.precision import EXPORT_FLAGS, Precision
from hvq_edge.common.atomic import sha256_of
from hvq_edge.common.plain_file import open_plain
from hvq_edge.common.records import read_record
from hvq_edge.errors import BundleError
from hvq_edge.run.latest import (
    BUNDLE_FOLDER,
    DEFAULT_BUNDLE,
    DEFAULT_RUN,
    OR_DEMO,
    RECORD_NAME,
)
from hvq_edge.verdict.image_checks import ImageChecks


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and its checked manifest."""

    path: Path
    manifest: BundleManifest
    signed: bool = False
    """Its signature was required and holds: a file that the manifest does not name is never used,
    and what is used is hashed in the bytes that are, for files may be exchanged at any time."""

    @property
    def checks(self) -> ImageChecks:
        """Which images lead to no decision."""
        return ImageChecks(self.manifest.image_limits, self.manifest.category_limits)

    def file(self, name: str) -> Path:
        """Return the path of a file of the bundle after checking that it is unchanged.

        Raises:
            BundleError: the file is not in the manifest, is missing, or its bytes changed.
        """
        path, record = self._listed(name)
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise self._lacks(name, error) from error
        self._compare(path, digest, record)
        return path

    def read(self, name: str) -> bytes:
        """Return the content of a file of the bundle: the very bytes that were checked.

        Raises:
            BundleError: the file is not in the manifest, is missing, or its bytes changed.
        """
        path, record = self._listed(name)
        try:
            with open_plain(path) as file:
                most = min(record.bytes, os.fstat(file.fileno()).st_size)
                content = file.read(most + 1)  # a byte more than is recorded is another file
        except OSError as error:
            raise self._lacks(name, error) from error
        self._compare(path, hashlib.sha256(content).hexdigest(), record)
        return content

    def model_name(self, precision: Precision) -> str:
        """Return the name of the ONNX graph of a precision.

        Raises:
            BundleError: the bundle has no such precision.
        """
        try:
            return self.manifest.models[precision]
        except KeyError:
            raise BundleError(
                f"the bundle {self.path} has no {precision} model; it has "
                f"{', '.join(self.manifest.models)}.",
                next_step=f"run hvq-edge export {EXPORT_FLAGS[precision]}".rstrip(),
            ) from None

    def model_file(self, precision: Precision) -> Path:
        """Return the checked path of the ONNX graph of a precision.

        Raises:
            BundleError: the bundle has no such precision, or the file changed.
        """
        return self.file(self.model_name(precision))

    def category_index(self, name: str) -> int:
        """Return the index of a category.

        Raises:
            BundleError: the bundle does not serve this category.
        """
        try:
            return self.manifest.categories.index(name)
        except ValueError:
            raise BundleError(
                f"the bundle {self.path} has no category {name!r}; it has "
                f"{', '.join(self.manifest.categories)}.",
                next_step="use one of these names, or train with that category",
            ) from None

    def _listed(self, name: str) -> tuple[Path, FileRecord]:
        record = self.manifest.files.get(name)
        outside = Path(name).is_absolute() or ".." in Path(name).parts
        if record is None or outside or "\0" in name:
            raise BundleError(f"{name!r} is not a file of the bundle {self.path}.")
        return self.path / name, record

    def _lacks(self, name: str, error: OSError) -> BundleError:
        return BundleError(
            f"the bundle {self.path} lacks its file {name}: {error.strerror}.",
            next_step="copy the whole bundle folder again, or run hvq-edge export again",
        )

    @staticmethod
    def _compare(path: Path, digest: str, record: FileRecord) -> None:
        if digest != record.sha256:
            raise BundleError(
                f"{path} is not the file that was exported (SHA-256 {digest[:12]}…, "
                f"the bundle says {record.sha256[:12]}…).",
                next_step="copy the bundle again, or run hvq-edge export again",
            )


def is_run(folder: Path | str) -> bool:
    """Tell whether a folder is a training run's and not a bundle.

    Raises:
        OSError: it cannot be looked at.
    """
    return (Path(folder) / RECORD_NAME).is_file() and not (Path(folder) / MANIFEST_NAME).is_file()


def bundle_folder(path: Path) -> Path:
    """Return the bundle that a folder stands for: a run's stands for the one in it.

    Raises:
        BundleError: it is a run that was not exported.
    """
    try:
        if not is_run(path):
            return path
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return path
    bundle = path / BUNDLE_FOLDER
    if not bundle.exists():
        raise BundleError(
            f"{path} is a training run that was not exported: there is no {bundle}.",
            next_step=f"run hvq-edge export {path}",
        )
    return bundle


def open_bundle(path: Path) -> Bundle:
    """Open a bundle folder and check its manifest (files are checked when they are used).

    Args:
        path: the bundle's folder, or the run's that has it (:func:`bundle_folder`).

    Raises:
        BundleError: no bundle there, or a manifest of another format or with faults.
    """
    path = bundle_folder(path)
    manifest = read_record(
        path / MANIFEST_NAME,
        BundleManifest,
        BundleError,
        kind="a bundle manifest",
        unread=lambda error: f"no bundle at {path}: {_why_not(path, error)}",
        next_step=_where_bundles_come_from(path),
        again="run hvq-edge export again with this version",
    )
    return Bundle(path, manifest)


def _where_bundles_come_from(bundle: Path) -> str:
    if bundle not in (DEFAULT_BUNDLE, DEFAULT_RUN):
        return "run hvq-edge export, or name another bundle folder"
    return (
        f"run hvq-edge train --data DIR and hvq-edge export, or {OR_DEMO}; or name another bundle "
        "folder"
    )


def _why_not(folder: Path, error: OSError) -> str:
    if isinstance(error, NotADirectoryError):
        return "it is a file, not a folder"
    if not isinstance(error, FileNotFoundError):
        return f"{folder / MANIFEST_NAME} cannot be read ({error.strerror})"
    return f"there is no {MANIFEST_NAME} in it" if folder.is_dir() else "there is no such folder"
