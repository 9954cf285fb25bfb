"""The sums over the rows of one unit that a FeatureFidelityReport is computed from."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from distinit.schemas.base import Record, without_none
from distinit.schemas.teacher import Encoding

__all__ = ["FeatureFidelitySums"]

_MAX_SUM = 1e15  # the sum over all units is finite


class FeatureFidelitySums(Record):
    """How much stored features differ from those computed in fp32, over one unit."""

    frames: int = Field(ge=0, description="number of the frames that are summed over")
    cosine_error_sum: float = Field(
        ge=0, le=_MAX_SUM, description="1 - cosine of the fp32 and the stored features"
    )
    cosine_error_max: float = Field(ge=0, le=2, description="largest 1 - cosine of a frame")
    relative_error_sum: float = Field(
        ge=0, le=_MAX_SUM, description="|stored - fp32| / |fp32|, Euclidean norms"
    )
    relative_error_max: float = Field(
        ge=0, le=_MAX_SUM, description="largest |stored - fp32| / |fp32| of a frame"
    )
    measured_against: Encoding | None = Field(
        None,
        description="encoding of the source that a derived cache was compared with, in place of "
        "the fp32 features. None: compared with these, and the key is left out",
    )

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(dump(self), "measured_against")
