"""Reads finished finetune runs, which may come from someone else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.records import read_record
from distinit.schemas.base import Record
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.errors import ConfigError
from distinit.schemas.run import EvaluationResult, RunRecord
from distinit.schemas.wording import counted
from distinit.stages.finetune import DATASET_NAME

__all__ = ["FinishedRun", "read_finished_run", "refuse_other_tests"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finetune run with its result."""

    root: Path
    record: RunRecord
    dataset: DatasetRecord
    result: EvaluationResult
    confusion_CC: Ints
    """Number of test videos [true class][predicted class], without undecodable ones."""
    videos_C: Ints
    """Test videos per class, including undecodable ones, which count as wrong."""

    @property
    def correct(self) -> int:
        """Test videos whose class is predicted correctly."""
        return int(self.confusion_CC.trace())


def read_finished_run(root: Path) -> FinishedRun:
    """Read the records of a finetune run and check that they belong together.

    Raises ConfigError if ``root`` is not a finished finetune run, or if its records contradict
    each other.
    """
    record = _read(root, "run.json", RunRecord, "not a finetune run")
    if record.kind != "finetune":
        raise _unusable(root, "a finished finetune run", f"a {record.kind} run")
    result = _read(root, "result.json", EvaluationResult, "not a finished run")
    dataset = _read(root, DATASET_NAME, DatasetRecord, "not a finetune run")
    if record.inputs.get("dataset") != dataset.content_digest():
        raise _unusable(root, "the records of one run", f"{DATASET_NAME} of another dataset")
    classes = len(dataset.classes)
    labels = [video.label for video in dataset.subset(dataset.final_subset)]
    if not labels:
        raise _unusable(root, "a run with test videos", f"none in {DATASET_NAME}")
    videos_C = np.bincount(np.array(labels, np.int64), minlength=classes)
    confusion_CC = _confusion(result, videos_C)
    if confusion_CC is None or result.videos != len(labels):
        found = f"a confusion matrix that does not fit {counted(len(labels), 'test video')}"
        raise _unusable(root, f"counts for {classes} classes", found)
    return FinishedRun(root, record, dataset, result, confusion_CC, videos_C)


def refuse_other_tests(base: FinishedRun, others: Sequence[FinishedRun]) -> None:
    """Raise ConfigError unless all runs were scored on the same videos with the same protocol."""
    for run in others:
        if _tests(run) != _tests(base):
            found = f"other test videos or classes in {run.root}"
        elif run.result.protocol != base.result.protocol:
            found = f"{run.result.protocol} in {run.root}"
        else:
            continue
        raise ConfigError(
            "these runs cannot be compared",
            expected=f"the test videos and protocol of {base.root} ({base.result.protocol})",
            found=found,
            remedy="compare runs that were finetuned on the same dataset and split",
        )


def _tests(run: FinishedRun) -> tuple[object, ...]:
    videos = sorted(
        (video.digest, video.label) for video in run.dataset.subset(run.dataset.final_subset)
    )
    return run.dataset.classes, tuple(videos)


def _confusion(result: EvaluationResult, videos_C: Ints) -> Ints | None:
    """The matrix of ``result``, or None if it does not fit ``videos_C``, the videos per class."""
    rows = result.confusion
    if len(rows) != len(videos_C) or any(len(row) != len(rows) for row in rows):
        return None
    for row, videos in zip(rows, videos_C.tolist(), strict=True):
        # Sums of Python integers: sums of int64 could overflow and seem to fit.
        if min(row) < 0 or sum(row) > videos:
            return None
    return np.array(rows, np.int64)


def _read[R: Record](root: Path, name: str, kind: type[R], missing: str) -> R:
    return read_record(
        root / name,
        kind,
        error=ConfigError,
        remedy="give the --out folder of a finished `distinit finetune`",
        missing=f"{root} is {missing}",
    )


def _unusable(root: Path, expected: str, found: str) -> ConfigError:
    return ConfigError(
        f"{root} cannot be shown",
        expected=expected,
        found=found,
        remedy="give the --out folder of a finished `distinit finetune`",
    )
