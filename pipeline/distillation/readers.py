"""Opens the stored targets that a distillation reads, and checks that their settings fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.teacher_targets import TeacherTargets
from distinit.pipeline.distillation.combine import gives_logits
from distinit.pipeline.distillation.defaults import with_loss, with_normalization
from distinit.pipeline.distillation.normalization import Normalization
from distinit.pipeline.distillation.targets import TargetReader
from distinit.pipeline.progress import Progress
from distinit.pipeline.vocabulary.files import read_vocabulary
from distinit.pipeline.vocabulary.relabelled import require_features
from distinit.pipeline.vocabulary.targets import VocabularyTargets
from distinit.schemas.distill import DistillConfig, TargetConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.teacher import TeacherRecord

__all__ = ["open_reader"]


def open_reader(
    cache: TargetCache,
    config: DistillConfig,
    target: TargetConfig,
    normalizations: Mapping[str, Normalization],
    progress: Progress | None = None,
) -> TargetReader:
    """Open the targets of one teacher as ``target`` configures them.

    The configuration of the reader has a loss and a normalization where ``target`` has ``auto``.
    ``normalizations``: by head, those with which the run began.

    Raises CacheError, VocabularyError, and ConfigError for settings that do not fit the teacher or
    the clips.
    """
    teacher_id = target.teacher
    if teacher_id is None:
        teacher_id = _only_teacher(cache, target)
    stored = cache.targets(teacher_id)
    targets = _with_vocabulary(cache, stored, target, progress)
    recorded = normalizations.get(targets.record.id)
    if targets.record.identity.target == "logits" and _learns_features(cache, config):
        target = target.model_copy(update={"normalize": "auto"})  # it is meant for the features
    target = with_loss(target, targets, recorded)
    if target.pick in {"uniform", "k_random"} and target.k > config.clip.frames:
        raise ConfigError(
            "a target is made from more frames than a clip has",
            expected=f"targets.k of at most clip.frames ({config.clip.frames})",
            found=target.k,
            remedy="lower targets.k",
        )
    mirrored = None
    if target.flipped_teacher is not None:
        mirrored = cache.targets(target.flipped_teacher)
        _require_mirror(stored.record, mirrored.record)
        mirrored = _with_vocabulary(cache, mirrored, target, progress)
    as_logits = config.combine == "mean" and gives_logits(target)
    normalization = with_normalization(target, targets, recorded)
    return TargetReader(target, targets, mirrored, as_logits=as_logits, normalization=normalization)


def _learns_features(cache: TargetCache, config: DistillConfig) -> bool:
    """Whether the features of some teacher are learned, not only logits made from them."""
    learned = [target.teacher for target in config.targets if target.vocabulary is None]
    return any(
        name in cache.teachers and cache.teachers[name].identity.target == "features"
        for name in learned
    )


def _with_vocabulary(
    cache: TargetCache, targets: TeacherTargets, target: TargetConfig, progress: Progress | None
) -> TeacherTargets:
    """``targets``, or the logits that the vocabulary of ``target`` gives to these features."""
    if target.vocabulary is None:
        return targets
    require_features(targets.record, list(cache.teachers.values()))
    vocabulary = read_vocabulary(Path(target.vocabulary))
    return VocabularyTargets(cache, targets.record, vocabulary, progress)


def _only_teacher(cache: TargetCache, target: TargetConfig) -> str:
    """The teacher of a target that names none; with a vocabulary, the one that stores features."""
    flipped_teacher = target.flipped_teacher
    candidates = [name for name in sorted(cache.teachers) if name != flipped_teacher]
    if target.vocabulary is not None:
        features = [n for n in candidates if cache.teachers[n].identity.target == "features"]
        candidates = features or candidates
    if not candidates:
        raise ConfigError(
            f"the only teacher of the cache, {flipped_teacher}, is the flipped teacher of a target",
            expected="the same teacher over unflipped frames as well",
            remedy=f"extract it into this cache without flip, or set targets.teacher to "
            f"{flipped_teacher} and leave out flipped_teacher",
        )
    if len(candidates) > 1:
        raise ConfigError(
            "the cache has several teachers, and a target does not name one",
            expected=f"targets.teacher: one of {', '.join(candidates)}",
            remedy=_naming(candidates[0], target),
        )
    return candidates[0]


def _naming(teacher_id: str, target: TargetConfig) -> str:
    if target.vocabulary is not None:
        return f"--set targets.0.teacher={teacher_id}"
    return f"--set 'targets=[{{teacher: {teacher_id}}}]', with one entry per teacher to learn from"


def _require_mirror(plain: TeacherRecord, mirrored: TeacherRecord) -> None:
    """Raise ConfigError unless ``mirrored`` is ``plain`` over mirrored frames."""
    flipped = plain.identity.preprocessing.model_copy(update={"flip": True})
    expected = plain.identity.model_copy(update={"preprocessing": flipped})
    if plain.identity.preprocessing.flip or mirrored.fingerprint != expected.fingerprint:
        raise ConfigError(
            f"teacher {mirrored.id} is not {plain.id} over mirrored frames",
            expected="the same weights and preprocessing, extracted with flip: true",
            found="flip: false"
            if not mirrored.identity.preprocessing.flip
            else "another network or preprocessing",
            remedy="extract it into this cache: --set teachers.0.flip=true",
        )
