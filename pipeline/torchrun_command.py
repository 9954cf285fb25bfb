"""Runs the command line in the processes that torchrun has started: once, in that of rank 0."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from distinit.pipeline.compute.torchrun import Launch, helped_by_others, launched, peers
from distinit.schemas.errors import DistInitError
from distinit.schemas.exit_codes import ExitCode

__all__ = ["run_or_help"]


def run_or_help(run: Callable[[], Any]) -> Any:
    """Return ``run()``; under torchrun the other ranks help instead, and exit as rank 0 does."""
    launch = launched()
    if launch is None or launch.world_size == 1:
        return run()
    if launch.rank > 0:
        sys.exit(_help_rank_0(launch))
    code: int = ExitCode.FAILED
    try:
        with helped_by_others():
            returned = run()
        code = ExitCode.OK
        return returned
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    finally:
        peers().end(code)


def _help_rank_0(launch: Launch) -> int:
    from distinit.pipeline.training.torchrun_train import help_rank_0

    try:
        return help_rank_0(launch)
    except DistInitError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
