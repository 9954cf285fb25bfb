"""The index of a frame store is derived once per set of commit records."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.frame_stores import DIGESTS, alter, smooth_frames

from distinit.pipeline.frames import derive
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import FrameGeometry


def derived() -> list[Path]:
    return sorted((Path(os.environ["XDG_CACHE_HOME"]) / "distinit").iterdir())


def test_records_are_parsed_once(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FrameStore.open(store_root)
    folders = derived()
    assert len(folders) == 1
    monkeypatch.setattr(derive, "read_commits", None)
    again = FrameStore.open(store_root)
    assert dict(again.videos) == dict(first.videos)
    assert derived() == folders
    mapped = [values for values in vars(again._index).values() if values.size]
    assert all(isinstance(values.base, np.memmap) for values in mapped)


def test_other_records_have_another_index(writer: FrameStoreWriter, store_root: Path) -> None:
    FrameStore.open(store_root)
    with writer.open_unit(7) as unit:
        unit.append("d", "dd" * 32, 0, smooth_frames(2), 10.0)
        unit.fail_video("e", "ee" * 32, "made to fail")
        unit.commit()
    writer.finalise([0, 1, 7])
    store = FrameStore.open(store_root)
    assert store.videos["d"].frame_count == 2
    assert store.failed_digests.tolist() == [b"ee" * 32]
    assert {name: video.error for name, video in store.failed.items()} == {"e": "made to fail"}
    assert len(derived()) == 2


def test_a_damaged_index_is_derived_again(store_root: Path) -> None:
    FrameStore.open(store_root)
    path = derived()[0] / "first_row_R.npy"
    path.write_bytes(path.read_bytes()[:-8] + b"\xff" * 8)
    store = FrameStore.open(store_root)
    assert store.clip("c", [4]).shape == (1, 3, 20, 30)
    assert dict(store.by_digest) == {DIGESTS[v]: v for v in "abc"}


def test_a_copy_derives_its_index_if_it_is_missing(store_root: Path) -> None:
    """``copy`` uses the same methods as ``pickle``; another process may have no index."""
    store = FrameStore.open(store_root)
    shutil.rmtree(derived()[0])
    assert copy.copy(store).videos["b"].frame_count == 12
    shutil.rmtree(derived()[0])
    path = store_root / "commits" / "unit-00001.json"
    alter(path, lambda record: record["videos"][0].update(fps=24.0))
    with pytest.raises(FrameStoreError, match="changed while they were read"):
        copy.copy(store)
    assert derived() == []


def test_ids_of_several_lengths_and_copies_of_one_file(tmp_path: Path) -> None:
    writer = FrameStoreWriter(tmp_path / "store", FrameGeometry(), "0" * 64)
    for number, ids in enumerate((["zz", "b"], ["a-long-one", "ab"])):
        with writer.open_unit(number) as unit:
            for video_id in ids:
                unit.append(video_id, "dd" * 32, 0, smooth_frames(1 + len(video_id)), 10.0)
            unit.commit()
    writer.finalise([0, 1])
    store = FrameStore.open(tmp_path / "store")
    counts = {video_id: info.frame_count for video_id, info in store.videos.items()}
    assert counts == {"a-long-one": 11, "ab": 3, "b": 2, "zz": 3}
    assert "a-long-one-longer" not in store.videos
    assert dict(store.by_digest) == {"dd" * 32: "a-long-one"}
    assert len(store.by_digest) == 1
