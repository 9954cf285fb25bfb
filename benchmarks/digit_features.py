"""The digit teacher without its last layer: ``plugin:digit_features:digit_features``."""

from __future__ import annotations

from torch import nn

from distinit.pipeline.demo.digit_teacher import digit_teacher
from distinit.schemas.teacher import PreprocessSpec


def digit_features(
    weights: str | None, device: str
) -> tuple[nn.Module, PreprocessSpec, tuple[str, ...], str]:
    """A network [N, 3, 64, 64] -> features [N, 64]: what the classifier of digits reads."""
    net, spec, _, _ = digit_teacher(weights, device)
    net.classifier = nn.Identity()
    return net, spec, (), "digits"
