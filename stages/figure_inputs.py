"""Reads what the figures show from run directories, caches and exported features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from distinit.pipeline.audit.bins import COARSE_BINS
from distinit.pipeline.cache.quantile import blocks_of
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.thresholds import read_thresholds
from distinit.pipeline.evaluation.feature_files import RECORD_NAME, read_features
from distinit.pipeline.progress import Progress
from distinit.pipeline.records import read_record
from distinit.pipeline.reports.figures.threshold import ThresholdPoint
from distinit.pipeline.storage import sha256_file
from distinit.pipeline.students.io import read_student_record, student_path
from distinit.pipeline.students.registry import require_named_plugin
from distinit.schemas.audit import EntropyHistogram
from distinit.schemas.base import PLUGIN, sha256_of
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.features import FeaturesConfig, LabelledInput
from distinit.schemas.run import RunRecord, StudentRecord
from distinit.schemas.wording import shell_line
from distinit.stages.features import features
from distinit.stages.finished_run import FinishedRun, read_finished_run, refuse_other_tests

__all__ = [
    "VideoFeatures",
    "entropy_histogram",
    "first_student",
    "is_init",
    "only_teacher",
    "read_test_features",
    "threshold_points",
]


def is_init(run: Path | str) -> bool:
    """Whether ``run`` is a text that names an untrained network, and not a folder."""
    return isinstance(run, str) and (run in {"scratch", "inflated"} or run.startswith("inflated:"))


def first_student(runs: Mapping[str, Path | str]) -> StudentRecord:
    """The record of the first run that is a folder, whose network untrained ones share.

    Raises ConfigError if there is none, or if its network is a plugin, which must be named by the
    user; CheckpointError.
    """
    for run in runs.values():
        if not is_init(run):
            record = read_student_record(Path(run))
            require_named_plugin(record.student, None, Path(run))
            return record
    raise ConfigError(
        "scratch and inflated do not name a network",
        expected="a student",
        remedy="add a student, such as --student vmz_r3d_18",
    )


@dataclass(frozen=True, slots=True)
class VideoFeatures:
    """Features of the test videos of a dataset by one network."""

    features_ND: NDArray[np.float32]
    label_N: NDArray[np.int64]
    digests: tuple[str, ...]
    """sha256 of each video."""
    classes: tuple[str, ...]


def read_test_features(
    runs: Mapping[str, Path | str], out: Path, videos: LabelledInput | None, progress: Progress
) -> dict[str, VideoFeatures]:
    """Features of the test videos for each run, of the same videos for all of them.

    A folder with ``features.json`` is read; for other runs the features of the test videos of
    ``videos`` are computed and kept below ``out / "features"``, where a later call finds them.

    Raises ConfigError if ``videos`` is needed but None, or if the runs have features of other
    videos; FeaturesError, and the errors of ``stages.features``.
    """
    tables = {}
    for label, run in runs.items():
        if not is_init(run) and (Path(run) / RECORD_NAME).is_file():
            folder = Path(run)
        else:
            config = _features_config(label, run, runs, out, videos)
            folder = Path(features(config, subset="test", progress=progress).out)
        tables[label] = _read_tests(folder)
    first_label, first = next(iter(tables.items()))
    for label, table in tables.items():
        if (table.digests, table.classes) != (first.digests, first.classes):
            raise ConfigError(
                "these features cannot be compared",
                expected=f"the test videos and classes of {first_label}",
                found=f"other ones for {label}",
                remedy="export the features of all runs with the same dataset and split",
            )
    return tables


def _read_tests(folder: Path) -> VideoFeatures:
    table, record = read_features(folder)
    is_scored_N = table.scored_rows.numpy()
    digests = [d for d, is_scored in zip(table.digests, is_scored_N, strict=True) if is_scored]
    return VideoFeatures(
        table.features_ND.numpy()[is_scored_N],
        table.label_N.numpy()[is_scored_N],
        tuple(digests),
        record.classes,
    )


def _features_config(
    label: str,
    run: Path | str,
    runs: Mapping[str, Path | str],
    out: Path,
    videos: LabelledInput | None,
) -> FeaturesConfig:
    """How ``distinit features`` computes those of one run.

    ``videos.student`` is the network of scratch and inflated; without it they have the network and
    the clips of the first run. For a run it counts only if it is a plugin.
    """
    if videos is None:
        raise ConfigError(
            f"{run} holds no features",
            expected=f"a folder of `distinit features`, or a dataset to compute those of {label}",
            remedy="add --dataset (and --splits, --frames), or run `distinit features` first",
        )
    values = videos.model_dump(exclude_unset=True)
    values |= {"out": str(out / "features" / f"test-{sha256_of(str(run))[:12]}")}
    values["frames"] = videos.frames or str(out / "frames")
    values["flow"] = videos.flow or str(out / "flow")
    named = videos.student
    if not is_init(run):
        is_plugin = named is not None and named.name.startswith(PLUGIN)
        return FeaturesConfig.model_validate(
            values | {"run": str(run), "student": named if is_plugin else None}
        )
    if named is None:
        record = first_student(runs)
        clip = record.clip.model_dump() | videos.clip.model_dump(exclude_unset=True)
        values |= {"student": record.student, "clip": clip}
    return FeaturesConfig.model_validate(values | {"init": str(run)})


def only_teacher(cache: TargetCache, teacher: str | None) -> str:
    """``teacher``, or the only one of the cache. Raises ConfigError if it has no entropies."""
    with_entropy = [n for n, t in cache.teachers.items() if t.identity.target != "features"]
    chosen = with_entropy if teacher is None else [n for n in with_entropy if n == teacher]
    if len(chosen) != 1:
        raise ConfigError(
            f"{cache.layout.root}: " + ("name a teacher" if teacher is None else "no such teacher"),
            expected="one teacher that stores logits: " + ", ".join(sorted(with_entropy)),
            found=teacher,
            remedy="add --teacher with one of them",
        )
    return chosen[0]


def entropy_histogram(cache: TargetCache, teacher: str) -> EntropyHistogram:
    """The entropies of all frames in the cache that have a target, from 0 to ln(classes)."""
    highest_nats = max(float(np.log(cache.teachers[teacher].identity.classes)), 1e-6)
    edges = np.linspace(0, highest_nats, COARSE_BINS + 1)
    frames = np.zeros(COARSE_BINS, np.int64)
    for block in blocks_of(cache.targets(teacher).entropy_nats):
        # Rounding may lift the entropy of a uniform distribution a little above ln(classes).
        usable = np.clip(block[~np.isnan(block)], 0, highest_nats)
        frames += np.histogram(usable, edges)[0]
    return EntropyHistogram(edges_nats=tuple(edges.tolist()), frames=tuple(frames.tolist()))


def threshold_points(
    cache: TargetCache, teacher: str, runs: Sequence[tuple[Path, Path]]
) -> list[ThresholdPoint]:
    """The threshold of each distill run and the accuracy of the run that was finetuned from it.

    ``runs``: (distill run, finetune run). Raises ConfigError if the student of the first is not the
    init of the second, if a distill run used another teacher, or if the finetune runs were scored
    on other videos; RunMismatchError, CheckpointError.
    """
    points, finished = [], []
    for distilled, finetuned in runs:
        run = read_finished_run(finetuned)
        _refuse_other_init(distilled, run)
        threshold_nats = _threshold_nats(distilled, cache, teacher)
        points.append(ThresholdPoint(threshold_nats, run.correct, run.result.videos))
        finished.append(run)
    refuse_other_tests(finished[0], finished[1:])
    return points


def _refuse_other_init(distilled: Path, run: FinishedRun) -> None:
    digest = sha256_file(student_path(distilled))
    if run.record.inputs.get("init") != f"student {digest}":
        raise ConfigError(
            f"{run.root} was not finetuned from {distilled}",
            expected=f"a run with --init {shell_line([f'distinit:{distilled}'])}",
            found=f"an init of other content ({run.record.config.get('init')})",
            remedy="pair each finetune run with the distill run that it began with",
        )


def _threshold_nats(distilled: Path, cache: TargetCache, teacher: str) -> float | None:
    """The threshold of the filter for ``teacher``; None if it was trained on all targets."""
    record = read_record(
        distilled / "run.json",
        RunRecord,
        error=ConfigError,
        remedy="give the --out folder of `distinit distill`",
        missing=f"{distilled} is not a distill run",
    )
    fingerprint = cache.teachers[teacher].fingerprint
    if record.inputs.get(f"teacher {teacher}") != fingerprint:
        raise _other(distilled, f"targets of {teacher} ({fingerprint[:12]}) of the cache")
    try:
        config = DistillConfig.model_validate(record.config)
    except ValidationError as error:
        raise _other(distilled, f"a valid configuration: {error.errors()[0]['msg']}") from error
    thresholds = read_thresholds(distilled, config)
    if thresholds is not None and teacher in thresholds.teachers:
        return thresholds.teachers[teacher].threshold_nats
    own = [target for target in config.targets if target.teacher in (None, teacher)]
    if any(target.filter.max_entropy_nats or target.filter.keep_fraction for target in own):
        raise _other(distilled, "thresholds.json with the threshold of its filter")
    return None


def _other(distilled: Path, expected: str) -> ConfigError:
    return ConfigError(
        f"the threshold of {distilled} is not known",
        expected=expected,
        found="other records in this folder",
        remedy="distil it again with this version, or leave it out",
    )
