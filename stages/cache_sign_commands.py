"""The commands ``distinit cache keygen`` and ``sign``: what a receiver trusts a cache by."""

from __future__ import annotations

from pathlib import Path

import click

from distinit.pipeline.command_line import examples, show
from distinit.pipeline.progress import choose_progress
from distinit.stages.cache_commands import cache

__all__ = ["cache_keygen", "cache_sign"]

_PASSWORD = click.option(
    "--password-env",
    "password_variable",
    metavar="VARIABLE",
    help="Environment variable with the password of the private key. Default: no password.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@cache.command("keygen", epilog=examples("distinit cache keygen --out team"))
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


@cache.command("sign", epilog=examples("distinit cache sign cache --key team"))
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
