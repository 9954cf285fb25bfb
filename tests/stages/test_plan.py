"""``plan`` on tiny real videos: its counts are those of an extraction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distinit.schemas.errors import CorpusError
from distinit.schemas.plan import PlanConfig
from distinit.stages.plan import PlanResult, TotalRecord, plan

GOOD_FRAMES = 256  # of the shared corpus; see conftest.py


def run(videos: Path, **changes: Any) -> PlanResult:
    values = {"videos": str(videos), "seconds": 0.2, "workers": [1, 4], "device": "cpu"}
    return plan(PlanConfig.model_validate(values | changes))


def test_a_sample_of_all_videos_gives_exact_counts_and_writes_nothing(corpus: Path) -> None:
    before = sorted(corpus.rglob("*"))
    result = run(corpus, teachers=[{"name": "null"}], sample=50)
    assert (result.videos, result.sampled) == (7, 7)
    assert result.unreadable >= 1
    # The header of the truncated video may announce frames that do not exist.
    assert GOOD_FRAMES <= result.frames.expected <= GOOD_FRAMES + 41, result
    assert result.frames.low == result.frames.high == result.frames.expected
    assert result.rows == result.frames
    classes = result.logit_bytes["float16"] // 2 // result.rows.expected
    assert result.logit_bytes["float16"] == result.rows.expected * classes * 2
    assert result.logit_bytes["int8"] == result.rows.expected * (classes + 8)
    assert result.outputs == {"null": classes}
    assert f"heads        outputs of a student: null {classes:,}" in result.summary().splitlines()
    assert result.frame_store_bytes > 1000 * GOOD_FRAMES
    assert result.decoded_frames_per_second > 0
    assert result.teacher_rows_per_second["null"] > 0
    seconds = result.frames.expected / result.decoded_frames_per_second
    seconds += result.rows.expected / result.teacher_rows_per_second["null"]
    assert result.hours[1] == pytest.approx(seconds / 3600, rel=0.01)
    assert result.hours[4] == pytest.approx(result.hours[1] / 4)
    assert sorted(corpus.rglob("*")) == before


def test_the_sample_is_the_same_in_each_run_and_rows_follow_the_sampling(corpus: Path) -> None:
    names = [f"{name}\n" for name in ("a.mp4", "b/c.mp4", "b/d [1].mp4", "e.mp4", "long.mp4")]
    listed = corpus.parent / "plan.txt"
    listed.write_text("".join(f"{corpus}/{name}" for name in names))
    sampling = {"mode": "per_video", "per_video": 4}
    results = [run(listed, sample=3, sampling=sampling) for _ in range(2)]
    assert results[0].frames == results[1].frames
    assert results[0].frames.low < results[0].frames.expected < results[0].frames.high
    assert results[0].rows == TotalRecord(expected=20, low=20, high=20)
    assert results[0].teacher_rows_per_second == {}
    assert results[0].logit_bytes["float16"] == 20 * 2000
    assert "targets as   float16 40 kB" in results[0].summary()
    assert "heads" not in results[0].summary()


def test_a_corpus_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(CorpusError, match="none of the sampled videos can be decoded"):
        run(tmp_path)
