"""A short distillation on a CPU, for tests that stop it and let it resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distinit.schemas.distill import DistillConfig
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract

__all__ = ["extract_null", "short_distill"]


def extract_null(corpus: Path, root: Path) -> Path:
    """Extract ``corpus`` with the null teacher to ``root``/cache and ``root``/frames."""
    values = {
        "videos": str(corpus),
        "teachers": [{"name": "null"}],
        "cache": str(root / "cache"),
        "frames": str(root / "frames"),
    }
    extract(ExtractConfig.model_validate(values))
    return root


def short_distill(extracted: Path, out: Path, steps: int, **runtime: Any) -> DistillConfig:
    """A distillation of ``steps`` steps in two epochs from what ``extract_null`` wrote."""
    values = {
        "cache": str(extracted / "cache"),
        "frames": str(extracted / "frames"),
        "out": str(out),
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 32},
        "optimizer": {"clips_per_epoch": 2 * steps, "epochs": 2},
        "runtime": {"batch_size": 2, "shards": 2, "device": "cpu", "log_seconds": 0} | runtime,
    }
    return DistillConfig.model_validate(values)
