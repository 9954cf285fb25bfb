"""Scales and expanded tables for tests of reproductions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distinit.pipeline.reproduction.configurations import load_scale, load_tables
from distinit.pipeline.reproduction.expand import Choice, Reproduction, expand
from distinit.pipeline.reproduction.layout import Layout
from distinit.schemas.reproduce import Cell, ScaleConfig, TableConfig
from distinit.schemas.run import EvaluationResult

__all__ = ["evaluation", "expanded", "scale_with", "table_of"]

LAYOUT = Layout(Path("data"), Path("out"))


def scale_with(name: str = "smoke", **changes: Any) -> ScaleConfig:
    """A ready scale with other values of some keys."""
    return ScaleConfig.model_validate({**load_scale(name).model_dump(), **changes})


def table_of(*cells: Mapping[str, Any]) -> TableConfig:
    """A table of these cells; each is an R(2+1)D-18 from scratch unless it says otherwise."""
    base = {"student": "r2plus1d_18", "init": "scratch"}
    rows = [Cell.model_validate({"label": f"row {n}", **base, **c}) for n, c in enumerate(cells)]
    return TableConfig(name="table9", title="A table", cells=tuple(rows))


def expanded(
    *cells: Mapping[str, Any],
    scale: ScaleConfig | None = None,
    choice: Choice | None = None,
    tables: Sequence[TableConfig] | None = None,
    layout: Layout = LAYOUT,
) -> Reproduction:
    """The steps of one table of ``cells``, or of ``tables``."""
    chosen = tables if tables is not None else (table_of(*cells) if cells else load_tables("all"))
    listed = chosen if isinstance(chosen, Sequence) else (chosen,)
    return expand(listed, scale or load_scale("smoke"), layout, choice or Choice(), listed=True)


def evaluation(top1: float, videos: int = 100, **changes: Any) -> EvaluationResult:
    """A result of ten classes."""
    values: dict[str, Any] = {
        "protocol": "vmz-10",
        "videos": videos,
        "clips": 10 * videos,
        "per_clip": top1 - 1,
        "top1": top1,
        "top5": min(100.0, top1 + 10),
        "classes": 10,
        "confusion": (),
        "failed_videos": (),
    }
    return EvaluationResult.model_validate({**values, **changes})
