"""Sums over the workers of one training run."""

from __future__ import annotations

from typing import Protocol

import torch.distributed
from torch import Tensor

__all__ = ["Collective", "ProcessGroup", "SingleProcess"]


class Collective(Protocol):
    """``rank`` of ``world_size`` workers, and a sum over all of them."""

    rank: int
    world_size: int

    def sum_(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by its sum over all workers, on each of them."""


class SingleProcess:
    """A run in one process."""

    rank = 0
    world_size = 1

    def sum_(self, tensor: Tensor) -> None:
        """Nothing to add."""


class ProcessGroup:
    """torch.distributed's default group, which the caller has set up."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()

    def sum_(self, tensor: Tensor) -> None:
        """See Collective."""
        torch.distributed.all_reduce(tensor)
