"""Opening the first video of the next task ahead, whether or not that task really comes next."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import children

from distinit.pipeline.compute.executor import Event, Finished, Progressed
from distinit.pipeline.compute.in_process import InProcessExecutor
from distinit.schemas.extract import ExtractConfig
from distinit.stages import extract as stage

DECODED = 6  # videos of the corpus; ffmpeg is not started for the empty file


class Announcing(InProcessExecutor):
    """Passes tasks by value, as Ray does; ``announced`` picks the task announced as the next."""

    def __init__(self, announced: Callable[[Sequence[Any], int], Any]) -> None:
        super().__init__()
        self._announced = announced

    def _run(self, worker: Any, tasks: Sequence[Any]) -> Iterator[Event[Any, Any]]:
        for position, task in enumerate(tasks):
            next_task = self._announced(tasks, position)
            notes = worker.run(copy.deepcopy(task), copy.deepcopy(next_task))
            while True:
                try:
                    note = next(notes)
                except StopIteration as stop:
                    yield Finished(task, stop.value)
                    break
                yield Progressed(task, note)


def true_next(tasks: Sequence[Any], position: int) -> Any:
    return tasks[position + 1] if position + 1 < len(tasks) else None


def wrong_next(tasks: Sequence[Any], position: int) -> Any:
    """The task after the next one."""
    return tasks[(position + 2) % len(tasks)]


@pytest.fixture
def decodes(tmp_path: Path, ffmpeg_exe: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one line per ffmpeg process that was started to decode."""
    script, log = tmp_path / "ffmpeg", tmp_path / "decodes"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *file:*rawvideo*) echo x >> {log};; esac\n'
        f'exec {ffmpeg_exe} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("DISTINIT_FFMPEG", str(script))
    return log


def run(corpus: Path, out: Path) -> str:
    values = {
        "videos": str(corpus),
        "teachers": [{"name": "null"}],
        "cache": str(out / "cache"),
        "unit_rows": 64,
    }
    return stage.extract(ExtractConfig.model_validate(values)).content_digest


@pytest.mark.parametrize(("announced", "wasted"), [(true_next, False), (wrong_next, True)])
def test_a_video_opened_ahead_is_used_if_its_task_comes_next_and_closed_if_not(
    announced: Callable[..., Any],
    wasted: bool,
    corpus: Path,
    tmp_path: Path,
    decodes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quiet = run(corpus, tmp_path / "quiet")
    assert decodes.read_text() == "x\n" * DECODED
    decodes.unlink()
    before = children()
    monkeypatch.setattr(stage, "InProcessExecutor", lambda: Announcing(announced))
    assert run(corpus, tmp_path / "announced") == quiet
    assert (decodes.read_text().count("x") > DECODED) == wasted
    assert children() - before == set()
