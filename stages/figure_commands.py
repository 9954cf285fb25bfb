"""The commands ``distinit figures``: figures of the paper from run directories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from distinit.pipeline.command_groups import PlainGroup
from distinit.pipeline.command_line import examples, run_stage
from distinit.pipeline.command_options import Command, dataset_options, stage_options
from distinit.pipeline.option_names import required
from distinit.schemas.wording import shown

__all__ = ["figures"]

_out_option = click.option("--out", metavar="FOLDER", help="Folder for the PNG and the PDF.")


_student_option = click.option(
    "--student",
    "student__name",
    metavar="NAME",
    help="Network of scratch and inflated. Default: that of the first run.",
)


@click.group(cls=PlainGroup)
def figures() -> None:
    """Draw the figures of the paper from your runs: PNG and PDF."""


def _runs_option(
    text: str, metavar: str = "LABEL=RUN", keys: tuple[str, str] = ("label", "run")
) -> Callable[[Command], Command]:
    """``--run A=B``, which adds {keys[0]: A, keys[1]: B} to ``runs``."""

    def parse(
        _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
    ) -> list[dict[str, str]] | None:
        runs = [dict(zip(keys, value.split("=", 1), strict=False)) for value in values]
        for value, run in zip(values, runs, strict=True):
            if len(run) < 2 or not all(run.values()):
                raise click.BadParameter(f"{shown(value)} is not of the form {metavar}")
        return runs or None  # None keeps the runs of --config

    return click.option("--run", "runs", multiple=True, metavar=metavar, callback=parse, help=text)


def _figure(name: str, *lines: str) -> Callable[[Command], click.Command]:
    """Add a command whose help ends with these examples."""
    epilog = examples(*(f"distinit figures {line}" for line in lines))

    def add(command: Command) -> click.Command:
        marked = required("--cache", "--run", "--out")(command)
        return figures.command(name, epilog=epilog)(marked)

    return add


@_figure(
    "filters",
    "filters --run scratch=scratch --run distinit=runs/a --out figures",
    "filters --run inflated=inflated --run after=runs/b --student vmz_r3d_18 --out figures",
)
@_runs_option("Run directory, scratch, inflated or inflated:FILE. Repeat the option for each.")
@_student_option
@click.option("--filters", type=int, metavar="N", help="Largest number of filters. Default: 32.")
@_out_option
@stage_options
def filters(**options: Any) -> None:
    """First-layer filters over time (figures 3 and 4)."""
    from distinit.schemas.figures import FiltersConfig
    from distinit.stages.figures import make_figure

    run_stage(FiltersConfig, make_figure, options)


@_figure(
    "embedding",
    "embedding --run scratch=features/s --run distinit=features/d --out figures",
    "embedding --run distinit=runs/a --dataset hmdb51 --splits splits --out figures",
)
@_runs_option("Folder of `distinit features`; with --dataset, also a run directory or init.")
@dataset_options
@click.option("--frames", metavar="DIR", help="Frame store of the dataset, built if missing.")
@_student_option
@click.option(
    "--class",
    "marked",
    multiple=True,
    metavar="NAME",
    callback=lambda _context, _option, names: names or None,
    help="Class to colour. Default: up to 12, evenly spaced.",
)
@click.option("--device", metavar="auto|cpu|cuda", help="Device for the students.")
@_out_option
@stage_options
def embedding(**options: Any) -> None:
    """t-SNE of the features of the test videos (figure 5)."""
    from distinit.schemas.figures import EmbeddingConfig
    from distinit.stages.figures import make_figure

    run_stage(EmbeddingConfig, make_figure, options)


@_figure(
    "threshold",
    "threshold --cache cache --run runs/d-all=runs/f-all --run runs/d-50=runs/f-50 --out figures",
)
@click.option("--cache", metavar="DIR", help="Target cache of the distill runs.")
@click.option("--teacher", metavar="ID", help="Teacher in the cache, if it has several.")
@_runs_option(
    "Distill run, and the finetune run that began with it. Repeat the option for each.",
    "DISTILLED=FINETUNED",
    ("distilled", "finetuned"),
)
@_out_option
@stage_options
def threshold(**options: Any) -> None:
    """Accuracy against the confidence threshold (figure 6)."""
    from distinit.schemas.figures import ThresholdConfig
    from distinit.stages.figures import make_figure

    run_stage(ThresholdConfig, make_figure, options)


@_figure("gain", "gain --run scratch=runs/scratch --run distinit=runs/b --out figures")
@_runs_option("Finetune run. Give two: the gain is that of the second.")
@_out_option
@stage_options
def gain(**options: Any) -> None:
    """Gain per class between two finetune runs (figure 7)."""
    from distinit.schemas.figures import GainConfig
    from distinit.stages.figures import make_figure

    run_stage(GainConfig, make_figure, options)


@_figure(
    "confused",
    "confused --run distinit=runs/b --out figures",
    "confused --run scratch=runs/scratch --run distinit=runs/b --out figures",
)
@_runs_option("Finetune run. Give two to see what the second changed.")
@click.option("--pairs", type=int, metavar="N", help="Number of pairs of classes. Default: 20.")
@_out_option
@stage_options
def confused(**options: Any) -> None:
    """Most confused pairs of classes, or what a second run changed."""
    from distinit.schemas.figures import ConfusedConfig
    from distinit.stages.figures import make_figure

    run_stage(ConfusedConfig, make_figure, options)
