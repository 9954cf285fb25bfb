"""A complete plugin teacher: a SqueezeNet with batch norm for 365 classes of scenes.

    PYTHONPATH=examples distinit extract --videos clips/ --cache cache \\
        --teacher plugin:places_squeezenet:places_squeezenet --weights places_squeezenet.pth

A plugin is one function: it takes the path given with ``--weights`` and a device, and returns
the network, its preprocessing, the class names and the name of the label space. The class names
are read from ``categories_places365.txt`` in the folder of the weights, if that file exists.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from distinit.pipeline.teachers.places365 import CATEGORIES_FILE, read_categories
from distinit.pipeline.teachers.plugin import TeacherParts
from distinit.pipeline.teachers.weights import load_strictly, read_state_dict
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import PreprocessSpec

LEAK = 0.55
CLASSES = 365
MEAN_BGR = (104.05, 112.51, 116.68)
"""Channel means of the Places mean image, levels 0..255."""

PREPROCESSING = PreprocessSpec(
    resize_mode="squash",
    resize_size=256,
    crop_size=224,
    channel_order="bgr",
    mean=(MEAN_BGR[0] / 255, MEAN_BGR[1] / 255, MEAN_BGR[2] / 255),
    std=(1.0, 1.0, 1.0),
)


class ConvNormLeaky(nn.Module):
    """Convolution with bias, batch norm, leaky ReLU; height and width stay the same."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-4)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(self.bn(self.conv(x_BCHW)), LEAK)


class Fire(nn.Module):
    """Squeeze to few channels, then expand by parallel 1x1 and 3x3 convolutions."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = ConvNormLeaky(inputs, squeezed, 1)
        self.e1 = ConvNormLeaky(squeezed, expanded, 1)
        self.e3 = ConvNormLeaky(squeezed, expanded, 3)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        squeezed_BCHW = self.squeeze(x_BCHW)
        return torch.cat([self.e1(squeezed_BCHW), self.e3(squeezed_BCHW)], dim=1)


class PlacesSqueezeNet(nn.Module):
    """[B, 3, 224, 224] -> scene logits [B, 365]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNormLeaky(3, 64, 3),
            nn.MaxPool2d(3, 2),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.MaxPool2d(3, 2),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            nn.MaxPool2d(3, 2),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.conv10 = nn.Conv2d(512, CLASSES, 1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        scores_BCHW = functional.leaky_relu(self.conv10(self.features(x_BCHW)), LEAK)
        return scores_BCHW.mean(dim=(2, 3))


def places_squeezenet(weights: str | None, device: str) -> TeacherParts:
    """The plugin. Raises TeacherError without weights, WeightsError if they do not fit."""
    if weights is None:
        raise TeacherError(
            "this teacher needs --weights FILE", remedy="name the file of its state dict"
        )
    network = PlacesSqueezeNet()
    load_strictly(network, read_state_dict(Path(weights)), source=weights)
    names = read_categories(Path(weights).with_name(CATEGORIES_FILE))
    return network.to(device), PREPROCESSING, names, "places365"
