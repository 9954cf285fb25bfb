"""VMZ's R3D and R(2+1)D (Tran et al., CVPR 2018), which the paper trains.

They differ from torchvision's in two ways. The middle planes of each (2+1)D convolution are
computed from its own input and output planes (144, 230, 288, 460, 576, 921, 1152), while
torchvision uses those of a block's first convolution for both; and batch norm uses eps 1e-3.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision.models.video.resnet import (
    BasicBlock,
    BasicStem,
    Conv2Plus1D,
    Conv3DSimple,
    R2Plus1dStem,
    VideoResNet,
)

from distinit.pipeline.students.base import VideoBackbone, as_backbone, replace_input_channels

__all__ = ["VMZ_STUDENTS", "VmzConv2Plus1D", "build_vmz", "middle_planes", "vmz_network"]

BATCH_NORM_EPS = 1e-3
LAYERS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}
VMZ_STUDENTS = ("vmz_r3d_18", "vmz_r3d_34", "vmz_r2plus1d_18", "vmz_r2plus1d_34")


def middle_planes(in_planes: int, out_planes: int) -> int:
    """Planes between the spatial and the temporal convolution.

    Chosen so that both have about as many weights as one 3x3x3 convolution.
    """
    return (27 * in_planes * out_planes) // (9 * in_planes + 3 * out_planes)


class VmzConv2Plus1D(Conv2Plus1D):  # type: ignore[misc]
    """A (2+1)D convolution that computes the number of its middle planes."""

    def __init__(self, in_planes: int, out_planes: int, midplanes: int, stride: int = 1) -> None:
        """``midplanes``, torchvision's choice for the whole block, is ignored."""
        super().__init__(in_planes, out_planes, middle_planes(in_planes, out_planes), stride)


def vmz_network(name: str, classes: int) -> nn.Module:
    """Build the network with its classifier ``fc``; ``name`` is one of VMZ_STUDENTS."""
    conv, stem = (VmzConv2Plus1D, R2Plus1dStem) if "r2plus1d" in name else (Conv3DSimple, BasicStem)
    layers = LAYERS[int(name.rpartition("_")[2])]
    network: nn.Module = VideoResNet(BasicBlock, [conv] * 4, layers, stem, num_classes=classes)
    network.apply(partial(_set_eps, eps=BATCH_NORM_EPS))
    return network


def _set_eps(module: nn.Module, eps: float) -> None:
    if isinstance(module, nn.BatchNorm3d):
        module.eps = eps


def build_vmz(name: str, in_channels: int) -> VideoBackbone:
    """Build ``name`` with random weights and no classifier."""
    network = vmz_network(name, classes=1)
    network.fc = nn.Identity()
    replace_input_channels(network, in_channels)
    return as_backbone(network, 512)
