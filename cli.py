"""The ``distinit`` command."""

from __future__ import annotations

import click

__all__ = ["main"]


@click.group()
def main() -> None:
    """Pretrain video models from frozen image models."""


if __name__ == "__main__":
    main()
