"""Features of torchvision classifiers: the map before their pooling, or a transformer's tokens."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import VisionTransformer

from distinit.pipeline.teachers.heads import classifier_is_no_projection, remove_head
from distinit.pipeline.teachers.pooling import (
    Spatial,
    map_of,
    pooled_network,
    square_grid,
    tokens_of,
)
from distinit.schemas.errors import TeacherError

__all__ = ["torchvision_features"]

_CLASSIFIERS = ("fc", "classifier", "head")


def torchvision_features(
    network: nn.Module, pool: str | None, *, name: str, side: int
) -> tuple[nn.Module, int]:
    """``network`` with this pool, and the width of its rows; see ``Features``.

    Raises TeacherError if the network cannot give the pool.
    """
    if pool is None:
        return network, remove_head(network)
    if pool == "head":
        raise classifier_is_no_projection(name)
    spatial = _spatial(network, name, side)
    return pooled_network(spatial, pool, name=name, side=side)


def _spatial(network: nn.Module, name: str, side: int) -> nn.Module:
    if isinstance(network, VisionTransformer):
        return _TransformerSpatial(network)
    last = next((layer for layer in _CLASSIFIERS if hasattr(network, layer)), None)
    if isinstance(getattr(network, "avgpool", None), nn.AdaptiveAvgPool2d) and last is not None:
        return _MapSpatial(network, last, side)
    raise TeacherError(
        f"the feature map of {name} is not known",
        expected="a vision transformer, or a network with the layer avgpool and a classifier",
        found=type(network).__name__,
        remedy="leave out the pool, for the mean over the map, or write a plugin teacher",
    )


class _MapSpatial(nn.Module):
    """Pictures [N, 3, H, W] -> the map that a network passes to its layer ``avgpool``.

    That layer and the classifier are replaced: the network then returns the map, flattened.
    """

    def __init__(self, network: nn.Module, classifier: str, side: int) -> None:
        super().__init__()
        self._shape_DHW = _shape_before_pooling(network, side)
        network.set_submodule("avgpool", nn.Identity())
        network.set_submodule(classifier, nn.Flatten(1))
        self.network = network

    def forward(self, input_NCHW: torch.Tensor) -> Spatial:
        return map_of(self.network(input_NCHW).unflatten(1, self._shape_DHW))


def _shape_before_pooling(network: nn.Module, side: int) -> tuple[int, ...]:
    shapes: list[tuple[int, ...]] = []
    pooling = network.get_submodule("avgpool")
    hook = pooling.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape[1:]))
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, side, side))
    hook.remove()
    return tuple(shapes[0])


class _TransformerSpatial(nn.Module):
    """Pictures [N, 3, H, W] -> the tokens that a VisionTransformer computes."""

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_NCHW: torch.Tensor) -> Spatial:
        patches_NPD = self.network.conv_proj(input_NCHW).flatten(2).transpose(1, 2)
        class_token_N1D = self.network.class_token.expand(len(input_NCHW), -1, -1)
        tokens_NTD = self.network.encoder(torch.cat([class_token_N1D, patches_NPD], dim=1))
        grid = square_grid(patches_NPD.shape[1])
        return tokens_of(tokens_NTD, prefix=1, has_class_token=True, grid=grid)
