"""Opens the cache of an audit: as it is, or with the logits of a vocabulary in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.combining.source import open_source
from distinit.pipeline.combining.writing import write_derived
from distinit.pipeline.progress import Progress
from distinit.pipeline.transport.remote import is_url
from distinit.pipeline.vocabulary.files import read_vocabulary
from distinit.schemas.audit import AuditConfig
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import ConfigError
from distinit.stages.cache_relabel import relabelled_blueprint

__all__ = ["cache_to_audit"]


@contextmanager
def cache_to_audit(config: AuditConfig, progress: Progress) -> Iterator[TargetCache]:
    """The cache of ``config``. With a vocabulary, a relabelled one, which exists until the end.

    It lies in ``config.out``, in a folder named after its content, so an audit that was killed
    continues it. Raises what ``cache_relabel`` raises.
    """
    if config.vocabulary is None:
        yield TargetCache.open(config.cache)
        return
    if is_url(config.cache):
        raise ConfigError(
            "an audit with a vocabulary reads all features of the cache",
            expected="a cache in a folder",
            found=config.cache,
            remedy="copy it with `distinit cache pull` first",
        )
    vocabulary = read_vocabulary(Path(config.vocabulary))
    source = open_source(Path(config.cache), progress, verify=False)
    blueprint = relabelled_blueprint(source, [vocabulary], config.teacher, "float16")
    content = [source.digest, blueprint.derivation.model_dump(mode="json")]
    folder = Path(config.out) / f"relabelled-{sha256_of(content)[:16]}.partial"
    write_derived(folder, [source], blueprint, progress)
    try:
        yield TargetCache.open(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
