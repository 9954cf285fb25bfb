"""Names of evaluation protocols, and the record of a file with the scores of clips."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from distinit.schemas.base import Record, Sha256
from distinit.schemas.training import Precision
from distinit.schemas.wording import did_you_mean

__all__ = [
    "PROTOCOL",
    "PROTOCOL_NAMES",
    "Average",
    "ScoredSubset",
    "ScoresRecord",
    "protocol_remedy",
    "result_name",
]

PROTOCOL = re.compile(
    r"vmz-(?P<vmz>[1-9][0-9]{0,5})|dense-s(?P<dense>[1-9][0-9]{0,5})"
    r"|slowfast-(?P<slowfast>[1-9][0-9]{0,5})x(?P<crops>[13])"
)
"""The names of evaluation protocols."""

PROTOCOL_NAMES = "vmz-N, dense-sN, slowfast-Tx1 or slowfast-Tx3"
_PROTOCOLS = ("vmz-10", "vmz-1", "dense-s1", "dense-s4", "slowfast-10x3", "slowfast-10x1")

Average = Literal["softmax", "logits", "max"]
"""How the clips of a video are averaged: mean of softmax, mean of logits, maximum of softmax."""

ScoredSubset = Literal["val", "test"]
"""The subsets of a labelled dataset that a student can be evaluated on."""


class ScoresRecord(Record):
    """What ``scores-PROTOCOL.parquet`` holds; stored in its footer, under ``distinit``."""

    format: Literal["distinit-scores"] = Field("distinit-scores", description="name of the format")
    format_version: int = Field(1, description="version of the format")
    protocol: str = Field(pattern=f"^({PROTOCOL.pattern})$", description="clips that were scored")
    classes: int = Field(ge=1, description="length of the logits of a clip")
    precision: Precision = Field(description="precision of the forward pass")
    clip_frames: int = Field(ge=1, description="frames of a clip")
    crop: int = Field(ge=1, description="height and width of a crop, pixels")
    student: Sha256 = Field(description="sha256 of the student's tensor file")
    dataset: Sha256 = Field(description="content digest of dataset.json")
    pixels: Sha256 | None = Field(
        description="digest of the geometry, and flow, of the frame store"
    )
    versions: dict[str, str] = Field(
        description="package -> its version: the software that computed the scores"
    )


def protocol_remedy(name: str) -> str:
    """What to write instead of ``name``, which is not a protocol."""
    form = re.sub("[0-9]+", "N", name)
    if form in {"vmz-N", "dense-sN"}:
        return f"N must be a number from 1 to 999999: {form.replace('N', '1')}, for example"
    if form == "slowfast-NxN":
        first = name.partition("x")[0]
        return f"write T, from 1 to 999999, and 1 or 3: {first}x1 or {first}x3"
    return did_you_mean(name, _PROTOCOLS) or "write a protocol such as vmz-10"


def result_name(protocol: str, average: Average, subset: ScoredSubset = "test") -> str:
    """Name of the file in a run with the metrics of one evaluation; softmax is the default."""
    prefix = "" if subset == "test" else f"{subset}-"
    suffix = "" if average == "softmax" else f"-{average}"
    return f"result-{prefix}{protocol}{suffix}.json"
