"""Stage two: trains a student on the targets of a cache and the pixels of a frame store."""

from __future__ import annotations

from pathlib import Path

from distinit.pipeline.cache.state import CacheState
from distinit.pipeline.distillation.expectation import (
    differences_since,
    refuse_unexpected,
    write_as_found,
)
from distinit.pipeline.distillation.normalization_file import (
    recorded_normalizations,
    write_normalizations,
)
from distinit.pipeline.distillation.target_coverage import refuse_empty_filters, target_shares
from distinit.pipeline.distillation.task import DistillTask, open_distill_task
from distinit.pipeline.distillation.thresholds import read_thresholds, write_thresholds
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.records import file_entry
from distinit.pipeline.students.io import NORMALIZATION_NAME, TENSORS_NAME, save_student
from distinit.pipeline.training.boards import refuse_missing_loggers
from distinit.pipeline.training.loop import refuse_bf16_on_cpu, train
from distinit.pipeline.training.run_dir import RunDirectory, open_run
from distinit.pipeline.training.task import TrainingSettings
from distinit.pipeline.training.torchrun_train import launched_runtime
from distinit.pipeline.training.workload import Workload
from distinit.pipeline.transport.secrets import refuse_secrets
from distinit.schemas.distill import DistillConfig, FilterConfig
from distinit.schemas.errors import ConfigError, RunMismatchError
from distinit.schemas.run import DistillResult, StudentRecord
from distinit.stages.distill_inputs import incomplete_teachers, report_inputs

__all__ = ["distill"]


def distill(config: DistillConfig, *, progress: Progress | None = None) -> DistillResult:
    """Train the student of ``config``; a killed run resumes at its newest checkpoint.

    Cache, frame store and configuration are checked before the run directory is created. A
    finished run returns its stored result.

    Raises ConfigError, CacheError, FrameStoreError, MatchError, RunMismatchError, CheckpointError,
    StorageError, LockedError, ComputeError.
    """
    progress = progress or NullProgress()
    config = config.model_copy(update={"runtime": launched_runtime(config.runtime)})
    refuse_secrets(config.cache, kept_in="the run directory")
    _refuse_inside(Path(config.out), Path(config.cache), Path(config.frames))
    refuse_bf16_on_cpu(Path(config.out), config.runtime)
    refuse_missing_loggers(config.runtime)
    recorded = read_thresholds(Path(config.out), config)
    if recorded is None and any(target.filter != FilterConfig() for target in config.targets):
        progress.message("computing what the filters keep")
    asked = config.targets
    normalizations = recorded_normalizations(Path(config.out))
    task = open_distill_task(config, recorded, normalizations, progress)
    refuse_unexpected(config.expect, task.cache, tuple(task.teachers))
    config = task.config
    refuse_empty_filters(task.readers, config.combine_filters)
    task.refuse_filters_without_clips()
    state = task.cache.read_state()
    cache_digest = task.cache.checked_digest(state)
    run = _open_run(config, task, state, cache_digest)
    finished = _finished(run)
    if finished is not None:
        progress.message(f"{run.root} is already finished: nothing to do")
        return finished
    write_thresholds(run.root, task.thresholds)
    write_normalizations(run.root, task.normalizations)
    write_as_found(run.root, task.cache)
    report_inputs(task, asked, progress)
    settings = TrainingSettings(config.clip, config.optimizer, config.runtime)
    videos = len(task.videos.cache_ids)
    Workload.of(settings, videos, may_skip=config.skip_filtered).report(progress)
    outcome = train(task, settings, run, progress)
    record = _student_record(run.root, task, cache_digest, outcome.student.feature_dim)
    result = DistillResult(
        out=str(run.root),
        student=str(save_student(run.root, outcome.student, record)),
        cache_digest=cache_digest,
        videos=videos,
        loss=outcome.loss,
        epochs=config.optimizer.epochs,
        steps=outcome.global_steps,
        clips=outcome.global_steps * settings.global_batch,
        resumed_clips=outcome.resumed_step * settings.global_batch,
        seconds=outcome.seconds,
        bottleneck=outcome.bottleneck,
        targets=target_shares(run.read_metrics(), [head.name for head in task.heads]),
        left_out=task.videos.left_out,
        absent_teachers=task.cache.absent_teachers,
        incomplete_teachers=incomplete_teachers(task),
    )
    run.write_result(result)
    return result


def _finished(run: RunDirectory) -> DistillResult | None:
    """The stored result; its paths are those of the run where it is now."""
    stored = run.read_result(DistillResult)
    if stored is None:
        return None
    here = {"out": str(run.root), "student": str(run.root / TENSORS_NAME)}
    return stored.model_copy(update=here)


def _student_record(
    run_root: Path, task: DistillTask, cache_digest: str, feature_dim: int
) -> StudentRecord:
    config = task.config
    normalized = bool(task.normalizations)
    return StudentRecord(
        student=config.student,
        clip=config.clip,
        feature_dim=feature_dim,
        heads=task.heads,
        trained_by="distill",
        cache_digest=cache_digest,
        normalization=file_entry(run_root / NORMALIZATION_NAME) if normalized else None,
        config=config.model_dump(mode="json"),
    )


def _refuse_inside(out: Path, *inputs: Path) -> None:
    """Raise ConfigError if the run directory is inside one of its inputs."""
    for folder in inputs:
        if out.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"the run directory {out} lies inside {folder}, which is only read",
                expected="a folder outside of the cache and the frame store",
                remedy="choose another --out",
            )


def _open_run(
    config: DistillConfig, task: DistillTask, state: CacheState, cache_digest: str
) -> RunDirectory:
    inputs = {
        # Only of the teachers in use: another teacher may be added to the cache in the meantime.
        "targets": task.cache.digest_of(task.teachers, state),
        "frames": task.store.pixels_digest(),
    }
    if task.videos.mapping_digest:
        inputs["match"] = task.videos.mapping_digest
    inputs |= {f"teacher {name}": fingerprint for name, fingerprint in task.teachers.items()}
    inputs |= {f"vocabulary {head}": sha256 for head, sha256 in task.vocabularies.items()}
    if any((target.filter.keep_fraction or 1) < 1 for target in config.targets):
        inputs["keep_fraction"] = "share of clips"  # of frames in runs of earlier versions
    inputs |= {f"normalization {name}": n.digest for name, n in task.normalizations.items()}
    if config.combine_filters != "per_teacher" and _has_features_beside_a_filter(task):
        inputs["combine_filters"] = "of teachers of logits"  # of all in runs of earlier versions
    out = Path(config.out)
    try:
        return open_run(out, "distill", config, inputs, cache_digest=cache_digest)
    except RunMismatchError as error:
        since = differences_since(out, task.cache, tuple(task.teachers))
        if since:
            error.found = "\n".join([str(error.found), "the cache since the run began:", *since])
        raise


def _has_features_beside_a_filter(task: DistillTask) -> bool:
    filters = any(reader.filters for reader in task.readers)
    return filters and not all(reader.votes for reader in task.readers)
