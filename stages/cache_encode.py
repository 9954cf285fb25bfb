"""Encodes the targets of a cache again, in a smaller form, and measures what that changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distinit.pipeline.combining.agreement import agree_on_teachers
from distinit.pipeline.combining.blueprint import Blueprint, Origin, source_record, with_new_ids
from distinit.pipeline.combining.joining import join
from distinit.pipeline.combining.recoding import check_recoding, recoded_record
from distinit.pipeline.combining.source import open_source
from distinit.pipeline.combining.writing import check_out, write_derived
from distinit.pipeline.progress import Progress
from distinit.schemas.combining import DerivedCache
from distinit.schemas.derivation import Derivation
from distinit.schemas.errors import ConfigError
from distinit.schemas.teacher import parse_encoding
from distinit.stages.derived_result import derived_fields

__all__ = ["cache_encode"]


def cache_encode(
    folder: Path, out: Path, encoding: str, *, teachers: Sequence[str] = (), progress: Progress
) -> DerivedCache:
    """Write the cache in ``folder`` to ``out`` with its targets stored as ``encoding``.

    ``teachers``: those to encode again; none: all. The others are copied. Entropies and all other
    confidence columns stay those of the fp32 logits.

    Raises:
        CacheCorruptError: The source is damaged.
        CacheError: It is not complete, a target does not fit, or ``out`` holds something else.
        ConfigError: An unknown encoding or teacher, or one that cannot be encoded again.
    """
    try:
        parse_encoding(encoding)
    except ValueError as error:
        raise ConfigError(f"unusable --encoding: {error}") from error
    check_out(out, [folder])
    source = open_source(folder, progress)
    agreed = agree_on_teachers([source])
    changed = sorted(agree_on_teachers([source], teachers or None).records)
    records = dict(agreed.records)
    for name in changed:
        check_recoding(records[name], encoding)
        records[name] = recoded_record(records[name], encoding)
    chosen = {entry.digest: [Origin(0, v)] for v, entry in source.entries.items()}
    joined = join([source], agreed.ids, chosen)
    derivation = Derivation(
        operation="encode",
        sources=source_record([source], joined.videos, agreed.ids),
        parameters={"encoding": encoding},
    )
    blueprint = Blueprint.of([source], with_new_ids(joined.videos), records, agreed.ids, derivation)
    manifest = write_derived(out, [source], blueprint, progress)
    return DerivedCache(**derived_fields(out, manifest, []))
