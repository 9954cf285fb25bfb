"""Truncation and holes that ffmpeg does not report."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.videos import make_video

from distinit.pipeline.video.container import asf_holes, avi_ticks, truncation_reason


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("a.avi", ("-c:v", "mpeg4")),
        ("a.wmv", ("-c:v", "wmv2")),
        ("a.gif", ()),
        ("a.ogv", ("-c:v", "libtheora")),
        ("a.ts", ("-c:v", "mpeg2video", "-r", "25")),
        ("a.mkv", ("-c:v", "libx264")),
    ],
)
def test_truncated_files_are_detected_and_intact_ones_are_not(
    tmp_path: Path, name: str, args: tuple[str, ...]
) -> None:
    path = make_video(tmp_path / name, frames=12, args=args)
    assert truncation_reason(path) is None
    if name != "a.mkv":
        path.write_bytes(path.read_bytes()[:-9])
        assert truncation_reason(path) is not None


def test_an_unknown_length_is_not_a_truncation(tmp_path: Path) -> None:
    live = make_video(tmp_path / "live.avi", frames=3, args=("-c:v", "mpeg4"))
    data = bytearray(live.read_bytes())
    data[4:8] = b"\0\0\0\0"
    live.write_bytes(data)
    assert truncation_reason(live) is None
    data[4:8] = b"\xff\xff\xff\xff"
    live.write_bytes(data)
    assert truncation_reason(live) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", None),
        (b"RIFF", None),
        (b"G" * 100, None),
        (b"OggS", "it ends within an Ogg page"),
        (b"OggS" + b"\0" * 23, None),
        (b"OggS" + b"\0" * 22 + b"\1\5" + b"\0" * 4, "it ends within an Ogg page"),
        (b"OggS" + b"\0" * 22 + b"\1\5" + b"\0" * 5, None),
    ],
)
def test_very_short_files_are_checked_without_an_error(
    tmp_path: Path, content: bytes, expected: str | None
) -> None:
    path = tmp_path / "short"
    path.write_bytes(content)
    assert truncation_reason(path) == expected


def test_the_header_of_an_avi_states_its_length(tmp_path: Path) -> None:
    avi = make_video(tmp_path / "a.avi", frames=12, args=("-c:v", "mpeg4"))
    assert avi_ticks(avi) == 12
    assert avi_ticks(make_video(tmp_path / "a.mkv", frames=3)) is None
    data = bytearray(avi.read_bytes())
    at = data.index(b"strhvids") if b"strhvids" in data else data.index(b"vids")
    data[at + 32 : at + 36] = bytes(4)  # as a writer of a live stream leaves it
    avi.write_bytes(data)
    assert avi_ticks(avi) is None
    avi.write_bytes(data[:40])
    assert avi_ticks(avi) is None


def test_holes_in_an_asf_are_counted(tmp_path: Path) -> None:
    wmv = make_video(tmp_path / "a.wmv", frames=60, size=(160, 120), args=("-c:v", "wmv2"))
    assert asf_holes(wmv) is None
    data = bytearray(wmv.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8192] = bytes(8192)
    wmv.write_bytes(data)
    packets = (len(data) - data.index(bytes.fromhex("3626b2758e66cf11"))) // 3200
    assert asf_holes(wmv) in {f"{n} of {packets} ASF packets have no header" for n in (2, 3)}
    wmv.write_bytes(data[:200])
    assert asf_holes(wmv) is None
    assert asf_holes(make_video(tmp_path / "a.avi", frames=3, args=("-c:v", "mpeg4"))) is None
