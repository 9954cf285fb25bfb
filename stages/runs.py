"""Lists the training runs below a folder and the state of each of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field

from distinit.pipeline.records import read_json, read_record
from distinit.pipeline.training.checkpoint import newest_step
from distinit.pipeline.training.metrics import MetricLine
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.schemas.base import Record
from distinit.schemas.errors import ConfigError, DistInitError
from distinit.schemas.run import EvaluationResult, RunRecord, StudentRecord
from distinit.schemas.wording import one_line

__all__ = ["RunSummary", "RunTable", "list_runs"]

# Folders inside a run that are not searched for other runs.
_INSIDE = frozenset({"checkpoints", "tensorboard", "ray", "frames"})


_SHOWN = 60  # longest network name in the table, characters


class RunSummary(Record):
    """One run directory, one line of the table."""

    path: str
    kind: str = Field(description="distill or finetune; empty if the run cannot be read")
    student: str = Field(description="name of the network; - if it is not known yet")
    state: str = Field(
        description="finished, at step N (of the newest checkpoint, from which the same command "
        "resumes), not begun, or unreadable"
    )
    epochs: float = Field(description="epochs done at that step")
    epochs_total: int
    loss: float | None = Field(description="training loss of the last metric line")
    top1: float | None = Field(description="top-1 accuracy of a finished finetune run, percent")
    cache_digest: str | None = Field(
        description="content digest of the target cache that the student was distilled from"
    )


class RunTable(Record):
    """Every run below a folder, sorted by path."""

    folder: str
    runs: tuple[RunSummary, ...]

    def summary(self) -> str:
        """A table with one line per run."""
        if not self.runs:
            return f"no run directory below {one_line(self.folder)}"
        head = ("kind", "student", "state", "epochs", "loss/top-1", "cache", "path")
        rows = [head, *(_cells(run) for run in self.runs)]
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
    return RunSummary(
        path=_text(root),
        kind=record.kind,
        student=_network(record.config) if student is None else student.student.name,
        state=_state(run, line, kept),
        epochs=_epochs_done(run, line, kept),
        epochs_total=_epochs(record.config),
        loss=line.get("loss"),
        top1=None if result is None else result.top1,
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


def _state(run: RunDirectory, line: MetricLine, kept: int | None) -> str:
    """``kept``: step of the newest checkpoint. The metric lines of a running training are ahead."""
    if run.result.is_file():
        return "finished"
    return f"at step {kept or 0}" if line or kept else "not begun"


def _epochs_done(run: RunDirectory, line: MetricLine, kept: int | None) -> float:
    """Epochs of training up to step ``kept``; of a finished run, all of them."""
    epochs, step = line.get("epoch", 0.0), line.get("step", 0)
    if run.result.is_file() or step == 0:
        return epochs
    return epochs * (kept or 0) / step


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


def _cells(run: RunSummary) -> tuple[str, ...]:
    loss = "-" if run.loss is None else f"{run.loss:.4f}"
    return (
        one_line(run.kind or "-"),
        one_line(run.student)[:_SHOWN],
        one_line(run.state),
        f"{run.epochs:.3g}/{run.epochs_total}",
        loss if run.top1 is None else f"{run.top1:.1f} %",
        one_line(run.cache_digest or "-")[:12],
        one_line(run.path),
    )
