"""Videos that are whole although the decoder complained: in the cache, and named in the summary."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from distinit.pipeline.extraction.failures import damage_lines
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract


def test_concealed_damage_is_told(make_video: Callable[..., Path], tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    make_video(videos / "good.mp4", frames=12)
    args = ("-c:v", "mpeg4", "-g", "10")
    bad = make_video(videos / "bad.avi", frames=30, size=(160, 120), args=args)
    data = bytearray(bad.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 16] = random.Random(0).randbytes(16)
    bad.write_bytes(data)
    values = {"videos": str(videos), "teachers": [{"name": "null"}]}
    config = ExtractConfig.model_validate({**values, "cache": str(tmp_path / "cache")})
    result = extract(config)
    assert (result.videos, result.frames, result.failed) == (2, 42, ())
    assert result.decoder_errors.keys() == {"bad.avi"}
    count = result.decoder_errors["bad.avi"]
    assert count >= 1
    assert f"\n  bad.avi: {count} decoder error" in result.summary()
    again = extract(config)  # nothing is decoded again: the cache remembers
    assert (again.frames_done, again.decoder_errors) == (0, result.decoder_errors)


def test_the_worst_come_first_and_many_are_counted() -> None:
    assert damage_lines({}) == []
    assert damage_lines({"a": 1, "b": 7, "c": 1, "d": 2, "e": 1}) == [
        "5 videos with all frames, some of them damaged where the decoder conceals it:",
        "  b: 7 decoder errors",
        "  d: 2 decoder errors",
        "  a: 1 decoder error",
        "  ... 2 more; --json lists all",
    ]
