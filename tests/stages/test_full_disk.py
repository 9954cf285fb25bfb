"""`distinit distill` on a disk that is full when a checkpoint is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from helpers.sources import FRAMES, write_cache, write_frames

from distinit.schemas.distill import DistillConfig
from distinit.schemas.exit_codes import ExitCode
from distinit.stages.distill import distill
from distinit.stages.runs import list_runs

# Larger than a metrics file and a plot, smaller than the tensors of the student.
LIMIT_KIB = 600


def test_a_full_disk_is_one_message_and_the_same_command_gives_the_same_student(
    tmp_path: Path,
) -> None:
    """RLIMIT_FSIZE makes writes fail as on a full disk, and needs no privileges."""
    write_cache(tmp_path / "cache", ("alpha",))
    write_frames(tmp_path / "frames", FRAMES)
    run = tmp_path / "run"
    values: dict[str, Any] = {
        "cache": str(tmp_path / "cache"),
        "frames": str(tmp_path / "frames"),
        "out": str(run),
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 2, "crop": 16},
        "optimizer": {"clips_per_epoch": 8, "epochs": 2},
        "runtime": {"batch_size": 2, "device": "cpu", "checkpoint_steps": 2},
    }
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(values))  # JSON is YAML
    command = [sys.executable, "-m", "distinit.cli", "distill", "--config", str(file), "--quiet"]
    limited = ["bash", "-c", f'ulimit -f {LIMIT_KIB}; exec "$@"', "bash", *command]
    ended = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert ended.stdout == ""
    assert ended.returncode == ExitCode.FAILED
    assert ended.stderr.splitlines() == [
        f"error: cannot write {run}/checkpoints/step-000000002/model.safetensors",
        "  found:    File too large",
        "  to do:    the file size limit is reached (`ulimit -f`): raise it, then rerun the same "
        "command to resume",
    ]
    assert list((run / "checkpoints").iterdir()) == []
    (listed,) = list_runs(run).runs
    assert listed.checkpoint_step is None

    distill(DistillConfig.model_validate(values))
    distill(DistillConfig.model_validate(values | {"out": str(tmp_path / "whole")}))
    found, expected = (folder / "student.safetensors" for folder in (run, tmp_path / "whole"))
    assert found.read_bytes() == expected.read_bytes()
