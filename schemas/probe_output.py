"""A teacher's output for a fixed picture: part of its identity, compared with a tolerance."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record

__all__ = ["PROBE_SUMS", "ProbeOutput"]

PROBE_SUMS = 8
_PROBE_TOLERANCE = 5e-3
_PROBE_TOLERANCE_HALF = 0.2
"""Largest deviation of a probe output that counts as rounding, as a fraction of its spread.

Larger than the differences between machines, smaller than those caused by edited code. The second
value is for networks that compute in 16 bits themselves. Measurements:
docs/decisions/021-teachers-are-probed-and-videos-shared.md
"""


class ProbeOutput(Record):
    """A teacher's fp32 output for a fixed picture. It reveals code that was edited."""

    top_classes: tuple[int, ...] = Field(
        max_length=100, description="classes with the largest values, in descending order"
    )
    top_values: tuple[float, ...] = Field(max_length=100, description="values of these classes")
    sums: tuple[float, ...] = Field(
        min_length=PROBE_SUMS,
        max_length=PROBE_SUMS,
        description="sums of all values with fixed signs, divided by sqrt(classes)",
    )
    spread: float = Field(ge=0, description="standard deviation of the values")
    half: bool = Field(
        False,
        description="whether the network itself uses 16-bit floats: its tolerance is larger",
    )

    @property
    def tolerance(self) -> float:
        """Largest deviation that counts as rounding."""
        return _PROBE_TOLERANCE_HALF if self.half else _PROBE_TOLERANCE

    def deviation(self, other: ProbeOutput) -> float:
        """Largest difference between corresponding sums, divided by the spread of ``self``.

        If 0.1 % of the largest value of ``self`` is more than the spread, divided by that instead.
        """
        largest = max(map(abs, self.top_values), default=0.0)
        scale = max(self.spread, 1e-3 * largest) or 1.0
        return max(abs(a - b) for a, b in zip(self.sums, other.sums, strict=True)) / scale

    def __str__(self) -> str:
        pairs = zip(self.top_classes, self.top_values, strict=False)
        return ", ".join(f"class {number} {value:.4g}" for number, value in pairs)
