"""The teacher that stored features and a vocabulary make together."""

from __future__ import annotations

from collections.abc import Sequence

from distinit.pipeline.teachers.network import named_labels
from distinit.pipeline.vocabulary.vocabulary import Vocabulary
from distinit.schemas.cache_format import CACHE_FORMAT_MINOR
from distinit.schemas.errors import ConfigError, VocabularyError
from distinit.schemas.teacher import LOSS_KEYS, TeacherIdentity, TeacherRecord
from distinit.schemas.vocabulary import Relabelling

__all__ = [
    "only_feature_teacher",
    "refuse_misfit",
    "relabelled_id",
    "relabelled_record",
    "require_features",
]

_MAX_ID = 100
_EXTRACT = "extract features: `distinit extract --target features`"


def relabelled_id(teacher_id: str, vocabulary: Vocabulary) -> str:
    """``TEACHER@VOCABULARY``."""
    room = _MAX_ID - len(vocabulary.label) - 1
    return f"{teacher_id[:room]}@{vocabulary.label}"


def relabelled_record(
    record: TeacherRecord, vocabulary: Vocabulary, encoding: str | None = None
) -> TeacherRecord:
    """The record of the logits that ``vocabulary`` gives to the features of ``record``.

    ``encoding``: of the logits; None: that of the features. Raises what ``refuse_misfit`` raises.
    """
    refuse_misfit(record, vocabulary)
    identity = TeacherIdentity(
        architecture=record.identity.architecture,
        weights_sha256=record.identity.weights_sha256,
        preprocessing=record.identity.preprocessing,
        target="logits",
        classes=len(vocabulary.names),
        label_space=named_labels(vocabulary.names).space,
        label_names=vocabulary.names,
        probe=None,
        relabelled=Relabelling(
            parent_fingerprint=record.fingerprint, vocabulary_sha256=vocabulary.sha256
        ),
    )
    changes = {
        "id": relabelled_id(record.id, vocabulary),
        "identity": identity,
        "fingerprint": identity.fingerprint,
        "encoding": encoding or record.encoding,
        "format_minor": CACHE_FORMAT_MINOR,
        "recipe": None,
        "encoded_from": None,
        **dict.fromkeys(LOSS_KEYS),
    }
    return record.model_copy(update=changes)


def refuse_misfit(record: TeacherRecord, vocabulary: Vocabulary) -> None:
    """Raise VocabularyError unless the features of a teacher lie in the space of the texts."""
    identity, metadata = record.identity, vocabulary.metadata
    if identity.target != "features":
        raise _misfit(record, vocabulary, "a teacher that stores features", "logits")
    if identity.cells != 1:
        found = f"{identity.cells} cells for each frame (pool {identity.pool})"
        raise _misfit(record, vocabulary, "one vector per frame", found)
    dimensions = vocabulary.text_KD.shape[1]
    if identity.classes != dimensions:
        expected = f"features of {dimensions} dimensions, as its text embeddings have"
        raise _misfit(record, vocabulary, expected, f"{identity.classes} dimensions")
    if metadata.image_architecture not in (None, identity.architecture):
        expected = f"features of {metadata.image_architecture}, which belongs to its text tower "
        expected += metadata.text_tower
        raise _misfit(record, vocabulary, expected, f"features of {identity.architecture}")
    if metadata.image_weights_sha256 not in (None, identity.weights_sha256):
        expected = f"weights {metadata.image_weights_sha256}, which belong to its text tower "
        expected += metadata.text_tower
        raise _misfit(record, vocabulary, expected, f"weights {identity.weights_sha256}")


def only_feature_teacher(records: Sequence[TeacherRecord]) -> TeacherRecord:
    """The only teacher with features. Raises ConfigError if there are none or several."""
    found = _with_features(records)
    if len(found) == 1:
        return found[0]
    raise ConfigError(
        "a vocabulary needs one teacher that stores features",
        expected="a cache with one such teacher, or the teacher's id with --teacher",
        found=_ids(found),
        remedy="name the teacher" if found else _EXTRACT,
    )


def require_features(record: TeacherRecord, records: Sequence[TeacherRecord]) -> None:
    """Raise ConfigError if ``record`` stores logits. ``records``: all teachers of its cache."""
    if record.identity.target == "features":
        return
    others = _with_features(records)
    raise ConfigError(
        f"a vocabulary needs features, and teacher {record.id} stores logits",
        expected=f"a teacher that stores features; in this cache: {_ids(others)}",
        found=record.id,
        remedy=f"use teacher {_ids(others[:1])}" if others else _EXTRACT,
    )


def _with_features(records: Sequence[TeacherRecord]) -> list[TeacherRecord]:
    return [record for record in records if record.identity.target == "features"]


def _ids(records: Sequence[TeacherRecord]) -> str:
    return ", ".join(sorted(record.id for record in records)) or "none"


def _misfit(
    record: TeacherRecord, vocabulary: Vocabulary, expected: str, found: str
) -> VocabularyError:
    return VocabularyError(
        f"vocabulary {vocabulary.label} does not fit teacher {record.id}",
        expected=expected,
        found=found,
        remedy="use the vocabulary of this teacher's text tower, or another teacher; "
        "docs/vocabularies.md says which features fit",
    )
