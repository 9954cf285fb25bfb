"""Key pairs that sign caches: elliptic curve keys in PEM files, made and read without a network."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from distinit.pipeline.storage import fsync_dir, read_bounded, storage_errors
from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import reason_of

__all__ = [
    "check_private_key",
    "make_key_pair",
    "password_from",
    "public_path",
    "read_public_key",
    "sha256_of_key",
]

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_MAX_KEY_BYTES = 1 << 16


def _library(name: str) -> Any:
    """A module of the package cryptography. Raises ConfigError if it is not installed."""
    try:
        return import_module(f"cryptography.{name}")
    except ImportError as error:
        raise ConfigError(
            "keys need the package cryptography",
            expected="cryptography, which comes with model-signing",
            found=f"no module named {error.name}",
            remedy="pip install '.[sign]' in the clone of distinit",
        ) from error


def public_path(private: Path) -> Path:
    """The public key beside a private one: ``KEY.pub``."""
    return private.with_name(f"{private.name}.pub")


def make_key_pair(private: Path, password: bytes | None) -> str:
    """Write a new P-256 key to ``private`` (mode 0600), and its public key to ``KEY.pub``.

    Returns the sha256 of the public key. Raises ConfigError if one of the files exists, and
    StorageError.
    """
    formats = _library("hazmat.primitives.serialization")
    curves = _library("hazmat.primitives.asymmetric.ec")
    public = public_path(private)
    for path in (private, public):
        if os.path.lexists(path):
            raise ConfigError(
                f"{path} exists already: keys are never replaced",
                expected="a new file name",
                remedy="choose another --out, or move the old key away",
            )
    key = curves.generate_private_key(curves.SECP256R1())
    cipher = (
        formats.NoEncryption() if password is None else formats.BestAvailableEncryption(password)
    )
    pem, pkcs8 = formats.Encoding.PEM, formats.PrivateFormat.PKCS8
    public_pem = _public_pem(key.public_key())
    _write_new(public, public_pem, 0o644)
    _write_new(private, key.private_bytes(pem, pkcs8, cipher), 0o600)
    return sha256_of_key(public_pem)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist; it is removed again if that fails. Raises StorageError."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        fsync_dir(path.parent)


def password_from(variable: str | None) -> bytes | None:
    """The password in an environment variable; None without a variable. Raises ConfigError."""
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigError(
            f"--password-env: the environment variable {variable} is not set",
            expected="the name of a variable that contains the password",
            remedy=f"set it: read -rs {variable} && export {variable}",
        )
    return os.environb[os.fsencode(variable)]


def read_public_key(path: Path) -> bytes:
    """The public key in a PEM file, in its canonical form. Raises ConfigError."""
    formats = _library("hazmat.primitives.serialization")
    return _public_pem(_read_key(path, formats.load_pem_public_key, private=False))


def check_private_key(path: Path, password: bytes | None) -> bytes:
    """The public key (PEM) of the private key in a file. Raises ConfigError if it is unusable."""
    formats = _library("hazmat.primitives.serialization")
    key = _read_key(path, lambda data: formats.load_pem_private_key(data, password), private=True)
    return _public_pem(key.public_key())


def _public_pem(key: Any) -> bytes:
    formats = _library("hazmat.primitives.serialization")
    kind = formats.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = key.public_bytes(formats.Encoding.PEM, kind)
    return pem


def _read_key(path: Path, load: Callable[[bytes], Any], *, private: bool) -> Any:
    unsupported: Any = _library("exceptions").UnsupportedAlgorithm
    try:
        data = read_bounded(path, _MAX_KEY_BYTES)
        if b"PRIVATE KEY-----" in data and not private:
            raise ValueError("a private key, which nobody else may have: name the public one")
        if b"PUBLIC KEY-----" in data and private:
            raise ValueError("a public key: name the private one")
        key = load(data)
        curve = getattr(getattr(key, "curve", None), "name", "of another kind")
        if curve not in _CURVES:
            raise ValueError(f"a key {curve}")
    except (OSError, ValueError, TypeError, unsupported) as error:
        raise ConfigError(
            f"{path} cannot be used as the {'private' if private else 'public'} key",
            expected="an elliptic curve key (NIST P-256, P-384 or P-521) in a PEM file",
            found=reason_of(error),
            remedy="make a pair of keys: distinit cache keygen --out KEY; for a key with a "
            "password, give --password-env"
            if private
            else "name the file with the public key, which the sender of the cache publishes",
        ) from error
    return key


def sha256_of_key(public_pem: bytes) -> str:
    """The digest by which signatures name their key: sha256 of the PEM text of the public key."""
    return hashlib.sha256(public_pem).hexdigest()
