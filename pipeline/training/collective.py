"""Sums tensors over the workers of a training run."""

from __future__ import annotations

from typing import Protocol

import torch.distributed
from torch import Tensor

__all__ = ["Collective", "ProcessGroup", "SingleProcess"]


class Collective(Protocol):
    """The workers of a run, and the position ``rank`` of this one among them."""

    rank: int
    world_size: int

    def sum_(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by its sum over all workers, on each of them."""


class SingleProcess:
    """The only worker of a run."""

    rank = 0
    world_size = 1

    def sum_(self, tensor: Tensor) -> None:
        """Does nothing: there is only one worker."""


class ProcessGroup:
    """The default process group of torch.distributed, which must be initialised."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()

    def sum_(self, tensor: Tensor) -> None:
        """See Collective."""
        torch.distributed.all_reduce(tensor)
