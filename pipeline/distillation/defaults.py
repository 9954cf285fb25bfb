"""Decides the loss and the normalization of a target that leaves them to the teacher."""

from __future__ import annotations

from distinit.pipeline.cache.feature_statistics import FeatureStatistics
from distinit.pipeline.cache.teacher_targets import TeacherTargets
from distinit.pipeline.distillation.normalization import Normalization, normalization_from
from distinit.schemas.distill import TargetConfig
from distinit.schemas.errors import CacheCorruptError, CacheError, ConfigError
from distinit.schemas.losses import DISTRIBUTION_LOSSES, Loss, Normalize
from distinit.schemas.wording import counted

__all__ = ["with_loss", "with_normalization"]


def with_loss(
    target: TargetConfig, targets: TeacherTargets, recorded: Normalization | None
) -> TargetConfig:
    """``target`` with a loss and a normalization in place of ``auto``.

    ``recorded``: the normalization with which the run began, if it had one. Raises ConfigError for
    settings that do not fit the teacher, CacheCorruptError for damaged statistics.
    """
    if targets.record.identity.target == "logits":
        _refuse_normalized_logits(target, targets.record.id)
        loss: Loss = "cross_entropy" if target.loss == "auto" else target.loss
        return target.model_copy(update={"loss": loss, "normalize": "none"})
    _refuse_distribution(target, targets.record.id)
    _refuse_filter(target, targets.record.id)
    normalize: Normalize = "none"
    if target.normalize != "auto":
        normalize = target.normalize
    elif target.loss == "auto":
        normalize = _default_normalization(targets, recorded)
    by_scale: Loss = "cosine" if normalize == "none" else "cosine+smooth_l1"
    loss = by_scale if target.loss == "auto" else target.loss
    return target.model_copy(update={"loss": loss, "normalize": normalize})


def with_normalization(
    target: TargetConfig, targets: TeacherTargets, recorded: Normalization | None
) -> Normalization | None:
    """The normalization that ``target`` names: ``recorded`` if it fits, else from the statistics.

    Raises CacheError for a cache without statistics, ConfigError if there are no covariances, or if
    all features are equal.
    """
    if target.normalize == "none" or target.normalize == "auto":
        return None
    has_rotation = target.normalize == "phi_s"
    identity = targets.record.identity
    if (
        recorded is not None
        and (recorded.rotation_CC is not None) == has_rotation
        and recorded.channels == identity.channels
    ):
        return recorded
    statistics = targets.feature_statistics
    if has_rotation and not statistics.has_covariance:
        raise ConfigError(
            f"the cache has no covariances of teacher {targets.record.id}, which phi_s needs",
            expected="statistics with covariances, which are not kept for very many channels",
            found=f"{identity.channels:,} channels",
            remedy="set targets.normalize to standardize",
        )
    if not statistics.std_C.any():
        raise ConfigError(
            f"all features of teacher {targets.record.id} are equal: they teach nothing",
            expected="features that differ between frames",
            found=f"a standard deviation of 0 in each of {counted(identity.channels, 'channel')}",
            remedy="check the teacher's weights and preprocessing, or remove it from targets",
        )
    return normalization_from(target.normalize, statistics)


def _default_normalization(targets: TeacherTargets, recorded: Normalization | None) -> Normalize:
    if recorded is not None:
        return "standardize" if recorded.rotation_CC is None else "phi_s"
    statistics = _statistics(targets)
    if statistics is None:
        return "none"
    return "phi_s" if statistics.has_covariance else "standardize"


def _statistics(targets: TeacherTargets) -> FeatureStatistics | None:
    try:
        return targets.feature_statistics
    except CacheCorruptError:
        raise
    except CacheError:
        return None


def _refuse_normalized_logits(target: TargetConfig, teacher_id: str) -> None:
    if target.normalize not in {"auto", "none"}:
        raise ConfigError(
            f"teacher {teacher_id} stores logits, which are not normalized",
            expected="normalize none",
            found=f"normalize {target.normalize}",
            remedy="leave targets.normalize out, or choose a teacher of features",
        )


def _refuse_distribution(target: TargetConfig, teacher_id: str) -> None:
    """Raise ConfigError for settings that only probabilities can have."""
    if target.loss in DISTRIBUTION_LOSSES:
        raise ConfigError(
            f"teacher {teacher_id} stores features, which are not a distribution",
            expected="loss cosine, mse, smooth_l1, cosine+mse or cosine+smooth_l1",
            found=f"loss {target.loss}",
            remedy="choose another loss or another teacher",
        )
    if target.average == "probabilities" or target.temperature != 1:
        raise ConfigError(
            f"teacher {teacher_id} stores features, which are not a distribution",
            expected="average logits and temperature 1",
            found=f"average {target.average}, temperature {target.temperature:g}",
            remedy="leave targets.average and targets.temperature out, or choose another teacher",
        )


def _refuse_filter(target: TargetConfig, teacher_id: str) -> None:
    if target.filter.can_drop:
        raise ConfigError(
            f"teacher {teacher_id} stores features, which have no entropy to filter by",
            expected="filters of teachers of logits only",
            found="a filter for this teacher",
            remedy="filter each teacher of logits: --set 'targets=[{teacher: LOGITS, filter: "
            "{keep_fraction: 0.5}}, {teacher: FEATURES}]'; with combine_filters all, it decides "
            "for the features too",
        )
