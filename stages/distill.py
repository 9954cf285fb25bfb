"""Stage two: trains a student on the targets of a cache and the pixels of a frame store."""

from __future__ import annotations

from pathlib import Path

from distinit.pipeline.cache.arrays import shard_bytes
from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.state import CacheState
from distinit.pipeline.distillation.expectation import (
    differences_since,
    refuse_unexpected,
    write_as_found,
)
from distinit.pipeline.distillation.target_coverage import refuse_empty_filters, target_shares
from distinit.pipeline.distillation.task import DistillTask, open_distill_task
from distinit.pipeline.distillation.thresholds import read_thresholds, write_thresholds
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.students.io import TENSORS_NAME, save_student
from distinit.pipeline.training.boards import refuse_missing_loggers
from distinit.pipeline.training.loop import refuse_bf16_on_cpu, train
from distinit.pipeline.training.run_dir import RunDirectory, open_run
from distinit.pipeline.training.task import TrainingSettings
from distinit.pipeline.training.torchrun_train import launched_runtime
from distinit.pipeline.training.workload import Workload
from distinit.pipeline.transport.remote import public_url
from distinit.pipeline.transport.secrets import refuse_secrets
from distinit.schemas.distill import DistillConfig, FilterConfig
from distinit.schemas.errors import ConfigError, RunMismatchError
from distinit.schemas.run import DistillResult, StudentRecord
from distinit.schemas.wording import counted

__all__ = ["distill"]

REPORTED_TIE_SHARE = 0.01  # share of targets with the entropy of the threshold: warn from here on


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
    task = open_distill_task(config, recorded, progress)
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
    write_as_found(run.root, task.cache)
    _report_inputs(task, progress)
    settings = TrainingSettings(config.clip, config.optimizer, config.runtime)
    videos = len(task.videos.cache_ids)
    Workload.of(settings, videos, may_skip=config.skip_filtered).report(progress)
    outcome = train(task, settings, run, progress)
    record = _student_record(config, task, cache_digest, outcome.student.feature_dim)
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
        incomplete_teachers=_incomplete(task),
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
    config: DistillConfig, task: DistillTask, cache_digest: str, feature_dim: int
) -> StudentRecord:
    return StudentRecord(
        student=config.student,
        clip=config.clip,
        feature_dim=feature_dim,
        heads=task.heads,
        trained_by="distill",
        cache_digest=cache_digest,
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
    if any((target.filter.keep_fraction or 1) < 1 for target in config.targets):
        inputs["keep_fraction"] = "share of clips"  # of frames in runs of earlier versions
    out = Path(config.out)
    try:
        return open_run(out, "distill", config, inputs, cache_digest=cache_digest)
    except RunMismatchError as error:
        since = differences_since(out, task.cache, tuple(task.teachers))
        if since:
            error.found = "\n".join([str(error.found), "the cache since the run began:", *since])
        raise


def _incomplete(task: DistillTask) -> dict[str, tuple[int, int]]:
    """Teachers in use that have not written all units: (units present, units planned)."""
    readers = {reader.teacher.id: reader.committed_U for reader in task.readers}
    return {
        name: (int(committed_U.sum()), len(committed_U))
        for name, committed_U in readers.items()
        if not committed_U.all()
    }


def _lines_on_teachers(task: DistillTask) -> list[str]:
    lines = []
    if absent := task.cache.absent_teachers:
        lines.append(
            f"note: the cache names {counted(len(absent), 'more teacher')} whose folder is not in "
            f"this copy: {', '.join(absent)}"
        )
    if not task.cache.manifest.complete:
        lines.append("note: the cache is incomplete: only the stored targets are used")
    lines += _lines_on_remote(task)
    for name, (present, planned) in _incomplete(task).items():
        lines.append(f"note: teacher {name} has {present} of {counted(planned, 'unit')}")
    return lines


def _lines_on_remote(task: DistillTask) -> list[str]:
    remote, cache = task.cache.remote, task.cache
    if remote is None:
        return []
    space = cache.manifest.row_space
    total_bytes = sum(
        space.units * shard_bytes(spec, space.capacity)
        for reader in task.readers
        for spec in array_specs(reader.teacher.encoding, reader.teacher.identity.classes)
    )
    limit_gib, total_gib = task.config.read_through_gib, total_bytes / (1 << 30)
    lines = [f"shards are read from {public_url(remote.address)} and kept up to {limit_gib:g} GiB"]
    if total_gib > limit_gib:
        lines.append(
            f"warning: the shards of these teachers have {total_gib:.3g} GiB: they will be "
            "received again and again; raise read_through_gib, or use `distinit cache pull`"
        )
    return lines


def _report_inputs(task: DistillTask, progress: Progress) -> None:
    """Report the videos and targets that are trained on."""
    videos = task.videos
    progress.message(f"{counted(len(videos.cache_ids), 'video')} to train on")
    for line in (*videos.left_out.lines(), *_lines_on_teachers(task)):
        progress.message(line)
    for reader in task.readers:
        name, target = reader.teacher.id, reader.config
        threshold = task.thresholds.teachers.get(name)
        kept = "" if threshold is None else f", {threshold.line()}"
        mirror = "" if reader.mirrored is None else f", flipped clips by {reader.mirrored.id}"
        progress.message(f"teacher {name}: {target.loss} on {target.pick} frames{kept}{mirror}")
        if threshold is not None and threshold.tied >= REPORTED_TIE_SHARE:
            progress.message(
                f"warning: teacher {name}: the entropy of {threshold.tied:.0%} of all targets "
                f"equals the threshold of {threshold.threshold_nats:.3f} nats; all of them are "
                f"kept, which makes {threshold.kept:.0%} of the clips"
            )
        if threshold is not None and not task.config.skip_filtered:
            _warn_of_few_clips(task, name, threshold.kept, progress)
    if task.config.combine == "mean":
        progress.message(f"one head learns the mean of {len(task.readers)} teachers")


def _warn_of_few_clips(task: DistillTask, name: str, kept: float, progress: Progress) -> None:
    """Warn if the filter keeps fewer clips of an epoch than one step has."""
    runtime = task.config.runtime
    batch = runtime.batch_size * runtime.shards
    expected = kept * len(task.order(0))
    if expected < batch:
        progress.message(
            f"warning: teacher {name}: the filter keeps about {counted(round(expected), 'clip')} "
            f"per epoch, fewer than one step has ({batch}): most steps learn nothing from it; "
            "raise its threshold, or optimizer.clips_per_epoch"
        )
