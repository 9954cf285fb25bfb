"""Writes the logits that vocabularies give to stored features as a cache of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from distinit.pipeline.cache.encoding import check_encoding
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.combining.blueprint import Blueprint, Origin, source_record, with_new_ids
from distinit.pipeline.combining.joining import join
from distinit.pipeline.combining.source import Source, open_source
from distinit.pipeline.combining.writing import check_out, write_derived
from distinit.pipeline.progress import Progress
from distinit.pipeline.vocabulary.files import read_vocabulary
from distinit.pipeline.vocabulary.relabelled import (
    only_feature_teacher,
    relabelled_id,
    relabelled_record,
    require_features,
)
from distinit.pipeline.vocabulary.vocabulary import Vocabulary
from distinit.schemas.combining import DerivedCache
from distinit.schemas.derivation import Derivation
from distinit.schemas.errors import ConfigError
from distinit.schemas.teacher import TeacherRecord, parse_encoding
from distinit.schemas.wording import did_you_mean, shown
from distinit.stages.derived_result import derived_fields

__all__ = ["cache_relabel", "relabelled_blueprint"]


def cache_relabel(
    folder: Path,
    out: Path,
    vocabularies: Sequence[Path],
    *,
    teacher: str | None = None,
    encoding: str = "float16",
    progress: Progress,
) -> DerivedCache:
    """Write the logits of ``vocabularies`` for the features of one teacher to ``out``.

    The new cache has one teacher per vocabulary, and no features. ``teacher``: None: the only one
    with features. A killed run continues after the last unit that it has written.

    Raises:
        CacheCorruptError: The source is damaged.
        CacheError: It is not complete, a logit does not fit, or ``out`` holds something else.
        VocabularyError: A vocabulary is unusable, or does not fit the teacher.
        ConfigError: An unknown encoding or teacher, a teacher that stores logits, or two
            vocabularies of one name.
    """
    try:
        parse_encoding(encoding)
    except ValueError as error:
        raise ConfigError(f"unusable --encoding: {error}") from error
    check_out(out, [folder])
    read = [read_vocabulary(path) for path in vocabularies]
    cache = TargetCache.open(folder, allow_incomplete=True, allow_absent=True)
    parent = _teacher(cache.teachers, teacher)
    for vocabulary in read:  # before every byte of the source is verified
        relabelled_record(parent, vocabulary, encoding)
    source = open_source(folder, progress)
    blueprint = relabelled_blueprint(source, read, teacher, encoding)
    manifest = write_derived(out, [source], blueprint, progress)
    return DerivedCache(**derived_fields(out, manifest, []))


def relabelled_blueprint(
    source: Source, vocabularies: Sequence[Vocabulary], teacher: str | None, encoding: str
) -> Blueprint:
    """What the relabelled cache will hold. Raises VocabularyError, ConfigError."""
    parent = _teacher(source.records, teacher)
    by_id = {relabelled_id(parent.id, vocabulary): vocabulary for vocabulary in vocabularies}
    if len(by_id) < len(vocabularies):
        raise ConfigError(
            "two vocabularies give their teachers the same id",
            expected="vocabulary files with different names",
            found=", ".join(vocabulary.label for vocabulary in vocabularies),
            remedy="rename one of the files",
        )
    records = {
        name: relabelled_record(parent, vocabulary, encoding) for name, vocabulary in by_id.items()
    }
    for record in records.values():
        check_encoding(record.identity, encoding)
    ids = {name: [parent.id] for name in by_id}
    chosen = {entry.digest: [Origin(0, v)] for v, entry in source.entries.items()}
    videos = join([source], ids, chosen).videos
    parameters: dict[str, int | float | str] = {"teacher": parent.id, "encoding": encoding}
    parameters |= {f"vocabulary of {name}": v.sha256 for name, v in by_id.items()}
    derivation = Derivation(
        operation="relabel", sources=source_record([source], videos, ids), parameters=parameters
    )
    return Blueprint.of([source], with_new_ids(videos), records, ids, derivation, by_id)


def _teacher(records: Mapping[str, TeacherRecord], name: str | None) -> TeacherRecord:
    if name is None:
        return only_feature_teacher(list(records.values()))
    if name not in records:
        raise ConfigError(
            f"the cache has no teacher {shown(name)}",
            expected=f"one of {', '.join(sorted(records))}",
            remedy=did_you_mean(name, records) or "see `distinit cache info`",
        )
    require_features(records[name], list(records.values()))
    return records[name]
