"""Videos are tried three times if their ffmpeg is killed, and once if they are broken."""

from __future__ import annotations

import pytest

from distinit.pipeline.video.retry import KillLimit, retry_killed
from distinit.schemas.errors import DecodeError, DecodeKilledError


def test_a_video_is_tried_three_times() -> None:
    attempts: list[str] = []

    def attempt(limit: KillLimit) -> str:
        attempts.append("a.mp4")
        limit.check("a.mp4", DecodeKilledError("killed"))
        return "failed"

    assert retry_killed(attempt) == "failed"
    assert len(attempts) == 3


def test_kills_are_counted_per_video() -> None:
    limit = KillLimit()
    error = DecodeKilledError("killed")
    for name in ("a.mp4", "b.mp4", "a.mp4", "b.mp4"):
        with pytest.raises(DecodeKilledError):
            limit.check(name, error)
    limit.check("b.mp4", error)
    limit.check("a.mp4", error)


def test_a_broken_video_is_tried_once() -> None:
    attempts = 0

    def attempt(limit: KillLimit) -> str:
        nonlocal attempts
        attempts += 1
        limit.check("a.mp4", DecodeError("no video stream"))
        return "failed"

    assert retry_killed(attempt) == "failed"
    assert attempts == 1


def test_other_errors_are_not_retried() -> None:
    def attempt(limit: KillLimit) -> None:
        raise DecodeError("no video stream")

    with pytest.raises(DecodeError, match="no video stream"):
        retry_killed(attempt)
