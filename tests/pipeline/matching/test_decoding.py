"""Files are decoded to hashes only; what is finished is stored, however the work ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.progress import RecordingProgress
from helpers.videos import decode, make_video

from distinit.pipeline.matching import decoding
from distinit.pipeline.matching.decoding import hash_copies
from distinit.pipeline.matching.hash_parts import read_parts
from distinit.schemas.corpus import VideoFile
from distinit.schemas.video import DecodeConfig


def files_in(folder: Path, count: int) -> list[VideoFile]:
    """Short videos, the last of which is broken."""
    files = []
    for number in range(count):
        path = make_video(folder / f"{number}.mp4", frames=5 + number, seed=number)
        if number == count - 1:
            path.write_bytes(b"no video")
        status = path.stat()
        digest = f"{number:064x}"
        files.append(VideoFile("", path.name, digest, status.st_size, status.st_mtime_ns))
    return files


def test_hashes_and_times_are_those_of_every_frame(tmp_path: Path) -> None:
    files = files_in(tmp_path / "clips", 3)
    progress = RecordingProgress()
    failed = hash_copies(tmp_path / "clips", files, 4, tmp_path, DecodeConfig(), progress)
    assert list(failed) == ["2.mp4"]
    assert "nothing could be decoded" in failed["2.mp4"]
    assert progress.started == [("decode", 7, "videos", 4)]
    assert progress.advanced == 3
    (part,) = read_parts(tmp_path)
    for copy in part:
        _, pts_N, hash_N, _ = decode(tmp_path / "clips" / f"{int(copy.digest, 16)}.mp4")
        assert copy.hash_F.tolist() == hash_N.tolist()
        seconds_per_frame = np.diff(copy.pts_seconds_F) / np.diff(pts_N)
        assert np.allclose(seconds_per_frame, seconds_per_frame[0])
        assert copy.pts_seconds_F[-1] - copy.pts_seconds_F[0] == pytest.approx(
            (len(hash_N) - 1) / 10
        )


def test_a_file_that_changes_while_it_is_decoded_has_no_hashes(tmp_path: Path) -> None:
    (file,) = files_in(tmp_path / "clips", 2)[:1]
    stale = VideoFile("", file.path, file.digest, file.size_bytes, file.mtime_ns - 1)
    progress = RecordingProgress()
    failed = hash_copies(tmp_path / "clips", [stale], 0, tmp_path, DecodeConfig(), progress)
    assert failed == {"0.mp4": "changed while it was read"}
    assert list(read_parts(tmp_path)) == []


class Stopped(RecordingProgress):
    """The user presses Ctrl-C after the second video."""

    def advance(self, amount: float = 1, **shown: object) -> None:
        super().advance(amount, **shown)
        if self.advanced == 2:
            raise KeyboardInterrupt


def test_what_was_decoded_is_kept_if_the_user_stops(tmp_path: Path) -> None:
    files = files_in(tmp_path / "clips", 6)[:5]
    with pytest.raises(KeyboardInterrupt):
        hash_copies(tmp_path / "clips", files, 0, tmp_path, DecodeConfig(), Stopped())
    assert sum(len(part) for part in read_parts(tmp_path)) == 2


def test_parts_are_stored_while_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_PART_VIDEOS", 2)
    files = files_in(tmp_path / "clips", 6)[:5]
    hash_copies(tmp_path / "clips", files, 0, tmp_path, DecodeConfig(), RecordingProgress())
    assert sorted(len(part) for part in read_parts(tmp_path)) == [1, 2, 2]
