"""Features of timm networks: their tokens, their feature maps, and their own last layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distinit.pipeline.teachers.pooling import (
    Spatial,
    map_of,
    pooled_network,
    row_width,
    tokens_of,
)
from distinit.schemas.errors import TeacherError

__all__ = ["classifier_layers", "timm_features"]


def classifier_layers(network: Any) -> tuple[str, ...]:
    """Names of the layers that compute class logits; several in distilled transformers."""
    named = network.pretrained_cfg.get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def timm_features(
    network: nn.Module, pool: str | None, *, name: str, side: int
) -> tuple[nn.Module, int]:
    """``network`` with this pool, and the width of its rows; see ``Features``.

    ``head`` keeps the network whole. Raises TeacherError if the network cannot give the pool.
    """
    if pool is None:
        for layer in classifier_layers(network):
            if isinstance(network.get_submodule(layer), nn.Linear | nn.Conv2d):
                network.set_submodule(layer, nn.Identity())
    if pool in (None, "head"):
        return network, row_width(network, side=side, name=name)
    norm = getattr(network, "fc_norm", None)  # the last norm, where it follows the pooling
    return pooled_network(_TimmSpatial(network, name), pool, name=name, side=side, norm=norm)


class _TimmSpatial(nn.Module):
    """Pictures [N, 3, H, W] -> Spatial, from ``forward_features`` of a timm network."""

    def __init__(self, network: Any, name: str) -> None:
        super().__init__()
        self.network = network
        self._name = name
        self._prefix = int(getattr(network, "num_prefix_tokens", 0))
        self._has_class_token = getattr(network, "cls_token", None) is not None
        self._channels_last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
        self._grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)

    def forward(self, input_NCHW: torch.Tensor) -> Spatial:
        output = self.network.forward_features(input_NCHW)
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            return map_of(output.permute(0, 3, 1, 2) if self._channels_last else output)
        if not isinstance(output, torch.Tensor) or output.ndim != 3:
            raise TeacherError(
                f"{self._name} has neither tokens nor a feature map",
                expected="a tensor [N, tokens, values] or [N, values, height, width] from "
                "forward_features",
                found=type(output).__name__,
                remedy="leave out the pool, for the network's own pooling",
            )
        return tokens_of(
            output,
            prefix=self._prefix,
            has_class_token=self._has_class_token,
            grid=None if self._grid is None else tuple(self._grid),
        )
