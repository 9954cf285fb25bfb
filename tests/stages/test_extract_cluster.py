"""Several Ray nodes with accidents in mid-run: the digest equals that of an undisturbed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract

BROKEN = {"empty.mp4", "torn.mp4"}
SCRIPT = Path(__file__).with_name("cluster_accidents.py")


@pytest.fixture(scope="module")
def quiet(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    values = {"videos": str(corpus), "teachers": [{"name": "null"}], "unit_rows": 64}
    cache = str(tmp_path_factory.mktemp("quiet") / "cache")
    return extract(ExtractConfig.model_validate({**values, "cache": cache})).content_digest


@pytest.fixture(scope="module")
def reports(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory, ffmpeg_exe: str
) -> dict[str, dict[str, Any]]:
    """Accident -> the report of the script on it."""
    out = tmp_path_factory.mktemp("cluster")
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(corpus), str(out), ffmpeg_exe],
        env=os.environ | {"RAY_health_check_failure_threshold": "2", "RAY_worker_niceness": "0"},
        cwd=out,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return {line["accident"]: line for line in lines}


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_worker_killed_and_a_node_removed_in_mid_run_change_nothing(
    reports: dict[str, dict[str, Any]], quiet: str
) -> None:
    lossy = reports["worker killed, node removed"]
    assert lossy["accidents_left"] == 0
    assert lossy["failed"].keys() == BROKEN, lossy["failed"]
    assert lossy["digest"] == quiet


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_video_that_kills_its_worker_twice_is_quarantined_and_can_be_retried(
    reports: dict[str, dict[str, Any]],
) -> None:
    deadly = reports["deadly video"]
    assert deadly["failed"].keys() == {*BROKEN, "e.mp4"}
    assert deadly["failed"]["e.mp4"].startswith("quarantined: its worker died 2 times (")
    assert "usually because it ran out of memory" in deadly["summary"]
    assert reports["deadly video retried"]["failed"].keys() == BROKEN


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_of_videos_that_share_an_ffmpeg_only_the_deadly_one_is_quarantined(
    reports: dict[str, dict[str, Any]],
) -> None:
    together = reports["deadly video that shares an ffmpeg"]
    assert together["failed"].keys() == {*BROKEN, "e.mp4"}
    assert together["failed"]["e.mp4"].startswith("quarantined: its worker died 2 times (")
