"""Progress that records what it is told."""

from __future__ import annotations

from typing import Any

from distinit.pipeline.progress import NullProgress


class RecordingProgress(NullProgress):
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.started: list[tuple[float | None, str, float]] = []
        self.advanced = 0.0

    def start(self, description: str, total: float | None, unit: str, done: float = 0) -> None:
        self.started.append((total, unit, done))

    def advance(self, amount: float = 1, **figures: Any) -> None:
        self.advanced += amount

    def message(self, text: str) -> None:
        self.messages.append(text)
