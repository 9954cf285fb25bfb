"""Statistics of features: differences between orders of addition, sizes of files, CPU time.

    python benchmarks/feature_statistics.py [--vectors 200000]

Differences are relative to standard deviations (means) and to their products (covariances), which
is how ``distinit cache verify`` compares them. The CPU time is that of all threads, for float16
rows as a worker has them when it writes a unit.
"""

from __future__ import annotations

import time

import click
import numpy as np

from distinit.pipeline.cache.feature_moments import FeatureMoments, merged, moments_of
from distinit.pipeline.cache.moments_file import max_moments_bytes

_CHANNELS = 64
_BLOCK = 1_024  # vectors that are added at a time, as in a worker
_BLOCKS = 8


def added(vectors_NC: np.ndarray, step: int) -> FeatureMoments:
    """The moments of all vectors, in blocks of ``step``, the last block first if it is negative."""
    total = FeatureMoments.empty(vectors_NC.shape[1])
    starts = range(0, len(vectors_NC), abs(step))
    for start in starts if step > 0 else reversed(starts):
        total = merged(total, moments_of(vectors_NC[start : start + abs(step)]))
    return total


def largest_difference(a: FeatureMoments, b: FeatureMoments) -> float:
    """Of means and covariances, relative to the standard deviations."""
    std_C = np.sqrt(a.scatter.diagonal() / a.vectors)
    mean = (np.abs(a.mean_C - b.mean_C) / std_C).max()
    covariance = np.abs(a.scatter - b.scatter) / a.vectors / np.outer(std_C, std_C)
    return float(max(mean, covariance.max()))


def cpu_us_per_vector(channels: int) -> float:
    """CPU time to add one vector to the moments, microseconds."""
    block_NC = np.random.default_rng(0).standard_normal((_BLOCK, channels)).astype(np.float16)
    total = moments_of(block_NC)
    began = time.process_time()
    for _ in range(_BLOCKS):
        total = merged(total, moments_of(block_NC))
    return (time.process_time() - began) / (_BLOCK * _BLOCKS) * 1e6


@click.command()
@click.option("--vectors", default=200_000, help="How many vectors are added.")
def main(vectors: int) -> None:
    """Print the tables."""
    print("mean / std   largest relative difference between four orders of addition")
    for ratio in (0, 1, 1_000, 1_000_000):
        normal_NC = np.random.default_rng(0).standard_normal((vectors, _CHANNELS))
        vectors_NC = (normal_NC + ratio).astype(np.float32)
        first, *others = (added(vectors_NC, step) for step in (1_024, -1_024, 37, -9_001))
        print(f"{ratio:10,}   {max(largest_difference(first, other) for other in others):.1e}")
    print("\nchannels   MB of the file   MB of 32,768 rows in float16   us of CPU per vector")
    for channels in (384, 768, 1_024, 2_048, 4_096, 8_192):
        rows_mb = 32_768 * channels * 2 / 1e6
        file_mb, cpu_us = max_moments_bytes(channels) / 1e6, cpu_us_per_vector(channels)
        print(f"{channels:8,}   {file_mb:14.2f}   {rows_mb:28.0f}   {cpu_us:20.1f}")


if __name__ == "__main__":
    main()
