"""The commands ``distinit figures``: figures of the paper from run directories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from distinit.pipeline.command_line import Command, examples, run_stage, stage_options

__all__ = ["figures"]

_out_option = click.option("--out", metavar="FOLDER", help="Folder for the PNG and the PDF.")


@click.group()
def figures() -> None:
    """Draw the figures of the paper from your runs: PNG and PDF."""


def _runs_option(text: str) -> Callable[[Command], Command]:
    return click.option(
        "--run",
        "runs",
        multiple=True,
        metavar="LABEL=RUN",
        callback=_named_runs,
        help=text,
    )


def _named_runs(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> list[dict[str, str]] | None:
    """The labels and folders; None, which keeps the configuration's runs, without any."""
    runs = []
    for value in values:
        label, equals, run = value.partition("=")
        if not (label and equals and run):
            raise click.BadParameter(f"{value!r} is not of the form LABEL=RUN")
        runs.append({"label": label, "run": run})
    return runs or None


def _figure(name: str, *lines: str) -> Callable[[Command], click.Command]:
    """Add a command whose help ends with these examples."""
    epilog = examples(*(f"distinit figures {line}" for line in lines))

    def add(command: Command) -> click.Command:
        return figures.command(name, epilog=epilog)(_out_option(stage_options(command)))

    return add


@_figure(
    "filters",
    "filters --run scratch=scratch --run distinit=runs/a --out figures",
    "filters --run inflated=inflated --run after=runs/b --student vmz_r3d_18 --out figures",
)
@_runs_option("Run directory, scratch, inflated or inflated:FILE. Repeat the option for each.")
@click.option("--student", metavar="NAME", help="Network of scratch and inflated.")
@click.option("--filters", type=int, metavar="N", help="Largest number of filters. Default: 32.")
def filters(**options: Any) -> None:
    """First-layer filters over time (figures 3 and 4)."""
    from distinit.schemas.figures import FiltersConfig
    from distinit.stages.figures import make_figure

    run_stage(FiltersConfig, make_figure, options)


@_figure("gain", "gain --run scratch=runs/scratch --run distinit=runs/b --out figures")
@_runs_option("Finetune run. Give two: the gain is that of the second.")
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
def confused(**options: Any) -> None:
    """Most confused pairs of classes, or what a second run changed."""
    from distinit.schemas.figures import ConfusedConfig
    from distinit.stages.figures import make_figure

    run_stage(ConfusedConfig, make_figure, options)
