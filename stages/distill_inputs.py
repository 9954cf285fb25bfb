"""Reports what a distillation trains on: videos, teachers, filters, heads."""

from __future__ import annotations

from collections.abc import Sequence

from distinit.pipeline.cache.arrays import shard_bytes
from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.feature_statistics import statistics_command
from distinit.pipeline.distillation.targets import TargetReader
from distinit.pipeline.distillation.task import DistillTask
from distinit.pipeline.progress import Progress
from distinit.pipeline.students.heads import new_student
from distinit.pipeline.transport.remote import public_url
from distinit.schemas.distill import TargetConfig
from distinit.schemas.wording import counted

__all__ = ["incomplete_teachers", "report_inputs"]

REPORTED_TIE_SHARE = 0.01  # share of targets with the entropy of the threshold: warn from here on
LARGE_HEADS = 16_384  # outputs of all heads from which their weights are compared with the network


def incomplete_teachers(task: DistillTask) -> dict[str, tuple[int, int]]:
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
    for name, (present, planned) in incomplete_teachers(task).items():
        lines.append(f"note: teacher {name} has {present} of {counted(planned, 'unit')}")
    return lines


def _lines_on_remote(task: DistillTask) -> list[str]:
    remote, cache = task.cache.remote, task.cache
    if remote is None:
        return []
    space = cache.manifest.row_space
    total_bytes = sum(
        space.units * shard_bytes(spec, space.capacity)
        for record in {r.id: r for reader in task.readers for r in reader.stored}.values()
        for spec in array_specs(record.encoding, record.identity.classes)
    )
    limit_gib, total_gib = task.config.read_through_gib, total_bytes / (1 << 30)
    lines = [f"shards are read from {public_url(remote.address)} and kept up to {limit_gib:g} GiB"]
    if total_gib > limit_gib:
        lines.append(
            f"warning: the shards of these teachers have {total_gib:.3g} GiB: they will be "
            "received again and again; raise read_through_gib, or use `distinit cache pull`"
        )
    return lines


def report_inputs(task: DistillTask, asked: Sequence[TargetConfig], progress: Progress) -> None:
    """Report the videos and targets that are trained on. ``asked``: targets as configured."""
    videos = task.videos
    progress.message(f"{counted(len(videos.cache_ids), 'video')} to train on")
    for line in (*videos.left_out.lines(), *_lines_on_teachers(task)):
        progress.message(line)
    for reader in task.readers:
        name = reader.teacher.id
        threshold = task.thresholds.teachers.get(name)
        kept = "" if threshold is None else f", {threshold.line()}"
        mirror = "" if reader.mirrored is None else f", flipped clips by {reader.mirrored.id}"
        progress.message(f"teacher {name}: {_learning(reader)}{kept}{mirror}")
        if threshold is not None and threshold.tied >= REPORTED_TIE_SHARE:
            progress.message(
                f"warning: teacher {name}: the entropy of {threshold.tied:.0%} of all targets "
                f"equals the threshold of {threshold.threshold_nats:.3f} nats; all of them are "
                f"kept, which makes {threshold.kept:.0%} of the clips"
            )
        if threshold is not None and not task.config.skip_filtered:
            _warn_of_few_clips(task, name, threshold.kept, progress)
    for line in (*_lines_on_defaults(task, asked), *_lines_on_heads(task)):
        progress.message(line)
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


def _learning(reader: TargetReader) -> str:
    """What is learned from a teacher: loss, kind of target, frames."""
    target = reader.config
    if reader.teacher.identity.target == "logits":
        return f"{target.loss} on {target.pick} frames"
    by = "as stored" if target.normalize == "none" else f"normalized by {target.normalize}"
    return f"{target.loss} of features {by}, on {target.pick} frames"


def _lines_on_defaults(task: DistillTask, asked: Sequence[TargetConfig]) -> list[str]:
    """Why features without statistics have another loss than the default."""
    return [
        f"note: the cache has no statistics of teacher {reader.teacher.id}, so its features are "
        f"not normalized; {statistics_command(task.cache.layout)} computes them"
        for reader, target in zip(task.readers, asked, strict=True)
        if not reader.votes
        and (target.loss, target.normalize) == ("auto", "auto")
        and reader.normalization is None
    ]


def _lines_on_heads(task: DistillTask) -> list[str]:
    """A warning if heads are so large that they need more memory than the network."""
    outputs = {head.name: head.outputs for head in task.heads}
    if sum(outputs.values()) <= LARGE_HEADS:
        return []
    network = new_student(task.config.student, {}, seed=0)
    weights = sum(outputs.values()) * (network.feature_dim + 1)
    own = sum(parameter.numel() for parameter in network.parameters())
    if weights <= own:
        return []
    largest = max(outputs, key=lambda name: outputs[name])
    return [
        f"warning: the heads have {weights:,} weights, the network {own:,}: head {largest} has "
        f"{outputs[largest]:,} outputs; a smaller grid, or pool mean, needs less memory"
    ]
