"""Mean, standard deviation and covariance of a feature teacher over the rows of a cache."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from distinit.pipeline.cache.checksums import check_listed
from distinit.pipeline.cache.feature_moments import FeatureMoments
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.moments_file import MomentsError, read_moments
from distinit.schemas.errors import CacheCorruptError, CacheError
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.wording import reason_of, shell_line

__all__ = ["FeatureStatistics", "read_statistics", "statistics_command"]


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """Statistics over the stored vectors of a teacher: one per row, or one per cell of a grid.

    Attributes:
        vectors: How many they are, at least 1.
        mean_C: fp64 [channels].
        covariance_CC: fp64 [channels, channels], divided by ``vectors``. [0, 0] for more than 4,096
            channels, of which only the standard deviations are known.
        std_C: Standard deviations, fp64 [channels]; from ``covariance_CC`` unless given.
    """

    vectors: int
    mean_C: np.ndarray
    covariance_CC: np.ndarray
    std_C: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if not len(self.std_C):
            object.__setattr__(self, "std_C", np.sqrt(self.covariance_CC.diagonal()))

    @classmethod
    def of(cls, moments: FeatureMoments) -> FeatureStatistics:
        """The statistics of at least one vector."""
        if moments.scatter.ndim == 2:
            return cls(moments.vectors, moments.mean_C, moments.scatter / moments.vectors)
        std_C = np.sqrt(moments.scatter / moments.vectors)
        return cls(moments.vectors, moments.mean_C, np.zeros((0, 0)), std_C)

    @property
    def has_covariance(self) -> bool:
        """Whether there are covariances, and not just standard deviations."""
        return len(self.covariance_CC) > 0


def statistics_command(layout: CacheLayout) -> str:
    """The shell command that computes the statistics of a cache from its stored rows."""
    return shell_line(["distinit", "cache", "statistics", str(layout.root)])


def read_statistics(layout: CacheLayout, record: TeacherRecord) -> FeatureStatistics:
    """The statistics of a feature teacher of a complete cache.

    In a partial copy, they are those of the whole cache. Whether they follow from the rows is not
    checked here: ``distinit cache verify`` computes them again.

    Raises:
        CacheError: The teacher stores logits, the cache lacks statistics, or has no vectors.
        CacheCorruptError: The file is damaged, or is not the one on the list of checksums.
    """
    if record.identity.target != "features":
        raise CacheError(
            f"teacher {record.id} stores logits, whose statistics are not kept",
            expected="a feature teacher",
            remedy="name a teacher with target features",
        )
    path = layout.statistics(record.id)
    again = f"run `{statistics_command(layout)}`; a partial copy is pulled again"
    try:
        moments = read_moments(path, record.identity.channels).moments
    except FileNotFoundError:
        raise CacheError(
            f"the cache has no statistics of teacher {record.id}",
            expected=f"{layout.relative(path)}, which caches before format version 2.2 lack",
            remedy=again,
        ) from None
    except (OSError, MomentsError) as error:
        raise CacheCorruptError(
            f"{path} is damaged",
            expected=f"statistics of {record.identity.channels} channels",
            found=reason_of(error) if isinstance(error, OSError) else str(error),
            remedy=again,
        ) from error
    check_listed(layout, [path])
    if not moments.vectors:
        raise CacheError(
            f"teacher {record.id} has no features in this cache",
            expected="at least one video that did not fail",
            remedy="see `distinit cache info` for the reasons",
        )
    return FeatureStatistics.of(moments)
