"""The commands ``distinit frames`` and ``flow``: they build and verify stores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from distinit.pipeline.command_groups import PlainGroup
from distinit.pipeline.command_line import examples, run_stage, show
from distinit.pipeline.command_options import damaged_option, stage_options, videos_option
from distinit.pipeline.option_names import required
from distinit.pipeline.progress import choose_progress

__all__ = ["flow", "frames"]


@click.group(cls=PlainGroup)
def frames() -> None:
    """Build and verify a frame store: the frames that students train on."""


@frames.command(
    "build",
    epilog=examples(
        "distinit frames build --videos clips/ --out frames",
        "distinit frames build --videos clips/ --match clips.match --out frames",
    ),
)
@required("--videos", "--out")
@videos_option
@click.option(
    "--match",
    metavar="FILE",
    help="Mapping file of `cache match`: store only the copies that can be used.",
)
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
