"""Videos are opened ahead of the current one, in order, and none stays open."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from distinit.pipeline.extraction.streams import Streams
from distinit.schemas.errors import DecodeError, StorageError


def test_the_next_one_opens_in_order_while_this_one_is_at_hand() -> None:
    may_open, closed = threading.Event(), []

    def open_stream(video: str, stack: ExitStack) -> DecodeError:
        if video == "b":
            assert may_open.wait(60)
        stack.callback(closed.append, video)
        return DecodeError(video)

    with Streams("abc", open_stream, 2) as streams:
        assert str(streams.take(0)) == "a"  # does not wait for b
        may_open.set()
        assert str(streams.take(1)) == "b"
        assert closed == ["a"]
        assert str(streams.take(2)) == "c"
    assert closed == ["a", "b", "c"]


def test_leaving_ends_what_is_just_being_opened_and_closes_it() -> None:
    stopping, began, closed = threading.Event(), threading.Event(), []

    def open_stream(video: str, stack: ExitStack) -> DecodeError:
        stack.callback(closed.append, video)
        if video == "b":
            began.set()
            assert stopping.wait(60)
        return DecodeError(video)

    with Streams("abc", open_stream, 2, stopping) as streams:
        streams.take(0)
        assert began.wait(60)
    assert sorted(closed) == ["a", "b"]


def test_an_error_that_is_not_of_the_video_comes_at_its_turn() -> None:
    def open_stream(video: str, stack: ExitStack) -> DecodeError:
        if video == "b":
            raise StorageError("full")
        return DecodeError(video)

    with Streams("ab", open_stream, 2) as streams:
        assert str(streams.take(0)) == "a"
        with pytest.raises(StorageError, match="full"):
            streams.take(1)


def test_leaving_closes_what_the_opening_waits_for() -> None:
    """As a killed ffmpeg ends the wait for its first frame."""
    began, gone = threading.Event(), threading.Event()

    def open_stream(video: str, stack: ExitStack) -> DecodeError:
        stack.callback(gone.set)
        began.set()
        assert gone.wait(60)
        return DecodeError(video)

    with Streams("a", open_stream, 1) as streams:
        streams.begin()
        assert began.wait(60)
        assert not gone.is_set()
    assert gone.is_set()
