"""Types of options that click does not have."""

from __future__ import annotations

import math
from typing import Any

import click

from distinit.schemas.wording import shown

__all__ = ["NUMBERS", "SPEED"]

_MAX_DIGITS = 20


class _Numbers(click.ParamType[tuple[int, ...]]):
    """Numbers from 0, separated by commas."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and len(part) < _MAX_DIGITS for part in parts):
            self.fail(f"{shown(value)} is not a list of numbers such as 0,1,2", param, ctx)
        return tuple(dict.fromkeys(int(part) for part in parts))


NUMBERS = _Numbers()
"""The type of --seeds and --splits."""


class _Speed(click.ParamType[float]):
    """A finite number above 0. click's FloatRange accepts NaN and infinity."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = click.FLOAT.convert(value, param, ctx)
        if not 0 < number < math.inf:
            self.fail(f"{shown(value)} is not a finite number above 0", param, ctx)
        return number


SPEED = _Speed()
"""The type of --clips-per-second."""
