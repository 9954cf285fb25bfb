"""Scores a finetuned run again, with the same protocol or another one."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from distinit.pipeline.datasets.scored import scored_videos
from distinit.pipeline.evaluation.score import LABELS_HEAD, score_student
from distinit.pipeline.evaluation.scorer import Scoring
from distinit.pipeline.evaluation.scores_file import scores_name, scores_record
from distinit.pipeline.evaluation.scores_reader import evaluate_scores
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.records import read_record, write_record
from distinit.pipeline.storage import refuse_links, remove_dead_partials, sha256_file
from distinit.pipeline.students.heads import Student
from distinit.pipeline.students.io import RECORD_NAME, TENSORS_NAME, read_student
from distinit.pipeline.students.registry import check_clip
from distinit.schemas.base import Record
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.errors import ConfigError
from distinit.schemas.evaluation import ScoredSubset, result_name
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.schemas.run import EvaluationResult, RunRecord, StudentRecord
from distinit.stages.evaluated_frames import check_dataset, evaluated_store
from distinit.stages.finetune import DATASET_NAME

__all__ = ["evaluate"]


def evaluate(config: EvaluateConfig, *, progress: Progress | None = None) -> EvaluationResult:
    """Score the student of a run on its test or val videos, or average stored scores again.

    Writes ``RUN/scores-PROTOCOL.parquet`` (the logits of every clip) and
    ``RUN/result-PROTOCOL.json``, with ``-AVERAGE`` in its name unless that is softmax, and with
    ``val-PROTOCOL`` for ``config.subset`` val. With
    ``from_scores`` the scores are read instead, and neither the network nor frames are needed.
    Otherwise it needs the run's frame store (or flow store), or builds it from the videos of
    ``config.dataset``, which must have the test videos of the run.

    The run may have been received from someone else, so a plugin or a folder elsewhere that only
    its files name is never used: ``config`` must name it as well.

    Raises ConfigError if ``run`` is not a finetune run, names a plugin or folder that ``config``
    does not, or lacks the scores, or if ``dataset`` differs from the run's; DatasetError,
    CheckpointError, CorpusError, FrameStoreError, LockedError, StorageError, ComputeError.
    """
    run = Path(config.run)
    record = _read(run / "run.json", RunRecord)
    if record.kind != "finetune":
        raise _not_a_run(run, f"a {record.kind} run")
    dataset = _read(run / DATASET_NAME, DatasetRecord)
    run_config = _config_of(run, record)
    student = None
    if config.from_scores:
        student_record = _read(run / RECORD_NAME, StudentRecord)
    else:
        student, student_record = read_student(run, config.student)
        check_clip(student_record.student, student_record.clip)
    _refuse_other_classes(run, student_record, dataset)
    _refuse_other_records(run, record, run_config, student_record, dataset)
    refuse_links(run)
    check_dataset(config, run_config, dataset)
    remove_dead_partials(run)
    subset = _subset(config, dataset)
    scoring = _scoring(config, student_record, run_config)
    if student is None:
        result = _from_scores(config, scoring, student_record, dataset, subset)
    else:
        progress = progress or NullProgress()
        store = evaluated_store(config, record, run_config, student_record, dataset, progress)
        result = _score(config, student, scoring, student_record, dataset, subset, store, progress)
        path = run / scores_name(scoring.protocol, subset)
        progress.message(f"the scores of the clips are in {path}")
    result = result.model_copy(update={"subset": subset})
    write_record(result, run / result_name(scoring.protocol, config.evaluation.average, subset))
    return result


def _subset(config: EvaluateConfig, dataset: DatasetRecord) -> ScoredSubset:
    """The videos to score. Raises ConfigError if the dataset has none of them."""
    subset = config.subset or dataset.final_subset
    if not dataset.subset(subset):
        raise ConfigError(
            f"the dataset of {config.run} has no {subset} videos",
            expected="--subset val or test, whichever the dataset has",
            found=f"--subset {subset}",
            remedy="leave --subset out",
        )
    return subset


def _scoring(config: EvaluateConfig, record: StudentRecord, run_config: FinetuneConfig) -> Scoring:
    return Scoring(
        record.clip,
        config.evaluation.protocol,
        config.batch_size,
        config.evaluation.precision,
        min(run_config.runtime.loader_workers, os.cpu_count() or 1),
    )


def _from_scores(
    config: EvaluateConfig,
    scoring: Scoring,
    record: StudentRecord,
    dataset: DatasetRecord,
    subset: ScoredSubset,
) -> EvaluationResult:
    run = Path(config.run)
    expected = scores_record(scoring, dataset, student=_tensors_digest(run, record))
    path = run / scores_name(scoring.protocol, subset)
    videos, average = dataset.subset(subset), config.evaluation.average
    return evaluate_scores(path, videos, dataset.undecodable, average, expected)


def _score(
    config: EvaluateConfig,
    student: Student,
    scoring: Scoring,
    student_record: StudentRecord,
    dataset: DatasetRecord,
    subset: ScoredSubset,
    store: FrameStore,
    progress: Progress,
) -> EvaluationResult:
    run = Path(config.run)
    record = scores_record(
        scoring,
        dataset,
        student=_tensors_digest(run, student_record),
        pixels=store.pixels_digest(),
    )
    return score_student(
        student,
        store,
        scored_videos(dataset, store, subset),
        scoring,
        classes=len(dataset.classes),
        average=config.evaluation.average,
        device=config.device,
        compute=config.compute,
        scores=(run / scores_name(scoring.protocol, subset), record),
        progress=progress,
    )


def _tensors_digest(run: Path, record: StudentRecord) -> str:
    return sha256_file(run / TENSORS_NAME) if record.tensors is None else record.tensors.sha256


def _config_of(run: Path, record: RunRecord) -> FinetuneConfig:
    try:
        return FinetuneConfig.model_validate(record.config)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise _not_a_run(run, f"run.json: config.{field}: {first['msg']}") from error


def _refuse_other_classes(run: Path, record: StudentRecord, dataset: DatasetRecord) -> None:
    outputs = {head.name: head.outputs for head in record.heads}
    if outputs.get(LABELS_HEAD) != len(dataset.classes):
        raise _not_a_run(run, f"{len(dataset.classes)} classes in {DATASET_NAME}, heads {outputs}")


def _refuse_other_records(
    run: Path,
    record: RunRecord,
    run_config: FinetuneConfig,
    student: StudentRecord,
    dataset: DatasetRecord,
) -> None:
    """Without this check, a flipped bit in a label or a mean would silently change the metrics."""
    wrong = DATASET_NAME if record.inputs.get("dataset") != dataset.content_digest() else ""
    wrong = "the clip of student.json" if student.clip != run_config.clip else wrong
    if wrong:
        raise ConfigError(
            f"the records of {run} do not belong together",
            expected="the records that `distinit finetune` wrote",
            found=f"{wrong} does not match run.json",
            remedy="copy the run again",
        )


def _read[R: Record](path: Path, kind: type[R]) -> R:
    return read_record(
        path,
        kind,
        error=ConfigError,
        remedy="finetune first, or correct --run",
        missing=f"{path.parent} is not a finetune run",
    )


def _not_a_run(run: Path, found: str) -> ConfigError:
    return ConfigError(
        f"{run} is not a finetune run",
        expected="the folder that `distinit finetune --out` wrote",
        found=found,
        remedy="finetune first, or correct --run",
    )
