"""The names of distillation losses and of normalizations of features."""

from __future__ import annotations

from typing import Literal

__all__ = ["DISTRIBUTION_LOSSES", "Loss", "Normalize"]

Loss = Literal[
    "cross_entropy", "kl", "mse", "cosine", "smooth_l1", "cosine+mse", "cosine+smooth_l1"
]
"""A loss between an output and its target. A sum of two losses has a plus sign."""

Normalize = Literal["none", "standardize", "phi_s"]
"""How the vectors of a feature teacher are normalized before the loss."""

DISTRIBUTION_LOSSES: frozenset[str] = frozenset({"cross_entropy", "kl"})
"""Losses between probabilities; the others compare vectors."""
