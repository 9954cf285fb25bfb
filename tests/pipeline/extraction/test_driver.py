"""What the driver shows while tasks run."""

from __future__ import annotations

import io
import json
from pathlib import Path

from distinit.pipeline.progress import JsonProgress
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract


def test_json_events_count_units_videos_frames_and_failures(make_video, tmp_path: Path) -> None:
    for seed, frames in enumerate((70, 30, 50)):
        make_video(tmp_path / "videos" / f"{seed}.mp4", frames=frames, seed=seed)
    (tmp_path / "videos" / "empty.mp4").touch()
    lines = io.StringIO()
    config = ExtractConfig.model_validate(
        {
            "videos": str(tmp_path / "videos"),
            "teachers": [{"name": "null"}],
            "cache": str(tmp_path / "cache"),
            "unit_rows": 64,
        }
    )
    extract(config, progress=JsonProgress(lines, every_seconds=0))
    events = [json.loads(line) for line in lines.getvalue().splitlines()]
    shown = [event for event in events if event.get("phase") == "extract"]
    last = shown[-1]
    assert last["event"] == "finish"
    assert (last["done"], last["total"], last["unit"]) == (150, 150, "frames")
    assert (last["videos"], last["failed"]) == (4, 1)
    done, total = map(int, last["units"].split("/"))
    assert done == total >= 3
    counts = [int(event["units"].split("/")[0]) for event in shown if "units" in event]
    assert counts == sorted(counts)
    assert counts[0] < total
    under_way = [event for event in shown if 0 < event["done"] < 150]
    assert all(event["per_second"] > 0 and event["eta_seconds"] >= 0 for event in under_way)
    assert under_way
    messages = [event["text"] for event in events if event["event"] == "message"]
    assert "failed: empty.mp4: the file is empty (0 bytes)" in messages
