"""Results of the audit: the classes of a teacher's confident half."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record

__all__ = ["ConfidentHalf", "HalfClass"]


class HalfClass(Record):
    """One class in the more confident half of the frames."""

    class_index: int = Field(ge=0, description="index of the class, from 0")
    name: str = Field(description="label of the class, or `class N` without one")
    frames: int = Field(ge=0, description="frames of the half with this most probable class")
    share_of_half: float = Field(ge=0, le=1, description="share of the frames of the half")
    share_of_all: float = Field(ge=0, le=1, description="share of all frames of the corpus")


class ConfidentHalf(Record):
    """The classes of the more confident half of the frames."""

    max_entropy_nats: float = Field(
        ge=0, description="first threshold of the curve that keeps half of the frames, nats"
    )
    frames: int = Field(ge=0, description="frames that this threshold keeps")
    classes: int = Field(ge=0, description="classes that are the most probable one of any of them")
    classes_of_half: int = Field(
        ge=0, description="the most frequent classes that together have half of these frames"
    )
    top_classes: tuple[HalfClass, ...] = Field(
        description="most frequent classes first; at most AuditConfig.top_classes"
    )
