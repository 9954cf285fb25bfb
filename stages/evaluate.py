"""Score a finetuned run again, perhaps by another protocol."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.evaluation.score import score_student
from distinit.pipeline.evaluation.store import scored_videos
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.storage import atomic_write_bytes
from distinit.pipeline.students.io import load_student
from distinit.schemas.base import Record
from distinit.schemas.errors import ConfigError
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.schemas.run import DatasetRecord, EvaluationResult, RunRecord
from distinit.stages.finetune import DATASET_NAME

__all__ = ["evaluate"]


def evaluate(config: EvaluateConfig, *, progress: Progress | None = None) -> EvaluationResult:
    """Score the student of a run on its test videos; writes ``result-PROTOCOL.json`` there.

    Needs the run's frame store (or flow store), not the videos. Raises ConfigError if ``run`` is
    no finished finetune run, CheckpointError, FrameStoreError, StorageError.
    """
    run = Path(config.run)
    record = _read(run / "run.json", RunRecord)
    if record.kind != "finetune":
        raise _no_run(run, f"a {record.kind} run")
    dataset = _read(run / DATASET_NAME, DatasetRecord)
    trained = FinetuneConfig.model_validate(record.config)
    student, student_record = load_student(run)
    # The run may have been moved since: its own store is looked for where it is now.
    named, own = (trained.frames, "frames")
    if student_record.student.in_channels == 2:
        named, own = (trained.flow, "flow")
    store = FrameStore.open(run / own if named is None else named)
    result = score_student(
        student,
        store,
        scored_videos(dataset, store),
        student_record.clip,
        config.evaluation.protocol,
        classes=len(dataset.classes),
        batch_size=config.batch_size,
        device=resolve_device(config.device),
        progress=progress or NullProgress(),
        loader_threads=trained.runtime.loader_workers,
    )
    path = run / f"result-{config.evaluation.protocol}.json"
    atomic_write_bytes(path, (result.model_dump_json(indent=2) + "\n").encode())
    return result


def _read[R: Record](path: Path, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise _no_run(path.parent, f"{path.name}: {str(error).splitlines()[0]}") from error


def _no_run(run: Path, found: str) -> ConfigError:
    return ConfigError(
        f"{run} is no finetune run",
        expected="the folder that `distinit finetune --out` wrote",
        found=found,
        remedy="finetune first, or correct --run",
    )
