"""Frames are read by video and index, and nothing damaged or foreign is read."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.frame_stores import (
    DIGESTS,
    alter,
    set_rows_per_batch,
    smooth_frames,
)

from distinit.pipeline.frames import reader as reader_module
from distinit.pipeline.frames.index import StoredVideo
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter, store_lock
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import FrameGeometry


def psnr_db(stored_THWC: np.ndarray, source_THWC: np.ndarray) -> float:
    difference = stored_THWC.astype(np.float64) - source_THWC.astype(np.float64)
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def as_THWC(clip_TCHW: torch.Tensor) -> np.ndarray:  # noqa: N802
    return clip_TCHW.permute(0, 2, 3, 1).numpy()


def test_videos_are_listed_with_their_digests(store_root: Path) -> None:
    store = FrameStore.open(store_root)
    assert dict(store.videos) == {
        "a": StoredVideo("a", DIGESTS["a"], 12, 32, 48, 10.0),
        "b": StoredVideo("b", DIGESTS["b"], 12, 32, 48, 25.0),
        "c": StoredVideo("c", DIGESTS["c"], 5, 20, 30, 0.0),
    }
    assert dict(store.by_digest) == {DIGESTS[v]: v for v in "abc"}
    assert "d" not in store.videos
    assert "dd" * 32 not in store.by_digest


def test_frames_are_the_pixels_of_a_clip_with_channels_last(store_root: Path) -> None:
    store = FrameStore.open(store_root)
    assert store.video_ids == ("a", "b", "c")
    frames_THWC = store.frames("b", [6, 0])
    assert (frames_THWC.shape, frames_THWC.dtype) == ((2, 32, 48, 3), np.uint8)
    assert np.array_equal(frames_THWC, as_THWC(store.clip("b", [6, 0])))
    assert np.array_equal(store.frames("b")[[6, 0]], frames_THWC)
    assert store.frames("c").shape == (5, 20, 30, 3)
    with pytest.raises(FrameStoreError, match="video c has no such frame"):
        store.frames("c", [5])
    with pytest.raises(FrameStoreError, match="video zzz is not in the frame store"):
        store.frames("zzz")


@pytest.mark.parametrize("none", [[], (), np.empty(0, np.int64)])
def test_no_frames_are_an_empty_array_of_the_frames_shape(
    store_root: Path, none: list[int] | np.ndarray
) -> None:
    store = FrameStore.open(store_root)
    frames_THWC = store.frames("c", none)
    assert (frames_THWC.shape, frames_THWC.dtype) == ((0, 20, 30, 3), np.uint8)
    assert store.jpegs("c", none) == []
    with pytest.raises(FrameStoreError, match="video zzz is not in the frame store"):
        store.frames("zzz", none)


def test_a_clip_across_two_units_is_close_to_its_source(store_root: Path) -> None:
    store = FrameStore.open(store_root)
    indices = [6, 7, 8, 9, 11, 0]
    clip = store.clip("b", indices)
    assert clip.shape == (6, 3, 32, 48)
    assert clip.dtype == torch.uint8
    for frame_HWC, index in zip(as_THWC(clip), indices, strict=True):
        assert psnr_db(frame_HWC, smooth_frames(1, first=index)[0]) > 40
    assert store.clip("c", [4]).shape == (1, 3, 20, 30)


def test_detailed_pictures_are_stored_faithfully(writer: FrameStoreWriter, tmp_path: Path) -> None:
    y, x = np.mgrid[0:128, 0:171]
    wave_HW = 127 + 100 * np.sin(x / 3) * np.cos(y / 4)
    frame = np.repeat(wave_HW[..., None], 3, axis=-1).astype(np.uint8)
    frame[40:70, 50:90] = (255, 128, 0)
    with writer.open_unit(0) as unit:
        unit.append("a", DIGESTS["a"], 0, frame[None], 10.0)
        unit.commit()
    writer.finalise([0])
    store = FrameStore.open(tmp_path / "store")
    assert psnr_db(as_THWC(store.clip("a", [0]))[0], frame) > 34
    assert len(store.jpegs("a", [0])[0]) < 20_000


def test_unknown_videos_and_frames_are_refused(store_root: Path) -> None:
    store = FrameStore.open(store_root)
    with pytest.raises(FrameStoreError, match="video d is not in the frame store"):
        store.clip("d", [0])
    for index in (-1, 12):
        with pytest.raises(FrameStoreError, match=r"indices 0 \.\. 11"):
            store.clip("a", [index])


def read_means(store: FrameStore, video_id: str) -> list[float]:
    clip = store.clip(video_id, range(store.videos[video_id].frame_count))
    means: list[float] = clip.float().mean(dim=(1, 2, 3)).tolist()
    return means


def test_a_store_is_usable_after_a_fork(store_root: Path) -> None:
    store = FrameStore.open(store_root)
    expected = read_means(store, "b")
    queue = multiprocessing.get_context("fork").Queue()

    def child() -> None:  # inherits the parent's object; nothing is pickled
        queue.put((os.getpid(), read_means(store, "b")))

    process = multiprocessing.get_context("fork").Process(target=child)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking while threads run
        process.start()
    pid, means = queue.get(timeout=60)
    process.join(60)
    assert pid == process.pid
    assert means == expected


UNPICKLE = """
import pickle, sys
store = pickle.load(open(sys.argv[1], "rb"))
print(store.clip("b", range(12)).float().mean(dim=(1, 2, 3)).tolist())
"""


def test_a_pickled_store_is_usable_in_another_process_and_folder(
    store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store_root.parent)
    store = FrameStore.open(store_root.name)
    expected = read_means(store, "b")
    (tmp_path / "store.pickle").write_bytes(pickle.dumps(store))
    command = [sys.executable, "-c", UNPICKLE, str(tmp_path / "store.pickle")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert json.loads(done.stdout) == expected


def test_threads_share_one_store_with_few_open_files(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "files_at_once", lambda: 1)
    store = FrameStore.open(store_root)
    expected = read_means(store, "b")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: read_means(store, "b"), range(20)))
    assert results == [expected] * 20


def test_units_that_the_manifest_does_not_list_are_not_read(
    writer: FrameStoreWriter, store_root: Path
) -> None:
    with writer.open_unit(7) as unit:
        unit.append("d", "dd" * 32, 0, smooth_frames(2), 10.0)
        unit.commit()
    assert list(FrameStore.open(store_root).videos) == ["a", "b", "c"]
    writer.finalise([0, 1, 7])
    assert list(FrameStore.open(store_root).videos) == ["a", "b", "c", "d"]


def test_refuses_another_geometry(store_root: Path) -> None:
    FrameStore.open(store_root, geometry=FrameGeometry())
    with pytest.raises(FrameStoreError, match="another geometry"):
        FrameStore.open(store_root, geometry=FrameGeometry(mode="short_edge"))


def test_refuses_a_folder_that_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(FrameStoreError, match="is not a frame store"):
        FrameStore.open(tmp_path)
    (tmp_path / "store.json").write_text('{"format": "else"}')
    with pytest.raises(FrameStoreError, match="has a format that this program does not read"):
        FrameStore.open(tmp_path)


@pytest.mark.parametrize("version", [1, 3])
def test_refuses_another_format_version_by_name(store_root: Path, version: int) -> None:
    alter(store_root / "store.json", lambda record: record.update(format_version=version))
    with pytest.raises(FrameStoreError, match="has a format version") as caught:
        FrameStore.open(store_root)
    assert (caught.value.expected, caught.value.found) == (2, str(version))


def test_refuses_a_missing_commit_and_a_video_with_a_gap(store_root: Path) -> None:
    (store_root / "commits" / "unit-00000.json").unlink()
    with pytest.raises(FrameStoreError, match="not finished"):
        FrameStore.open(store_root)
    with pytest.raises(FrameStoreError, match="frames of video b are missing"):
        FrameStore.open(store_root, allow_incomplete=True)


def test_a_store_that_is_being_written_is_refused_and_the_writer_named(store_root: Path) -> None:
    (store_root / "commits" / "unit-00001.json").unlink()
    with pytest.raises(FrameStoreError, match="is not finished") as caught, store_lock(store_root):
        FrameStore.open(store_root)
    found = f"1 committed; a process is writing it now (pid {os.getpid()}, host "
    assert str(caught.value.found).startswith(found)
    assert caught.value.remedy == "wait until that process has finished"


def test_allows_an_unfinished_store_on_request(store_root: Path) -> None:
    (store_root / "commits" / "unit-00001.json").unlink()
    store = FrameStore.open(store_root, allow_incomplete=True)
    assert store.videos["b"].frame_count == 8


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_refuses_missing_and_short_files(store_root: Path, damage: str) -> None:
    path = store_root / "unit-00001.arrow"
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(FrameStoreError, match="is not what was committed"):
        FrameStore.open(store_root)


def test_refuses_bytes_that_are_not_a_jpeg(store_root: Path) -> None:
    path = store_root / "unit-00000.arrow"
    data = path.read_bytes()
    start = data.index(b"\xff\xd8\xff")
    path.write_bytes(data[:start] + b"\0\0\0" + data[start + 3 :])
    with pytest.raises(FrameStoreError, match="a different checksum in row 0") as caught:
        FrameStore.open(store_root).clip("a", [0])
    assert "delete commits/unit-00000.json of the store, then rerun" in str(caught.value)
    assert FrameStore.open(store_root).clip("a", [1]).shape == (1, 3, 32, 48)


@pytest.mark.parametrize("name", ["../outside.arrow", "/etc/passwd", "unit-00001.arrow"])
def test_refuses_hostile_commit_paths(store_root: Path, name: str) -> None:
    alter(
        store_root / "commits" / "unit-00000.json",
        lambda record: record.update(files={name: next(iter(record["files"].values()))}),
    )
    with pytest.raises(FrameStoreError, match="names other files"):
        FrameStore.open(store_root)


def test_refuses_a_link_that_leads_outside(store_root: Path, tmp_path: Path) -> None:
    path = store_root / "unit-00000.arrow"
    path.rename(tmp_path / "outside.arrow")
    path.symlink_to(tmp_path / "outside.arrow")
    with pytest.raises(FrameStoreError, match="leads outside"):
        FrameStore.open(store_root)


def test_reading_more_rows_of_an_open_unit_keeps_nothing(
    writer: FrameStoreWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rows_per_batch(monkeypatch, 2)
    with writer.open_unit(0) as unit:
        unit.append("a", DIGESTS["a"], 0, smooth_frames(64), 10.0)  # 32 batches
        unit.commit()
    writer.finalise([0])
    store = FrameStore.open(tmp_path / "store")
    store.jpegs("a", [0, 1])
    gc.collect()
    before = sys.getallocatedblocks()
    for frame in range(64):
        store.jpegs("a", [frame])
    gc.collect()
    assert sys.getallocatedblocks() - before < 16
