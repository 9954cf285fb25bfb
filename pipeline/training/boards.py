"""Where the metrics of a run are shown as curves: TensorBoard, and optionally wandb."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from torch.utils.tensorboard.writer import SummaryWriter

from distinit.pipeline.progress import Progress
from distinit.pipeline.records import read_record, write_record
from distinit.pipeline.training.run_dir import WANDB_NAME, RunDirectory
from distinit.schemas.errors import ConfigError, RunMismatchError
from distinit.schemas.run import WandbRecord
from distinit.schemas.training import RuntimeConfig

__all__ = ["Board", "TensorBoard", "WandbBoard", "open_boards", "refuse_missing_loggers"]


def refuse_missing_loggers(runtime: RuntimeConfig) -> None:
    """Raise ConfigError if a logger is configured whose package is not installed."""
    if "wandb" not in runtime.loggers:
        return
    spec = find_spec("wandb")
    if spec is None or spec.origin is None:  # no origin: a folder ./wandb that wandb has written
        raise ConfigError(
            "runtime.loggers has wandb, which is not installed",
            expected="the package wandb, 0.19 or later",
            found="no module named wandb",
            remedy="pip install '.[wandb]' in the clone of distinit, or leave wandb out",
        )


class Board(Protocol):
    """Receives the metrics of one run."""

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Add values after ``step`` optimiser steps."""

    def close(self) -> None:
        """Flush everything."""


def open_boards(
    run: RunDirectory, runtime: RuntimeConfig, progress: Progress, global_step: int
) -> list[Board]:
    """The boards of ``runtime.loggers``, for a run that starts or resumes after ``global_step``.

    Raises ConfigError if wandb cannot start, RunMismatchError if its record cannot be read.
    """
    refuse_missing_loggers(runtime)
    boards: list[Board] = []
    if "tensorboard" in runtime.loggers:
        boards.append(TensorBoard(run, global_step))
    if "wandb" in runtime.loggers:
        boards.append(WandbBoard(run, progress))
    return boards


class TensorBoard:
    """Event files in the run directory. What a killed process wrote after its last checkpoint is
    dropped."""

    def __init__(self, run: RunDirectory, global_step: int) -> None:
        self._writer = SummaryWriter(
            str(run.tensorboard), purge_step=global_step + 1 if global_step else None
        )

    def add(self, values: Mapping[str, float], step: int) -> None:
        """See Board."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See Board."""
        self._writer.close()


class WandbBoard:
    """A run of wandb (Weights & Biases), continued under the same id when training resumes.

    wandb writes links into its folder, so that is next to the run directory: ``WANDB_DIR``, or
    else ``wandb`` in the folder of the run.
    """

    def __init__(self, run: RunDirectory, progress: Progress) -> None:
        wandb: Any = import_module("wandb")
        record = run.record
        try:
            self._run = wandb.init(
                id=_wandb_id(run),
                resume="allow",
                project=os.environ.get("WANDB_PROJECT", "distinit"),
                name=run.root.resolve().name,
                job_type=record.kind,
                dir=os.environ.get("WANDB_DIR", str(run.root.resolve().parent)),
                config={**record.config, "config_digest": record.config_digest},
                settings=wandb.Settings(silent=True, console="off", symlink=False),
            )
        except wandb.Error as error:
            raise ConfigError(
                "wandb cannot start",
                found=str(error)[:500],
                remedy="run `wandb login`, set WANDB_MODE=offline, or leave wandb out of "
                "runtime.loggers",
            ) from error
        # Steps that a killed process had logged come again: wandb would drop lower steps of its
        # own counter, and the last ones with it.
        self._run.define_metric("*", step_metric="step")
        where = Path(self._run.dir).parent if self._run.offline else self._run.url
        progress.message(f"wandb: {where}")

    def add(self, values: Mapping[str, float], step: int) -> None:
        """See Board."""
        self._run.log({**values, "step": step})

    def close(self) -> None:
        """See Board."""
        self._run.finish()


def _wandb_id(run: RunDirectory) -> str:
    """The id of the run at wandb, which is chosen when the run begins."""
    path = run.root / WANDB_NAME
    if not path.exists():
        write_record(WandbRecord(run_id=uuid4().hex), path)
    remedy = "delete it: the metrics then go to a new wandb run"
    return read_record(path, WandbRecord, error=RunMismatchError, remedy=remedy).run_id
