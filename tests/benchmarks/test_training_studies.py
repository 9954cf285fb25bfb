"""The studies of flow and of skipped clips: exact counts, and bounds on errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import flow_study
import pytest
import skip_filter
from click.testing import CliRunner
from helpers.videos import make_video

from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract


@pytest.fixture
def extracted(tmp_path: Path) -> Path:
    """Cache and frame store of two short videos."""
    for seed in (0, 1):
        make_video(tmp_path / "videos" / f"{seed}.mp4", frames=10, seed=seed)
    values = {
        "videos": str(tmp_path / "videos"),
        "teachers": [{"name": "null"}],
        "cache": str(tmp_path / "cache"),
        "frames": str(tmp_path / "frames"),
    }
    extract(ExtractConfig.model_validate(values))
    return tmp_path


def json_of(command: click.Command, *arguments: str) -> Any:
    """What the benchmark prints with --json."""
    result = CliRunner().invoke(command, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_skipping_half_of_the_clips_halves_the_steps(extracted: Path) -> None:
    folders = ("--cache", str(extracted / "cache"), "--frames", str(extracted / "frames"))
    found = json_of(skip_filter.main, *folders, "--clips", "64")
    assert (found["no filter"]["steps"], found["no filter"]["clips"]) == (8, 64)
    assert found["weights"]["clips"] == 64
    assert 16 <= found["skipped"]["clips"] <= 48
    assert found["skipped"]["steps"] * 8 == found["skipped"]["clips"]


def test_judging_made_up_clips_keeps_the_share_of_the_filter() -> None:
    found = json_of(skip_filter.main, "--judge", "20000", "--keep", "0.25")
    assert found["clips"] == 20000
    assert 4000 < found["kept"] < 6000
    refused = CliRunner().invoke(skip_filter.main, ["--cache", "cache"])
    assert refused.exit_code == 2


def test_the_flow_study_measures_smaller_errors_for_larger_files(extracted: Path) -> None:
    found = json_of(flow_study.main, "--frames", str(extracted / "frames"))
    assert found["frames"] == 18
    by_way = {(line["range"], line["storage"]): line for line in found["ways"]}
    for flow_range in (10, 20):
        lossless = by_way[flow_range, "PNG"]
        step = flow_range / 127
        assert lossless["largest"] <= step / 2 * 1.001
        assert lossless["error"] == by_way[flow_range, "WEBP"]["error"]
        sizes = [by_way[flow_range, f"JPEG {q}"]["bytes"] for q in (85, 90, 95, 98)]
        errors = [by_way[flow_range, f"JPEG {q}"]["error"] for q in (85, 90, 95, 98)]
        assert sizes == sorted(sizes)
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] > lossless["error"]
