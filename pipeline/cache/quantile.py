"""Exact quantiles of columns that do not fit into memory; for distillation and the audit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.derived import release_pages

__all__ = ["WeightedBlocks", "blocks_of", "quantile", "quantiles", "weighted_quantile"]

Floats = NDArray[np.floating]
Keys = NDArray[np.uint32]
type WeightedBlocks = Callable[[], Iterable[tuple[Floats, Floats]]]
"""Gives (values fp32 [M], weights [M]) in blocks; the same ones each time it is called."""

_BLOCK_ROWS = 1 << 20
_HALF = 1 << 16  # number of values of 16 bits
_ROUNDING = 1e-9  # larger than the rounding errors of sums of weights, relative to the total


def blocks_of(values_N: np.ndarray) -> Iterator[np.ndarray]:
    """The values in blocks of limited size: a mapped column is not copied, nor kept in memory."""
    for start in range(0, len(values_N), _BLOCK_ROWS):
        yield values_N[start : start + _BLOCK_ROWS]
        release_pages(values_N)


def quantile(values_N: Floats, fraction: float) -> float:
    """Exactly ``np.quantile`` of the fp32 values that are not NaN; NaN if there are none.

    The values may be memory-mapped and are read in blocks. ``fraction`` is in 0 .. 1.
    """
    return quantiles(lambda: blocks_of(values_N), [fraction])[0]


def quantiles(
    read_blocks: Callable[[], Iterable[Floats]], fractions: Sequence[float]
) -> list[float]:
    """As ``quantile``, for several fractions at once and for values that are read in blocks.

    ``read_blocks`` is called twice and must give the same values both times. A quantile lies
    between two values of adjacent rank. They are found with a radix histogram: the first pass
    counts the upper 16 bits, the second one the lower 16 bits. Memory grows with the number of
    fractions, not with the number of values.
    """
    upper_K = np.zeros(_HALF, np.int64)
    for block in read_blocks():
        upper_K += np.bincount(_ordered_keys(block) >> 16, minlength=_HALF)
    end_K = np.cumsum(upper_K)
    last = int(end_K[-1]) - 1
    if last < 0:
        return [float("nan")] * len(fractions)
    places = [last * fraction for fraction in fractions]
    ranks = [(first := int(np.floor(place)), first + (place > first)) for place in places]
    value_at = _values_at(read_blocks, end_K, {rank for pair in ranks for rank in pair})
    return [
        float(np.quantile([value_at[low], value_at[high]], place - low))
        for place, (low, high) in zip(places, ranks, strict=True)
    ]


def weighted_quantile(read_blocks: WeightedBlocks, fraction: float) -> float:
    """The smallest value so that it and smaller ones have ``fraction`` of the weight.

    It is exactly one of the values, as ``np.quantile`` with method ``inverted_cdf`` gives it; NaN
    if all weights are 0. Values that are NaN have no weight. ``fraction`` is above 0, at most 1.
    Computed like ``quantiles``, so ``read_blocks`` is called twice and memory is bounded.
    """
    upper_K = np.zeros(_HALF)
    for key_M, weight_M in map(_weighted_keys, read_blocks()):
        upper_K += np.bincount(key_M >> 16, weight_M, _HALF)
    end_K = np.cumsum(upper_K)
    if end_K[-1] == 0:
        return float("nan")
    goal = fraction * end_K[-1] * (1 - _ROUNDING)
    upper = int(np.searchsorted(end_K, goal))
    lower_K = np.zeros(_HALF)
    for key_M, weight_M in map(_weighted_keys, read_blocks()):
        inside_M = key_M >> 16 == upper
        lower_K += np.bincount(key_M[inside_M] & 0xFFFF, weight_M[inside_M], _HALF)
    before = float(end_K[upper - 1]) if upper else 0.0
    lower = int(np.searchsorted(np.cumsum(lower_K), goal - before))
    lower = min(lower, int(np.flatnonzero(lower_K)[-1]))
    return _value_of(upper << 16 | lower)


def _weighted_keys(block: tuple[Floats, Floats]) -> tuple[Keys, Floats]:
    """``_ordered_keys`` of a block with their weights."""
    values_M, weight_M = block
    return _ordered_keys(values_M), weight_M[~np.isnan(values_M)]


def _values_at(
    read_blocks: Callable[[], Iterable[Floats]], end_K: NDArray[np.int64], ranks: set[int]
) -> dict[int, float]:
    """The value at each rank, from 0, in sorted order.

    ``end_K``: number of values whose upper 16 bits are at most K.
    """
    upper_of = {rank: int(np.searchsorted(end_K, rank, "right")) for rank in ranks}
    lower_of = {upper: np.zeros(_HALF, np.int64) for upper in upper_of.values()}
    for block in read_blocks():
        key_M = _ordered_keys(block)
        for upper, lower_K in lower_of.items():
            inside_M = key_M[key_M >> 16 == upper]
            lower_K += np.bincount(inside_M & 0xFFFF, minlength=_HALF)
    values = {}
    for rank, upper in upper_of.items():
        before = int(end_K[upper - 1]) if upper else 0
        lower = int(np.searchsorted(np.cumsum(lower_of[upper]), rank - before, "right"))
        values[rank] = _value_of(upper << 16 | lower)
    return values


def _ordered_keys(block: Floats) -> Keys:
    """Unsigned integers with the same sort order as the fp32 values; NaN is dropped."""
    values_M = np.array(block, np.float32)
    bits_M = values_M[~np.isnan(values_M)].view(np.uint32)
    return np.where(bits_M >> 31, ~bits_M, bits_M | np.uint32(0x8000_0000))


def _value_of(key: int) -> float:
    """The value that ``_ordered_keys`` turned into ``key``."""
    bits = key ^ (0x8000_0000 if key >> 31 else 0xFFFF_FFFF)
    return float(np.array(bits, np.uint32).view(np.float32))
