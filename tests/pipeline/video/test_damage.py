"""Broken, hostile and oversized files: the right count, or an error that says why."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import av
import pytest

from distinit.pipeline.video import open_video, probe_video
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig

CONFIG = DecodeConfig(deadline_seconds=60, stall_seconds=30)


def failure(path: Path, config: DecodeConfig = CONFIG) -> str:
    """Why decoding fails, as one line after the file's name; no folder in it."""
    with pytest.raises(DecodeError) as caught, open_video(path, {}, config) as stream:
        list(stream)
    assert str(path.parent) not in str(caught.value)
    name, _, reason = caught.value.problem.partition(": ")
    assert name == path.name
    return reason


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    target = path.with_name(f"cut{path.suffix}")
    target.write_bytes(data[: int(len(data) * share)])
    return target


@pytest.mark.parametrize(
    ("name", "args", "reason"),
    [
        ("a.mkv", ("-c:v", "libx264"), "truncated: File ended prematurely"),
        ("a.webm", ("-c:v", "libvpx"), "truncated: File ended prematurely"),
        ("a.mp4", ("-c:v", "libx264"), "moov atom not found"),
        ("a.mp4", ("-c:v", "libx264", "-movflags", "+faststart"), "truncated: .*partial file"),
        ("a.avi", ("-c:v", "mpeg4"), r"truncated: the header says \d+ bytes, the file has \d+"),
        ("a.wmv", ("-c:v", "wmv2"), r"truncated: the header says \d+ bytes, the file has \d+"),
        ("a.gif", (), "truncated: the GIF has no end mark"),
        ("a.ogv", ("-c:v", "libtheora"), "truncated: it ends within an Ogg page"),
        (
            "a.ts",
            ("-c:v", "mpeg2video", "-r", "25"),
            "truncated: it ends within a transport packet",
        ),
    ],
)
def test_truncated_files_fail_in_probe_and_decode(
    tmp_path: Path, make_video: Any, name: str, args: tuple[str, ...], reason: str
) -> None:
    path = make_video(tmp_path / name, frames=40, size=(160, 120), args=args)
    probe_video(path, CONFIG)
    short = cut(path, 0.613)
    assert re.search(reason, failure(short))
    with pytest.raises(DecodeError, match=reason):
        probe_video(short, CONFIG)


def test_a_duration_that_no_stream_reaches_is_a_truncation(tmp_path: Path, make_video: Any) -> None:
    path = make_video(tmp_path / "a.flv", frames=40, args=("-c:v", "flv"))
    data = path.read_bytes()
    clean = data.rfind(b"\x09", 0, int(len(data) * 0.5))
    while int.from_bytes(data[clean - 4 : clean], "big") + 4 > clean or not _is_tag(data, clean):
        clean = data.rfind(b"\x09", 0, clean)
    path.write_bytes(data[:clean])
    reason = r"truncated: \d\.\d\d s of the 4\.00 s that its header declares"
    assert re.search(reason, failure(path))


def _is_tag(data: bytes, at: int) -> bool:
    """Whether an FLV tag starts at ``at``: the size before it leads to another tag."""
    previous = at - 4 - int.from_bytes(data[at - 4 : at], "big")
    return previous > 0 and data[previous] in (8, 9, 18) and data[at + 8 : at + 11] == b"\0\0\0"


@pytest.mark.parametrize("seed", range(8))
def test_damaged_bytes_give_pyavs_count_or_a_reason(
    tmp_path: Path, make_video: Any, seed: int
) -> None:
    name, codec = [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")][seed % 3]
    args = ("-c:v", codec, "-g", "10")
    path = make_video(tmp_path / name, frames=30, size=(160, 120), seed=seed, args=args)
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    for _ in range(12):
        at = chance.randrange(len(data) // 8, len(data) * 3 // 4)
        data[at : at + 8] = chance.randbytes(8)
    path.write_bytes(data)
    count = _count_or_reason(path)
    if isinstance(count, int):
        assert count == _pyav_count(path)
    else:
        assert count.startswith(f"{name}: ")
        assert any(word in count for word in ("decoded", "truncated", "nothing could be"))


def _count_or_reason(path: Path) -> int | str:
    try:
        with open_video(path, {}, CONFIG) as stream:
            return sum(len(block) for block in stream)
    except DecodeError as error:
        return error.problem


def _pyav_count(path: Path) -> int:
    count = 0
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            try:
                count += len(packet.decode())
            except av.error.InvalidDataError:
                continue
    return count


def test_a_lost_frame_is_told_with_both_counts(tmp_path: Path, make_video: Any) -> None:
    path = make_video(tmp_path / "a.mkv", frames=30, args=("-c:v", "libx264", "-bf", "0"))
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    at = data.find(bytes(packets[20]))
    data[at : at + packets[20].size] = b"\xff" * packets[20].size
    path.write_bytes(data)
    told = failure(path)
    assert told.startswith("decoded 29 of 30 frames; ffmpeg says: ")
    assert "Invalid NAL unit size" in told


def test_not_videos(tmp_path: Path, make_video: Any, remake: Any) -> None:
    video = make_video(tmp_path / "a.mp4", frames=3)
    sound = ("-f", "lavfi", "-i", "sine=d=0.5")
    only_sound = remake(video, tmp_path / "s.mp4", "-map", "0", before=sound)
    assert "no video stream" in failure(only_sound)
    empty = tmp_path / "empty.webm"
    empty.touch()
    assert failure(empty) == "the file is empty (0 bytes)"
    text = tmp_path / "text.mp4"
    text.write_text("this is not a video\n" * 50)
    assert re.match("nothing could be decoded; ffmpeg says: .*Invalid data", failure(text))
    assert failure(tmp_path / "missing.mp4").startswith("cannot be opened: No such file")
    assert "not a regular file" in failure(tmp_path)
    fifo = tmp_path / "fifo.mp4"
    os.mkfifo(fifo)
    assert "not a regular file" in failure(fifo)


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("concat.mp4", "ffconcat version 1.0\nfile secret.mp4\n"),
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"),
    ],
)
def test_scripts_that_name_other_files_are_refused(
    tmp_path: Path, make_video: Any, name: str, script: str
) -> None:
    make_video(tmp_path / "secret.mp4", frames=3)
    path = tmp_path / name
    path.write_text(script)
    assert failure(path).startswith("nothing could be decoded; ffmpeg says: ")


def test_limits_on_pixels_and_frames(tmp_path: Path, make_video: Any) -> None:
    path = make_video(tmp_path / "a.mp4", frames=12)
    exact = CONFIG.model_copy(update={"max_pixels": 64 * 48, "max_frames": 12})
    assert probe_video(path, exact).packets == 12
    with open_video(path, {}, exact) as stream:
        assert sum(len(block) for block in stream) == 12
    few = CONFIG.model_copy(update={"max_frames": 11})
    small = CONFIG.model_copy(update={"max_pixels": 64 * 48 - 1})
    assert "has more frames than max_frames=11" in failure(path, few)
    assert "pictures of 64x48 are too large" in failure(path, small)
    with pytest.raises(DecodeError, match="max_frames=11"):
        probe_video(path, few)
    with pytest.raises(DecodeError, match="pictures of 64x48 are too large"):
        probe_video(path, small)
