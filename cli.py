"""The ``distinit`` command: parses options, builds a configuration, runs one stage, prints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from distinit.pipeline.command_line import (
    EXIT_CODES,
    Command,
    SectionedGroup,
    damaged_option,
    dataset_options,
    evaluation_options,
    examples,
    protocol_option,
    run_stage,
    sampling_options,
    show,
    stage_options,
    teacher_option,
    videos_option,
    weights_option,
    worker_options,
)
from distinit.pipeline.config import build_config, teacher_requests
from distinit.pipeline.option_names import required
from distinit.pipeline.option_types import NUMBERS, SPEED
from distinit.pipeline.progress import choose_progress
from distinit.pipeline.provenance_options import provenance_options
from distinit.pipeline.training_options import target_options, train_options
from distinit.schemas.exit_codes import ExitCode
from distinit.stages.audit_commands import audit
from distinit.stages.cache_combine_commands import COMBINE_COMMANDS
from distinit.stages.cache_commands import cache
from distinit.stages.cache_format_commands import cache_schemas
from distinit.stages.cache_match_commands import cache_match
from distinit.stages.cache_sign_commands import SIGN_COMMANDS
from distinit.stages.cache_transfer_commands import cache_pull, cache_push
from distinit.stages.compare_commands import features, probe
from distinit.stages.config_commands import config
from distinit.stages.figure_commands import figures
from distinit.stages.list_commands import students, teachers
from distinit.stages.run_commands import runs
from distinit.stages.store_commands import flow, frames

__all__ = ["main"]


@click.group(
    cls=SectionedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "distinit demo",
        "distinit extract --videos clips/ --teacher resnet50 --cache cache --frames frames",
        "distinit distill --cache cache --frames frames --student r2plus1d_18 --out runs/a",
        "distinit finetune --dataset hmdb51 --splits splits --init distinit:runs/a --out runs/b",
    )
    + f"\n\n{EXIT_CODES}",
)
@click.version_option(package_name="distinit")
def main() -> None:
    """Pretrain video models by distilling frozen image models, without video labels."""


main.add_command(config)
main.add_command(features)
main.add_command(audit)
main.add_command(probe)
main.add_command(cache)
more = (cache_schemas, cache_push, cache_pull, cache_match, *SIGN_COMMANDS, *COMBINE_COMMANDS)
for cache_command in more:
    cache.add_command(cache_command)
main.add_command(frames)
main.add_command(flow)
main.add_command(figures)
main.add_command(runs)
main.add_command(teachers)
main.add_command(students)


def _command(*lines: str) -> Callable[[Command], click.Command]:
    """Add a command to ``distinit`` whose help ends with these examples."""
    return main.command(epilog=examples(*lines))


@_command(
    "distinit extract --videos clips/ --teacher resnet50 --cache cache --frames frames",
    "distinit extract --videos clips/ --teacher efficientnet_lite0 --cache cache --workers 4",
    "distinit extract --videos list.txt --teacher resnet18 --weights resnet18.pth --cache c",
    "distinit extract --videos s3://bucket/clips/ --teacher resnet50 --cache cache --fps 2",
)
@required("--videos", "--teacher", "--cache")
@videos_option
@teacher_option
@weights_option
@click.option(
    "--encoding",
    metavar="float16|int8|topk:K",
    help="How the cache stores logits. Default: float16.",
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
    teachers: tuple[str, ...], weights: tuple[str, ...], encoding: str | None, **options: Any
) -> None:
    """Run frozen teachers over videos, and write a target cache."""
    from distinit.schemas.extract import ExtractConfig
    from distinit.stages.extract import extract as run

    options["teachers"] = teacher_requests(teachers, weights, encoding)
    result = run_stage(ExtractConfig, run, options)
    sys.exit(ExitCode.OK if result.complete else ExitCode.INCOMPLETE)


@_command(
    "distinit distill --cache cache --frames frames --student r2plus1d_18 --out runs/a",
    "distinit distill --cache cache --frames frames --epochs 20 --keep-fraction 0.5 --out runs/b",
    "distinit distill --config configs/paper/distill.yaml --cache cache --frames frames --out r",
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


@_command(
    "distinit finetune --dataset hmdb51 --splits splits --init distinit:runs/a --out runs/b",
    "distinit finetune --dataset clips/ --init scratch --student r3d_18 --epochs 30 --out runs/s",
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


@_command(
    "distinit evaluate --run runs/b",
    "distinit evaluate --run runs/b --protocol slowfast-10x3 --workers 8 --gpus-per-worker 1",
    "distinit evaluate --run runs/b --from-scores --average logits",
    "distinit evaluate --run runs/b --dataset hmdb51",
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


@_command(
    "distinit plan --videos clips/ --teacher resnet50",
    "distinit plan --videos list.csv --teacher resnet50 --fps 2 --set workers=[8,64]",
)
@required("--videos")
@videos_option
@teacher_option
@weights_option
@click.option("--device", metavar="auto|cpu|cuda", help="Device for the teachers.")
@click.option("--sample", type=int, metavar="K", help="Number of videos to measure.")
@sampling_options
@stage_options
def plan(teachers: tuple[str, ...], weights: tuple[str, ...], **options: Any) -> None:
    """Estimate the frames, bytes and hours of an extraction. Writes nothing."""
    from distinit.schemas.plan import PlanConfig
    from distinit.stages.plan import plan as run

    options["teachers"] = teacher_requests(teachers, weights, None)
    run_stage(PlanConfig, run, options)


@_command("distinit doctor", "distinit doctor --json")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True),
    default=".",
    help="Folder to check for free space and write access. Default: this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def doctor(folder: Path, as_json: bool) -> None:
    """Check whether this machine has everything that distinit needs."""
    from distinit.stages.doctor import diagnose

    report = diagnose(folder)
    show(report, as_json)
    sys.exit(ExitCode.OK if report.healthy else ExitCode.FAILED)


@_command("distinit demo", "distinit demo --out /tmp/demo --only footage")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("work/demo"),
    show_default=True,
    help="Folder to write everything to.",
)
@click.option("--only", type=click.Choice(["footage"]), help="Make the demo videos, then stop.")
@click.option("--workers", type=int, default=0, show_default=True, help="Number of Ray workers.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON.")
def demo(out: Path, only: str | None, workers: int, as_json: bool) -> None:
    """Run the whole method on data from packages, and show its gain.

    It takes minutes on two cores.
    """
    from distinit.stages.demo import demo as run

    progress = choose_progress(json_events=as_json)
    show(run(out, only=only, workers=workers, progress=progress), as_json)


@_command(
    "distinit reproduce all --scale smoke --out work/reproduce",
    "distinit reproduce table1 --scale paper --data DATA --out work/paper --seeds 0,1,2",
    "distinit reproduce all --scale paper --data DATA --plan",
)
@click.argument("table")
@click.option("--scale", metavar="smoke|small|paper|FILE", help="Size of the runs. Default: smoke.")
@click.option(
    "--data",
    metavar="DIR",
    help="Folder with the videos, split lists and weights. Default: OUT/data.",
)
@click.option(
    "--out",
    metavar="DIR",
    default="work/reproduce",
    help="Folder to write to. Default: work/reproduce.",
)
@click.option(
    "--splits", type=NUMBERS, metavar="1,2,3", help="Official splits to run. Default: the scale's."
)
@click.option(
    "--seeds", type=NUMBERS, metavar="0,1,2", help="Seeds of every run. Default: the scale's."
)
@click.option(
    "--plan",
    "only_plan",
    is_flag=True,
    help="Only print runs, hours, bytes and missing inputs. Nothing is written.",
)
@click.option(
    "--clips-per-second",
    type=SPEED,
    metavar="N",
    help="Training speed for the hours of --plan, clips of 8 frames.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="A.B=VALUE", help="Change a setting of the scale."
)
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON.")
def reproduce(
    only_plan: bool, clips_per_second: float | None, as_json: bool, **options: Any
) -> None:
    """Run a table or figure of the paper, or all of them.

    NAME is table1 .. table6, fig3 .. fig7 or all.
    """
    from distinit.schemas.reproduce import ReproduceConfig
    from distinit.stages.reproduce import open_reproduction
    from distinit.stages.reproduce import reproduce as run
    from distinit.stages.reproduce_plan import plan_reproduction

    config = build_config(ReproduceConfig, None, (), options)
    if only_plan:
        show(
            plan_reproduction(open_reproduction(config), clips_per_second=clips_per_second), as_json
        )
        return
    result = run(config, progress=choose_progress(json_events=as_json))
    show(result, as_json)
    sys.exit(result.exit_code)


if __name__ == "__main__":
    main()
