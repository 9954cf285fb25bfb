"""Retries after an ffmpeg process was killed from outside, which is not the fault of its video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from distinit.schemas.errors import DecodeError, DecodeKilledError

__all__ = ["KillLimit", "retry_killed"]

_TRIES = 3  # per video


class KillLimit:
    """Counts how often the ffmpeg processes of each video were killed from outside."""

    def __init__(self) -> None:
        self._kills: Counter[str] = Counter()

    def check(self, name: str, error: DecodeError) -> None:
        """Raise ``error`` if ffmpeg was killed and the video ``name`` may be tried again.

        Returns for all other errors, and after the third kill: then the video has failed.
        """
        if isinstance(error, DecodeKilledError):
            self._kills[name] += 1
            if self._kills[name] < _TRIES:
                raise error


def retry_killed[T](attempt: Callable[[KillLimit], T]) -> T:
    """Call ``attempt`` again while it raises DecodeKilledError, which KillLimit limits."""
    limit = KillLimit()
    while True:
        with suppress(DecodeKilledError):
            return attempt(limit)
