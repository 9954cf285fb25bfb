"""Says whether the owner of a public key has signed a cache as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.signature import check_signature
from distinit.pipeline.cache.signature_file import read_signature
from distinit.pipeline.cache.signing_library import import_signing
from distinit.pipeline.signing_keys import read_public_key
from distinit.schemas.base import Record, Sha256
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.wording import counted, first_lines, one_line

__all__ = ["SignatureOutcome", "check_public_key", "claimed_key", "signature_outcome"]

_PROBLEMS_SHOWN = 20


class SignatureOutcome(Record):
    """Whether the owner of a public key has signed exactly the files of a cache."""

    public_key: str = Field(description="file with the public key")
    key_sha256: Sha256 = Field(description="sha256 of the public key")
    files: int = Field(description="number of files that are as they were signed")
    absent: int = Field(
        0, description="number of signed files that are not part of this partial copy"
    )
    problems: tuple[str, ...] = Field(
        description="one line per file that is not as it was signed, or the reason why the "
        "signature does not count"
    )

    @property
    def ok(self) -> bool:
        """Whether every file is signed, and nothing that was signed is missing."""
        return not self.problems

    def lines(self) -> list[str]:
        """Lines for the terminal."""
        if self.ok:
            return [
                f"  signed    by {one_line(self.public_key)} (sha256 {self.key_sha256}): "
                f"all {counted(self.files, 'file')}"
                + (f"; {self.absent} more are not part of this copy" if self.absent else "")
            ]
        lines = [f"NOT SIGNED as it is by {one_line(self.public_key)}:"]
        lines += first_lines(self.problems, _PROBLEMS_SHOWN)
        if self.files:
            lines.append(
                f"  {counted(self.files, 'file')} as signed. The cache was changed or copied in "
                "part after it was signed: ask its sender, or sign it again if it is yours"
            )
        return lines


def claimed_key(root: Path) -> str | None:
    """The key that the signature of a cache names, without checking it; None without one."""
    try:
        return read_signature(CacheLayout(root).signature).key_sha256
    except (FileNotFoundError, CacheCorruptError):
        return None


def check_public_key(path: Path) -> None:
    """Raise ConfigError for a key that cannot be used, before anything is read."""
    import_signing()
    read_public_key(path)


def signature_outcome(root: Path, public_key: Path, known: Mapping[str, str]) -> SignatureOutcome:
    """Check the signature of a cache; ``known``: digests of files that were hashed just now."""
    check = check_signature(root, public_key, known)
    return SignatureOutcome(
        public_key=str(public_key),
        key_sha256=check.key_sha256,
        files=check.files,
        absent=check.absent,
        problems=check.problems,
    )
