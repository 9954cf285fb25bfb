"""The ``distinit`` command: parse, build a configuration, call one stage, print. No logic."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from distinit.pipeline.command_line import (
    Command,
    SectionedGroup,
    damaged_option,
    examples,
    run_stage,
    sampling_options,
    show,
    stage_options,
    teacher_option,
    train_options,
    videos_option,
    weights_option,
)
from distinit.pipeline.config import teacher_requests
from distinit.pipeline.progress import choose_progress

__all__ = ["main"]


@click.group(
    cls=SectionedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "distinit demo",
        "distinit extract --videos clips/ --teacher resnet50 --cache cache --frames frames",
        "distinit distill --cache cache --frames frames --student r2plus1d_18 --out runs/a",
        "distinit finetune --dataset hmdb51 --splits splits --init distinit:runs/a --out runs/b",
    ),
)
@click.version_option(package_name="distinit")
def main() -> None:
    """Pretrain video models from frozen image models, without one video label."""


def _command(*lines: str) -> Callable[[Command], click.Command]:
    """A command of ``distinit`` whose help ends with ``examples``."""
    return main.command(epilog=examples(*lines))


@_command(
    "distinit extract --videos clips/ --teacher resnet50 --cache cache --frames frames",
    "distinit extract --videos clips/ --teacher efficientnet_lite0 --cache cache --workers 4",
    "distinit extract --videos list.txt --teacher resnet18 --weights resnet18.pth --cache c",
    "distinit extract --videos s3://bucket/clips/ --teacher resnet50 --cache cache --fps 2",
)
@videos_option
@teacher_option
@weights_option
@click.option("--encoding", metavar="float16|int8|topk:K", help="How logits are stored.")
@click.option("--cache", metavar="DIR", help="Target cache: made, or continued.")
@click.option("--frames", metavar="DIR", help="Frame store for the students; written too.")
@click.option("--workers", "compute__workers", metavar="N|auto", help="Ray; 0: this process.")
@click.option("--gpus-per-worker", "compute__gpus_per_worker", type=float, help="GPUs each.")
@click.option("--cpus-per-worker", "compute__cpus_per_worker", type=float, help="CPU cores each.")
@click.option("--ray-address", "compute__ray_address", metavar="ADDRESS", help="A cluster.")
@click.option("--device", metavar="auto|cpu|cuda", help="Where teachers run.")
@click.option("--hwaccel", "decode__hwaccel", metavar="none|cuda", help="What decodes.")
@damaged_option
@click.option("--max-failed", type=float, metavar="FRACTION", help="Failed videos accepted.")
@click.option("--retry-failed", is_flag=True, default=None, help="Try failed videos again.")
@click.option("--keep-gone", is_flag=True, default=None, help="Train on removed videos too.")
@sampling_options
@stage_options
def extract(
    names: tuple[str, ...], weights: tuple[str, ...], encoding: str | None, **options: Any
) -> None:
    """Videos + frozen teachers -> target cache (and frame store)."""
    from distinit.schemas.extract import ExtractConfig
    from distinit.stages.extract import extract as run

    options["teachers"] = teacher_requests(names, weights, encoding)
    result = run_stage(ExtractConfig, run, options)
    sys.exit(0 if result.complete else 3)


@_command(
    "distinit distill --cache cache --frames frames --student r2plus1d_18 --out runs/a",
    "distinit distill --config configs/paper_distill.yaml --set optimizer.epochs=5",
)
@click.option("--cache", metavar="DIR", help="Target cache.")
@click.option("--frames", metavar="DIR", help="Frame store.")
@click.option("--student", "student__name", metavar="NAME", help="r2plus1d_18, vmz_r3d_18, ...")
@click.option("--out", metavar="RUN", help="Run directory.")
@train_options
@stage_options
def distill(**options: Any) -> None:
    """Target cache -> video student."""
    from distinit.schemas.distill import DistillConfig
    from distinit.stages.distill import distill as run

    run_stage(DistillConfig, run, options)


@_command(
    "distinit finetune --dataset hmdb51 --splits splits --init distinit:runs/a --out runs/b",
    "distinit finetune --dataset clips/ --init scratch --out runs/scratch \\",
    "    --set student.name=r3d_18",
)
@click.option("--dataset", "dataset__root", metavar="DIR", help="Class folders with videos.")
@click.option("--splits", "dataset__splits", metavar="DIR|FILE", help="HMDB-51, UCF-101, or CSV.")
@click.option("--split", "dataset__split", type=int, help="Which official split.")
@click.option("--init", metavar="scratch|distinit:RUN|inflated|file:STUDENT", help="Start from.")
@click.option("--student", "student__name", metavar="NAME", help="Where --init does not say.")
@click.option("--frames", metavar="DIR", help="The dataset's frame store; made if missing.")
@click.option("--flow", metavar="DIR", help="Its flow store, for a student of flow; likewise.")
@click.option("--out", metavar="RUN", help="Run directory.")
@train_options
@stage_options
def finetune(**options: Any) -> None:
    """Student -> finetuned classifier, evaluated."""
    from distinit.schemas.finetune import FinetuneConfig
    from distinit.stages.finetune import finetune as run

    run_stage(FinetuneConfig, run, options)


@_command("distinit evaluate --run runs/b", "distinit evaluate --run runs/b --protocol dense-s4")
@click.option("--run", metavar="RUN", help="A finetune run.")
@click.option("--protocol", "evaluation__protocol", metavar="vmz-N|dense-sN", help="Which clips.")
@click.option("--frames", metavar="DIR", help="Its frame (or flow) store, if it is elsewhere.")
@click.option("--student", metavar="plugin:...", help="Its network, if that is a plugin.")
@click.option("--device", metavar="auto|cpu|cuda", help="Where the student runs.")
@stage_options
def evaluate(**options: Any) -> None:
    """Score a finetuned run, perhaps by another protocol."""
    from distinit.schemas.finetune import EvaluateConfig
    from distinit.stages.evaluate import evaluate as run

    run_stage(EvaluateConfig, run, options)


@_command(
    "distinit audit cache --frames frames --out audit",
    "distinit audit cache --out audit --json",
)
@click.argument("cache", type=click.Path())
@click.option("--frames", metavar="DIR", help="Frame store, for contact sheets.")
@click.option("--out", metavar="DIR", required=True, help="Folder of the report.")
@stage_options
def audit(**options: Any) -> None:
    """How confident were the teachers? Plots, contact sheets, one page."""
    from distinit.schemas.audit import AuditConfig
    from distinit.stages.audit import audit as run

    run_stage(AuditConfig, run, options)


@main.group()
def cache() -> None:
    """Read and check a target cache."""


@cache.command("info", epilog=examples("distinit cache info cache --json"))
@click.argument("folder", metavar="CACHE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def cache_info(folder: Path, as_json: bool) -> None:
    """Digest, counts and teachers of CACHE."""
    from distinit.stages.cache import cache_info as run

    show(run(folder), as_json)


@cache.command(
    "verify",
    epilog=examples(
        "distinit cache verify cache",
        "distinit cache verify cache --expect DIGEST",
        "distinit cache verify cache --repair",
    ),
)
@click.argument("folder", metavar="CACHE", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Files and sizes only, no checksums.")
@click.option(
    "--expect", metavar="DIGEST", help="The content digest that its sender published of it."
)
@click.option(
    "--repair",
    is_flag=True,
    help="Give damaged units back to the next extraction, which then does them again.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def cache_verify(
    folder: Path, quick: bool, expect: str | None, repair: bool, as_json: bool
) -> None:
    """Check every byte of CACHE against its records.

    Exit code 0: all is well. 1: damaged, or not the cache that is expected. 3: not complete.
    """
    from distinit.stages.cache import cache_verify as run

    if quick and repair:
        raise click.UsageError("--repair reads every byte: leave --quick out")
    progress = choose_progress(json_events=as_json)
    result = run(folder, deep=not quick, expect=expect, repair=repair, progress=progress)
    show(result, as_json)
    sys.exit(result.exit_code)


@main.group()
def frames() -> None:
    """Make and check a frame store, the students' pixels."""


@frames.command("build", epilog=examples("distinit frames build --videos clips/ --out frames"))
@videos_option
@click.option("--out", metavar="DIR", help="Folder of the frame store.")
@damaged_option
@stage_options
def frames_build(**options: Any) -> None:
    """Videos -> frame store, for those who received a cache without pixels."""
    from distinit.schemas.frames import FramesConfig
    from distinit.stages.frames import build_frames as run

    run_stage(FramesConfig, run, options)


@frames.command("verify", epilog=examples("distinit frames verify frames"))
@click.argument("folder", metavar="STORE", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Files and sizes only, no checksums.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def frames_verify(folder: Path, quick: bool, as_json: bool) -> None:
    """Check every byte of STORE (RGB or flow); exit code 1: anything is off, 3: unfinished."""
    from distinit.stages.frames import verify_frames as run

    result = run(folder, deep=not quick, progress=choose_progress(json_events=as_json))
    show(result, as_json)
    sys.exit(result.exit_code)


@main.group()
def flow() -> None:
    """Make a flow store, for students of optical flow."""


@flow.command("build", epilog=examples("distinit flow build --frames frames --out flow"))
@click.option("--frames", metavar="DIR", help="RGB frame store.")
@click.option("--out", metavar="DIR", help="Folder of the flow store: made, or continued.")
@stage_options
def flow_build(**options: Any) -> None:
    """RGB frame store -> flow store: Farneback's flow to the next frame."""
    from distinit.schemas.frames import FlowConfig
    from distinit.stages.flow import build_flow as run

    run_stage(FlowConfig, run, options)


@_command(
    "distinit plan --videos clips/ --teacher resnet50",
    "distinit plan --videos list.csv --teacher resnet50 --fps 2 --set workers=[8,64]",
)
@videos_option
@teacher_option
@weights_option
@click.option("--device", metavar="auto|cpu|cuda", help="Where teachers run.")
@click.option("--sample", type=int, metavar="K", help="Videos to look at.")
@sampling_options
@stage_options
def plan(names: tuple[str, ...], weights: tuple[str, ...], **options: Any) -> None:
    """What an extraction would give and cost: frames, bytes, hours. Writes nothing."""
    from distinit.schemas.plan import PlanConfig
    from distinit.stages.plan import plan as run

    options["teachers"] = teacher_requests(names, weights, None)
    run_stage(PlanConfig, run, options)


@_command("distinit runs", "distinit runs work --json")
@click.argument("folder", default=".", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def runs(folder: Path, as_json: bool) -> None:
    """List the runs below FOLDER: how far, how good, from which cache."""
    from distinit.stages.runs import list_runs

    show(list_runs(folder), as_json)


@_command("distinit doctor", "distinit doctor --json")
@click.option(
    "--folder", type=click.Path(path_type=Path, exists=True), default=".", help="To work in."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(folder: Path, as_json: bool) -> None:
    """Look at this machine and say what is missing."""
    from distinit.stages.doctor import diagnose

    report = diagnose(folder)
    show(report, as_json)
    sys.exit(0 if report.healthy else 1)


@_command("distinit demo", "distinit demo --out /tmp/demo --only footage")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("work/demo"), show_default=True
)
@click.option("--only", type=click.Choice(["footage"]), help="Make the videos, then stop.")
@click.option("--workers", type=int, default=0, show_default=True, help="Ray workers.")
@click.option("--json", "as_json", is_flag=True, help="Result and events as JSON.")
def demo(out: Path, only: str | None, workers: int, as_json: bool) -> None:
    """The whole method on packaged footage: some minutes on two cores."""
    from distinit.stages.demo import demo as run

    progress = choose_progress(json_events=as_json)
    show(run(out, only=only, workers=workers, progress=progress), as_json)


if __name__ == "__main__":
    main()
