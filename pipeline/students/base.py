"""The interface of student backbones: modules that map clips to pooled features."""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor, nn

from distinit.pipeline.plugins import in_words
from distinit.schemas.errors import ConfigError

__all__ = ["VideoBackbone", "as_backbone", "replace_input_channels"]


class VideoBackbone(Protocol):
    """An ``nn.Module`` with an integer ``feature_dim``. Student plugins return one."""

    feature_dim: int

    def __call__(self, clip_BCTHW: Tensor) -> Tensor:
        """Normalised clips [B, C, T, H, W] -> pooled features [B, feature_dim]."""


def as_backbone(
    module: nn.Module, feature_dim: int | None = None, *, name: str = "the student"
) -> VideoBackbone:
    """Set ``module.feature_dim``; if ``feature_dim`` is None, the module must already have it.

    The module is not wrapped, so its tensors keep their names in files. ``name``: the student's
    name, for messages.

    Raises ConfigError if ``module`` is not an nn.Module or has no ``feature_dim`` above 0.
    """
    if isinstance(module, nn.Module) and feature_dim is not None:
        module.feature_dim = feature_dim  # type: ignore[assignment]
    width = getattr(module, "feature_dim", None)
    is_module = isinstance(module, nn.Module)
    if not is_module or not isinstance(width, int) or isinstance(width, bool) or width < 1:
        given = "missing" if width is None else width if type(width) is int else in_words(width)
        raise ConfigError(
            f"{name} did not return a backbone",
            expected="a network (torch.nn.Module) with feature_dim, a whole number above 0",
            found=in_words(module) + (f", feature_dim: {given}" if is_module else ""),
            remedy="return a network that maps clips [B, C, T, H, W] to [B, feature_dim]",
        )
    return cast("VideoBackbone", module)


def replace_input_channels(module: nn.Module, in_channels: int) -> None:
    """Replace the first convolution by a randomly initialised one with ``in_channels`` inputs.

    Does nothing if it already has ``in_channels`` inputs.
    """
    convolutions = ((n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv3d))
    name, old = next(convolutions)
    if old.in_channels == in_channels:
        return
    new = nn.Conv3d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, new)
