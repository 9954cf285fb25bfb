"""Decoded frames, timestamps and sizes against PyAV, an independent reader."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.processes import ends_within
from helpers.videos import decode, decode_with_pyav, make_video, remake

from distinit.pipeline.video import (
    DecodeSummary,
    FrameBlock,
    View,
    decode_process,
    hamming_distance,
    open_video,
    probe_video,
)
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig

CONFIG = DecodeConfig(deadline_seconds=60, stall_seconds=30)


def test_frames_and_timestamps_equal_pyav(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=23)
    expected_pts, time_base, expected_NHWC = decode_with_pyav(path)
    summary, pts_N, hash_N, views = decode(path)
    assert summary == DecodeSummary(23, 64, 48, str(time_base), 2.3, 10.0)
    assert pts_N.tolist() == expected_pts
    assert (pts_N.dtype, hash_N.dtype) == (np.int64, np.uint64)
    np.testing.assert_array_equal(views["source"], expected_NHWC)


def test_variable_frame_rate_keeps_every_frame(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", frames=20)
    slower = "setpts=PTS+N*N*0.01/TB"
    path = remake(source, tmp_path / "vfr.mkv", "-vf", slower, "-fps_mode", "passthrough")
    expected_pts, _, expected_NHWC = decode_with_pyav(path)
    summary, pts_N, _, views = decode(path)
    assert summary.frame_count == 20
    assert pts_N.tolist() == expected_pts
    assert len(set(np.diff(pts_N))) == 5
    np.testing.assert_array_equal(views["source"], expected_NHWC)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("odd.mp4", ("-c:v", "libx264", "-vf", "crop=61:45:exact=1", "-pix_fmt", "yuv444p")),
        ("odd420.webm", ("-c:v", "libvpx", "-vf", "crop=61:45:exact=1", "-b:v", "1M")),
        ("a.avi", ("-c:v", "mpeg4", "-bf", "2")),
        ("a.gif", ()),
        ("a.ts", ("-c:v", "mpeg2video", "-r", "25")),
        ("a.wmv", ("-c:v", "wmv2")),
        ("a.ogv", ("-c:v", "libtheora")),
        ("a.flv", ("-c:v", "flv")),
    ],
)
def test_frames_equal_pyavs_in_many_containers_and_sizes(
    tmp_path: Path,
    name: str,
    args: tuple[str, ...],
) -> None:
    path = make_video(tmp_path / name, frames=9, args=args)
    expected_pts, _, expected_NHWC = decode_with_pyav(path)
    summary, pts_N, _, views = decode(path)
    assert summary.frame_count == len(expected_pts) >= 9
    assert pts_N.tolist() == expected_pts
    assert (summary.height, summary.width) == expected_NHWC.shape[1:3]
    np.testing.assert_allclose(
        views["source"].astype(int), expected_NHWC.astype(int), atol=2 if "odd" not in name else 40
    )


def test_ten_bit_frames_are_close_to_pyav(tmp_path: Path) -> None:
    args = ("-c:v", "libx264", "-pix_fmt", "yuv420p10le", "-crf", "10")
    path = make_video(tmp_path / "a.mp4", frames=6, args=args)
    expected_pts, _, expected_NHWC = decode_with_pyav(path)
    _, pts_N, _, views = decode(path)
    assert pts_N.tolist() == expected_pts
    difference = np.abs(views["source"].astype(int) - expected_NHWC.astype(int))
    assert difference.mean() < 3


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_rotation_is_applied(tmp_path: Path, degrees: int, turns: int) -> None:
    source = make_video(tmp_path / "a.mp4", frames=4)
    rotate = ("-display_rotation", str(degrees))
    path = remake(source, tmp_path / "r.mp4", "-c", "copy", before=rotate)
    _, _, _, upright = decode(source)
    summary, _, _, views = decode(path)
    assert (summary.width, summary.height) == ((48, 64) if turns % 2 else (64, 48))
    np.testing.assert_array_equal(views["source"], np.rot90(upright["source"], turns, (1, 2)))


def test_timestamps_that_run_backwards_are_kept(tmp_path: Path) -> None:
    args = ("-c:v", "mpeg2video", "-g", "3", "-r", "25")
    first = make_video(tmp_path / "1.ts", frames=8, args=args)
    second = make_video(tmp_path / "2.ts", frames=8, args=(*args, "-muxdelay", "0"))
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    expected_pts, _, _ = decode_with_pyav(path)
    summary, pts_N, _, _ = decode(path)
    assert (np.diff(expected_pts) < 0).any()
    assert expected_pts[0] > 0
    assert pts_N.tolist() == expected_pts
    assert summary.frame_count == len(expected_pts)


def test_frames_stay_aligned_after_a_change_of_resolution(tmp_path: Path) -> None:
    args = ("-c:v", "libx264", "-crf", "10", "-bf", "0", "-pix_fmt", "yuv420p")
    small = make_video(tmp_path / "1.ts", frames=6, size=(64, 48), rate=10, args=args)
    large = make_video(tmp_path / "2.ts", frames=6, size=(128, 96), rate=10, args=args)
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    one, two = decode(small)[3]["source"], decode(large)[3]["source"]
    summary, _, _, views = decode(path, {"source": View.source(), "small": View.squash(16, 20)})
    assert (summary.frame_count, summary.width) == (len(one) + len(two), 64)
    assert views["small"].shape == (summary.frame_count, 16, 20, 3)
    np.testing.assert_array_equal(views["source"][: len(one)], one)
    halved = two.reshape(len(two), 48, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(views["source"][len(one) :] - halved).mean() < 6


def test_views_come_from_the_same_frames(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=11, size=(96, 64))
    requested = {
        "source": View.source(),
        "squash": View.squash(32, 24),
        "short": View.short_edge(16, flags="area"),
    }
    _, _, hash_N, views = decode(path, requested)
    assert {name: view.shape[1:3] for name, view in views.items()} == {
        "source": (64, 96),
        "squash": (32, 24),
        "short": (16, 24),
    }
    averaged = views["source"].reshape(11, 16, 4, 24, 4, 3).mean(axis=(2, 4))
    difference_NN = np.abs(views["short"][:, None] - averaged[None]).mean(axis=(2, 3, 4))
    assert difference_NN.argmin(axis=1).tolist() == list(range(11))
    assert len(hash_N) == 11


def test_hashes_survive_reencoding_and_distinguish_scenes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=10, size=(320, 240))
    again = remake(path, tmp_path / "b.mkv", "-c:v", "libx264", "-crf", "30", "-vf", "scale=160:-2")
    other = make_video(tmp_path / "c.mp4", frames=10, size=(320, 240), seed=7)
    hash_N, again_N, other_N = decode(path)[2], decode(again)[2], decode(other)[2]
    assert hamming_distance(hash_N, again_N).max() <= 4
    assert hamming_distance(hash_N, other_N).min() >= 12


@pytest.mark.parametrize(
    "name", ["-dash.mp4", "[1] a b.mp4", "löwe 猫.mp4", "50%d.mp4", "it's:a,b;c.mp4", "pipe:0.mp4"]
)
def test_file_names_are_not_interpreted(tmp_path: Path, name: str) -> None:
    plain = make_video(tmp_path / "plain.mp4", frames=3)
    path = plain.rename(tmp_path / name)
    assert decode(path)[0].frame_count == 3


def test_a_relative_path_that_looks_like_an_option_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "-i.mp4", frames=3)
    monkeypatch.chdir(tmp_path)
    assert decode(Path("-i.mp4"))[0].frame_count == 3


def test_cover_art_is_not_the_video(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", frames=5)
    cover = remake(video, tmp_path / "c.png", "-frames:v", "1")
    maps = ("-map", "1", "-map", "0", "-c", "copy", "-disposition:v:0", "attached_pic")
    path = remake(cover, tmp_path / "b.mp4", *maps, before=("-i", f"file:{video}"))
    assert decode(path)[0].frame_count == 5
    sound = ("-f", "lavfi", "-i", "sine=d=0.5")
    only = remake(
        cover, tmp_path / "only.mp4", "-map", "0", "-map", "1", "-c:v", "copy",
        "-disposition:v:0", "attached_pic", before=sound,
    )  # fmt: skip
    with pytest.raises(DecodeError, match=r"only\.mp4: no video stream"):
        decode(only)


def test_a_still_before_the_main_stream_is_not_the_video(tmp_path: Path) -> None:
    """A preview may be a separate track before the video, not marked as cover art."""
    video = make_video(tmp_path / "a.mp4", frames=9)
    still = remake(video, tmp_path / "s.mp4", "-frames:v", "1", "-vf", "scale=32:24")
    maps = ("-map", "1", "-map", "0", "-c", "copy")
    path = remake(still, tmp_path / "b.mkv", *maps, before=("-i", f"file:{video}"))
    summary, _, _, views = decode(path)
    assert (summary.frame_count, summary.width, summary.damage) == (9, 64, None)
    np.testing.assert_array_equal(views["source"], decode(video)[3]["source"])
    assert probe_video(path, CONFIG).packet_count == 9
    with open_video(path, {"source": View.source()}, CONFIG, block_frames=4) as stream:
        stream.read_ahead()
        assert [len(block) for block in stream] == [4, 4, 1]
    with open_video(path, {"source": View.source()}, CONFIG) as stream:
        stream._decoding.packets.wait_for_headers()
        stream.close()  # as another thread does: the main stream is not started after that
        with pytest.raises(DecodeError, match="closed while it was being opened"):
            stream.read_ahead()


def test_of_two_videos_in_one_file_the_first_is_decoded(tmp_path: Path) -> None:
    first = make_video(tmp_path / "1.mp4", frames=8, size=(64, 48))
    second = make_video(tmp_path / "2.mp4", frames=12, size=(96, 64))
    maps = ("-map", "0", "-map", "1", "-c", "copy")
    path = remake(second, tmp_path / "b.mkv", *maps, before=("-i", f"file:{first}"))
    assert decode(path)[0].frame_count == 8


def test_a_longer_audio_track_is_not_a_truncation(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", frames=5)
    sound = ("-f", "lavfi", "-i", "sine=d=6")
    path = remake(video, tmp_path / "b.mkv", "-c:v", "copy", before=sound)
    assert decode(path)[0].frame_count == 5


def test_blocks_are_shortened_to_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "a.mp4", frames=7)
    monkeypatch.setattr(decode_process, "MAX_BLOCK_BYTES", 2 * 64 * 48 * 3 + 5)
    with open_video(path, {"source": View.source()}, CONFIG, block_frames=32) as stream:
        assert [len(block) for block in stream] == [2, 2, 2, 1]


def test_kept_blocks_are_never_overwritten(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=24)
    expected_NHWC = decode(path)[3]["source"]
    kept = {}
    with open_video(path, {"source": View.source()}, CONFIG, block_frames=2) as stream:
        for block in stream:
            if block.first_index % 6 == 0:  # the memory of the other blocks is reused
                kept[block.first_index] = torch.from_numpy(block.views["source"])[1:]
            del block
    assert sorted(kept) == [0, 6, 12, 18]
    for first, frame in kept.items():
        np.testing.assert_array_equal(frame[0].numpy(), expected_NHWC[first + 1])


def test_a_stream_is_usable_once_constructed(tmp_path: Path) -> None:
    stream = open_video(make_video(tmp_path / "a.mp4"), {}, CONFIG, block_frames=5)
    try:
        assert next(stream).first_index == 0
        assert (stream.time_base, stream.summary) == ("1/10240", None)
        assert [len(block) for block in stream] == [5, 2]
        assert stream.summary is not None
    finally:
        stream.close()
    stream.close()
    assert ends_within(stream.pid, 0)


def test_blocks_check_their_shapes() -> None:
    pts_N, hash_N = np.zeros(2, np.int64), np.zeros(2, np.uint64)
    for shape in ((3, 4, 4, 3), (2, 4, 4), (2, 4, 4, 1)):
        message = (
            r'view "a" .* must have shape \(2, height, width, 3\).* not '
            f"{re.escape(f'{shape}')}"
        )
        with pytest.raises(ValueError, match=message):
            FrameBlock(0, pts_N, hash_N, {"a": np.zeros(shape, np.uint8)})
    with pytest.raises(ValueError, match=r"must have shape \(2,\), .* not \(1,\)"):
        FrameBlock(0, pts_N, hash_N[:1], {})


def test_reading_ahead_decodes_before_blocks_are_requested(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40, size=(320, 240))  # 9 MiB, pipes hold 1
    with open_video(path, {"source": View.source()}, CONFIG, block_frames=4) as stream:
        stream.read_ahead()
        ended = time.monotonic() + 60
        while Path(f"/proc/{stream.pid}").exists() and time.monotonic() < ended:
            time.sleep(0.05)
        assert not Path(f"/proc/{stream.pid}").exists()  # ffmpeg has finished
        assert sum(len(block) for block in stream) == 40
    assert stream.summary is not None


def test_a_video_that_is_removed_while_it_is_decoded_fails(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=8)
    with open_video(path, {}, DecodeConfig(), block_frames=4) as stream:
        next(stream)
        path.unlink()
        with pytest.raises(DecodeError, match="cannot be read: No such file"):
            list(stream)
