"""States where an existing cache comes from: license, source of the videos, contact."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from distinit.pipeline.cache.copies import refuse_copy
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import read_manifest, refuse_no_cache
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.transport.secrets import refuse_stated_secrets
from distinit.schemas.base import Record
from distinit.schemas.errors import ConfigError
from distinit.schemas.provenance import Provenance
from distinit.schemas.wording import one_line

__all__ = ["DescribeConfig", "DescribeResult", "cache_describe"]


class DescribeConfig(Record):
    """What ``distinit cache describe`` states of a cache."""

    cache: str = Field(description="folder of the target cache")
    provenance: Provenance = Field(
        default_factory=Provenance, description="replaces what was stated; the rest stays"
    )


class DescribeResult(Record):
    """What is stated now."""

    path: str = Field(description="folder of the cache")
    content_digest: str = Field(description="unchanged; empty until the cache is complete")
    provenance: Provenance = Field(description="all that is stated of the cache")
    outdated_signature: bool = Field(description="whether cache.sig signs the cache as it was")

    def summary(self) -> str:
        """Text for the terminal."""
        lines = [f"cache     {one_line(self.path)}"]
        lines += [f"{name:9} {one_line(value)}" for name, value in self.provenance.stated.items()]
        if self.provenance.missing:
            lines.append(f"not stated: {', '.join(self.provenance.missing)}")
        if self.outdated_signature:
            lines.append("cache.sig signs the cache as it was: run `distinit cache sign` again")
        return "\n".join(lines)


def cache_describe(config: DescribeConfig, *, progress: Progress | None = None) -> DescribeResult:
    """Write the provenance to the manifest and the cards. The content digest does not change.

    Raises ConfigError if nothing or a secret is given, CacheError, LockedError, StorageError.
    """
    progress = progress or NullProgress()
    root = Path(config.cache)
    refuse_no_cache(root)
    if not config.provenance.stated:
        raise ConfigError(
            "nothing is given to describe the cache with",
            expected="--license, --source or --contact",
            remedy="give one of them; `distinit cache info` shows what is stated",
        )
    refuse_stated_secrets(config.provenance)
    refuse_copy(CacheLayout(root), "it was not described")
    sampling = read_manifest(CacheLayout(root)).sampling
    with CacheWriter.create_or_open(root, videos=(), sampling=sampling, teachers={}) as writer:
        for line in writer.repairs:
            progress.message(f"repair: {line}")
        writer.describe(config.provenance)
        manifest = writer.finalise()
        return DescribeResult(
            path=config.cache,
            content_digest=manifest.content_digest,
            provenance=manifest.provenance or Provenance(),
            outdated_signature=writer.outdated_signature,
        )
