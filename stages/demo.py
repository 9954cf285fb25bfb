"""Runs the whole method on data from installed packages, and shows its gain.

Real footage with EfficientNet-Lite0 shows extraction and the audit. Moving digits show the gain of
the method within minutes: see ``demo_digits``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
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
from distinit.schemas.wording import counted, one_line
from distinit.stages.audit import audit
from distinit.stages.demo_digits import (
    FILMS_PER_CLASS,
    INITS,
    LOW_SHOT,
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

    footage: str = Field(description="folder of the videos")
    picture: str | None = Field(None, description="path of the picture of the gain")
    cache: str | None = Field(None, description="folder of the target cache")
    frames: str | None = Field(None, description="folder of the frame store")
    report: str | None = Field(None, description="path of the audit report")
    teacher_accuracy: float | None = Field(
        None, description="accuracy of the digit teacher on held-out stills, percent"
    )
    student: str | None = Field(None, description="path of the distilled student")
    runs: dict[str, str] = Field(default_factory=dict, description="init -> run directory")
    results: dict[str, EvaluationResult] = Field(
        default_factory=dict, description="init -> test result"
    )
    gain: Gain | None = Field(None, description="gain with all training films")
    low_shot_gain: Gain | None = Field(None, description="gain with fewer training films per class")
    seconds: dict[str, float] = Field(default_factory=dict, description="stage -> wall seconds")

    def summary(self) -> str:
        """A table of the accuracy of both inits, the gain, the paths, and the next commands."""
        if self.gain is None or self.low_shot_gain is None:
            return f"footage  {one_line(self.footage)}"
        table = self._table(self.low_shot_gain, self.gain)
        return "\n".join([*table, "", *self._paths(), "", *self._next()])

    def _table(self, *gains: Gain) -> list[str]:
        """One column per gain, each with 95 % intervals."""
        any_result = next(iter(self.results.values()))
        headings = [counted(gain.films_per_class, "film") + " per class" for gain in gains]
        rows = {"training set": headings}
        for init in INITS:
            rows[init] = [
                _with_interval(f"{gain.top1[init]:.1f}", gain.interval[init], "") for gain in gains
            ]
        rows["(chance)"] = [f"{gain.chance:.1f}" for gain in gains]
        rows["gain of DistInit"] = [
            _with_interval(f"{gain.points:+.1f}", gain.points_interval, "+") for gain in gains
        ]
        return [
            f"Top-1 accuracy in percent on {gains[0].videos} test films of moving digits, "
            f"{any_result.classes} classes",
            "(digit and motion), with 95 % intervals:",
            "",
            *(
                "  " + "".join(f"{cell:<24}" for cell in [n, *cells]).rstrip()
                for n, cells in rows.items()
            ),
            "",
            f"  the teacher, on single frames of other digits: {self.teacher_accuracy:.1f} %",
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
        student = "r2plus1d_18" if torch.cuda.is_available() else "tiny_r2plus1d_10"
        return [
            "For your own videos:",
            "",
            "  distinit extract --videos VIDEOS --teacher efficientnet_lite0 --cache C --frames F",
            "  distinit audit C --frames F --out REPORT",
            f"  distinit distill --cache C --frames F --student {student} --out RUN",
            "  distinit finetune --dataset LABELLED --init distinit:RUN --out RESULT",
        ]


def _with_interval(value: str, interval: tuple[float, float], sign: str) -> str:
    low, high = interval
    return f"{value} ({low:{sign}.1f} .. {high:{sign}.1f})"


def _row(cells: Sequence[str]) -> str:
    return ("  " + "".join(f"{cell:<24}" for cell in cells)).rstrip()


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
    student = out / "distill"
    clock.timed("distill", lambda: distill_digits(data, student, progress))
    runs = {init: out / f"finetune_{init}" for init in INITS}
    low_shot_runs = {init: out / f"finetune_{init}_low_shot" for init in INITS}
    results = _finetune_digits(data, student, runs, FILMS_PER_CLASS, progress, clock)
    low_shot = _finetune_digits(data, student, low_shot_runs, LOW_SHOT, progress, clock)
    gain, low_shot_gain = gain_of(results, FILMS_PER_CLASS), gain_of(low_shot, LOW_SHOT)
    sheet = out / "audit" / f"{_TEACHER}-most-confident.png"
    draw_demo(out / "demo.png", (low_shot_gain, gain), sheet)
    return DemoResult(
        footage=str(out / "footage"),
        picture=str(out / "demo.png"),
        cache=str(out / "cache"),
        frames=str(out / "frames"),
        report=report,
        teacher_accuracy=accuracy,
        student=str(student / "student.safetensors"),
        runs={init: str(run) for init, run in runs.items()},
        results=results,
        gain=gain,
        low_shot_gain=low_shot_gain,
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


def _finetune_digits(
    data: DigitData,
    student: Path,
    runs: dict[str, Path],
    films_per_class: int,
    progress: Progress,
    clock: _Clock,
) -> dict[str, EvaluationResult]:
    """Finetune into ``runs`` (init -> run directory) and evaluate; returns results by init."""
    sources = {"scratch": "scratch", "distinit": f"distinit:{student}"}
    return {
        init: clock.timed(
            f"finetune {init} ({films_per_class} films)",
            partial(
                finetune_digits,
                data,
                sources[init],
                run,
                progress,
                films_per_class=films_per_class,
            ),
        )
        for init, run in runs.items()
    }
