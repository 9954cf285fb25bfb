"""The commands ``distinit extract`` and ``distinit plan``, its estimate."""

from __future__ import annotations

import sys
from typing import Any

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, run_stage
from distinit.pipeline.command_options import (
    damaged_option,
    sampling_options,
    stage_options,
    target_options,
    teacher_option,
    videos_option,
    weights_option,
    worker_options,
)
from distinit.pipeline.config import teacher_requests
from distinit.pipeline.option_names import required
from distinit.pipeline.provenance_options import provenance_options
from distinit.schemas.exit_codes import ExitCode

__all__ = ["extract", "plan"]


@click.command(
    cls=SectionedCommand,
    epilog=examples(
        "distinit extract --videos clips/ --teacher resnet50 --cache cache --frames frames",
        "distinit extract --videos clips/ --teacher efficientnet_lite0 --cache cache --workers 4",
        "distinit extract --videos list.txt --teacher resnet18 --weights resnet18.pth --cache c",
        "distinit extract --videos s3://bucket/clips/ --teacher resnet50 --cache cache --fps 2",
        "distinit extract --videos clips/ --teacher resnet50 --pool grid:2 --cache features",
    ),
)
@required("--videos", "--teacher", "--cache")
@videos_option
@teacher_option
@weights_option
@target_options
@click.option(
    "--encoding",
    metavar="float16|int8|topk:K",
    help="How the cache stores logits or features. Default: float16.",
)
@click.option("--cache", metavar="DIR", help="Folder of the target cache, created or resumed.")
@click.option(
    "--frames",
    metavar="DIR",
    help="Folder of a frame store, to store frames for students too.",
)
@worker_options
@click.option("--device", metavar="auto|cpu|cuda", help="Device for the teachers.")
@click.option(
    "--hwaccel",
    "decode__hwaccel",
    metavar="none|cuda",
    help="Hardware decoder for the videos.",
)
@damaged_option
@click.option(
    "--max-failed",
    type=float,
    metavar="FRACTION",
    help="Share of the videos that may fail; with more, the run ends in an error. Default: .05, "
    "but up to 3 videos of a small corpus.",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    default=None,
    help="Retry videos that failed in an earlier run.",
)
@click.option(
    "--repair",
    is_flag=True,
    default=None,
    help="Check every byte of the cache and extract its damaged units again; add nothing to it.",
)
@click.option(
    "--keep-gone",
    is_flag=True,
    default=None,
    help="Keep training on videos that are no longer in --videos.",
)
@sampling_options
@provenance_options
@stage_options
def extract(
    teachers: tuple[str, ...],
    weights: tuple[str, ...],
    target: str | None,
    pool: str | None,
    encoding: str | None,
    **options: Any,
) -> None:
    """Run frozen teachers over videos, and write a target cache."""
    from distinit.schemas.extract import ExtractConfig
    from distinit.stages.extract import extract as run

    options["teachers"] = teacher_requests(
        teachers, weights, target=target, pool=pool, encoding=encoding
    )
    result = run_stage(ExtractConfig, run, options)
    sys.exit(ExitCode.OK if result.complete else ExitCode.INCOMPLETE)


@click.command(
    cls=SectionedCommand,
    epilog=examples(
        "distinit plan --videos clips/ --teacher resnet50",
        "distinit plan --videos list.csv --teacher resnet50 --fps 2 --set workers=[8,64]",
    ),
)
@required("--videos")
@videos_option
@teacher_option
@weights_option
@target_options
@click.option("--device", metavar="auto|cpu|cuda", help="Device for the teachers.")
@click.option("--sample", type=int, metavar="K", help="Number of videos to measure.")
@sampling_options
@stage_options
def plan(
    teachers: tuple[str, ...],
    weights: tuple[str, ...],
    target: str | None,
    pool: str | None,
    **options: Any,
) -> None:
    """Estimate the frames, bytes and hours of an extraction. Writes nothing."""
    from distinit.schemas.plan import PlanConfig
    from distinit.stages.plan import plan as run

    options["teachers"] = teacher_requests(teachers, weights, target=target, pool=pool)
    run_stage(PlanConfig, run, options)
