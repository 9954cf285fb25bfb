"""What every student backbone is: a module from clips to pooled features."""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor, nn

from distinit.schemas.errors import ConfigError

__all__ = ["VideoBackbone", "as_backbone", "replace_input_channels"]


class VideoBackbone(Protocol):
    """An ``nn.Module`` whose ``feature_dim`` is an integer. Plugins return just that."""

    feature_dim: int

    def __call__(self, clip_BCTHW: Tensor) -> Tensor:
        """Normalised clips [B, C, T, H, W] -> pooled features [B, feature_dim]."""


def as_backbone(module: nn.Module, feature_dim: int | None = None) -> VideoBackbone:
    """Give ``module`` its ``feature_dim``; without one it must have it already.

    The module itself is the backbone, not a wrapper: its tensors keep their own names in files.

    Raises ConfigError when it is no module or has no feature width.
    """
    if isinstance(module, nn.Module) and feature_dim is not None:
        module.feature_dim = feature_dim  # type: ignore[assignment]
    if not isinstance(module, nn.Module) or not isinstance(
        getattr(module, "feature_dim", None), int
    ):
        raise ConfigError(
            "a student plugin returned something that is no backbone",
            expected="a torch.nn.Module with an integer attribute feature_dim",
            found=type(module).__name__,
            remedy="return such a module; its forward maps [B, C, T, H, W] to [B, feature_dim]",
        )
    return cast("VideoBackbone", module)


def replace_input_channels(module: nn.Module, in_channels: int) -> None:
    """Swap the first convolution for one that reads ``in_channels``, freshly initialised."""
    convolutions = ((n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv3d))
    name, child = next(convolutions)
    if child.in_channels == in_channels:
        return
    fresh = nn.Conv3d(
        in_channels,
        child.out_channels,
        child.kernel_size,  # type: ignore[arg-type]
        child.stride,  # type: ignore[arg-type]
        child.padding,  # type: ignore[arg-type]
        bias=child.bias is not None,
    )
    nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
    if fresh.bias is not None:
        nn.init.zeros_(fresh.bias)
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, fresh)
