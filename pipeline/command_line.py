"""Shared by the click commands: runs a stage, and prints its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Protocol

import click

from distinit.pipeline.config import build_config
from distinit.pipeline.option_names import key_of, option_names
from distinit.pipeline.progress import NullProgress, choose_progress
from distinit.pipeline.ready_configs import find_config
from distinit.schemas.base import Record
from distinit.schemas.wording import printable, printable_json

__all__ = ["Summarised", "examples", "run_stage", "show"]


class Summarised(Protocol):
    """What every stage returns: a result that can be shown as text or as JSON."""

    def summary(self) -> str:
        """The result as text."""

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """The result as JSON."""


def show(result: Summarised, as_json: bool) -> None:
    """Print a result as text or JSON, with control characters escaped."""
    if as_json:
        click.echo(printable_json(result.model_dump_json(indent=2)))
    else:
        click.echo(printable(result.summary()))


def examples(*lines: str) -> str:
    """A help epilog with example commands, which click does not rewrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def run_stage[ConfigT: Record, ResultT: Summarised](
    model: type[ConfigT],
    stage: Callable[Concatenate[ConfigT, ...], ResultT],
    options: dict[str, Any],
) -> ResultT:
    """Build the configuration from the options, run ``stage``, print and return its result.

    An option named ``a__b`` sets the key ``a.b``, and ``a__each__b`` the key ``b`` of every element
    of the list ``a``.
    """
    file, settings = options.pop("config_file"), options.pop("settings")
    as_json, quiet = options.pop("as_json"), options.pop("quiet")
    dotted = {key_of(name): value for name, value in options.items()}
    path = find_config(file) if file else None
    config = build_config(
        model, path, settings, dotted, option_names(click.get_current_context().command)
    )
    progress = NullProgress() if quiet else choose_progress(json_events=as_json)
    result = stage(config, progress=progress)
    show(result, as_json)
    return result
