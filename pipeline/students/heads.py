"""The student: a backbone with one linear head per teacher (paper section 3) or dataset."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from distinit.pipeline.students.base import VideoBackbone
from distinit.pipeline.students.registry import build_student
from distinit.schemas.training import StudentConfig

__all__ = ["Student", "head_shapes", "new_student"]


class Student(nn.Module):
    """``forward(clip_BCTHW)`` -> {head name: [B, outputs]}.

    Tensors are named ``backbone.<name in the network>`` and ``heads.<head>.weight|bias``. A dot in
    the name of a head is written ``%2E``, because torch forbids dots in module names.
    """

    def __init__(self, backbone: VideoBackbone, heads: Mapping[str, int]) -> None:
        """``heads``: name -> outputs. Heads start with normal weights (std .01), zero biases."""
        super().__init__()
        self.backbone = backbone
        self.feature_dim = backbone.feature_dim
        self.head_names = tuple(heads)
        self.heads = nn.ModuleDict(
            {_key(name): _linear(self.feature_dim, outputs) for name, outputs in heads.items()}
        )
        self._backbone_frozen = False
        self.dropout = 0.0
        """Probability of dropping a feature before the heads, in training only."""

    def forward(self, clip_BCTHW: Tensor) -> dict[str, Tensor]:
        """Normalised clips [B, C, T, H, W] -> one tensor [B, outputs] per head."""
        features = dropout(self.backbone(clip_BCTHW), self.dropout, self.training)
        return {name: self.heads[_key(name)](features) for name in self.head_names}

    def freeze_backbone(self) -> None:
        """Train only the heads: the backbone gets no gradients and stays in evaluation mode."""
        self._backbone_frozen = True
        module = self.get_submodule("backbone")
        module.requires_grad_(False)
        module.eval()

    def train(self, mode: bool = True) -> Student:
        """Like nn.Module.train, except that a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self._backbone_frozen:
            self.get_submodule("backbone").eval()
        return self


def _linear(inputs: int, outputs: int) -> nn.Linear:
    head = nn.Linear(inputs, outputs)
    nn.init.normal_(head.weight, 0, 0.01)
    nn.init.zeros_(head.bias)
    return head


def _key(head: str) -> str:
    return head.replace("%", "%25").replace(".", "%2E")


def head_shapes(heads: Mapping[str, int], feature_dim: int) -> dict[str, tuple[int, ...]]:
    """Tensor name in a student file -> shape, for ``heads`` (name -> outputs)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, outputs in heads.items():
        shapes[f"heads.{_key(name)}.weight"] = (outputs, feature_dim)
        shapes[f"heads.{_key(name)}.bias"] = (outputs,)
    return shapes


def new_student(config: StudentConfig, heads: Mapping[str, int], seed: int) -> Student:
    """Build a student with random weights that depend only on ``seed``.

    The state of torch's global generator is unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Student(build_student(config), heads)
