"""Lists and buffers that are read from the pipes of a real child process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from distinit.pipeline.video.pipes import Pipe, PipeState


@contextmanager
def writing(script: str) -> Iterator[tuple[Pipe, PipeState, subprocess.Popen[bytes]]]:
    """A pipe that a shell ``script`` writes to: ``$fd`` is its descriptor."""
    state = PipeState()
    pipe = Pipe(state)
    fd = pipe.child_fd
    with subprocess.Popen(["sh", "-c", f"fd={fd}; {script}"], pass_fds=[fd]) as child:
        pipe.close_child_end()
        try:
            yield pipe, state, child
        finally:
            child.kill()
            pipe.close()


@pytest.mark.parametrize("count", [0, 1, 24, 50_000])  # 50,000 lines do not fit into the pipe
def test_every_line_of_a_list_is_read_in_order(count: int) -> None:
    with writing(f"seq 1 {count} >/dev/fd/$fd") as (pipe, _, _):
        assert [int(line) for line in pipe.lines()] == list(range(1, count + 1))


def test_lines_that_come_slowly_after_a_long_list_are_read() -> None:
    script = (
        "(seq 1 2000; for n in 1 2 3; do sleep .05; echo late $n; done; printf torn) >/dev/fd/$fd"
    )
    with writing(script) as (pipe, _, _):
        lines = list(pipe.lines())
    assert lines[1999:] == [b"2000", b"late 1", b"late 2", b"late 3"]


def test_a_list_is_read_to_its_end_after_its_process_has_exited() -> None:
    with writing("seq 1 5000 >/dev/fd/$fd") as (pipe, state, child):
        child.wait()
        state.exited.set()
        assert len(list(pipe.lines())) == 5000


def test_a_list_without_end_is_left_when_the_readers_must_stop() -> None:
    with writing("yes line >/dev/fd/$fd") as (pipe, state, _):
        lines = pipe.lines()
        assert next(lines) == b"line"
        state.stopping.set()
        rest = sum(1 for _ in lines)
    assert rest < 1 << 16  # what was read at once; the list itself goes on
