"""The options of ``distill`` and ``finetune``: targets, schedule, batches, workers and device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from distinit.pipeline.command_groups import SectionedOption
from distinit.pipeline.command_options import GPUS_PER_WORKER, RAY_ADDRESS, Command, with_options

__all__ = ["target_options", "train_options"]

_TRAINING, _TARGETS, _WORKERS = "Training", "Targets of all teachers", "Workers and device"


def _option(section: str, *names: str, **settings: Any) -> Callable[[Command], Command]:
    return click.option(*names, cls=SectionedOption, section=section, **settings)


def target_options(command: Command) -> Command:
    """Add the options of distill that hold for the targets of every teacher."""
    options = (
        click.option(
            "--match",
            metavar="FILE",
            help="Mapping file of `cache match`, for a frame store of your own copies.",
        ),
        click.option(
            "--expect",
            metavar="DIGEST|FILE",
            help="Content digest that the cache must have, or a file of `cache info --json`.",
        ),
        _option(
            _TARGETS,
            "--pick",
            "targets__each__pick",
            metavar="random|center|uniform|k_random|all",
            help="Frames of a clip that make its target. Default: one random frame.",
        ),
        _option(
            _TARGETS,
            "--loss",
            "targets__each__loss",
            metavar="cross_entropy|kl|mse|cosine|smooth_l1|cosine+mse|cosine+smooth_l1",
            help="Loss of the student. mse needs a tenth of the --lr. Default: cross_entropy; of "
            "features cosine+smooth_l1.",
        ),
        _option(
            _TARGETS,
            "--normalize",
            "targets__each__normalize",
            metavar="none|standardize|phi_s",
            help="How features are normalized. Default: phi_s, or none with --loss.",
        ),
        _option(
            _TARGETS,
            "--keep-fraction",
            "targets__each__filter__keep_fraction",
            type=float,
            metavar="SHARE",
            help="Share of the clips to keep, the most confident ones. Default: all.",
        ),
    )
    return with_options(command, options)


def train_options(command: Command) -> Command:
    """Add the options of distill and finetune: schedule and batches, and where training runs."""
    return with_options(command, (*_schedule_options(), *_worker_options()))


def _schedule_options() -> tuple[Callable[[Command], Command], ...]:
    return (
        _option(
            _TRAINING,
            "--epochs",
            "optimizer__epochs",
            type=int,
            metavar="N",
            help="Epochs of training. Default: 45, or 32 to finetune a pretrained student.",
        ),
        _option(
            _TRAINING,
            "--clips-per-epoch",
            "optimizer__clips_per_epoch",
            type=int,
            metavar="N",
            help="Clips in an epoch. Default: one per video, but at least ten steps.",
        ),
        _option(
            _TRAINING,
            "--batch-size",
            "runtime__batch_size",
            type=int,
            metavar="N",
            help="Clips in a step, per shard. Default: 32.",
        ),
        _option(
            _TRAINING,
            "--lr",
            "optimizer__learning_rate",
            type=float,
            metavar="RATE",
            help="Learning rate. Default: .01, or .002 to finetune a pretrained student.",
        ),
        _option(
            _TRAINING,
            "--seed",
            "runtime__seed",
            type=int,
            metavar="N",
            help="Seed of the random numbers. Default: 0.",
        ),
        _option(
            _TRAINING,
            "--precision",
            "runtime__precision",
            metavar="fp32|tf32|bf16",
            help="Arithmetic of the student in training. Default: fp32.",
        ),
    )


def _worker_options() -> tuple[Callable[[Command], Command], ...]:
    return (
        _option(
            _WORKERS,
            "--workers",
            "runtime__workers",
            type=int,
            metavar="N",
            help="Number of Ray Train workers. 0 (default): train in this process, without Ray.",
        ),
        _option(
            _WORKERS,
            "--gpus-per-worker",
            "runtime__gpus_per_worker",
            type=float,
            metavar="N",
            help=GPUS_PER_WORKER,
        ),
        _option(
            _WORKERS, "--ray-address", "runtime__ray_address", metavar="ADDRESS", help=RAY_ADDRESS
        ),
        _option(
            _WORKERS,
            "--device",
            "runtime__device",
            metavar="auto|cpu|cuda",
            help="Device that trains the student. Default: auto.",
        ),
    )
