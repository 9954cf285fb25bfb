"""Signs a cache with a private key, and makes pairs of keys."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from distinit.pipeline.cache.copies import refuse_copy
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import refuse_no_cache
from distinit.pipeline.cache.signature import locked_for_signing, sign_verified
from distinit.pipeline.cache.signing_library import import_signing
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.output_paths import refuse_inside_data, refuse_nameless
from distinit.pipeline.progress import Progress
from distinit.pipeline.signing_keys import (
    check_private_key,
    make_key_pair,
    password_from,
    public_path,
    sha256_of_key,
)
from distinit.schemas.base import Record, Sha256
from distinit.schemas.wording import counted, one_line, shell_line

__all__ = [
    "KeygenResult",
    "SignResult",
    "cache_keygen",
    "cache_sign",
]


class KeygenResult(Record):
    """A new pair of keys."""

    private_key: str = Field(description="file with the private key, which nobody else may have")
    public_key: str = Field(description="file with the public key, to be published")
    key_sha256: Sha256 = Field(description="sha256 of the public key, by which people compare it")

    def summary(self) -> str:
        """Text for the terminal."""
        sign = ["distinit", "cache", "sign", "CACHE", "--key", self.private_key]
        return "\n".join(
            [
                f"private key  {one_line(self.private_key)} (keep it; nobody else may have it)",
                f"public key   {one_line(self.public_key)} (publish it, not only beside the cache)",
                f"sha256       {self.key_sha256}",
                "",
                f"next: {shell_line(sign)}",
            ]
        )


class SignResult(Record):
    """What was signed."""

    path: str = Field(description="folder of the cache")
    signature: str = Field(description="file with the signature")
    content_digest: Sha256 = Field(description="content digest of the cache")
    files: int = Field(description="number of signed files")
    bytes: int = Field(
        description="size of these files, bytes", json_schema_extra={"unit": "bytes"}
    )
    key_sha256: Sha256 = Field(description="sha256 of the public key")

    def summary(self) -> str:
        """Text for the terminal."""
        verify = ["distinit", "cache", "verify", self.path, "--signed-by", "KEY.pub"]
        return "\n".join(
            [
                f"signed     {counted(self.files, 'file')}, {self.bytes / 1e6:.1f} MB",
                f"digest     {self.content_digest}",
                f"signature  {one_line(self.signature)}",
                f"key        sha256 {self.key_sha256}",
                "",
                f"next: publish the public key; receivers run {shell_line(verify)}",
            ]
        )


def cache_keygen(out: Path, *, password_variable: str | None = None) -> KeygenResult:
    """Write a new private key to ``out``, and its public key to ``OUT.pub``.

    Raises ConfigError if a file exists or the folder is a cache, and StorageError.
    """
    refuse_nameless(out)
    refuse_inside_data(out.parent)
    key_sha256 = make_key_pair(out, password_from(password_variable))
    return KeygenResult(
        private_key=str(out), public_key=str(public_path(out)), key_sha256=key_sha256
    )


def cache_sign(
    path: Path,
    key: Path,
    *,
    password_variable: str | None = None,
    progress: Progress | None = None,
) -> SignResult:
    """Verify a cache and sign all of its files: ``cache.sig``, which replaces an older one.

    Raises CacheError if the cache is missing, partial, incomplete or damaged, ConfigError if the
    key cannot be used, LockedError, StorageError.
    """
    refuse_no_cache(path)
    refuse_copy(CacheLayout(path), "it was not signed")
    import_signing()
    password = password_from(password_variable)
    key_sha256 = sha256_of_key(check_private_key(key, password))
    with locked_for_signing(path):
        report = verify_cache(path, progress=progress)
        files = sign_verified(path, report, key, password)
    return SignResult(
        path=str(path),
        signature=str(CacheLayout(path).signature),
        content_digest=report.content_digest,
        files=files,
        bytes=report.bytes,
        key_sha256=key_sha256,
    )
