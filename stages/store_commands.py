"""The commands ``distinit cache``, ``frames`` and ``flow``: they build and verify stores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from distinit.pipeline.command_line import (
    PlainGroup,
    damaged_option,
    examples,
    run_stage,
    show,
    stage_options,
    videos_option,
)
from distinit.pipeline.option_names import required
from distinit.pipeline.progress import choose_progress

__all__ = ["cache", "flow", "frames"]


@click.group(cls=PlainGroup)
def cache() -> None:
    """Inspect and verify a target cache."""


@cache.command("info", epilog=examples("distinit cache info cache --json"))
@click.argument("folder", metavar="CACHE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def cache_info(folder: Path, as_json: bool) -> None:
    """Print the digest, the counts and the teachers of CACHE."""
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
@click.option("--quick", is_flag=True, help="Check only names and sizes of files.")
@click.option(
    "--expect",
    metavar="DIGEST",
    help="Content digest that the cache must have, as its sender published it.",
)
@click.option(
    "--repair",
    is_flag=True,
    help="Remove the records of damaged units, so that the next extract makes them again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def cache_verify(
    folder: Path, quick: bool, expect: str | None, repair: bool, as_json: bool
) -> None:
    """Check every byte of CACHE against its records.

    Exit code 0: no problems. 1: damaged, or not the expected cache. 3: not complete.
    """
    from distinit.stages.cache import cache_verify as run

    if quick and repair:
        raise click.UsageError("--repair reads every byte: leave --quick out")
    progress = choose_progress(json_events=as_json)
    result = run(folder, deep=not quick, expect=expect, repair=repair, progress=progress)
    show(result, as_json)
    sys.exit(result.exit_code)


@click.group(cls=PlainGroup)
def frames() -> None:
    """Build and verify a frame store: the frames that students train on."""


@frames.command("build", epilog=examples("distinit frames build --videos clips/ --out frames"))
@required("--videos", "--out")
@videos_option
@click.option("--out", metavar="DIR", help="Folder of the frame store, created or resumed.")
@damaged_option
@stage_options
def frames_build(**options: Any) -> None:
    """Build a frame store from videos.

    It is for training with a cache that came without one.
    """
    from distinit.schemas.frames import FramesConfig
    from distinit.stages.frames import build_frames as run

    run_stage(FramesConfig, run, options)


@frames.command("verify", epilog=examples("distinit frames verify frames"))
@click.argument("folder", metavar="STORE", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Check only names and sizes of files.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def frames_verify(folder: Path, quick: bool, as_json: bool) -> None:
    """Check every byte of STORE (RGB or flow) against its records.

    Exit code 0: no problems. 1: damaged. 3: not complete.
    """
    from distinit.stages.frames import verify_frames as run

    result = run(folder, deep=not quick, progress=choose_progress(json_events=as_json))
    show(result, as_json)
    sys.exit(result.exit_code)


@click.group(cls=PlainGroup)
def flow() -> None:
    """Build a flow store, for students that are trained on optical flow."""


@flow.command("build", epilog=examples("distinit flow build --frames frames --out flow"))
@required("--frames", "--out")
@click.option("--frames", metavar="DIR", help="Folder of the RGB frame store to compute flow from.")
@click.option("--out", metavar="DIR", help="Folder of the flow store, created or resumed.")
@stage_options
def flow_build(**options: Any) -> None:
    """Build a flow store from a frame store.

    It holds the optical flow (Farneback) between the frames.
    """
    from distinit.schemas.frames import FlowConfig
    from distinit.stages.flow import build_flow as run

    run_stage(FlowConfig, run, options)
