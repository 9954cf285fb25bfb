"""Score a finetuned run again, perhaps by another protocol."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.datasets.scored import scored_videos
from distinit.pipeline.evaluation.score import LABELS_HEAD, score_student
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.records import read_record, write_record
from distinit.pipeline.storage import refuse_links, remove_dead_partials
from distinit.pipeline.students.heads import Student
from distinit.pipeline.students.io import load_student
from distinit.pipeline.students.registry import check_clip
from distinit.schemas.base import Record
from distinit.schemas.errors import ConfigError
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.schemas.run import DatasetRecord, EvaluationResult, RunRecord, StudentRecord
from distinit.stages.finetune import DATASET_NAME

__all__ = ["evaluate"]


def evaluate(config: EvaluateConfig, *, progress: Progress | None = None) -> EvaluationResult:
    """Score the student of a run on its test videos; writes ``result-PROTOCOL.json`` there.

    Needs the run's frame store (or flow store), not the videos. The run may come from others: of
    what its files name, no plugin is run, and no folder is opened that lies elsewhere, unless
    ``config`` names it too.

    Raises ConfigError if ``run`` is no finetune run or names such things, CheckpointError,
    FrameStoreError, StorageError.
    """
    run = Path(config.run)
    record = _read(run / "run.json", RunRecord)
    if record.kind != "finetune":
        raise _no_run(run, f"a {record.kind} run")
    dataset = _read(run / DATASET_NAME, DatasetRecord)
    trained = _trained(run, record)
    student, student_record = load_student(run, config.student)
    check_clip(student_record.student, student_record.clip)
    _refuse_other_classes(run, student_record, dataset)
    _refuse_other_records(run, record, trained, student_record, dataset)
    refuse_links(run)
    remove_dead_partials(run)
    store = FrameStore.open(_store_of(config, trained, student_record))
    result = _score(config, student, student_record, dataset, store, trained, progress)
    write_record(result, run / f"result-{config.evaluation.protocol}.json")
    return result


def _score(
    config: EvaluateConfig,
    student: Student,
    record: StudentRecord,
    dataset: DatasetRecord,
    store: FrameStore,
    trained: FinetuneConfig,
    progress: Progress | None,
) -> EvaluationResult:
    return score_student(
        student,
        store,
        scored_videos(dataset, store),
        record.clip,
        config.evaluation.protocol,
        classes=len(dataset.classes),
        batch_size=config.batch_size,
        device=resolve_device(config.device),
        progress=progress or NullProgress(),
        loader_threads=min(trained.runtime.loader_workers, os.cpu_count() or 1),
    )


def _trained(run: Path, record: RunRecord) -> FinetuneConfig:
    try:
        return FinetuneConfig.model_validate(record.config)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise _no_run(run, f"run.json: config.{place}: {first['msg']}") from error


def _store_of(config: EvaluateConfig, trained: FinetuneConfig, record: StudentRecord) -> Path:
    """The store that the user names; else the run's own, if it lies in the run or beside it.

    The run may have been moved since: a store within it is looked for where it is now.
    """
    if config.frames is not None:
        return Path(config.frames)
    is_flow = record.student.in_channels == 2
    named, own = (trained.flow, "flow") if is_flow else (trained.frames, "frames")
    run = Path(config.run)
    if named is None:
        return run / own
    root, store = run.resolve(), Path(named).resolve()
    if root not in store.parents and store.parent != root.parent:
        raise ConfigError(
            f"{run} was trained with frames that lie elsewhere: they are opened if you name them",
            expected="--frames DIR, or a frame store within the run or beside it",
            found=f"{named} in run.json",
            remedy="add --frames with that folder, if it is the one you mean",
        )
    return store


def _refuse_other_classes(run: Path, record: StudentRecord, dataset: DatasetRecord) -> None:
    outputs = {head.name: head.outputs for head in record.heads}
    if outputs.get(LABELS_HEAD) != len(dataset.classes):
        raise _no_run(run, f"{len(dataset.classes)} classes in {DATASET_NAME}, heads {outputs}")


def _refuse_other_records(
    run: Path,
    record: RunRecord,
    trained: FinetuneConfig,
    student: StudentRecord,
    dataset: DatasetRecord,
) -> None:
    """A flipped bit in a label, a digest or a mean would give other figures without a word."""
    wrong = DATASET_NAME if record.inputs.get("dataset") != dataset.content_digest() else ""
    wrong = "the clip of student.json" if student.clip != trained.clip else wrong
    if wrong:
        raise ConfigError(
            f"the records of {run} disagree",
            expected="those that `distinit finetune` wrote",
            found=f"{wrong} is not that of run.json",
            remedy="copy the run again",
        )


def _read[R: Record](path: Path, kind: type[R]) -> R:
    return read_record(
        path,
        kind,
        error=ConfigError,
        remedy="finetune first, or correct --run",
        missing=f"{path.parent} is no finetune run",
    )


def _no_run(run: Path, found: str) -> ConfigError:
    return ConfigError(
        f"{run} is no finetune run",
        expected="the folder that `distinit finetune --out` wrote",
        found=found,
        remedy="finetune first, or correct --run",
    )
