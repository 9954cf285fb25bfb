"""The first layer of a student as space-time kernels, to be looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distinit.pipeline.students.heads import Student
from distinit.schemas.errors import ConfigError

__all__ = ["Stem", "read_stem"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Stem:
    """The filters that a student applies to its input clip."""

    kernel_OITHW: Floats
    """One space-time kernel per output channel."""
    spatial_MIHW: Floats | None
    """The spatial filters, if a spatial and a temporal convolution make up the kernels."""


def read_stem(student: Student) -> Stem:
    """The first convolution of a student, or its first two for (2+1)D networks.

    A (2+1)D stem is a spatial convolution (1 x H x W), batch norm, ReLU, and a temporal convolution
    (T x 1 x 1). Its kernels are the products of both, summed over the channels between them, with
    the scale of the batch norm and without the ReLU: the response where the ReLU passes everything.

    Raises ConfigError if the first layer is not a 3D convolution of the input's channels.
    """
    layers = [m for m in student.get_submodule("backbone").modules() if not list(m.children())]
    positions = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv3d)]
    first = layers[positions[0]] if positions else None
    if not isinstance(first, nn.Conv3d) or first.groups != 1 or first.in_channels not in (2, 3):
        raise ConfigError(
            "the filters of this network cannot be shown",
            expected="a first layer that is a 3D convolution of 2 or 3 channels",
            found=first or "no 3D convolution",
            remedy="leave this run out",
        )
    if first.kernel_size[0] > 1 or len(positions) < 2:
        return Stem(_array(first.weight), None)
    second, between = layers[positions[1]], layers[positions[0] + 1 : positions[1]]
    if not isinstance(second, nn.Conv3d) or not _follows_in_time(first, second):
        return Stem(_array(first.weight), None)
    scaled = second.weight[:, :, :, 0, 0] * _batch_norm_scale(between, first.out_channels)[:, None]
    kernel = torch.einsum("omt,mihw->oithw", scaled, first.weight[:, :, 0])
    return Stem(_array(kernel), _array(first.weight[:, :, 0]))


def _follows_in_time(spatial: nn.Conv3d, temporal: nn.Conv3d) -> bool:
    return (
        temporal.kernel_size[0] > 1
        and temporal.kernel_size[1:] == (1, 1)
        and temporal.in_channels == spatial.out_channels
        and temporal.groups == 1
    )


def _batch_norm_scale(layers: list[nn.Module], channels: int) -> Tensor:
    """What the batch norm among ``layers`` multiplies each channel with: [channels]."""
    for layer in layers:
        if isinstance(layer, nn.BatchNorm3d) and layer.running_var is not None and layer.affine:
            scale: Tensor = layer.weight / torch.sqrt(layer.running_var + layer.eps)
            return scale
    return torch.ones(channels)


def _array(weight: Tensor) -> Floats:
    return weight.detach().to(torch.float32).numpy().copy()
