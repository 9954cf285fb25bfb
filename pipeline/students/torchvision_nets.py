"""torchvision's video networks without their classifiers; their tensor names are unchanged."""

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
"""Student name -> name of the attribute that holds the classifier."""

SMALLEST_CLIPS = {"s3d": (5, 17)}
"""Student name -> smallest (frames, crop) that its pooling layers accept."""


def build_torchvision(name: str, in_channels: int) -> VideoBackbone:
    """Build ``name`` with random weights and the identity in place of its classifier."""
    builder: Callable[[], nn.Module] = getattr(zoo, name)
    model = builder()
    classifier = model.get_submodule(CLASSIFIERS[name])
    feature_dim = _input_width(classifier)
    setattr(model, CLASSIFIERS[name], nn.Identity())
    if name == "s3d":
        # torchvision's pooling window of 2x7x7 needs 224-pixel clips. A mean over all positions
        # works for any size, and differs at 224 pixels only in how overlapping windows count.
        model.avgpool = nn.AdaptiveAvgPool3d(1)
    replace_input_channels(model, in_channels)
    if isinstance(model, zoo.mvit.MViT):
        # Its blocks resize their position tables to the size in pos_encoding, which torchvision
        # fixes when it builds the network: set it to the size of each clip instead.
        model.conv_proj.register_forward_hook(partial(_set_size, model.pos_encoding))
    return as_backbone(model, feature_dim)


def _set_size(
    encoding: zoo.mvit.PositionalEncoding, _conv: nn.Module, _clip: object, patches_BCTHW: Tensor
) -> None:
    frames, height, width = patches_BCTHW.shape[2:]
    encoding.temporal_size, encoding.spatial_size = frames, (height, width)


def _input_width(classifier: nn.Module) -> int:
    for module in classifier.modules():
        if isinstance(module, nn.Linear):
            return module.in_features
        if isinstance(module, nn.Conv3d):
            return module.in_channels
    raise TypeError(f"no linear layer in {type(classifier).__name__}")
