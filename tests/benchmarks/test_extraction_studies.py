"""The simulated device, short files and the study of decoder threads, on tiny videos."""

from __future__ import annotations

import json
from pathlib import Path

import decoder_threads
import short_files
import simulated_device
from click.testing import CliRunner
from helpers.videos import make_video

from distinit.pipeline.corpus.listing import list_corpus
from distinit.schemas.video import DecodeConfig


def test_an_extraction_with_a_simulated_device_has_every_frame(tmp_path: Path) -> None:
    for seed, frames in enumerate((30, 50)):
        make_video(tmp_path / f"{seed}.mp4", frames=frames, seed=seed)
    corpus, decode = list_corpus(str(tmp_path)), DecodeConfig(parallel_videos=2)
    assert simulated_device.decode_only(corpus, decode) == 80
    frames, _ = simulated_device.extract_all(corpus, simulated_device.FASTEST, decode)
    assert frames == 80


def test_the_made_videos_differ_and_have_the_given_size(tmp_path: Path) -> None:
    footage = simulated_device.Footage("small", "64:48", 2, 12)
    corpus = footage.make(tmp_path)
    assert len({file.digest for file in corpus.files}) == 2
    assert simulated_device.decode_only(corpus, DecodeConfig()) == 24


def test_a_whole_video_has_the_same_frames_with_any_number_of_threads(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", frames=12)
    result = CliRunner().invoke(decoder_threads.main, [str(video), "--threads", "2"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[:2] == [
        "1 video, 2 threads",
        "  0 bits flipped: 0 differ from one thread, 0 between two runs",
    ]
    assert [line.split()[0] for line in lines[1:]] == ["0", "5", "10", "15"]


def test_the_cost_of_short_files_is_split_between_probing_and_the_rest() -> None:
    result = CliRunner().invoke(short_files.main, ["--files", "3", "--repeats", "1", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert (found["files"], found["frames"]) == (3, 24)
    for part in ("probe", "whole"):
        assert found[part].keys() == {"wall_ms", "python_ms", "ffmpeg_ms"}
        assert all(value >= 0 for value in found[part].values())
    assert found["whole"]["ffmpeg_ms"] > 0
    assert short_files.describe(found).splitlines()[0] == (
        "3 files of 24 frames, milliseconds per file"
    )
