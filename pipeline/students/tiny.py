"""A narrow R(2+1)D with ten convolutions, for CPUs, demos and tests."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["TinyR2Plus1D"]

WIDTHS = (16, 32, 64, 128)


def _conv(
    in_planes: int, out_planes: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Sequential(
        nn.Conv3d(in_planes, out_planes, kernel, stride, padding, bias=False),
        nn.BatchNorm3d(out_planes),
        nn.ReLU(inplace=True),
    )


class _Block(nn.Module):
    """A spatial and a temporal convolution, with a residual shortcut."""

    def __init__(self, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.spatial = _conv(in_planes, out_planes, (1, 3, 3), (1, stride, stride))
        self.temporal = nn.Sequential(
            nn.Conv3d(out_planes, out_planes, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
            nn.BatchNorm3d(out_planes),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_planes != out_planes:
            self.shortcut = nn.Sequential(
                nn.Conv3d(in_planes, out_planes, 1, stride, bias=False), nn.BatchNorm3d(out_planes)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, out_planes, T/stride, H/stride, W/stride]."""
        y: Tensor = self.temporal(self.spatial(x))
        return self.relu(y + self.shortcut(x))  # type: ignore[no-any-return]


class TinyR2Plus1D(nn.Module):
    """A stem (stride 4 in space, 2 in time) and four residual (2+1)D blocks."""

    feature_dim = WIDTHS[-1]

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _conv(in_channels, WIDTHS[0], (1, 7, 7), (1, 4, 4)),
            _conv(WIDTHS[0], WIDTHS[0], (3, 1, 1), (2, 1, 1)),
        )
        pairs = zip((WIDTHS[0], *WIDTHS[:-1]), WIDTHS, strict=True)
        self.blocks = nn.Sequential(
            *(_Block(a, b, stride=1 if i == 0 else 2) for i, (a, b) in enumerate(pairs))
        )
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """Clips [B, C, T, H, W] of at least 16 x 16 pixels -> features [B, 128]."""
        features: Tensor = self.avgpool(self.blocks(self.stem(clip_BCTHW)))
        return features.flatten(1)
