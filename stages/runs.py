"""Lists the training runs below a folder and the state of each of them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from pydantic import Field

from distinit.pipeline.lock import WriterLock
from distinit.pipeline.records import read_json, read_record
from distinit.pipeline.training.checkpoint import newest_step
from distinit.pipeline.training.curve import loss_names
from distinit.pipeline.training.metrics import MetricLine
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.schemas.base import Record
from distinit.schemas.errors import ConfigError, DistInitError
from distinit.schemas.run import EvaluationResult, RunRecord, StudentRecord
from distinit.schemas.wording import one_line

__all__ = ["COLUMNS", "RunSummary", "RunTable", "cells", "list_runs"]

# Folders inside a run that are not searched for other runs.
_INSIDE = frozenset({"checkpoints", "tensorboard", "ray", "frames"})


_SHOWN = 60  # longest name in the table, characters

COLUMNS = (
    "run", "state", "steps", "top-1", "per clip", "loss", "init", "student", "dataset", "split",
    "seed", "protocol", "kind", "epochs", "cache", "loss by head",
)  # fmt: skip
"""Heads of the columns, those that matter most first."""


class RunSummary(Record):
    """One run directory, one line of the table."""

    path: str = Field(description="run directory")
    kind: str = Field(description="distill or finetune; empty if the run cannot be read")
    student: str = Field(description="name of the network; - if it is not known yet")
    init: str | None = Field(None, description="what a finetune run starts from")
    dataset: str | None = Field(None, description="folder of the dataset of a finetune run")
    split: int | None = Field(None, description="official split of a finetune run, if it has one")
    protocol: str | None = Field(None, description="evaluation protocol of a finetune run")
    seed: int | None = Field(None, description="seed of the run; None if it cannot be read")
    state: str = Field(
        description="finished, running (its lock is held on this machine), resumable, not begun, "
        "or unreadable"
    )
    step: int = Field(
        0,
        description="optimiser steps done: of a resumable run up to its newest checkpoint, of a "
        "running one up to its last metric line",
    )
    steps_total: int | None = Field(None, description="optimiser steps in all; null: not known")
    checkpoint_step: int | None = Field(None, description="step of the newest checkpoint")
    epochs: float = Field(description="epochs done at that step")
    epochs_total: int = Field(description="epochs in all")
    loss: float | None = Field(description="training loss of the last metric line")
    head_losses: dict[str, float] = Field(
        default_factory=dict,
        description="of a distill run with several heads: head -> its training loss, not weighted",
    )
    top1: float | None = Field(description="top-1 accuracy of a finished finetune run, percent")
    per_clip: float | None = Field(None, description="accuracy of its single clips, percent")
    cache_digest: str | None = Field(
        description="content digest of the target cache that the student was distilled from"
    )


class RunTable(Record):
    """The runs below a folder."""

    folder: str = Field(description="folder that was searched")
    runs: tuple[RunSummary, ...] = Field(description="the runs below it")

    def only(self, kind: str | None) -> RunTable:
        """The runs of this kind; None: all of them."""
        kept = tuple(run for run in self.runs if kind in (None, run.kind))
        return self.model_copy(update={"runs": kept})

    def sorted_by(self, key: str) -> RunTable:
        """Ordered by ``path``, ``top-1`` (best first) or ``loss`` (lowest first)."""

        def rank(run: RunSummary) -> tuple[float, str]:
            value = {"top-1": run.top1, "loss": run.loss}.get(key, 0.0)
            signed = math.inf if value is None else value
            return (-signed if key == "top-1" and value is not None else signed), run.path

        return self.model_copy(update={"runs": tuple(sorted(self.runs, key=rank))})

    def summary(self) -> str:
        """A table with one line per run and all columns."""
        if not self.runs:
            return f"no run directory below {one_line(self.folder)}"
        rows = [COLUMNS, *(cells(run) for run in self.runs)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def list_runs(folder: Path) -> RunTable:
    """Find run directories in and below ``folder``. Raises ConfigError if it is not a folder."""
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is not a folder",
            expected="a folder with run directories",
            remedy="give the folder that contains the `--out` folders of your runs",
        )
    found = []
    for root, folders, files in os.walk(folder):
        folders.sort()
        if "run.json" in files:
            found.append(_summary_of(Path(root)))
            folders[:] = [name for name in folders if name not in _INSIDE]
    return RunTable(folder=str(folder), runs=tuple(sorted(found, key=lambda run: run.path)))


def _summary_of(root: Path) -> RunSummary:
    record = _read(root / "run.json", RunRecord)
    if record is None:
        return _unreadable(root)
    run = RunDirectory(root, record)
    try:
        line = run.last_metric() or {}
        kept = newest_step(run.checkpoints)
        result = run.read_result(EvaluationResult) if record.kind == "finetune" else None
        if record.kind == "distill" and run.result.is_file():
            read_json(run.result, error=ConfigError, remedy="")
    except (DistInitError, OSError):
        return _unreadable(root)
    student = _read(root / "student.json", StudentRecord)
    step, steps_total = _steps(run, line, kept)
    return RunSummary(
        path=_text(root),
        kind=record.kind,
        student=_network(record.config) if student is None else student.student.name,
        **_settings(record),
        state=_state(run, line, kept),
        step=step,
        steps_total=steps_total,
        checkpoint_step=kept,
        epochs=_epochs_done(line, step),
        epochs_total=_epochs(record.config),
        loss=line.get("loss"),
        head_losses=_head_losses(line),
        top1=None if result is None else result.top1,
        per_clip=None if result is None else result.per_clip,
        cache_digest=record.cache_digest if student is None else student.cache_digest,
    )


def _read[R: Record](path: Path, kind: type[R]) -> R | None:
    try:
        return read_record(path, kind, error=ConfigError, remedy="")
    except ConfigError:
        return None


# Configurations may come from other people or other versions: any field can be wrong or missing.


def _network(config: dict[str, Any]) -> str:
    """Name of the network; - if a finetune run takes its network from ``init``."""
    name = _part(config, "student").get("name", "-")
    return name if isinstance(name, str) else "-"


def _epochs(config: dict[str, Any]) -> int:
    epochs = _part(config, "optimizer").get("epochs", 0)
    return epochs if isinstance(epochs, int) else 0


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    part = config.get(name)
    return part if isinstance(part, dict) else {}


def _settings(record: RunRecord) -> dict[str, Any]:
    """The columns that come from the configuration; values of another type are left out."""
    seed = _part(record.config, "runtime").get("seed")
    found: dict[str, Any] = {"seed": seed if type(seed) is int else None}
    if record.kind == "distill":
        return found
    dataset = _part(record.config, "dataset")
    splits = dataset.get("splits")
    official = isinstance(splits, str) and not splits.lower().endswith(".csv")
    split = dataset.get("split") if official else None
    texts = {
        "init": record.config.get("init"),
        "dataset": dataset.get("root"),
        "protocol": _part(record.config, "evaluation").get("protocol"),
    }
    found |= {name: text for name, text in texts.items() if isinstance(text, str)}
    return found | {"split": split if type(split) is int else None}


def _state(run: RunDirectory, line: MetricLine, kept: int | None) -> str:
    if run.result.is_file():
        return "finished"
    if WriterLock(run.root / ".lock").holder() is not None:
        return "running"
    return "resumable" if line or kept else "not begun"


def _steps(run: RunDirectory, line: MetricLine, kept: int | None) -> tuple[int, int | None]:
    """(steps done, steps in all). ``kept``: step of the newest checkpoint.

    The metric lines of a training are ahead of its checkpoint; they count only while it runs, or
    when it is finished.
    """
    step = int(line.get("step", 0))
    clips, clips_total = line.get("clips", 0), line.get("clips_total", 0)
    total = round(clips_total * step / clips) if clips > 0 and step else None
    counts = _state(run, line, kept) in ("finished", "running")
    return (step if counts else kept or 0), total


def _epochs_done(line: MetricLine, step: int) -> float:
    """Epochs of training up to ``step``."""
    last = line.get("step", 0)
    return line.get("epoch", 0.0) * step / last if last else 0.0


def _text(path: Path) -> str:
    """The path as text, with bytes that are not UTF-8 escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _unreadable(root: Path) -> RunSummary:
    return RunSummary(
        path=_text(root),
        kind="",
        student="-",
        state="unreadable",
        epochs=0,
        epochs_total=0,
        loss=None,
        top1=None,
        cache_digest=None,
    )


def cells(run: RunSummary) -> tuple[str, ...]:
    """The texts of one line, in the order of COLUMNS; ``-`` for what does not apply."""
    accuracy = ["-" if value is None else f"{value:.1f}" for value in (run.top1, run.per_clip)]
    return (
        one_line(run.path),
        run.state,
        _progress(run),
        *accuracy,
        "-" if run.loss is None else f"{run.loss:.4f}",
        one_line(run.init or "-"),
        one_line(run.student)[:_SHOWN],
        one_line(Path(run.dataset).name if run.dataset else "-")[:_SHOWN],
        _number(run.split),
        _number(run.seed),
        one_line(run.protocol or "-")[:_SHOWN],
        run.kind or "-",
        f"{run.epochs:.3g}/{run.epochs_total}",
        one_line(run.cache_digest or "-")[:12],
        _by_head(run.head_losses),
    )


def _head_losses(line: MetricLine) -> dict[str, float]:
    """Head -> its loss; empty for a single head, whose loss is that of the run."""
    names = loss_names([line])[1:]
    return {name.removeprefix("loss/"): line[name] for name in names}


def _by_head(losses: dict[str, float]) -> str:
    text = ", ".join(f"{one_line(name)} {loss:.4f}" for name, loss in losses.items())
    return text[:_SHOWN] or "-"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _progress(run: RunSummary) -> str:
    """Steps done / in all; of a running training also the step of its checkpoint."""
    if run.state in ("not begun", "unreadable"):
        return "-"
    total = "?" if run.steps_total is None else f"{run.steps_total:,}"
    saved = f" (saved {run.checkpoint_step or 0:,})" if run.state == "running" else ""
    return f"{run.step:,}/{total}{saved}"
