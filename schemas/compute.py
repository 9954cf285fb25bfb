"""Where an extraction or evaluation runs: in this process, or on workers of a Ray cluster."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from distinit.schemas.base import Record
from distinit.schemas.wording import did_you_mean, shown

__all__ = ["ComputeConfig", "Device"]

_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,4})?")


def _check_device(value: str) -> str:
    if _DEVICE.fullmatch(value) is None:
        guess = did_you_mean(value, ("auto", "cpu", "cuda"))
        raise ValueError(
            f"device {shown(value)} is not one of auto, cpu, cuda, cuda:N"
            f"{f'; {guess}' if guess else ''}"
        )
    return value


Device = Annotated[str, AfterValidator(_check_device)]
"""``auto`` | ``cpu`` | ``cuda`` | ``cuda:N``."""


class ComputeConfig(Record):
    """How many workers run, where, and with which resources."""

    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        0,
        description="number of Ray workers; 0 runs in this process without Ray; "
        "auto: as many as fit into the cluster",
        json_schema_extra={"unit": "workers"},
    )
    ray_address: str | None = Field(
        None,
        description="address of a running Ray cluster (auto, HOST:6379); None starts a local one",
    )
    gpus_per_worker: float = Field(
        0.0,
        ge=0,
        description="GPUs reserved per worker; workers with a fraction share a GPU",
        json_schema_extra={"unit": "GPUs"},
    )
    cpus_per_worker: float = Field(
        1.0,
        gt=0,
        description="CPU cores reserved per worker",
        json_schema_extra={"unit": "CPU cores"},
    )
    max_attempts: int = Field(
        2,
        ge=1,
        description="a video is recorded as failed if this many workers died on it; an evaluation "
        "ends if this many died on the same videos",
        json_schema_extra={"unit": "workers"},
    )
    start_seconds: float = Field(
        900.0,
        gt=0,
        description="end the run after this time without a live worker",
        json_schema_extra={"unit": "seconds"},
    )
