"""Shares of the clips that ``keep_fraction`` keeps, for decision 29.

    python benchmarks/keep_fraction.py

The corpus is synthetic: 90 videos of 8 frames with an uncertain teacher, and 10 videos of 150
frames with a confident one. Prints the share of all clips of 8 frames that a threshold keeps if it
is the quantile of the entropies of all frames, and if it is the quantile of the entropies of the
clips' targets.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import click
import numpy as np

from distinit.pipeline.cache.quantile import weighted_quantile
from distinit.pipeline.distillation.drawn_clips import frame_weights

FRAME_COUNTS = np.array([8] * 90 + [150] * 10)
CLIP_FRAMES = 8


def made_up_entropies(seed: int) -> np.ndarray:
    """Entropies of all frames in nats, fp32 [F]: about 4 in short videos, 2 in long ones."""
    rng = np.random.default_rng(seed)
    mean_F = np.repeat(np.where(FRAME_COUNTS == CLIP_FRAMES, 4.0, 2.0), FRAME_COUNTS)
    return rng.normal(mean_F, 0.5).clip(0.01).astype(np.float32)


def kept(entropy_F: np.ndarray, pick: Literal["random", "center"], threshold_nats: float) -> float:
    """The share of all clips that have a target up to the threshold, by enumeration."""
    ends = np.concatenate([[0], np.cumsum(FRAME_COUNTS)]).tolist()
    shares = []
    for first, end in pairwise(ends):
        windows_ST = np.lib.stride_tricks.sliding_window_view(entropy_F[first:end], CLIP_FRAMES)
        targets = windows_ST if pick == "random" else windows_ST[:, CLIP_FRAMES // 2]
        shares.append(float((targets <= np.float32(threshold_nats)).mean()))
    return float(np.mean(shares))


def table(seed: int) -> list[str]:
    """Markdown rows: one per way of picking the frame of a target, and share to keep."""
    entropy_F = made_up_entropies(seed)
    every_F = np.ones(len(entropy_F), np.bool_)
    lines = [
        "| target | `keep_fraction` | quantile over frames | quantile over clips |",
        "|---|---|---|---|",
    ]
    picks: tuple[Literal["random", "center"], ...] = ("random", "center")
    for pick in picks:
        weight_F = frame_weights(pick, CLIP_FRAMES, FRAME_COUNTS, every_F, every_F)
        for fraction in (0.75, 0.5, 0.25):
            of_frames = float(np.quantile(entropy_F, fraction, method="inverted_cdf"))
            of_clips = weighted_quantile(lambda w=weight_F: [(entropy_F, w)], fraction)
            shares = [kept(entropy_F, pick, threshold) for threshold in (of_frames, of_clips)]
            lines.append(f"| {pick} | {fraction:g} | {shares[0]:.3f} | {shares[1]:.3f} |")
    return lines


@click.command(help=__doc__)
@click.option("--seed", default=0, show_default=True, help="Seed of the entropies.")
def main(seed: int) -> None:
    click.echo("\n".join(table(seed)))


if __name__ == "__main__":
    main()
