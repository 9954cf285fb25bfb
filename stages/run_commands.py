"""The command ``distinit runs``: lists training runs, and compares groups of them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, show

__all__ = ["runs"]


@click.command(
    cls=SectionedCommand,
    epilog=examples(
        "distinit runs",
        "distinit runs work --kind finetune --sort top-1",
        "distinit runs work --json",
        "distinit runs --compare 'runs/scratch-*' 'runs/distinit-*'",
    ),
)
@click.argument("folder", default=".", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["distill", "finetune"]), help="List only these runs.")
@click.option(
    "--sort",
    type=click.Choice(["path", "top-1", "loss"]),
    default="path",
    show_default=True,
    help="Order: by path, best top-1 first, or lowest loss first. Runs without it come last.",
)
@click.option(
    "--compare",
    nargs=2,
    metavar="A B",
    help="Instead of a list: compare two groups of finished finetune runs, such as the seeds of "
    "two inits. Each is a run directory, a folder of runs, or a quoted pattern.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def runs(
    folder: Path, kind: str | None, sort: str, compare: tuple[str, str] | None, as_json: bool
) -> None:
    """List the training runs below FOLDER: state, progress, loss, top-1.

    A run is finished, running (on this machine), resumable (from the step shown, that of its
    newest checkpoint), not begun, or unreadable. The steps are optimiser steps done / in all. On
    a terminal, columns that do not fit are left out; piped, the table has all of them.

    --compare gives the mean and the standard deviation of top-1 and per-clip accuracy over the
    runs of each group, and the difference in top-1 with a 95 % interval over the test videos. It
    is paired by video if every run has stored scores.
    """
    if compare is not None:
        from distinit.stages.run_comparison import compare_runs

        show(compare_runs(*compare), as_json)
        return
    from distinit.stages.runs import list_runs
    from distinit.stages.runs_table import print_table

    table = list_runs(folder).only(kind).sorted_by(sort)
    if sys.stdout.isatty() and not as_json and table.runs:
        print_table(table)
    else:
        show(table, as_json)
