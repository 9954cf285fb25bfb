"""Broken, hostile and oversized files: what is missing, or why nothing of the file is used."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import av
import pytest
from helpers.videos import make_video, remake

from distinit.pipeline.video import open_video, probe_video
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig

CONFIG = DecodeConfig(deadline_seconds=60, stall_seconds=30)


def failure(path: Path, config: DecodeConfig = CONFIG) -> str:
    """Why decoding fails: the error's text after the file name, which must not name a folder."""
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


def kept(path: Path) -> str:
    """The damage of a file that can be decoded; also checks the number of frames."""
    with open_video(path, {}, CONFIG) as stream:
        count = sum(len(block) for block in stream)
    assert stream.summary is not None
    assert stream.summary.frame_count == count
    found = stream.summary.damage
    assert found is not None
    assert str(path.parent) not in found.text
    assert found.text.startswith("all frames" if found.concealed else f"{count} ")
    return found.text


@pytest.mark.parametrize(
    ("name", "args", "description"),
    [
        ("a.mkv", ("-c:v", "libx264"), r"of about 40 frames; truncated: File ended prematurely"),
        ("a.webm", ("-c:v", "libvpx"), r"of about 40 frames; truncated: File ended prematurely"),
        (
            "a.mp4",
            ("-c:v", "libx264", "-movflags", "+faststart"),
            r"of about 40 frames.*; truncated: .*partial file",
        ),
        ("a.avi", ("-c:v", "mpeg4"), r"of 40 frames.*; truncated: the header says \d+ bytes, the"),
        ("a.wmv", ("-c:v", "wmv2"), r"frames.*; truncated: the header says \d+ bytes, the file"),
        ("a.gif", (), r"frames.*; truncated: the GIF has no end mark"),
        ("a.ogv", ("-c:v", "libtheora"), r"frames.*; truncated: it ends within an Ogg page"),
        (
            "a.ts",
            ("-c:v", "mpeg2video", "-r", "25"),
            r"frames.*; truncated: it ends within a transport packet",
        ),
    ],
)
def test_truncated_files_are_kept_with_what_is_missing_or_fail(
    tmp_path: Path, name: str, args: tuple[str, ...], description: str
) -> None:
    path = make_video(tmp_path / name, frames=40, size=(160, 120), args=args)
    whole = probe_video(path, CONFIG).packet_count
    short = cut(path, 0.613)
    text = kept(short)
    assert re.match(rf"\d+ {description}|\d+ of \d+ {description}", text)
    assert 0 < probe_video(short, CONFIG).packet_count < whole
    strict = CONFIG.model_copy(update={"damaged": "fail"})
    assert failure(short, strict) == f"damaged: {text}"
    with pytest.raises(DecodeError, match="damaged: truncated: "):
        probe_video(short, strict)


def test_a_file_that_was_cut_before_its_index_fails(tmp_path: Path) -> None:
    short = cut(make_video(tmp_path / "a.mp4", frames=40, size=(160, 120)), 0.613)
    assert "moov atom not found" in failure(short)
    with pytest.raises(DecodeError, match="moov atom not found"):
        probe_video(short, CONFIG)


def test_a_declared_duration_that_no_stream_reaches_is_a_truncation(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.flv", frames=40, args=("-c:v", "flv"))
    data = path.read_bytes()
    clean = data.rfind(b"\x09", 0, int(len(data) * 0.5))
    while int.from_bytes(data[clean - 4 : clean], "big") + 4 > clean or not _is_tag(data, clean):
        clean = data.rfind(b"\x09", 0, clean)
    path.write_bytes(data[:clean])
    description = (
        r"\d+ of about 4[01] frames; truncated: \d\.\d\d s of the 4\.00 s that its header declares"
    )
    assert re.fullmatch(description, kept(path))


def _is_tag(data: bytes, at: int) -> bool:
    """Whether an FLV tag starts at ``at``: the size before it leads to another tag."""
    previous = at - 4 - int.from_bytes(data[at - 4 : at], "big")
    return previous > 0 and data[previous] in (8, 9, 18) and data[at + 8 : at + 11] == b"\0\0\0"


@pytest.mark.parametrize("seed", range(8))
def test_damaged_bytes_give_pyavs_count_or_a_reason(tmp_path: Path, seed: int) -> None:
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
        assert "nothing could be" in count


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


def test_a_lost_frame_is_reported_with_both_counts(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", frames=30, args=("-c:v", "libx264", "-bf", "0"))
    overwrite_packet(path, 20, b"\xff")
    text = kept(path)
    assert text.startswith("29 of 30 frames; ")
    assert "Invalid NAL unit size" in text
    strict = CONFIG.model_copy(update={"damaged": "fail"})
    assert failure(path, strict) == f"damaged: {text}"


def overwrite_packet(path: Path, number: int, byte: bytes) -> None:
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    at = data.find(bytes(packets[number]))
    data[at : at + packets[number].size] = byte * packets[number].size
    path.write_bytes(data)


def test_damage_within_frames_is_concealed(tmp_path: Path) -> None:
    args = ("-c:v", "mpeg4", "-g", "10")
    path = make_video(tmp_path / "a.avi", frames=30, size=(160, 120), args=args)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 16] = random.Random(0).randbytes(16)
    path.write_bytes(data)
    assert re.match(r"all frames; \d+ decoder errors?: ", kept(path))
    strict = CONFIG.model_copy(update={"damaged": "fail"})
    with open_video(path, {}, strict) as stream:  # no frame is missing: it does not fail
        assert sum(len(block) for block in stream) == 30


H264 = ("-c:v", "libx264", "-qp", "4", "-g", "25", "-bf", "2", "-pix_fmt", "yuv420p")
ZEROED = {
    "a.mkv": H264,
    "a.ts": H264,
    "mpeg2.ts": ("-c:v", "mpeg2video", "-q:v", "2"),
    "a.webm": ("-c:v", "libvpx", "-b:v", "4M", "-qmax", "6"),
    "a.flv": H264,
    "a.mpg": ("-c:v", "mpeg1video", "-q:v", "2"),
    "a.mp4": H264,
    "a.avi": ("-c:v", "mpeg4", "-q:v", "2"),
    "a.wmv": ("-c:v", "wmv2", "-q:v", "2"),
    "a.ogv": ("-c:v", "libtheora", "-q:v", "10"),
}


@pytest.mark.parametrize("share", [0.3, 0.55, 0.7])
@pytest.mark.parametrize("name", ZEROED)
def test_eight_zeroed_kilobytes_are_always_reported(
    tmp_path: Path, name: str, share: float
) -> None:
    path = make_video(tmp_path / name, 100, (320, 240), 25, args=ZEROED[name])
    data = bytearray(path.read_bytes())
    assert len(data) > 8192 / 0.3
    at = int(len(data) * share)
    data[at : at + 8192] = bytes(8192)
    path.write_bytes(data)
    text = kept(path)
    with open_video(path, {}, CONFIG) as stream:
        count = sum(len(block) for block in stream)
    if count < 100:
        lost = re.match(rf"{count} of (?:about )?(\d+) frames", text)
        assert lost is not None
        assert int(lost[1]) in (99, 100, 101)


def test_a_packet_that_was_cut_in_place_is_reported(tmp_path: Path) -> None:
    """Half of the last MJPEG frame is missing, and decoded as gray."""
    path = make_video(tmp_path / "a.avi", frames=12, args=("-c:v", "mjpeg", "-q:v", "4"))
    data = path.read_bytes()
    index = data.rfind(b"idx1")
    last = data.rfind(b"00dc", 0, index)
    size = int.from_bytes(data[last + 4 : last + 8], "little")
    half = (size // 2 & ~1).to_bytes(4, "little")
    movi = data.find(b"movi")
    body = bytearray(data[: last + 4] + half + data[last + 8 : last + 8 + (size // 2 & ~1)])
    body[movi - 4 : movi] = (len(body) - movi).to_bytes(4, "little")
    body += data[index:-4] + half
    body[4:8] = (len(body) - 8).to_bytes(4, "little")
    path.write_bytes(body)
    assert kept(path) == "12 frames, 1 of them from a cut or corrupt packet; overread 8"


def test_an_avi_shorter_than_its_header_is_reported(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi", frames=12, args=("-c:v", "mjpeg"))
    data = path.read_bytes()
    index = data.rfind(b"idx1")
    last = data.rfind(b"00dc", 0, index)
    movi = data.find(b"movi")
    entries = data[index + 8 : -16]
    body = bytearray(data[:last])
    body[movi - 4 : movi] = (len(body) - movi).to_bytes(4, "little")
    body += b"idx1" + len(entries).to_bytes(4, "little") + entries
    body[4:8] = (len(body) - 8).to_bytes(4, "little")
    path.write_bytes(body)
    assert kept(path) == "11 of 12 frames; the file holds less than its header says"


def test_files_that_are_not_videos_fail(tmp_path: Path) -> None:
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
def test_scripts_that_name_other_files_are_refused(tmp_path: Path, name: str, script: str) -> None:
    make_video(tmp_path / "secret.mp4", frames=3)
    path = tmp_path / name
    path.write_text(script)
    assert failure(path).startswith("nothing could be decoded; ffmpeg says: ")


def test_videos_with_too_many_pixels_or_frames_are_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=12)
    exact = CONFIG.model_copy(update={"max_pixels": 64 * 48, "max_frames": 12})
    assert probe_video(path, exact).packet_count == 12
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
