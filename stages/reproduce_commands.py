"""The command ``distinit reproduce``."""

from __future__ import annotations

import sys
from typing import Any

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, show
from distinit.pipeline.config import build_config
from distinit.pipeline.option_types import NUMBERS, SPEED
from distinit.pipeline.progress import choose_progress

__all__ = ["reproduce"]


@click.command(
    cls=SectionedCommand,
    epilog=examples(
        "distinit reproduce all --scale smoke --out work/reproduce",
        "distinit reproduce table1 --scale paper --data DATA --out work/paper --seeds 0,1,2",
        "distinit reproduce all --scale paper --data DATA --plan",
    ),
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
