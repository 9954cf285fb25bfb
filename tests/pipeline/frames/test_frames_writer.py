"""Units are complete or absent, and hold exactly the frames that were appended."""

from __future__ import annotations

import json
import pickle
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
from helpers.frame_stores import DIGESTS, set_rows_per_batch, smooth_frames

from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.verify import verify_store
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.storage import sha256_file
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import FrameGeometry, VideoRows
from distinit.schemas.tables import STORE_SCHEMA


def names(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_commit_lists_rows_sizes_and_hashes(writer: FrameStoreWriter, tmp_path: Path) -> None:
    with writer.open_unit(3) as unit:
        unit.append("a", DIGESTS["a"], 0, smooth_frames(4), 10.0)
        unit.append("a", DIGESTS["a"], 4, smooth_frames(3, first=4), 10.0)
        unit.append("b", DIGESTS["b"], 100, smooth_frames(2), 0.0)
        commit = unit.commit()
    path = tmp_path / "store" / "unit-00003.arrow"
    common = {"height": 32, "width": 48}
    assert commit.videos == (
        VideoRows(
            video_id="a", digest=DIGESTS["a"], first_frame=0, frame_count=7, first_row=0, fps=10.0,
            **common,
        ),
        VideoRows(
            video_id="b", digest=DIGESTS["b"], first_frame=100, frame_count=2, first_row=7, fps=0.0,
            **common,
        ),
    )  # fmt: skip
    assert commit.files["unit-00003.arrow"].size == path.stat().st_size
    assert commit.files["unit-00003.arrow"].sha256 == sha256_file(path)
    assert names(tmp_path / "store") == ["commits/unit-00003.json", "store.json", path.name]
    assert writer.committed_units() == {3}


def test_table_has_the_published_columns_in_full_batches(
    writer: FrameStoreWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rows_per_batch(monkeypatch, 4)
    with writer.open_unit(0) as unit:
        unit.append("a", DIGESTS["a"], 0, smooth_frames(10), 10.0)
        unit.commit()
    with pa.memory_map(str(tmp_path / "store" / "unit-00000.arrow")) as source:
        reader = pa.ipc.open_file(source)
        table = reader.read_all()
        sizes = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
    assert table.schema == STORE_SCHEMA
    assert sizes == [4, 4, 2]
    assert table["frame_index"].to_pylist() == list(range(10))
    assert set(table["video_id"].to_pylist()) == {"a"}
    expected = [
        google_crc32c.value(b"a" + struct.pack("<q", frame) + jpeg)
        for frame, jpeg in enumerate(table["jpeg"].to_pylist())
    ]
    assert table["crc32c"].to_pylist() == expected


def test_failed_video_leaves_no_row_and_is_recorded(
    writer: FrameStoreWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rows_per_batch(monkeypatch, 4)
    with writer.open_unit(0) as unit:
        unit.append("a", DIGESTS["a"], 0, smooth_frames(3), 10.0)
        unit.append("b", DIGESTS["b"], 0, smooth_frames(6), 10.0)
        unit.append("c", DIGESTS["c"], 0, smooth_frames(5, first=50), 10.0)
        unit.append("a", DIGESTS["a"], 3, smooth_frames(3, first=3), 10.0)
        unit.fail_video("b", DIGESTS["b"], "truncated after 6 of 9 frames")
        commit = unit.commit()
    writer.finalise([0])
    assert [(v.video_id, v.first_row, v.frame_count) for v in commit.videos] == [
        ("a", 0, 3),
        ("c", 3, 5),
        ("a", 8, 3),
    ]
    with pa.memory_map(str(tmp_path / "store" / "unit-00000.arrow")) as source:
        assert pa.ipc.open_file(source).read_all()["video_id"].to_pylist() == [
            *"aaa", *"ccccc", *"aaa"
        ]  # fmt: skip
    store = FrameStore.open(tmp_path / "store")
    assert list(store.videos) == ["a", "c"]
    assert store.failed["b"].error == "truncated after 6 of 9 frames"
    means = store.clip("a", range(6)).float().mean(dim=(1, 2, 3))
    assert means.diff().numpy() == pytest.approx(np.full(5, 2.0), abs=0.2)
    assert names(tmp_path / "store") == ["commits/unit-00000.json", "store.json",
                                         "unit-00000.arrow"]  # fmt: skip


def test_without_a_commit_nothing_is_left(writer: FrameStoreWriter, tmp_path: Path) -> None:
    unit = writer.open_unit(0)
    unit.append("a", DIGESTS["a"], 0, smooth_frames(3), 10.0)
    unit.abort()
    with writer.open_unit(1) as other:  # never committed
        other.append("a", DIGESTS["a"], 0, smooth_frames(3), 10.0)
    assert names(tmp_path / "store") == ["store.json"]
    assert writer.committed_units() == frozenset()


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.frames import FrameGeometry
writer = FrameStoreWriter(Path(sys.argv[1]), FrameGeometry(), "1" * 64)
unit = writer.open_unit(0)
unit.append("a", "a" * 64, 0, np.zeros((700, 16, 16, 3), np.uint8), 10.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_two_writers_of_one_unit_never_mix_frames(tmp_path: Path) -> None:
    root = tmp_path / "store"
    writer = FrameStoreWriter(root, FrameGeometry(), "1" * 64)
    with writer.open_unit(0) as slow, writer.open_unit(0) as fast:
        slow.append("b", DIGESTS["b"], 0, smooth_frames(3), 10.0)
        fast.append("a", DIGESTS["a"], 0, smooth_frames(2), 10.0)
        fast.commit()
    assert names(root) == ["commits/unit-00000.json", "store.json", "unit-00000.arrow"]
    writer.finalise([0])
    assert verify_store(root, deep=True, progress=NullProgress()).problems == ()
    assert FrameStore.open(root).videos["a"].frame_count == 2


def test_leftovers_of_workers_killed_during_the_run_are_removed_at_its_end(
    tmp_path: Path,
) -> None:
    root = tmp_path / "store"
    writer = FrameStoreWriter(root, FrameGeometry(), "1" * 64)
    with writer.open_unit(0) as unit:
        unit.append("a", DIGESTS["a"], 0, smooth_frames(2), 10.0)
        unit.commit()
    (root / "unit-00000.arrow.0a1b2c3d.partial").write_bytes(b"half")
    writer.finalise([0])
    assert names(root) == ["commits/unit-00000.json", "store.json", "unit-00000.arrow"]


def test_a_killed_writer_is_resumed(tmp_path: Path) -> None:
    root = tmp_path / "store"
    done = subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False)
    assert done.returncode == -signal.SIGKILL
    manifest, partial = names(root)
    assert manifest == "store.json"
    assert re.fullmatch(r"unit-00000\.arrow\.[0-9a-f]{8}\.partial", partial)
    with pytest.raises(FrameStoreError, match="not finished"):
        FrameStore.open(root)
    writer = FrameStoreWriter(root, FrameGeometry(), "1" * 64)
    assert writer.committed_units() == frozenset()
    with writer.open_unit(0) as unit:
        unit.append("a", DIGESTS["a"], 0, smooth_frames(2), 10.0)
        unit.commit()
    writer.finalise([0])
    assert names(root) == ["commits/unit-00000.json", "store.json", "unit-00000.arrow"]
    assert FrameStore.open(root).videos["a"].frame_count == 2


def test_refuses_another_geometry_or_plan(writer: FrameStoreWriter, tmp_path: Path) -> None:
    root = tmp_path / "store"
    assert FrameStoreWriter(root, FrameGeometry(), "1" * 64).committed_units() == frozenset()
    with pytest.raises(FrameStoreError, match="another geometry"):
        FrameStoreWriter(root, FrameGeometry(jpeg_quality=80), "1" * 64)
    with pytest.raises(FrameStoreError, match="another plan"):
        FrameStoreWriter(root, FrameGeometry(), "2" * 64)


def test_finalise_names_the_missing_unit(writer: FrameStoreWriter, tmp_path: Path) -> None:
    with writer.open_unit(1) as unit:
        unit.commit()
    with pytest.raises(FrameStoreError, match="1 missing, the first is 0"):
        writer.finalise([0, 1])
    assert json.loads((tmp_path / "store" / "store.json").read_text())["units"] is None


def test_refuses_arrays_of_another_type_or_shape(writer: FrameStoreWriter) -> None:
    with writer.open_unit(0) as unit:
        for array, found in (
            (np.zeros((2, 8, 8, 3), np.float32), "float32 [2, 8, 8, 3]"),
            (np.zeros((8, 8, 3), np.uint8), "uint8 [8, 8, 3]"),
            (np.zeros((2, 8, 8, 2), np.uint8), "uint8 [2, 8, 8, 2]"),
        ):
            with pytest.raises(FrameStoreError) as caught:
                unit.append("a", DIGESTS["a"], 0, array, 10.0)
            assert caught.value.expected == "uint8 [N, height, width, 3]"
            assert caught.value.found == found


def test_another_process_may_write_a_unit(writer: FrameStoreWriter) -> None:
    other: FrameStoreWriter = pickle.loads(pickle.dumps(writer))  # noqa: S301
    with other.open_unit(5) as unit:
        unit.commit()
    assert writer.committed_units() == {5}
