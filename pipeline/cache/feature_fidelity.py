"""How much features change by their encoding or by the arithmetic. Computed in fp64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from distinit.schemas.feature_sums import FeatureFidelitySums
from distinit.schemas.output_reports import FeatureFidelityReport

__all__ = [
    "FeatureFidelity",
    "feature_fidelity_of",
    "feature_fidelity_report",
    "feature_fidelity_sums",
    "feature_precision_loss_sums",
]


@dataclass(frozen=True, slots=True)
class FeatureFidelity:
    """What encoding lost per frame, fp64 [N] each. NaN: the teacher has no output for the frame."""

    cosine_error: np.ndarray  # 1 - cosine of the fp32 and the stored features
    relative_error: np.ndarray  # |stored - fp32| / |fp32|

    @classmethod
    def zeros(cls, rows: int) -> FeatureFidelity:
        """Zeros for ``rows`` frames."""
        return cls(np.zeros(rows), np.zeros(rows))

    def __getitem__(self, part: slice) -> FeatureFidelity:
        return FeatureFidelity(self.cosine_error[part], self.relative_error[part])

    def put(self, rows: slice, values: FeatureFidelity) -> None:
        """Store the values of some frames at ``rows``."""
        self.cosine_error[rows] = values.cosine_error
        self.relative_error[rows] = values.relative_error

    def put_missing(self, rows: slice) -> None:
        """Note that there is no output for the frames at ``rows``."""
        self.cosine_error[rows] = self.relative_error[rows] = np.nan


def feature_fidelity_of(features_NC: np.ndarray, stored_NC: np.ndarray) -> FeatureFidelity:
    """Compare fp32 features with their decoded stored form, both [N, C].

    A row of zeros has no direction: its errors are 0 if it is stored as zeros, otherwise 1.
    """
    x_NC, y_NC = features_NC.astype(np.float64), stored_NC.astype(np.float64)
    norm_N, stored_norm_N = np.linalg.norm(x_NC, axis=1), np.linalg.norm(y_NC, axis=1)
    difference_N = np.linalg.norm(x_NC - y_NC, axis=1)
    zero_N = (norm_N == 0) | (stored_norm_N == 0)
    safe_N, safe_stored_N = np.where(zero_N, 1, norm_N), np.where(zero_N, 1, stored_norm_N)
    # 1 - cosine = |x/|x| - y/|y||² / 2, which does not lose small errors to cancellation.
    apart_NC = x_NC / safe_N[:, None] - y_NC / safe_stored_N[:, None]
    differs_N = (difference_N > 0).astype(np.float64)
    return FeatureFidelity(
        cosine_error=np.where(zero_N, differs_N, (apart_NC**2).sum(axis=1) / 2),
        relative_error=np.where(zero_N, differs_N, difference_N / safe_N),
    )


def feature_fidelity_sums(fidelity: FeatureFidelity, rows: np.ndarray) -> FeatureFidelitySums:
    """Sums over the frames at ``rows`` that have an output, in row order."""
    cosine_N, relative_N = fidelity.cosine_error[rows], fidelity.relative_error[rows]
    has_output_N = ~np.isnan(cosine_N)
    cosine_N, relative_N = cosine_N[has_output_N], relative_N[has_output_N]
    return FeatureFidelitySums(
        frames=len(cosine_N),
        cosine_error_sum=float(cosine_N.sum()),
        cosine_error_max=float(cosine_N.max(initial=0.0)),
        relative_error_sum=float(relative_N.sum()),
        relative_error_max=float(relative_N.max(initial=0.0)),
    )


def feature_precision_loss_sums(
    exact_NC: np.ndarray, features_NC: np.ndarray
) -> FeatureFidelitySums:
    """Sums over frames whose features were computed in fp32 (``exact_NC``) and as are stored."""
    fidelity = feature_fidelity_of(exact_NC, features_NC)
    return feature_fidelity_sums(fidelity, np.arange(len(features_NC)))


def feature_fidelity_report(sums: Iterable[FeatureFidelitySums]) -> FeatureFidelityReport | None:
    """Merge the sums of all units. Returns None where there are no frames."""
    parts = [part for part in sums if part.frames]
    frames = sum(part.frames for part in parts)
    if not frames:
        return None
    references = sorted({part.measured_against or "fp32" for part in parts})
    return FeatureFidelityReport(
        frames=frames,
        mean_cosine_error=sum(part.cosine_error_sum for part in parts) / frames,
        max_cosine_error=max(part.cosine_error_max for part in parts),
        mean_relative_error=sum(part.relative_error_sum for part in parts) / frames,
        max_relative_error=max(part.relative_error_max for part in parts),
        measured_against=None if references == ["fp32"] else ", ".join(references),
    )
