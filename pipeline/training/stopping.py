"""Training that stops early, on request: between two steps, with a checkpoint of the last one."""

from __future__ import annotations

__all__ = ["TrainingStoppedError"]


class TrainingStoppedError(Exception):
    """Training stopped before its last step, and nothing is lost."""

    def __init__(self, step: int, steps_total: int | None) -> None:
        """``step``: steps done, all in the newest checkpoint. ``steps_total``: None if unknown."""
        super().__init__(step, steps_total)
        self.step = step
        self.steps_total = steps_total

    @property
    def text(self) -> str:
        """One line for the terminal."""
        if self.step == 0:
            return "stopped before the first step; rerun the same command to begin"
        total = "" if self.steps_total is None else f" of {self.steps_total:,}"
        return (
            f"stopped at step {self.step:,}{total}; checkpoint written; "
            "rerun the same command to resume"
        )
