"""torchvision's video networks with their classifier removed; tensor names stay theirs."""

from __future__ import annotations

from collections.abc import Callable

import torchvision.models.video as zoo
from torch import nn

from distinit.pipeline.students.base import VideoBackbone, as_backbone, replace_input_channels

__all__ = ["CLASSIFIERS", "FIXED_CLIPS", "build_torchvision"]

CLASSIFIERS = {
    "r3d_18": "fc",
    "mc3_18": "fc",
    "r2plus1d_18": "fc",
    "s3d": "classifier",
    "mvit_v2_s": "head",
    "swin3d_t": "head",
}
"""Student name -> torchvision's attribute that holds the classifier."""

FIXED_CLIPS = {"mvit_v2_s": (16, 224)}
"""Students whose position tables fix (frames, crop)."""


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
    return as_backbone(model, feature_dim)


def _input_width(classifier: nn.Module) -> int:
    for module in classifier.modules():
        if isinstance(module, nn.Linear):
            return module.in_features
        if isinstance(module, nn.Conv3d):
            return module.in_channels
    raise TypeError(f"no linear layer in {type(classifier).__name__}")
