"""Nearest neighbours of frozen features by cosine similarity: kNN classification, retrieval."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["Neighbours", "nearest_neighbours"]

_TESTS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The K training videos that are most similar to each of M test videos, best first."""

    similarity_MK: Tensor
    """float32, cosine."""
    label_MK: Tensor
    """int64, classes of the training videos."""

    def classify(self, k: int, temperature: float, classes: int) -> Tensor:
        """Predicted classes, int64 [M], of a vote of the ``k`` nearest training videos.

        A vote has the weight exp(similarity / temperature) (Wu et al. 2018; Caron et al. 2021).
        Ties go to the class with the lower index.
        """
        predicted = [
            _vote(similarity_BK[:, :k], label_BK[:, :k], temperature, classes)
            for similarity_BK, label_BK in zip(
                torch.split(self.similarity_MK, _TESTS_AT_ONCE),
                torch.split(self.label_MK, _TESTS_AT_ONCE),
                strict=True,
            )
        ]
        return torch.cat(predicted)

    def retrieved(self, label_M: Tensor, k: int) -> int:
        """For how many test videos one of the ``k`` nearest training videos has their class."""
        return int((self.label_MK[:, :k] == label_M[:, None]).any(dim=1).sum())


def _vote(similarity_BK: Tensor, label_BK: Tensor, temperature: float, classes: int) -> Tensor:
    # Minus the largest similarity: the same predictions for any temperature, without overflow.
    relative_BK = similarity_BK.double() - similarity_BK[:, :1].double()
    votes_BC = relative_BK.new_zeros(len(similarity_BK), classes)
    votes_BC.scatter_add_(1, label_BK, (relative_BK / temperature).exp())
    return votes_BC.argmax(dim=1)


def nearest_neighbours(
    train_ND: Tensor, train_label_N: Tensor, test_MD: Tensor, k: int
) -> Neighbours:
    """The ``k`` nearest training videos of each test video, all of them if there are fewer."""
    train_ND = normalize(train_ND.float(), dim=1)
    k = min(k, len(train_ND))
    found = [
        (normalize(test_BD.float(), dim=1) @ train_ND.T).topk(k, dim=1)
        for test_BD in torch.split(test_MD, _TESTS_AT_ONCE)
    ]
    index_MK = torch.cat([index_BK for _, index_BK in found])
    return Neighbours(torch.cat([value_BK for value_BK, _ in found]), train_label_N[index_MK])
