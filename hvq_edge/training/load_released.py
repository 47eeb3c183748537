"""A run from the authors' released checkpoint."""

from __future__ import annotations

import zipfile
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from hvq_edge.bundle.manifest import MANIFEST_NAME
from hvq_edge.bundle.opened import is_run
from hvq_edge.common.atomic import sha256_of
from hvq_edge.errors import CheckpointError, RunError, SettingsError
from hvq_edge.model.checkpoint import save_checkpoint
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.released_checkpoint import MVTEC_CATEGORIES, from_released
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.run.record import RECORD_NAME, RunRecord, write_run
from hvq_edge.run.settings import load_settings

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz, 7-Zip and Zstandard begin."""
_NAME_THE_FILE = "name the checkpoint file that HVQ-Trans's authors released (.pth.tar)"


def load_released(
    checkpoint: Path, run: Path, categories: tuple[str, ...] | None = None
) -> RunRecord:
    """Write a run that holds a released checkpoint's model.

    Args:
        checkpoint: file with the released layout (:mod:`hvq_edge.model.released_checkpoint`).
        run: folder of the new run.
        categories: in the order of the class index; default: MVTec AD's 15.

    Raises:
        CheckpointError: not a tensor file, or not of that layout and number of categories; what
            it is instead is said, where that can be told.
        RunError: ``run`` already holds a run.
        SettingsError: a category is named twice or not at all.
        OutputError: ``run`` cannot be written.
    """
    names = categories or MVTEC_CATEGORIES
    if len(set(names)) != len(names) or not all(names):
        raise SettingsError(
            f"the categories {', '.join(names)} are not all named and different.",
            next_step="give each class one name with --categories a,b,c",
        )
    if (run / RECORD_NAME).exists():
        raise RunError(f"{run} already holds a run.", next_step="choose another --out")
    _refuse_others(checkpoint)
    settings = load_settings("paper")
    state = from_released(load_tensors(checkpoint), len(names))
    model = HVQTrans(settings.model, len(names))
    model.load_state_dict(state)
    record = RunRecord(
        hvq_edge_version=version("hvq-edge"),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=settings,
        categories=names,
        backbone_weights=f"in {checkpoint.name} (SHA-256 {sha256_of(checkpoint)})",
        data=None,
        checkpoint_sha256=save_checkpoint(run, model),
    )
    write_run(run, record)
    return record


def _refuse_others(path: Path) -> None:
    """Refuse what is no checkpoint and can be told by a look: a folder, a bundle, a graph, text.

    Raises:
        CheckpointError: it is such a thing, with what to do with it.
    """
    other = _other_folder(path) if path.is_dir() else _other_file(path) if path.is_file() else None
    if other is not None:
        what, next_step = other
        raise CheckpointError(f"{path} is {what}, not a checkpoint.", next_step=next_step)


def _other_folder(path: Path) -> tuple[str, str]:
    if is_run(path):
        return "a training run", f"nothing is to be loaded: run hvq-edge export {path}"
    if (path / MANIFEST_NAME).is_file():
        return "a bundle", f"nothing is to be loaded: run hvq-edge stream --bundle {path}"
    return "a folder", _NAME_THE_FILE


def _other_file(path: Path) -> tuple[str, str] | None:
    try:
        with path.open("rb") as file:
            start = file.read(512)
        members = _members(path)
    except OSError:  # whoever loads it says what is wrong
        return None
    if not start:
        return "empty", "copy the file again"
    if MANIFEST_NAME in members:
        return "a packed bundle", f"run hvq-edge bundle unpack {path} DIR"
    if members and not any(name.endswith("/data.pkl") for name in members):
        return "a zip archive", f"unpack it; {_NAME_THE_FILE}"
    if start.startswith(_COMPRESSED):
        return "a compressed file", f"unpack it; {_NAME_THE_FILE}"
    if path.suffix.lower() == ".onnx":
        return "an ONNX graph", f"to time it beside a bundle, run hvq-edge bench --peers {path}"
    if not any(byte < 0x20 and byte not in b"\t\n\r\f" for byte in start):
        return "text", _NAME_THE_FILE
    return None


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return []
