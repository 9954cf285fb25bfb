"""Files from attackers, bad disks or killed writers are refused by name, and never followed."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from helpers.frame_stores import alter, smooth_frames
from PIL import Image

from distinit.pipeline.frames.jpeg import check_headers, encode_jpeg, encode_planes
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter, store_lock
from distinit.schemas.errors import FrameStoreError, StorageError
from distinit.schemas.frames import FrameGeometry


def with_size(jpeg: bytes, height: int, width: int) -> bytes:
    """The same JPEG, whose header claims another size."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def change_first_jpeg(store: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the first stored JPEG (of video a) and its checksum, as an attacker would."""
    place = json.loads((store / "commits" / "unit-00000.json").read_text())["batches"][0]
    path = store / "unit-00000.arrow"
    data = bytearray(path.read_bytes())
    first, end = struct.unpack_from("<2i", data, place["offsets"])
    jpeg = change(bytes(data[place["jpegs"] + first : place["jpegs"] + end]))
    assert len(jpeg) == end - first
    data[place["jpegs"] + first : place["jpegs"] + end] = jpeg
    checksum = google_crc32c.value(b"a" + bytes(8) + jpeg)
    struct.pack_into("<I", data, place["checksums"], checksum)
    path.write_bytes(data)


def test_a_header_that_asks_for_gigabytes_is_refused_before_it_is_decoded(store_root: Path) -> None:
    change_first_jpeg(store_root, lambda jpeg: with_size(jpeg, 65_500, 65_500))
    with pytest.raises(FrameStoreError, match="not a readable JPEG") as caught:
        FrameStore.open(store_root).jpegs("a", [0])
    assert caught.value.found == (
        "an image of 65500 x 65500 pixels with 3 components instead of 32 x 48 with 3"
    )


def encoded(mode: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (48, 32), "white").save(file, "JPEG", **options)
    return file.getvalue()


RGB = encode_jpeg(smooth_frames(1)[0], 90)


@pytest.mark.parametrize(
    ("jpeg", "found"),
    [
        (b"", "no start-of-image marker"),
        (b"\xff\xd8", "an incomplete header"),
        (RGB[:200], "an incomplete header"),
        (encoded("RGB", progressive=True), "marker 0xc2 in the header"),
        (encoded("L"), "an image of 32 x 48 pixels with 1 components instead of 32 x 48 with 3"),
        (encoded("CMYK"), "an image of 32 x 48 pixels with 4 components instead of 32 x 48 with 3"),
        (with_size(RGB, 0, 48), "an image of 0 x 48 pixels with 3 components instead of 32 x 48"),
        (RGB[:158] + RGB[158:177] * 2 + RGB[177:], "marker 0xc0 in the header"),
        (b"\xff\xd8\xff\xc0\x00\x02" + RGB[2:], "an image of"),
    ],
)
def test_headers_of_other_images_are_refused(jpeg: bytes, found: str) -> None:
    check_headers([RGB], 32, 48, 3)
    with pytest.raises(FrameStoreError, match="not a readable JPEG") as caught:
        check_headers([RGB, jpeg], 32, 48, 3)
    assert str(caught.value.found).startswith(found)


def test_a_header_without_the_bytes_of_its_pixels_is_refused() -> None:
    black = encode_jpeg(np.zeros((4_096, 4_096, 3), np.uint8), 90)
    check_headers([black], 4_096, 4_096, 3)
    with pytest.raises(FrameStoreError) as caught:
        check_headers([black[:1_000]], 4_096, 4_096, 3)
    assert caught.value.found == "1000 bytes for 4096x4096 pixels"


def test_planes_are_one_gray_image() -> None:
    check_headers([encode_planes(np.zeros((32, 48, 2), np.uint8), 95)], 64, 48, 1)


def test_swapped_frames_are_detected(store_root: Path) -> None:
    """Two rows of equal size are swapped: both are intact, but neither is the requested frame."""
    place = json.loads((store_root / "commits" / "unit-00000.json").read_text())["batches"][0]
    path = store_root / "unit-00000.arrow"
    data = bytearray(path.read_bytes())
    offsets = struct.unpack_from("<21i", data, place["offsets"])
    sizes = np.diff(offsets)
    first, second = next(
        (i, j) for i in range(20) for j in range(i + 1, 20) if sizes[i] == sizes[j]
    )
    for base, width, starts in (
        (place["jpegs"], int(sizes[first]), (offsets[first], offsets[second])),
        (place["checksums"], 4, (4 * first, 4 * second)),
    ):
        one, other = (slice(base + start, base + start + width) for start in starts)
        data[one], data[other] = data[other], data[one]
    path.write_bytes(data)
    store = FrameStore.open(store_root)
    names = [("a", i) if i < 12 else ("b", i - 12) for i in range(20)]
    for row, (video, frame) in enumerate(names):
        if row in (first, second):
            with pytest.raises(FrameStoreError, match=f"a different checksum in row {row}"):
                store.jpegs(video, [frame])
        else:
            store.jpegs(video, [frame])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda r: r["videos"][0].update(first_row=100_000),
            "rows of video a from row 100000, not 0",
        ),
        (lambda r: r["videos"][0].update(frame_count=10**9), "rows of video b from row 12, not"),
        (lambda r: r["videos"][1].update(frame_count=10**9), "1000000012 rows, 1 batches in"),
        (lambda r: r["videos"][0].update(height=65_535, width=65_535), "12 frames of 65535x65535"),
        (lambda r: r["videos"][0].update(height=70_000), "videos.0.height = 70000"),
        (lambda r: r["videos"][0].update(fps=float("inf")), "Infinity is not JSON"),
        (lambda r: r["videos"][0].update(video_id="../x"), "videos.0.video_id = ../x"),
        (lambda r: r["videos"][0].update(digest="a" * 63), "videos.0.digest = aaa"),
        (lambda r: r["batches"][0].update(offsets=10**9), "batch 0 beyond the end of the file"),
        (lambda r: r["batches"][0].update(jpegs=10**9), "batch 0 beyond the end of the file"),
        (lambda r: r["batches"].append(r["batches"][0]), "20 rows, 2 batches in"),
        (lambda r: r["batches"].clear(), "20 rows, 0 batches in"),
        (lambda r: r.update(unit=2**70), "is beyond 64 bits"),
    ],
)
def test_inconsistent_records_are_refused(
    store_root: Path, change: Callable[[dict[str, Any]], None], found: str
) -> None:
    alter(store_root / "commits" / "unit-00000.json", change)
    with pytest.raises(FrameStoreError) as caught:
        FrameStore.open(store_root)
    assert found in str(caught.value.found)


def test_a_changed_value_in_a_record_is_detected(store_root: Path) -> None:
    path = store_root / "commits" / "unit-00001.json"
    path.write_text(path.read_text().replace('"fps": 25.0', '"fps": 24.0'))
    with pytest.raises(FrameStoreError) as caught:
        FrameStore.open(store_root)
    assert caught.value.found == "a seal that does not match the other fields"
    manifest = store_root / "store.json"
    manifest.write_text(manifest.read_text().replace('"short_edge": 128', '"short_edge": 129'))
    with pytest.raises(FrameStoreError, match=r"store\.json is damaged"):
        FrameStore.open(store_root)


def rewrite(root: Path) -> None:
    """Write all pending units again, without frames."""
    with store_lock(root):
        writer = FrameStoreWriter(root, FrameGeometry(), "1" * 64)
        for unit in writer.pending_units([0, 1]):
            with writer.open_unit(unit) as frames:
                frames.commit()


@pytest.mark.parametrize("name", ["store.json", "commits/unit-00000.json", "unit-00000.arrow"])
@pytest.mark.parametrize("what", ["pipe", "folder", "/dev/zero", "circle"])
def test_special_files_in_place_of_regular_ones_are_refused_at_once(
    store_root: Path, name: str, what: str
) -> None:
    path = store_root / name
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if what == "/dev/zero" else path.name)
    with pytest.raises(FrameStoreError):
        FrameStore.open(store_root)
    with pytest.raises((FrameStoreError, StorageError)):
        rewrite(store_root)


@pytest.mark.parametrize(
    "name", [".lock", "store.json", "commits", "unit-00002.arrow.partial", "unit-00002.arrow"]
)
def test_no_link_is_followed_when_writing(store_root: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")
    target = store_root / name
    if name == "commits":
        target.rename(tmp_path / "elsewhere")
    target.unlink(missing_ok=True)
    target.symlink_to(victim if name == "commits" else victim / "file")
    with pytest.raises(FrameStoreError, match=r"holds a link|no store\.json"):
        store_lock(store_root)
    assert (victim / "file").read_text() == "mine"
    assert [path.name for path in victim.iterdir()] == ["file"]


def test_a_worker_never_writes_through_a_link(writer: FrameStoreWriter, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "store" / "unit-00000.arrow.partial").symlink_to(victim)
    (tmp_path / "store" / "unit-00000.arrow").symlink_to(victim)
    with writer.open_unit(0) as unit:
        unit.commit()
    assert victim.read_text() == "mine"


def test_a_folder_with_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FrameStoreError, match=r"has content but no store\.json"):
        store_lock(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_missing_and_damaged_units_are_pending(writer: FrameStoreWriter, store_root: Path) -> None:
    assert writer.pending_units(range(3)) == [2]
    (store_root / "unit-00000.arrow").write_bytes(b"short")
    (store_root / "commits" / "unit-00001.json").write_text("{}")
    leftovers = [
        store_root / name
        for name in (
            "unit-00002.arrow.partial",
            "unit-00002.arrow.0a1b2c3d.partial",
            "store.json.0a1b2c3d.partial",
            "commits/unit-00002.json.0a1b2c3d.partial",
        )
    ]
    for path in leftovers:
        path.touch()
    assert writer.pending_units(range(2)) == [0, 1]
    assert list((store_root / "commits").iterdir()) == []
    assert not any(path.exists() for path in leftovers)
