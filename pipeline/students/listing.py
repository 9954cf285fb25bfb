"""Lists the students that need no plugin. Builds no network."""

from __future__ import annotations

from pydantic import Field

from distinit.pipeline.students.inflate import INFLATION_SOURCES
from distinit.pipeline.students.registry import STUDENT_NAMES
from distinit.pipeline.students.tiny import TINY_STUDENTS
from distinit.pipeline.students.torchvision_nets import SMALLEST_CLIPS
from distinit.pipeline.students.vmz import VMZ_STUDENTS
from distinit.schemas.base import Record

__all__ = ["StudentEntry", "list_students"]

_SIZES = {
    "r3d_18": (33_166_272, 512),
    "mc3_18": (11_490_240, 512),
    "r2plus1d_18": (31_300_125, 512),
    "s3d": (7_910_048, 1024),
    "mvit_v2_s": (34_230_144, 768),
    "swin3d_t": (27_850_470, 768),
    "vmz_r3d_18": (33_166_272, 512),
    "vmz_r3d_34": (63_475_904, 512),
    "vmz_r2plus1d_18": (33_165_639, 512),
    "vmz_r2plus1d_34": (63_491_975, 512),
    "tiny_r2plus1d_10": (179_696, 128),
    "tiny_r2plus1d_14": (540_264, 192),
    "tiny_r3d_9": (903_984, 128),
    "tiny_r2d_9": (309_456, 128),
}
"""Name -> (parameters without heads, feature_dim). Building the networks would take seconds."""


class StudentEntry(Record):
    """One video network."""

    name: str = Field(description="what to write after --student")
    family: str = Field(description="whose network it is")
    parameters: int = Field(description="number of parameters, without heads, for RGB")
    feature_dim: int = Field(description="number of features per clip")
    smallest_frames: int = Field(description="shortest clip, frames")
    smallest_pixels: int = Field(description="smallest crop, pixels; at least 16 in any case")
    inflated_from: str | None = Field(description="image network that it can be inflated from")


def list_students() -> list[StudentEntry]:
    """All students, by family. Every one reads RGB (3 channels) or flow (2)."""
    return [_entry(name) for name in STUDENT_NAMES]


def _entry(name: str) -> StudentEntry:
    parameters, feature_dim = _SIZES[name]
    frames, pixels = SMALLEST_CLIPS.get(name, (1, 1))
    return StudentEntry(
        name=name,
        family=_family(name),
        parameters=parameters,
        feature_dim=feature_dim,
        smallest_frames=frames,
        smallest_pixels=pixels,
        inflated_from=INFLATION_SOURCES.get(name),
    )


def _family(name: str) -> str:
    if name in VMZ_STUDENTS:
        return "VMZ (the paper's authors)"
    return "for CPUs" if name in TINY_STUDENTS else "torchvision"
