"""The commands ``distinit doctor`` and ``distinit demo``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, show
from distinit.pipeline.progress import choose_progress
from distinit.schemas.exit_codes import ExitCode

__all__ = ["demo", "doctor"]


@click.command(cls=SectionedCommand, epilog=examples("distinit doctor", "distinit doctor --json"))
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


@click.command(
    cls=SectionedCommand,
    epilog=examples("distinit demo", "distinit demo --out /tmp/demo --only footage"),
)
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
