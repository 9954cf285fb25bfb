"""The study of perceptual hashes, on footage that moves and footage that does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from helpers.videos import drifting_frames, encode_frames

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "match_study.py"


def test_copies_are_found_and_only_motion_shows_shifts(tmp_path: Path) -> None:
    moving = encode_frames(
        tmp_path / "moving.mp4", drifting_frames(40, 1, (192, 128), speed=2), rate=25
    )
    still = encode_frames(
        tmp_path / "still.mp4", drifting_frames(40, 2, (192, 128), speed=0), rate=25
    )
    command = [sys.executable, str(SCRIPT), str(moving), str(still), "--frames", "30", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(ended.stdout)
    assert found["clips"]["moving.mp4"] == {
        "crf 18": "re-encoded",
        "crf 23": "re-encoded",
        "crf 28": "re-encoded",
        "crf 35": "re-encoded",
        "half size": "re-encoded",
        "mpeg4 in avi": "re-encoded",
        "vp8 in webm": "re-encoded",
        "shifted by 1": "shifted",
        "6/5 of the fps": "other frame rate",
        "letterboxed": "missing",
        "mirrored": "missing",
    }
    verdicts = found["clips"]["still.mp4"]
    assert {verdicts[kind] for kind in ("crf 18", "crf 23", "shifted by 1")} == {"undecidable"}
    (row,) = (row for row in found["distances"] if row["bits"] == 4)
    assert (row["copies"], row["of_copies"]) == (14, 14)
    assert (row["mirrored"], row["other_videos"]) == (0, 0)
    (shifts,) = (row for row in found["shifts"] if row["z"] == 3)
    assert (shifts["same_wrong"], shifts["shifted_right"], shifts["shifted_wrong"]) == (0, 1, 0)
