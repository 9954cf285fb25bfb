"""Writes are done in order by one thread; the first error is reported at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.caches import make_planned

from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.plan import PlannedRows, UnitGroup
from distinit.pipeline.extraction.sink import Sink
from distinit.schemas.errors import StorageError


def test_a_failed_write_is_reported_without_another_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise everyone might wait for room that only this write would have made."""
    video = PlannedRows(make_planned("a", 8), 0)
    spec = GroupSpec(tmp_path, 64, UnitGroup(0, 1, (video,)), (), "fence")
    failed = threading.Event()
    errors: list[BaseException] = []

    def on_error(error: BaseException) -> None:
        errors.append(error)
        failed.set()

    def full(*_: object) -> None:
        raise StorageError("full")

    monkeypatch.setattr(GroupWriter, "overflow", full)
    with ThreadPoolExecutor(1) as pool, GroupWriter(spec) as writer:
        sink = Sink(writer, None, pool, pool, on_error)
        sink.overflow(video, 3)
        assert failed.wait(60)
        with pytest.raises(StorageError, match="full"):
            sink.drain()
    assert [str(error) for error in errors] == ["full"]
