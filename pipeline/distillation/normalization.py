"""Normalizes the vectors of a feature teacher, and undoes it (PHI-S, section 3)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.cache.feature_statistics import FeatureStatistics
from distinit.pipeline.distillation.rotation import equal_variance_rotation
from distinit.schemas.base import sha256_of

__all__ = ["COLLAPSED", "Normalization", "normalization_from", "phi_s", "standardization"]

COLLAPSED = 1e-3
"""A channel whose standard deviation is below this share of the median is noise: not scaled up."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """y = scale * (R (x - mean)), for each vector of C channels; R is orthogonal.

    It is undone by x = R^T (y / scale) + mean.
    """

    mean_C: Tensor
    """fp32"""
    scale_C: Tensor
    """fp32, more than 0"""
    rotation_CC: Tensor | None = None
    """R, fp32; None: the identity."""

    @property
    def channels(self) -> int:
        """C."""
        return len(self.mean_C)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name, as in ``normalization.safetensors``."""
        named = {"mean_C": self.mean_C, "scale_C": self.scale_C}
        return named if self.rotation_CC is None else named | {"rotation_CC": self.rotation_CC}

    @property
    def digest(self) -> str:
        """Hex sha256 over the names and values."""
        values = {
            name: hashlib.sha256(tensor.numpy().astype("<f4").tobytes()).hexdigest()
            for name, tensor in self.tensors.items()
        }
        return sha256_of(values)

    def apply(self, features_BF: Tensor) -> Tensor:
        """Normalized features [B, cells * channels]; each cell is one vector."""
        vectors_NC = features_BF.reshape(-1, self.channels) - self.mean_C
        if self.rotation_CC is not None:
            vectors_NC = vectors_NC @ self.rotation_CC.T
        return (vectors_NC * self.scale_C).reshape(features_BF.shape)

    def undo(self, normalized_BF: Tensor) -> Tensor:
        """The inverse of ``apply``: what a student's head puts out, as the teacher's features."""
        vectors_NC = normalized_BF.reshape(-1, self.channels) / self.scale_C
        if self.rotation_CC is not None:
            vectors_NC = vectors_NC @ self.rotation_CC
        return (vectors_NC + self.mean_C).reshape(normalized_BF.shape)


def normalization_from(
    kind: Literal["standardize", "phi_s"], statistics: FeatureStatistics
) -> Normalization:
    """The normalization with these statistics; phi_s needs ``statistics.has_covariance``."""
    if kind == "standardize":
        return standardization(statistics.mean_C, statistics.std_C)
    return phi_s(statistics.mean_C, statistics.covariance_CC)


def standardization(mean_C: Floats, std_C: Floats) -> Normalization:
    """Every channel to mean 0 and variance 1.

    A collapsed channel (see COLLAPSED) has the scale of the median channel instead, so that its
    target stays near 0. If all are collapsed, the scale is 1.
    """
    positive = std_C[std_C > 0]
    median = float(np.median(positive)) if len(positive) else 1.0
    divisor_C = np.where(std_C > COLLAPSED * median, std_C, median)
    return Normalization(_fp32(mean_C), _fp32(1 / divisor_C))


def phi_s(mean_C: Floats, covariance_CC: Floats) -> Normalization:
    """A rotation after which all channels have the same variance, and one scale that makes it 1.

    Distances and angles between centred vectors are kept, up to that scale. Directions without
    variance do no harm: nothing is divided by their eigenvalues. Without any variance the scale
    is 1.
    """
    variance = float(covariance_CC.trace()) / len(mean_C)
    alpha = 1 / np.sqrt(variance) if variance > 0 else 1.0
    rotation_CC = equal_variance_rotation(covariance_CC)
    return Normalization(_fp32(mean_C), _fp32(np.full(len(mean_C), alpha)), _fp32(rotation_CC))


def _fp32(values: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
