"""A run directory belongs to exactly one configuration.

run.json  cache.json  thresholds.json  metrics.jsonl  evaluations.jsonl  tensorboard/  loss.png
checkpoints/
normalization.safetensors                             (of features that are normalized)
student.safetensors  student.json  result.json        (when finished)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from distinit.pipeline.lock import WriterLock
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.records import read_record, write_record
from distinit.pipeline.storage import refuse_links, remove_dead_partials, storage_errors
from distinit.pipeline.training.metrics import MetricLine, last_line, read_lines
from distinit.schemas.base import (
    Record,
    differences,
    fields_added_later,
    fields_outside_identity,
    flatten,
    is_outside_identity,
    sha256_of,
)
from distinit.schemas.errors import RunMismatchError
from distinit.schemas.run import RunRecord

__all__ = ["WANDB_NAME", "RunDirectory", "has_begun", "is_finished", "open_run"]

WANDB_NAME = "wandb.json"
"""Which run of wandb belongs to a run directory."""

_REMEDY = "choose another --out, or restore the file from a copy"


_RESULT = "result.json"
_OF_TRAINING = ("metrics.jsonl", "evaluations.jsonl", "student.safetensors", _RESULT)
_SHOWN, _SHOWN_CHARACTERS = 20, 250  # differing settings in a message, and characters of each


class RunDirectory:
    """The paths, metric lines and result of one run directory. Picklable."""

    def __init__(self, root: Path, record: RunRecord) -> None:
        self.root = root
        self.record = record

    def __reduce__(self) -> tuple[type[RunDirectory], tuple[Path, RunRecord]]:
        # The working folder of a Ray worker is another one.
        return RunDirectory, (self.root.absolute(), self.record)

    @property
    def title(self) -> str:
        """Names the run in pictures: ``finetune run runs/a``."""
        return f"{self.record.kind} run {'/'.join(self.root.absolute().parts[-2:])}"

    @property
    def loss_unit(self) -> str:
        """Unit of the training loss; empty if a target's loss is a distance, which has none."""
        targets = self.record.config.get("targets", ())  # a finetuning run has cross entropy only
        losses = {target["loss"] for target in targets}
        return "nats" if losses <= {"cross_entropy", "kl"} else ""

    @property
    def metrics(self) -> Path:
        """Metric lines: one JSON object per line."""
        return self.root / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """Lines with the metrics of evaluations during training: one JSON object per line."""
        return self.root / "evaluations.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.root / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard event files."""
        return self.root / "tensorboard"

    @property
    def loss_plot(self) -> Path:
        """Plot of the loss curve (PNG)."""
        return self.root / "loss.png"

    @property
    def result(self) -> Path:
        """Written last: its presence means that the run is finished."""
        return self.root / _RESULT

    def read_metrics(self) -> list[MetricLine]:
        """All complete metric lines. Raises StorageError."""
        return read_lines(self.metrics)

    def read_evaluations(self) -> list[MetricLine]:
        """All complete lines of evaluations during training. Raises StorageError."""
        return read_lines(self.evaluations)

    def last_metric(self) -> MetricLine | None:
        """The newest complete metric line, or None; reads only the end of the file."""
        return last_line(self.metrics)

    def read_result[R: Record](self, kind: type[R]) -> R | None:
        """The result of a finished run, or None. Raises RunMismatchError if it is unreadable."""
        if not os.path.lexists(self.result):
            return None
        return read_record(self.result, kind, error=RunMismatchError, remedy=_REMEDY)

    def write_result(self, result: Record) -> None:
        """Mark the run as finished."""
        write_record(result, self.result)

    def refuse_replaced(self) -> None:
        """Raise RunMismatchError if another process has replaced the run before it began."""
        stored = read_record(
            self.root / "run.json", RunRecord, error=RunMismatchError, remedy=_REMEDY
        )
        if stored.config_digest != self.record.config_digest:
            raise RunMismatchError(
                f"another command has begun another run in {self.root}",
                expected="the run.json that this command has found or written",
                found="the run.json of another configuration",
                remedy="choose another --out",
            )


def is_finished(root: Path) -> bool:
    """Whether ``root`` is the directory of a finished run."""
    return (root / _RESULT).is_file()


def has_begun(root: Path) -> bool:
    """Whether the run in ``root`` has trained: it has metric lines, a checkpoint or a student."""
    checkpoints = root / "checkpoints"
    return any(
        (root / name).is_file() and (root / name).stat().st_size for name in _OF_TRAINING
    ) or (checkpoints.is_dir() and any(checkpoints.iterdir()))


def open_run(
    root: Path,
    kind: Literal["distill", "finetune"],
    config: Record,
    inputs: Mapping[str, str],
    *,
    cache_digest: str | None = None,
) -> RunDirectory:
    """Create the run directory, or open one that belongs to the same configuration.

    A run of another configuration that has not begun is replaced: nothing is lost, and a command
    that failed can be corrected and repeated.

    ``inputs``: digests of the data that the run reads. ``cache_digest`` is only recorded: a cache
    may grow while the targets that the run reads stay the same. Fields of ``config`` that are
    marked with NOT_IDENTITY may differ from those of the existing run.
    Raises RunMismatchError, naming each setting that differs, LockedError, and StorageError, also
    for a folder that holds links: nothing is written or removed through them. ConfigError for a
    folder inside a cache or a frame store.
    """
    dumped = config.model_dump(mode="json")
    identity = partial(
        _identity, fields_outside_identity(type(config)), fields_added_later(type(config))
    )
    record = RunRecord(
        kind=kind,
        config_digest=sha256_of({"kind": kind, **identity(dumped, inputs)}),
        config=dumped,
        inputs=dict(inputs),
        cache_digest=cache_digest,
        versions={name: version(name) for name in ("distinit", "torch", "torchvision")},
    )
    path = root / "run.json"
    refuse_inside_data(root)
    refuse_links(root)
    remove_dead_partials(root)
    if path.exists():
        stored = read_record(path, RunRecord, error=RunMismatchError, remedy=_REMEDY)
        if stored.config_digest != record.config_digest:
            _replace(root, record, _mismatch(root, stored, record, identity))
            return RunDirectory(root, record)
        return RunDirectory(root, stored)
    with storage_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    write_record(record, path)
    return RunDirectory(root, record)


def _replace(root: Path, record: RunRecord, mismatch: RunMismatchError) -> None:
    """Write ``record`` over that of a run that has not begun. Raises ``mismatch`` if it has."""
    if has_begun(root):
        raise mismatch
    with WriterLock(root / ".lock"):
        if has_begun(root):
            raise mismatch
        (root / WANDB_NAME).unlink(missing_ok=True)  # a run of its own there too
        write_record(record, root / "run.json")


def _identity(
    ignored: frozenset[str],
    added_later: Mapping[str, Any],
    config: dict[str, Any],
    inputs: Mapping[str, str],
) -> dict[str, Any]:
    """What decides the results of a run: settings, without ``ignored`` ones and without those in
    ``added_later`` that have their default, and the digests of the inputs."""
    flat = {k: v for k, v in flatten(config).items() if not is_outside_identity(k, ignored)}
    flat = {k: v for k, v in flat.items() if k not in added_later or v != added_later[k]}
    return flat | {f"inputs.{name}": digest for name, digest in inputs.items()}


def _mismatch(
    root: Path,
    stored: RunRecord,
    requested: RunRecord,
    identity: Callable[[dict[str, Any], Mapping[str, str]], dict[str, Any]],
) -> RunMismatchError:
    old = identity(stored.config, stored.inputs)
    new = identity(requested.config, requested.inputs)
    found = [text[:_SHOWN_CHARACTERS] for text in differences(old, new)]
    if stored.kind != requested.kind:
        found.insert(0, f"kind: {stored.kind} there, {requested.kind} now")
    return RunMismatchError(
        f"{root} belongs to another configuration",
        expected="the configuration in its run.json",
        found="; ".join(found[:_SHOWN]) + (" ..." if found[_SHOWN:] else ""),
        remedy="choose another --out, or restore these settings",
    )
