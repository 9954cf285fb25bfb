"""The warnings of an audit about teachers that store features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distinit.pipeline.audit.features import COLLAPSED_SHARE
from distinit.schemas.audit import AuditWarning, TeacherAudit
from distinit.schemas.wording import counted

__all__ = ["feature_warnings"]

_LOW_RANK = 0.05  # of the channels
_OWN = "DistInit's own threshold, see docs/decisions/055-statistics-of-features.md"


def feature_warnings(teachers: Sequence[TeacherAudit]) -> Iterator[AuditWarning]:
    """What is wrong with the features of the teachers that store them."""
    for teacher in teachers:
        found, name = teacher.features, teacher.record.id
        if found is None:
            continue
        if found.collapsed_dimensions is None:
            yield AuditWarning(
                kind="no statistics",
                text="the cache has no mean and covariance of these features; run "
                "`distinit cache statistics` on it",
                rule="caches before format version 2.2 lack them",
                teacher=name,
            )
        if found.collapsed_dimensions:
            yield AuditWarning(
                kind="collapsed dimensions",
                text=f"{counted(found.collapsed_dimensions, 'channel')} of {found.channels} "
                "nearly constant",
                rule=f"standard deviation below {COLLAPSED_SHARE:g} of the median over the "
                f"channels, here {found.collapsed_std:.3g}; {_OWN}",
                teacher=name,
            )
        if found.effective_rank is not None and found.effective_rank < _LOW_RANK * found.channels:
            yield AuditWarning(
                kind="low effective rank",
                text=f"{found.effective_rank:.1f} of {found.channels} dimensions",
                rule=f"below {_LOW_RANK:.0%} of the channels; {_OWN}",
                teacher=name,
            )
        if found.norm_min == 0:
            yield AuditWarning(
                kind="features of zero",
                text="some vectors have norm 0, so they have no direction",
                rule="smallest norm 0: a cosine loss is not defined for them",
                teacher=name,
            )
