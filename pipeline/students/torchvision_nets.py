"""torchvision's video networks with their classifier removed; tensor names stay theirs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torchvision.models.video as zoo
from torch import Tensor, nn

from distinit.pipeline.students.base import VideoBackbone, as_backbone, replace_input_channels

__all__ = ["CLASSIFIERS", "SMALLEST_CLIPS", "build_torchvision"]

CLASSIFIERS = {
    "r3d_18": "fc",
    "mc3_18": "fc",
    "r2plus1d_18": "fc",
    "s3d": "classifier",
    "mvit_v2_s": "head",
    "swin3d_t": "head",
}
"""Student name -> torchvision's attribute that holds the classifier."""

SMALLEST_CLIPS = {"s3d": (5, 17)}
"""Least (frames, crop) of students whose pooling leaves nothing of smaller clips."""


def build_torchvision(name: str, in_channels: int) -> VideoBackbone:
    """Build ``name`` with random weights, its classifier replaced by the identity."""
    builder: Callable[[], nn.Module] = getattr(zoo, name)
    model = builder()
    classifier = model.get_submodule(CLASSIFIERS[name])
    feature_dim = _input_width(classifier)
    setattr(model, CLASSIFIERS[name], nn.Identity())
    if name == "s3d":
        # torchvision's window of 2x7x7 needs 224-pixel clips; a mean over whatever is there does
        # the same for its own size, up to the overlap of the windows, and works for every other.
        model.avgpool = nn.AdaptiveAvgPool3d(1)
    replace_input_channels(model, in_channels)
    if isinstance(model, zoo.mvit.MViT):
        # Its blocks resample their position tables to the clip, but are told one fixed size.
        model.conv_proj.register_forward_hook(partial(_tell_size, model.pos_encoding))
    return as_backbone(model, feature_dim)


def _tell_size(
    positions: zoo.mvit.PositionalEncoding, _conv: nn.Module, _clip: object, patches_BCTHW: Tensor
) -> None:
    frames, height, width = patches_BCTHW.shape[2:]
    positions.temporal_size, positions.spatial_size = frames, (height, width)


def _input_width(classifier: nn.Module) -> int:
    for module in classifier.modules():
        if isinstance(module, nn.Linear):
            return module.in_features
        if isinstance(module, nn.Conv3d):
            return module.in_channels
    raise TypeError(f"no linear layer in {type(classifier).__name__}")
