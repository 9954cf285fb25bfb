"""Runs all stages on footage that installed packages ship: extract, audit, distill, finetune."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path

from pydantic import Field

from distinit.pipeline.config import build_config
from distinit.pipeline.demo.footage import DemoFootage, make_corpus
from distinit.pipeline.progress import Progress
from distinit.pipeline.reports.demo_picture import draw_demo
from distinit.schemas.audit import AuditConfig
from distinit.schemas.base import Record
from distinit.schemas.distill import DistillConfig
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.run import EvaluationResult
from distinit.schemas.wording import one_line
from distinit.stages.audit import audit
from distinit.stages.distill import distill
from distinit.stages.extract import extract
from distinit.stages.finetune import finetune

__all__ = ["DemoResult", "demo"]

_TEACHER = "efficientnet_lite0"
_INITS = ("scratch", "distinit")


class DemoResult(Record):
    """The paths of everything that the demo wrote, and the metrics of both inits."""

    footage: str
    picture: str | None = None
    cache: str | None = None
    frames: str | None = None
    report: str | None = None
    student: str | None = None
    runs: dict[str, str] = Field(default_factory=dict, description="init -> run directory")
    results: dict[str, EvaluationResult] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict, description="stage -> wall seconds")

    def summary(self) -> str:
        """A table of the metrics of both inits, the paths, and the next commands."""
        if not self.results:
            return f"footage  {one_line(self.footage)}"
        return "\n".join([*self._table(), "", *self._paths(), "", *self._next()])

    def _table(self) -> list[str]:
        first = next(iter(self.results.values()))
        lines = [
            f"Accuracy in percent, {first.videos} test videos of {first.classes} motions, "
            f"{first.protocol}:",
            "",
            f"  {'init':<10} {'per clip':>9} {'top-1':>7} {'top-5':>7}",
        ]
        for init, result in self.results.items():
            metrics = f"{result.per_clip:>9.1f} {result.top1:>7.1f} {result.top5:>7.1f}"
            lines.append(f"  {init:<10} {metrics}")
        chance = 100 / first.classes
        return [*lines, f"  {'(chance)':<10} {chance:>9.1f} {chance:>7.1f}"]

    def _paths(self) -> list[str]:
        paths = {
            "picture": self.picture,
            "report": self.report,
            "cache": self.cache,
            "frame store": self.frames,
            "student": self.student,
            **{f"finetuned ({init})": run for init, run in self.runs.items()},
        }
        lines = [f"  {name:<22} {one_line(path)}" for name, path in paths.items()]
        total = sum(self.seconds.values())
        parts = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in self.seconds.items())
        return [*lines, "", f"  {total:.0f} s in total: {parts}"]

    @staticmethod
    def _next() -> list[str]:
        return [
            "For your own videos:",
            "",
            "  distinit extract --videos VIDEOS --teacher efficientnet_lite0 --cache C --frames F",
            "  distinit audit C --frames F --out REPORT",
            "  distinit distill --cache C --frames F --student r2plus1d_18 --out RUN",
            "  distinit finetune --dataset LABELLED --init distinit:RUN --out RESULT",
        ]


class _Clock:
    """Measures the wall time of each stage, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed[T](self, stage: str, call: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return call()
        finally:
            self.seconds[stage] = round(time.monotonic() - began, 1)


def demo(out: Path, *, only: str | None, workers: int, progress: Progress) -> DemoResult:
    """Run the demo in ``out``; finished stages are not repeated.

    ``only="footage"`` stops after writing the videos. Raises the errors of the stages, all of them
    subclasses of DistInitError.
    """
    clock = _Clock()
    footage = clock.timed("footage", lambda: make_corpus(out / "footage", progress=progress))
    if only == "footage":
        return DemoResult(footage=str(out / "footage"), seconds=clock.seconds)
    cache, frames = out / "cache", out / "frames"
    clock.timed("extract", lambda: _extract(footage, cache, frames, workers, progress))
    report = clock.timed(
        "audit",
        lambda: audit(
            AuditConfig(cache=str(cache), frames=str(frames), out=str(out / "audit")),
            progress=progress,
        ),
    )
    student = out / "distill"
    clock.timed("distill", lambda: _distill(cache, frames, student, progress))
    results = {}
    for init in _INITS:
        source = init if init == "scratch" else f"distinit:{student}"
        results[init] = clock.timed(
            f"finetune {init}",
            partial(_finetune, footage, source, out / f"finetune_{init}", out, progress),
        )
    audit_dir = out / "audit"
    draw_demo(
        out / "demo.png",
        audit_dir / f"{_TEACHER}-entropy.png",
        audit_dir / f"{_TEACHER}-most-confident.png",
        results,
    )
    return DemoResult(
        footage=str(out / "footage"),
        picture=str(out / "demo.png"),
        cache=str(cache),
        frames=str(frames),
        report=report.report,
        student=str(student / "student.safetensors"),
        runs={init: str(out / f"finetune_{init}") for init in _INITS},
        results=results,
        seconds=clock.seconds,
    )


def _extract(
    footage: DemoFootage, cache: Path, frames: Path, workers: int, progress: Progress
) -> None:
    values = {
        "videos": str(footage.corpus),
        "teachers": [{"name": _TEACHER}],
        "cache": str(cache),
        "frames": str(frames),
        "compute.workers": workers,
    }
    extract(build_config(ExtractConfig, None, [], values), progress=progress)


def _distill(cache: Path, frames: Path, out: Path, progress: Progress) -> None:
    values = {"cache": str(cache), "frames": str(frames), "out": str(out)}
    with as_file(files("distinit.configs") / "demo_distill.yaml") as file:
        distill(build_config(DistillConfig, file, [], values), progress=progress)


def _finetune(
    footage: DemoFootage, init: str, out: Path, root: Path, progress: Progress
) -> EvaluationResult:
    values = {
        "dataset.root": str(footage.motion),
        "init": init,
        "out": str(out),
        "frames": str(root / "motion_frames"),
    }
    with as_file(files("distinit.configs") / "demo_finetune.yaml") as file:
        result = finetune(build_config(FinetuneConfig, file, [], values), progress=progress)
    return result.evaluation
