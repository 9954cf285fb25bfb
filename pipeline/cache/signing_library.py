"""Signs and verifies with the library model-signing. It is imported only when it is used.

The library hashes files itself; here it gets digests that were computed already, so that a cache
is read once.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distinit.schemas.errors import ConfigError

__all__ = ["import_signing", "signature_of", "signature_problem"]

_IGNORED = ("cache.sig", ".lock", ".fence", ".staging")
"""Not signed: what the commands of model-signing leave out when they verify a cache."""


def import_signing() -> Any:
    """The package ``model_signing``. Raises ConfigError if it is not installed."""
    try:
        for name in ("hashing", "manifest", "signing", "verifying"):
            import_module(f"model_signing.{name}")
        return import_module("model_signing")
    except ImportError as error:
        raise ConfigError(
            "signatures need the package model-signing",
            expected="model-signing, 1.1 or later, and pyopenssl",
            found=f"no module named {error.name}",
            remedy="pip install '.[sign]' in the clone of distinit",
        ) from error


class _KnownDigests:
    """Stands in for ``model_signing.hashing.Config``: gives digests that are known already."""

    def __init__(self, name: str, sha256: Mapping[str, str]) -> None:
        self._name = name
        self._sha256 = sha256

    def hash(self, _folder: Any, **_: Any) -> Any:
        """The manifest that hashing the files would give."""
        library = import_signing()
        kind = library.manifest.SerializationType.from_args(
            {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(_IGNORED),
            }
        )
        digest = library.hashing.hashing.Digest
        items = [
            kind.new_item(name, digest("sha256", bytes.fromhex(sha256)))
            for name, sha256 in self._sha256.items()
        ]
        return library.manifest.Manifest(self._name, items, kind)

    def add_ignored_paths(self, **_: Any) -> None:
        """Nothing is listed here, so nothing has to be left out."""


def signature_of(
    name: str, sha256: Mapping[str, str], private_key: Path, password: bytes | None
) -> bytes:
    """The bytes of a signature over the names and digests of files.

    Args:
        name: A name for people of what is signed.
        sha256: File name -> hex sha256.
        private_key: PEM file with an elliptic curve key, which was checked.
        password: Of the key.
    """
    config = import_signing().signing.Config()
    config.use_elliptic_key_signer(private_key=private_key, password=password)
    config.set_hashing_config(_KnownDigests(name, sha256))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "signature"
        config.sign(folder, path)
        return path.read_bytes()


def signature_problem(data: bytes, sha256: Mapping[str, str], public_key_pem: bytes) -> str:
    """Why ``data`` is not a signature by this key over exactly these digests; "" if it is."""
    library = import_signing()
    invalid: Any = import_module("cryptography.exceptions").InvalidSignature
    with TemporaryDirectory() as folder:
        signature, key = Path(folder) / "signature", Path(folder) / "key"
        signature.write_bytes(data)
        key.write_bytes(public_key_pem)
        config = library.verifying.Config().use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(_KnownDigests("", sha256))
        try:
            config.verify(Path(folder), signature)
        except invalid:
            return "the signature does not belong to what it claims to sign"
        except (ValueError, RecursionError) as error:
            return str(error) or "the signature cannot be read"
    return ""
