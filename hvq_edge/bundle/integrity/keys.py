"""Ed25519 keys as PEM files, and who is trusted."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from hvq_edge.common.atomic import output_error
from hvq_edge.common.extras import require
from hvq_edge.errors import InputError, OutputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PUBLIC_SUFFIX = ".pub"
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


def new_key(path: Path) -> Path:
    """Make a key pair: the private key at ``path`` (mode 0600), the public one beside it.

    Args:
        path: file that does not exist yet.

    Returns:
        Path of the public key, ``path`` with ``.pub`` appended.

    Raises:
        OutputError: one of the files exists, or cannot be written.
        MissingCapability: cryptography is not installed.
    """
    require("cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    public = path.with_name(path.name + PUBLIC_SUFFIX)
    written = (
        (path, 0o600, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        (
            public,
            0o644,
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ),
    )
    for file, _, _ in written:
        if os.path.lexists(file):
            raise OutputError(
                f"{file} exists; a key is never written over.", next_step="name another file"
            )
    for file, mode, content in written:
        try:
            # The mode from the first moment on: a chmod afterwards leaves a gap to read in.
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise output_error(file, error) from error
    return public


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        InputError: no such file, others may read it, or it is no Ed25519 key without passphrase.
        MissingCapability: cryptography is not installed.
    """
    require("cryptography")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(path, "hvq-edge sign --new-key FILE makes one")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(
            f"the private key {path} can be read by others.", next_step=f"run chmod 600 {path}"
        )
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(
            f"{path} is not a private key in PEM form without passphrase: {error}.",
            next_step="make one with hvq-edge sign --new-key FILE",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            f"{path} is a private key of another kind than Ed25519.",
            next_step="make one with hvq-edge sign --new-key FILE",
        )
    return key


def read_public_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """Read the keys that are trusted: one or more PEM public keys in a file, by key id.

    Raises:
        InputError: no such file, or no Ed25519 public key in it, or one of another kind.
        MissingCapability: cryptography is not installed.
    """
    require("cryptography")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    keys: dict[str, Ed25519PublicKey] = {}
    remedy = "name the .pub file that hvq-edge sign --new-key wrote"
    for block in _PEM.findall(_read(path, remedy)):
        try:
            key = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError(
                f"{path} holds a public key that cannot be read: {error}.", next_step=remedy
            ) from error
        if not isinstance(key, Ed25519PublicKey):
            raise InputError(
                f"{path} holds a public key of another kind than Ed25519.", next_step=remedy
            )
        keys[key_id(key)] = key
    if not keys:
        raise InputError(f"{path} holds no public key in PEM form.", next_step=remedy)
    return keys


def key_id(key: Ed25519PublicKey) -> str:
    """Return a key's name: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _read(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the key {path} cannot be read: {error.strerror}.", next_step=remedy
        ) from error
