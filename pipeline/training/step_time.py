"""Where the time of a training step goes, and what to do about the largest part."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["PARTS", "StepClock", "bottleneck"]

PARTS = ("data_wait", "transfer", "forward", "backward", "optimizer")
OTHER = "other"  # what is left: checkpoints, metric lines
REMEDIES = {
    "data_wait": "raise runtime.loader_workers (now {loader_workers})",
    "transfer": "raise runtime.batch_size",
    "forward": "the network is the limit: runtime.precision bf16, runtime.compile, more workers",
    "backward": "the network is the limit: runtime.precision bf16, runtime.compile, more workers",
    "optimizer": "raise runtime.batch_size, or use fewer workers",
    OTHER: "raise runtime.checkpoint_seconds",
}


class StepClock:
    """Seconds spent in each of PARTS since the last ``take``.

    On a GPU, events are recorded and read once a window, so that no step waits for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self.clear()

    def clear(self) -> None:
        """Forget all that was measured."""
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    def add(self, part: str, seconds: float) -> None:
        """Count seconds of this process."""
        self._seconds[part] += seconds

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Count the body: in the device's time on a GPU."""
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
        """``<part>_percent`` of a window that ends now, then start anew.

        A GPU works on while this process waits for data: only time in which it cannot have been
        busy counts as data wait.
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
    """One line on the largest part of the step over a run's metric lines; empty without any.

    The first line is left out if there are others: it holds the warm-up.
    """
    wanted = {"clips_per_second", *(f"{part}_percent" for part in PARTS)}
    timed = [line for line in lines if wanted <= line.keys()]
    timed = timed[1:] or timed
    if not timed:
        return ""
    percent = {part: _mean(timed, f"{part}_percent") for part in PARTS}
    percent[OTHER] = max(0.0, 100 - sum(percent.values()))
    largest = max(percent, key=percent.__getitem__)
    text = f"bottleneck: {largest.replace('_', ' ')} {percent[largest]:.0f} % of the step"
    if largest != "data_wait":
        text += f"; data wait {percent['data_wait']:.0f} %"
    return f"{text} ({REMEDIES[largest].format(loader_workers=loader_workers)})"


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _mean(lines: Sequence[Mapping[str, Any]], name: str) -> float:
    """Over the lines, each of which stands for about as many clips: weighted by its seconds."""
    seconds = [1 / max(line["clips_per_second"], 1e-9) for line in lines]
    total = sum(s * line[name] for s, line in zip(seconds, lines, strict=True))
    return float(total / sum(seconds))
