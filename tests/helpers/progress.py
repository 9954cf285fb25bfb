"""A progress object that records every call, for tests that assert what a stage reported."""

from __future__ import annotations

from typing import Any

from distinit.pipeline.progress import NullProgress


class RecordingProgress(NullProgress):
    """Keeps the arguments of every call, in order."""

    def __init__(self) -> None:
        self.started: list[tuple[str, float | None, str, float]] = []
        """(description, total, unit, done) of each phase."""
        self.advances: list[tuple[float, dict[str, Any]]] = []
        """The amount of each ``advance``, and what was shown with it."""
        self.messages: list[str] = []
        self.values: dict[str, dict[str, Any]] = {}
        """Message -> its values, of those with values."""
        self.finished = 0
        """How many phases have ended."""

    @property
    def advanced(self) -> float:
        """The sum of all amounts."""
        return sum(amount for amount, _ in self.advances)

    def start(self, description: str, total: float | None, unit: str, done: float = 0) -> None:
        self.started.append((description, total, unit, done))

    def advance(self, amount: float = 1, **shown: Any) -> None:
        self.advances.append((amount, shown))

    def message(self, text: str, **values: Any) -> None:
        self.messages.append(text)
        if values:
            self.values[text] = values

    def finish(self) -> None:
        self.finished += 1
