"""Stage three: trains a classifier on a labelled dataset and scores it on the test videos."""

from __future__ import annotations

from pathlib import Path

from distinit.pipeline.datasets.listing import known_files, leaked_videos, list_dataset
from distinit.pipeline.datasets.scored import scored_videos, scoring_notes
from distinit.pipeline.datasets.source import labelled_source
from distinit.pipeline.datasets.store import (
    dataset_store,
    flow_spec_of,
    flow_store_of,
    geometry_of,
    refuse_other_range,
    refuse_unusable,
    with_undecodable,
)
from distinit.pipeline.evaluation.epochs import EpochEvaluator, epoch_metrics
from distinit.pipeline.evaluation.score import LABELS_HEAD, score_student
from distinit.pipeline.evaluation.scorer import Scoring
from distinit.pipeline.evaluation.scores_file import scores_name, scores_record
from distinit.pipeline.finetuning.init import Init, resolve_init
from distinit.pipeline.finetuning.task import FinetuneTask, TrainVideos
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.records import read_record, write_record
from distinit.pipeline.reports.figures.confusion import plot_confusion
from distinit.pipeline.storage import atomic_write_bytes, sha256_file
from distinit.pipeline.students.heads import Student
from distinit.pipeline.students.io import TENSORS_NAME, save_student
from distinit.pipeline.students.registry import check_clip
from distinit.pipeline.training.boards import refuse_missing_loggers
from distinit.pipeline.training.clips import check_pixels
from distinit.pipeline.training.loop import refuse_bf16_on_cpu, train
from distinit.pipeline.training.metric_logger import log_final_evaluation
from distinit.pipeline.training.run_dir import RunDirectory, open_run
from distinit.pipeline.training.step_time import bottleneck
from distinit.pipeline.training.task import TrainingSettings
from distinit.pipeline.training.torchrun_train import launched_runtime
from distinit.pipeline.training.workload import Workload, with_epoch_length
from distinit.schemas.base import Record
from distinit.schemas.compute import ComputeConfig
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.errors import RunMismatchError
from distinit.schemas.evaluation import ScoredSubset
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.run import EvaluationResult, HeadRecord, LoadReport, StudentRecord
from distinit.schemas.wording import counted
from distinit.stages.finetune_result import FinetuneResult

__all__ = ["DATASET_NAME", "LOAD_REPORT_NAME", "finetune"]

DATASET_NAME = "dataset.json"
LOAD_REPORT_NAME = "load_report.json"
CONFUSION_NAME = "confusion.png"


def finetune(config: FinetuneConfig, *, progress: Progress | None = None) -> FinetuneResult:
    """Train a classifier and score it; a killed run resumes at its newest checkpoint.

    A finished run returns its stored result. Raises ConfigError, DatasetError, CheckpointError,
    WeightsError and RunMismatchError before any work; FrameStoreError, StorageError,
    LockedError and ComputeError.
    """
    progress = progress or NullProgress()
    config = config.model_copy(update={"runtime": launched_runtime(config.runtime)})
    refuse_bf16_on_cpu(Path(config.out), config.runtime)
    refuse_missing_loggers(config.runtime)
    init = resolve_init(config.init, config.student)
    config = _with_flow_pixels_of(init, config)
    _check_student(config, init, progress)
    dataset = _list_dataset(config, progress)
    config = _with_epoch_length(config, dataset)
    head_only = config.train_layers == "head"
    _, report = init.build(len(dataset.classes), config.runtime.seed, head_only=head_only)
    frames = Path(config.frames or Path(config.out) / "frames")
    run = _open_run(config, init, dataset, frames)
    stored = run.read_result(EvaluationResult)
    if stored is not None:
        progress.message(f"{config.out} is already finished: nothing to do")
        return _result(config, init, run, stored)
    progress.message(_describe_load(report))
    for text in scoring_notes(dataset, config.eval_every):
        progress.message(text)
    _write(run.root / LOAD_REPORT_NAME, report)
    _write(run.root / DATASET_NAME, dataset)
    source = labelled_source(config.dataset)
    store = dataset_store(
        frames, source.root, dataset, config.clip.crop, progress, listed=source.listed
    )
    if init.student.in_channels == 2:
        store = flow_store_of(store, _flow_folder(config), config.clip.flow_range, progress)
    check_pixels(store, init.student, config.clip)
    dataset = with_undecodable(dataset, store)
    refuse_unusable(dataset)
    _write(run.root / DATASET_NAME, dataset)
    student = _train(config, init, dataset, store, run, progress)
    save_student(run.root, student, _student_record(config, init, dataset, student.feature_dim))
    evaluation = _evaluate(config, student, dataset, store, run, progress)
    heading = [run.title, *(line.strip() for line in evaluation.summary().splitlines()[:2])]
    plot = plot_confusion(evaluation.confusion, dataset.classes, heading)
    atomic_write_bytes(run.root / CONFUSION_NAME, plot)
    run.write_result(evaluation)
    return _result(config, init, run, evaluation)


def _with_flow_pixels_of(init: Init, config: FinetuneConfig) -> FinetuneConfig:
    """``config`` with the mean, std and range of a flow student, unless they are configured."""
    if init.record is None or init.student.in_channels != 2:
        return config
    configured = config.clip.model_fields_set
    inherited = init.record.clip.model_dump(include={"mean", "std", "flow_range"} - configured)
    return config.model_copy(update={"clip": config.clip.model_copy(update=inherited)})


def _flow_folder(config: FinetuneConfig) -> Path:
    return Path(config.flow or Path(config.out) / "flow")


def _check_student(config: FinetuneConfig, init: Init, progress: Progress) -> None:
    check_clip(init.student, config.clip)
    if init.student.in_channels == 2:
        refuse_other_range(_flow_folder(config), config.clip.flow_range)
    if init.record is not None and init.record.clip != config.clip:
        progress.message(
            f"note: the student was distilled with other clip settings ({init.record.clip}) "
            f"than this run ({config.clip})"
        )


def _list_dataset(config: FinetuneConfig, progress: Progress) -> DatasetRecord:
    """List the dataset's videos; those that an earlier call has hashed are not hashed again."""
    known = {}
    path = Path(config.out) / DATASET_NAME
    if path.is_file():
        try:
            known = known_files(_read(path, DatasetRecord))
        except RunMismatchError:
            progress.message(f"{path} cannot be read: hashing all videos again")
    dataset = list_dataset(config.dataset, known)
    leaks = leaked_videos(dataset)
    if leaks:
        progress.message(
            "note: the training and test sets of this official split share "
            f"{counted(len(leaks), 'video')}, byte for byte, such as "
            f"{leaks[0]}"
        )
    return dataset


def _with_epoch_length(config: FinetuneConfig, dataset: DatasetRecord) -> FinetuneConfig:
    """``config`` with a number for ``clips_per_epoch: auto``: it counts all training videos, so
    that it does not depend on which of them can be decoded."""
    videos = len(dataset.subset("train"))
    optimizer = with_epoch_length(config.optimizer, config.runtime, videos)
    return config.model_copy(update={"optimizer": optimizer})


def _open_run(
    config: FinetuneConfig, init: Init, dataset: DatasetRecord, frames: Path
) -> RunDirectory:
    inputs = {
        "dataset": dataset.content_digest(),
        "init": init.digest(),
        "geometry": geometry_of(frames, config.clip.crop).record_digest(),
    }
    if init.student.in_channels == 2:
        spec = flow_spec_of(frames, _flow_folder(config), config.clip.flow_range)
        inputs |= {"flow": spec.record_digest(), "opencv": spec.opencv}
    return open_run(Path(config.out), "finetune", config, inputs)


def _train(
    config: FinetuneConfig,
    init: Init,
    dataset: DatasetRecord,
    store: FrameStore,
    run: RunDirectory,
    progress: Progress,
) -> Student:
    settings = TrainingSettings(config.clip, config.optimizer, config.runtime)
    videos = _train_videos(dataset, store)
    Workload.of(settings, len(videos.video_ids)).report(progress)
    task = FinetuneTask(
        init,
        videos,
        settings,
        head_only=config.train_layers == "head",
        label_smoothing=config.label_smoothing,
        dropout=config.dropout,
    )
    return train(task, settings, run, progress, _evaluator(config, dataset, store)).student


def _evaluator(
    config: FinetuneConfig, dataset: DatasetRecord, store: FrameStore
) -> EpochEvaluator | None:
    if config.eval_every is None:
        return None
    subset = dataset.watched_subset
    return EpochEvaluator(
        config.eval_every,
        subset,
        store,
        tuple(scored_videos(dataset, store, subset)),
        _scoring(config),
        len(dataset.classes),
        config.evaluation.average,
    )


def _scoring(config: FinetuneConfig) -> Scoring:
    return Scoring(
        config.clip,
        config.evaluation.protocol,
        config.runtime.batch_size,
        config.evaluation.precision,
        config.runtime.loader_workers,
    )


def _train_videos(dataset: DatasetRecord, store: FrameStore) -> TrainVideos:
    by_digest = store.by_digest
    usable = [video for video in dataset.subset("train") if video.digest in by_digest]
    return TrainVideos(
        store=store,
        video_ids=tuple(by_digest[video.digest] for video in usable),
        labels=tuple(video.label for video in usable),
        classes=len(dataset.classes),
    )


def _evaluate(
    config: FinetuneConfig,
    student: Student,
    dataset: DatasetRecord,
    store: FrameStore,
    run: RunDirectory,
    progress: Progress,
) -> EvaluationResult:
    """The result of the run. Also log it, or with ``eval_every`` that of the watched videos."""
    result = _score(config, student, dataset, dataset.final_subset, store, run, progress)
    last = result
    if config.eval_every is not None and dataset.watched_subset != result.subset:
        last = _score(config, student, dataset, dataset.watched_subset, store, run, progress)
    log_final_evaluation(run, config.optimizer.epochs, epoch_metrics(last), last.subset)
    return result


def _score(
    config: FinetuneConfig,
    student: Student,
    dataset: DatasetRecord,
    subset: ScoredSubset,
    store: FrameStore,
    run: RunDirectory,
    progress: Progress,
) -> EvaluationResult:
    runtime, scoring = config.runtime, _scoring(config)
    record = scores_record(
        scoring,
        dataset,
        student=sha256_file(run.root / TENSORS_NAME),
        pixels=store.pixels_digest(),
    )
    result = score_student(
        student,
        store,
        scored_videos(dataset, store, subset),
        scoring,
        classes=len(dataset.classes),
        average=config.evaluation.average,
        device="auto" if runtime.workers else runtime.device,  # on Ray, as in training
        compute=ComputeConfig(
            workers=runtime.workers,
            gpus_per_worker=runtime.gpus_per_worker,
            ray_address=runtime.ray_address,
        ),
        scores=(run.root / scores_name(scoring.protocol, subset), record),
        progress=progress,
    )
    return result.model_copy(update={"subset": subset})


def _student_record(
    config: FinetuneConfig, init: Init, dataset: DatasetRecord, feature_dim: int
) -> StudentRecord:
    head = HeadRecord(
        name=LABELS_HEAD, outputs=len(dataset.classes), label_space=f"dataset:{dataset.kind}"
    )
    return StudentRecord(
        student=init.student,
        clip=config.clip,
        feature_dim=feature_dim,
        heads=(head,),
        trained_by="finetune",
        cache_digest=None if init.record is None else init.record.cache_digest,
        label_names=dataset.classes,
        config=config.model_dump(mode="json"),
    )


def _result(
    config: FinetuneConfig, init: Init, run: RunDirectory, evaluation: EvaluationResult
) -> FinetuneResult:
    """Read the result from the files of a finished run."""
    root = Path(config.out)
    dataset = _read(root / DATASET_NAME, DatasetRecord)
    load = _read(root / LOAD_REPORT_NAME, LoadReport)
    train_paths = [video.path for video in dataset.subset("train")]
    left_out = tuple(path for path in train_paths if path in dataset.undecodable)
    return FinetuneResult(
        run=config.out,
        student=str(root / TENSORS_NAME),
        network=init.student.name,
        init=config.init,
        train_layers=config.train_layers,
        optimizer=config.optimizer,
        load=load,
        training_videos=len(train_paths) - len(left_out),
        left_out=left_out,
        bottleneck=bottleneck(run.read_metrics(), config.runtime.loader_workers),
        evaluation=evaluation,
    )


def _describe_load(report: LoadReport) -> str:
    if not report.loaded:
        return "all tensors are randomly initialised"
    return (
        f"{len(report.loaded)} tensors loaded, {len(report.reinitialised)} randomly initialised, "
        f"{len(report.unused)} tensors of the file not used"
    )


def _read[R: Record](path: Path, kind: type[R]) -> R:
    remedy = "choose another --out, or restore the file from a copy"
    return read_record(path, kind, error=RunMismatchError, remedy=remedy)


def _write(path: Path, record: Record) -> None:
    write_record(record, path, indent=1)
