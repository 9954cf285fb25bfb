"""Narrow networks for CPUs, demos and tests: R(2+1)D, R3D, and the image network of that R3D.

The number in a name counts the convolutions on the main path. ``tiny_r3d_9`` and ``tiny_r2d_9``
have the same layers, so that the first can be inflated from the second, as R3D-18 from ResNet-18.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

__all__ = ["TINY_STUDENTS", "TinyR2D", "TinyR2Plus1D", "TinyR3D"]

_STEM_STRIDE = 4  # in space


class TinyR2Plus1D(nn.Module):
    """A stem (stride 4 in space, 2 in time) and residual (2+1)D blocks.

    ``widths``: the planes of each block. ``strides``: its stride in space and time.
    """

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...], in_channels: int) -> None:
        super().__init__()
        self.feature_dim = widths[-1]
        self.stem = nn.Sequential(
            _conv3d(in_channels, widths[0], (1, 7, 7), (1, _STEM_STRIDE, _STEM_STRIDE)),
            _conv3d(widths[0], widths[0], (3, 1, 1), (2, 1, 1)),
        )
        planes = zip((widths[0], *widths[:-1]), widths, strides, strict=True)
        self.blocks = nn.Sequential(*(_FactoredBlock(*block) for block in planes))
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        _initialise(self)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """Clips [B, C, T, H, W] of at least 16 x 16 pixels -> features [B, widths[-1]]."""
        features: Tensor = self.avgpool(self.blocks(self.stem(clip_BCTHW)))
        return features.flatten(1)


class TinyR3D(nn.Module):
    """A stem (stride 4 in space) and residual blocks of two 3 x 3 x 3 convolutions."""

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...], in_channels: int) -> None:
        super().__init__()
        self.feature_dim = widths[-1]
        self.stem = _conv3d(in_channels, widths[0], (3, 7, 7), (1, _STEM_STRIDE, _STEM_STRIDE))
        planes = zip((widths[0], *widths[:-1]), widths, strides, strict=True)
        self.blocks = nn.Sequential(*(_Block3D(*block) for block in planes))
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        _initialise(self)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """Clips [B, C, T, H, W] of at least 16 x 16 pixels -> features [B, widths[-1]]."""
        features: Tensor = self.avgpool(self.blocks(self.stem(clip_BCTHW)))
        return features.flatten(1)


class TinyR2D(nn.Module):
    """The image network with the layers of ``TinyR3D``. Features are averaged over the frames."""

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...], in_channels: int) -> None:
        super().__init__()
        self.feature_dim = widths[-1]
        self.stem = _conv2d(in_channels, widths[0], 7, _STEM_STRIDE)
        planes = zip((widths[0], *widths[:-1]), widths, strides, strict=True)
        self.blocks = nn.Sequential(*(_Block2D(*block) for block in planes))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        _initialise(self)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """Clips [B, C, T, H, W] of at least 16 x 16 pixels -> features [B, widths[-1]]."""
        batch, frames = clip_BCTHW.shape[0], clip_BCTHW.shape[2]
        frames_NCHW = clip_BCTHW.transpose(1, 2).flatten(0, 1)
        features_NC: Tensor = self.avgpool(self.blocks(self.stem(frames_NCHW))).flatten(1)
        return features_NC.view(batch, frames, -1).mean(dim=1)


_FOUR_BLOCKS = ((16, 32, 64, 128), (1, 2, 2, 2))
_SIX_BLOCKS = ((24, 48, 48, 96, 96, 192), (1, 2, 1, 2, 1, 2))

TINY_STUDENTS: dict[str, Callable[[int], nn.Module]] = {
    "tiny_r2plus1d_10": partial(TinyR2Plus1D, *_FOUR_BLOCKS),
    "tiny_r2plus1d_14": partial(TinyR2Plus1D, *_SIX_BLOCKS),
    "tiny_r3d_9": partial(TinyR3D, *_FOUR_BLOCKS),
    "tiny_r2d_9": partial(TinyR2D, *_FOUR_BLOCKS),
}
"""Student name -> builds it from the number of input channels."""


def _conv3d(
    in_planes: int, out_planes: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Sequential(
        nn.Conv3d(in_planes, out_planes, kernel, stride, padding, bias=False),
        nn.BatchNorm3d(out_planes),
        nn.ReLU(inplace=True),
    )


def _conv2d(in_planes: int, out_planes: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_planes, out_planes, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_planes),
        nn.ReLU(inplace=True),
    )


class _FactoredBlock(nn.Module):
    """A spatial and a temporal convolution, with a residual shortcut."""

    def __init__(self, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.spatial = _conv3d(in_planes, out_planes, (1, 3, 3), (1, stride, stride))
        self.temporal = nn.Sequential(
            nn.Conv3d(out_planes, out_planes, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
            nn.BatchNorm3d(out_planes),
        )
        self.shortcut = _shortcut(nn.Conv3d, nn.BatchNorm3d, in_planes, out_planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, out_planes, T/stride, H/stride, W/stride]."""
        y: Tensor = self.temporal(self.spatial(x))
        added: Tensor = self.relu(y + self.shortcut(x))
        return added


class _Block3D(nn.Module):
    """Two 3 x 3 x 3 convolutions, with a residual shortcut."""

    def __init__(self, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3d(in_planes, out_planes, (3, 3, 3), (stride, stride, stride))
        self.conv2 = nn.Sequential(
            nn.Conv3d(out_planes, out_planes, 3, 1, 1, bias=False), nn.BatchNorm3d(out_planes)
        )
        self.shortcut = _shortcut(nn.Conv3d, nn.BatchNorm3d, in_planes, out_planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, out_planes, T/stride, H/stride, W/stride]."""
        y: Tensor = self.conv2(self.conv1(x))
        added: Tensor = self.relu(y + self.shortcut(x))
        return added


class _Block2D(nn.Module):
    """Two 3 x 3 convolutions, with a residual shortcut."""

    def __init__(self, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv2d(in_planes, out_planes, 3, stride)
        self.conv2 = nn.Sequential(
            nn.Conv2d(out_planes, out_planes, 3, 1, 1, bias=False), nn.BatchNorm2d(out_planes)
        )
        self.shortcut = _shortcut(nn.Conv2d, nn.BatchNorm2d, in_planes, out_planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, out_planes, H/stride, W/stride]."""
        y: Tensor = self.conv2(self.conv1(x))
        added: Tensor = self.relu(y + self.shortcut(x))
        return added


def _shortcut(
    conv: type[nn.Conv2d | nn.Conv3d],
    norm: type[nn.BatchNorm2d | nn.BatchNorm3d],
    in_planes: int,
    out_planes: int,
    stride: int,
) -> nn.Module:
    if stride == 1 and in_planes == out_planes:
        return nn.Identity()
    return nn.Sequential(conv(in_planes, out_planes, 1, stride, bias=False), norm(out_planes))


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
