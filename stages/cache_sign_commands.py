"""The commands ``distinit cache keygen``, ``sign`` and ``describe``: who vouches for a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, show
from distinit.pipeline.config import build_config
from distinit.pipeline.option_names import key_of, option_names
from distinit.pipeline.progress import choose_progress
from distinit.pipeline.provenance_options import provenance_options

__all__ = ["SIGN_COMMANDS"]

_PASSWORD = click.option(
    "--password-env",
    "password_variable",
    metavar="VARIABLE",
    help="Environment variable with the password of the private key. Default: no password.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.command("keygen", cls=SectionedCommand, epilog=examples("distinit cache keygen --out team"))
@click.option(
    "--out",
    metavar="KEY",
    required=True,
    type=click.Path(path_type=Path),
    help="File for the private key; the public key is written to KEY.pub.",
)
@_PASSWORD
@_JSON
def cache_keygen(out: Path, password_variable: str | None, as_json: bool) -> None:
    """Make a pair of keys, to sign caches with.

    Existing files are never replaced.
    """
    from distinit.stages.cache_sign import cache_keygen as run

    show(run(out, password_variable=password_variable), as_json)


@click.command(
    "sign", cls=SectionedCommand, epilog=examples("distinit cache sign cache --key team")
)
@click.argument("folder", metavar="CACHE", type=click.Path(path_type=Path))
@click.option(
    "--key",
    metavar="KEY",
    required=True,
    type=click.Path(path_type=Path),
    help="File with the private key, as `distinit cache keygen` writes it.",
)
@_PASSWORD
@_JSON
def cache_sign(folder: Path, key: Path, password_variable: str | None, as_json: bool) -> None:
    """Verify every byte of CACHE, then sign it.

    The signature, CACHE/cache.sig, covers the name and the bytes of every file. Receivers check it
    with `distinit cache verify --signed-by KEY.pub`. It needs no network.
    """
    from distinit.stages.cache_sign import cache_sign as run

    progress = choose_progress(json_events=as_json)
    show(run(folder, key, password_variable=password_variable, progress=progress), as_json)


@click.command(
    "describe",
    cls=SectionedCommand,
    epilog=examples(
        "distinit cache describe cache --license CC-BY-4.0 --source https://host/clips",
        "distinit cache describe cache --contact team@host",
    ),
)
@click.argument("cache_folder", metavar="CACHE")
@provenance_options
@_JSON
def cache_describe(cache_folder: str, as_json: bool, **options: Any) -> None:
    """State the license, the source and the contact of CACHE.

    They are shown to everyone who receives it. The content digest does not change.
    """
    from distinit.stages.cache_describe import DescribeConfig
    from distinit.stages.cache_describe import cache_describe as run

    given = {key_of(name): value for name, value in options.items()}
    names = option_names(click.get_current_context().command)
    config = build_config(DescribeConfig, None, (), {"cache": cache_folder, **given}, names)
    show(run(config, progress=choose_progress(json_events=as_json)), as_json)


SIGN_COMMANDS = (cache_keygen, cache_sign, cache_describe)
"""The commands that this module adds to ``distinit cache``."""
