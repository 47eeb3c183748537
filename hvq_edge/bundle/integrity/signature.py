"""A signature over a bundle, and the demand that there is one.

``bundle.sig`` signs the exact bytes of ``bundle.json`` (Ed25519, RFC 8032), which holds the SHA-256
of every file; so it covers all that was in the folder when it was signed. What a device makes
later is not covered: engines it builds are named as such, thresholds it learns change
``bundle.json``. Both are taken in by signing again, with a key that the device's file of trusted
keys holds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from hvq_edge.bundle.integrity.content import SIGNATURE_NAME, Content, look, seal
from hvq_edge.bundle.integrity.keys import key_id, read_private_key, read_public_keys
from hvq_edge.bundle.integrity.report_sources import check_report
from hvq_edge.bundle.manifest import MANIFEST_NAME
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.common.atomic import write_text
from hvq_edge.common.plain_file import read_plain
from hvq_edge.common.records import Strict
from hvq_edge.errors import BundleError, GateFailed

logger = logging.getLogger(__name__)

MOST_SIGNATURE_BYTES = 64 << 10
_SIGN_AGAIN = "ask who signs bundles for a signed copy, or run hvq-edge sign again"


class Signature(Strict):
    """The content of ``bundle.sig``."""

    format: Literal["hvq-edge-signature/1"] = "hvq-edge-signature/1"
    algorithm: Literal["ed25519"] = "ed25519"
    signed: Literal["bundle.json"] = "bundle.json"
    key_id: str = Field(pattern=r"^[0-9a-f]{16}$")
    signature: str
    """Base64 of the 64 bytes."""
    manifest_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the ``bundle.json`` that was signed: says without a key that it is another now. It proves
    nothing, for anyone can write it; ``None``: written before it was recorded."""


@dataclass(frozen=True)
class SignedBundle:
    """A bundle whose signature holds."""

    bundle: Bundle
    """Read from the very bytes that are signed."""
    key_id: str
    unsigned_engines: tuple[str, ...]
    """Built since; the signature says nothing about them."""


def sign_bundle(
    folder: Path, key: Path, *, before: Callable[[], None] = lambda: None
) -> tuple[Signature, tuple[str, ...]]:
    """Sign all that is in a bundle's folder now.

    Args:
        folder: the bundle.
        key: private key in PEM form.
        before: called when nothing speaks against signing, to write what follows from the rest,
            as a model card does.

    Returns:
        What was written, and the files that came into the manifest with it.

    Raises:
        BundleError: no bundle there.
        GateFailed: a file of the export is not as it was, or the acceptance report is older than
            what it speaks of.
        InputError: the key cannot be used.
        OutputError: the signature cannot be written.
        MissingCapability: cryptography is not installed.
    """
    private = read_private_key(key)  # before the manifest is touched
    bundle = open_bundle(folder)
    folder = bundle.path
    check_report(bundle)
    before()
    _, taken_in = seal(open_bundle(folder))
    content = read_plain(folder / MANIFEST_NAME)
    signature = Signature(
        key_id=key_id(private.public_key()),
        signature=base64.b64encode(private.sign(content)).decode("ascii"),
        manifest_sha256=hashlib.sha256(content).hexdigest(),
    )
    write_text(folder / SIGNATURE_NAME, signature.model_dump_json(indent=2) + "\n")
    return signature, taken_in


def read_signature(folder: Path) -> Signature | None:
    """Return a bundle's signature, not verified; ``None``: it has none.

    Raises:
        BundleError: the file cannot be read, or is none of this format.
    """
    path = folder / SIGNATURE_NAME
    try:
        content = read_plain(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return Signature.model_validate_json(content[:MOST_SIGNATURE_BYTES])
    except (ValidationError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{path} is not a signature that this version reads.", next_step=_SIGN_AGAIN
        ) from error


def outdated(folder: Path, signature: Signature) -> bool:
    """Tell, without a key, whether ``bundle.json`` was changed after it was signed.

    ``False`` says only that nothing is known against it: :func:`require_signature` proves it.

    Args:
        folder: the bundle.
        signature: what its ``bundle.sig`` holds.
    """
    content = read_plain(folder / MANIFEST_NAME)
    return signature.manifest_sha256 not in (None, hashlib.sha256(content).hexdigest())


def doubts_without_key(bundle: Bundle) -> tuple[str, ...]:
    """Say what is known, without a key, against a bundle's signature; nothing where it has none.

    Args:
        bundle: an opened bundle.

    Returns:
        In words; empty: it may hold, which :func:`require_signature` proves.
    """
    try:
        signature = read_signature(bundle.path)
        if signature is None:
            return ()
        late = "bundle.json was changed after it was signed, as calibrate does"
        changed = (late,) if outdated(bundle.path, signature) else ()
        return (*changed, *signed_faults(look(bundle)))
    except BundleError as error:
        return (error.cause.removesuffix("."),)


def require_signature(
    bundle: Path | Bundle, trusted: Path, *, engines: bool = False
) -> SignedBundle:
    """Insist that a bundle is, to the byte, what the holder of a trusted key signed.

    Args:
        bundle: a bundle's folder, or an opened bundle.
        trusted: file of one or more public keys in PEM form.
        engines: whether an engine of ``engines/`` is to run: then each must be signed too.

    Returns:
        The bundle as signed. Use this one: a manifest read earlier may have been another.

    Raises:
        GateFailed: no signature, one of another key, one that does not hold, or a file that was
            changed, added or removed since; each is named.
        BundleError: no bundle there, or a file of another format.
        InputError: ``trusted`` holds no key.
        MissingCapability: cryptography is not installed.
    """
    from cryptography.exceptions import InvalidSignature

    keys = read_public_keys(trusted)
    # Says it in words where there is no bundle.
    opened = open_bundle(bundle.path if isinstance(bundle, Bundle) else bundle)
    folder = opened.path
    signature = read_signature(folder)
    if signature is None:
        raise GateFailed(f"the bundle {folder} is not signed.", next_step=_SIGN_AGAIN)
    if signature.key_id not in keys:
        raise GateFailed(
            f"the bundle {folder} is signed by the key {signature.key_id}, which {trusted} does "
            f"not hold; it holds {', '.join(keys)}.",
            next_step="ask who signed it; to trust that key, add its .pub to that file",
        )
    content = read_plain(folder / MANIFEST_NAME)
    try:
        keys[signature.key_id].verify(base64.b64decode(signature.signature, validate=True), content)
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise GateFailed(
            f"the signature of {folder} does not hold: {MANIFEST_NAME} or {SIGNATURE_NAME} was "
            "changed after signing.",
            next_step=_SIGN_AGAIN,
        ) from error
    manifest = type(opened.manifest).model_validate_json(content)
    signed = Bundle(folder, manifest, signed=True)
    found = look(signed)
    faults = signed_faults(found, engines=engines)
    if faults:
        raise GateFailed(
            f"the bundle {folder} is not what was signed: {'; '.join(faults)}.",
            next_step=_SIGN_AGAIN,
        )
    logger.info("%s is signed by the trusted key %s", folder, signature.key_id)
    return SignedBundle(signed, signature.key_id, found.engines)


def signed_faults(found: Content, *, engines: bool = False) -> tuple[str, ...]:
    """Return in words what a signed bundle must not have.

    Args:
        found: what is in its folder.
        engines: whether its engines must be signed too.
    """
    added = (*found.added, *(found.engines if engines else ()))
    return (*found.faults, *(f"{name} was added" for name in added))
