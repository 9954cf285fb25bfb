"""The commands ``distinit distill``, ``finetune`` and ``evaluate``."""

from __future__ import annotations

from typing import Any

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, run_stage
from distinit.pipeline.command_options import (
    dataset_options,
    evaluation_options,
    protocol_option,
    stage_options,
    worker_options,
)
from distinit.pipeline.option_names import required
from distinit.pipeline.training_options import target_options, train_options

__all__ = ["distill", "evaluate", "finetune"]


@click.command(
    cls=SectionedCommand,
    epilog=examples(
        "distinit distill --cache cache --frames frames --student r2plus1d_18 --out runs/a",
        "distinit distill --cache cache --frames frames --epochs 20 --keep-fraction 0.5 --out r",
        "distinit distill --config configs/paper/distill.yaml --cache cache --frames f --out r",
    ),
)
@required("--cache", "--frames", "--out")
@click.option("--cache", metavar="DIR|URL", help="Folder of the target cache, or its URL.")
@click.option("--frames", metavar="DIR", help="Folder of the frame store (RGB or flow).")
@click.option(
    "--student",
    "student__name",
    metavar="NAME",
    help="Network to train: r2plus1d_18 (default), vmz_r3d_18, ...",
)
@click.option("--out", metavar="RUN", help="Run directory, created or resumed.")
@target_options
@train_options
@stage_options
def distill(**options: Any) -> None:
    """Train a video student on the targets of a cache."""
    from distinit.schemas.distill import DistillConfig
    from distinit.stages.distill import distill as run

    run_stage(DistillConfig, run, options)


@click.command(
    cls=SectionedCommand,
    epilog=examples(
        "distinit finetune --dataset hmdb51 --splits splits --init distinit:runs/a --out runs/b",
        "distinit finetune --dataset clips/ --init scratch --student r3d_18 --epochs 30 --out s",
    ),
)
@required("--dataset", "--out")
@dataset_options
@click.option(
    "--init",
    metavar="scratch|distinit:RUN|inflated|file:STUDENT",
    help="Initial weights: random, a distilled run, an inflated 2D network, or a student file.",
)
@click.option(
    "--student",
    "student__name",
    metavar="NAME",
    help="Network to train, if --init does not determine it.",
)
@click.option("--frames", metavar="DIR", help="Frame store of the dataset, built if missing.")
@click.option(
    "--flow", metavar="DIR", help="Flow store of the dataset, for flow students; built if missing."
)
@click.option("--out", metavar="RUN", help="Run directory, created or resumed.")
@protocol_option
@click.option(
    "--eval-every",
    type=int,
    metavar="N",
    help="Also evaluate after every N epochs. Default: only at the end.",
)
@train_options
@stage_options
def finetune(**options: Any) -> None:
    """Finetune a student on a labelled dataset, and evaluate it."""
    from distinit.schemas.finetune import FinetuneConfig
    from distinit.stages.finetune import finetune as run

    run_stage(FinetuneConfig, run, options)


@click.command(
    cls=SectionedCommand,
    epilog=examples(
        "distinit evaluate --run runs/b",
        "distinit evaluate --run runs/b --protocol slowfast-10x3 --workers 8 --gpus-per-worker 1",
        "distinit evaluate --run runs/b --from-scores --average logits",
        "distinit evaluate --run runs/b --dataset hmdb51",
    ),
)
@required("--run")
@click.option("--run", metavar="RUN", help="Run directory of a finetune run.")
@evaluation_options
@click.option(
    "--subset", metavar="val|test", help="Videos to evaluate on. Default: the test videos."
)
@click.option(
    "--from-scores",
    is_flag=True,
    default=None,
    help="Compute the metrics from the scores that an earlier evaluation stored in the run.",
)
@click.option("--frames", metavar="DIR", help="Folder of the frame or flow store, if it was moved.")
@dataset_options
@click.option(
    "--student", metavar="plugin:...", help="Plugin that builds the network, if the run used one."
)
@click.option("--device", metavar="auto|cpu|cuda", help="Device for the student.")
@worker_options
@stage_options
def evaluate(**options: Any) -> None:
    """Evaluate a finetune run again, with the same or another protocol."""
    from distinit.schemas.finetune import EvaluateConfig
    from distinit.stages.evaluate import evaluate as run

    run_stage(EvaluateConfig, run, options)
