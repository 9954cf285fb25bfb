"""Measures the parts of a training step, and names the largest part and how to reduce it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["PARTS", "StepClock", "bottleneck"]

PARTS = ("data_wait", "transfer", "forward", "backward", "optimizer")
LONG_WAIT_PERCENT = 15.0  # of a step; docs/watching.md says the same
OTHER = "other"  # the rest: checkpoints, metric lines
REMEDIES = {
    "data_wait": "raise runtime.loader_workers (now {loader_workers})",
    "transfer": "raise runtime.batch_size",
    "forward": "limited by the network: try runtime.precision bf16, runtime.compile, more workers",
    "backward": "limited by the network: try runtime.precision bf16, runtime.compile, more workers",
    "optimizer": "raise runtime.batch_size, or use fewer workers",
    OTHER: "raise runtime.checkpoint_seconds",
}


class StepClock:
    """Seconds spent in each of PARTS since the last ``take``.

    On a GPU, CUDA events are recorded and read once per window, so that no step waits for the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self.clear()

    def clear(self) -> None:
        """Discard all measurements."""
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    def add(self, part: str, seconds: float) -> None:
        """Add seconds that this process measured."""
        self._seconds[part] += seconds

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of the ``with`` body; on a GPU, the time the GPU needs for it."""
        if self._on_gpu:
            first, last = _event(), _event()
            first.record()
            yield
            last.record()
            self._events.append((part, first, last))
        else:
            began = time.perf_counter()
            yield
            self._seconds[part] += time.perf_counter() - began

    def take(self, window_seconds: float) -> dict[str, float]:
        """``<part>_percent`` of the window that ends now; begins the next window.

        A GPU continues to work while this process waits for data. Only the time in which it cannot
        have been busy counts as data wait.
        """
        if self._events:
            torch.cuda.synchronize()
        for part, first, last in self._events:
            self._seconds[part] += first.elapsed_time(last) / 1000
        busy = sum(self._seconds.values()) - self._seconds["data_wait"]
        idle = max(0.0, window_seconds - busy)
        self._seconds["data_wait"] = min(self._seconds["data_wait"], idle)
        percent = {f"{p}_percent": 100 * s / window_seconds for p, s in self._seconds.items()}
        self.clear()
        return percent


def bottleneck(lines: Sequence[Mapping[str, Any]], loader_workers: int) -> str:
    """One line about the largest part of a step, from metric lines; empty without any.

    It also says how to reduce a data wait that is not the largest part, but long.

    Skips the first metric line if there are others, because it includes the warm-up.
    """
    required = {"clips_per_second", *(f"{part}_percent" for part in PARTS)}
    timed = [line for line in lines if required <= line.keys()]
    timed = timed[1:] or timed
    if not timed:
        return ""
    percent = {part: _mean(timed, f"{part}_percent") for part in PARTS}
    percent[OTHER] = max(0.0, 100 - sum(percent.values()))
    largest = max(percent, key=percent.__getitem__)
    text = f"bottleneck: {largest.replace('_', ' ')} {percent[largest]:.0f} % of the step"
    text += f" ({_remedy(largest, loader_workers)})"
    if largest == "data_wait":
        return text
    text += f"; data wait {percent['data_wait']:.0f} %"
    long = percent["data_wait"] > LONG_WAIT_PERCENT
    return f"{text} ({_remedy('data_wait', loader_workers)})" if long else text


def _remedy(part: str, loader_workers: int) -> str:
    return REMEDIES[part].format(loader_workers=loader_workers)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _mean(lines: Sequence[Mapping[str, Any]], name: str) -> float:
    """Mean over the lines, weighted by time; each line covers about the same number of clips."""
    seconds = [1 / max(line["clips_per_second"], 1e-9) for line in lines]
    total = sum(s * line[name] for s, line in zip(seconds, lines, strict=True))
    return float(total / sum(seconds))
