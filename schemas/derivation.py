"""What a derived cache was made from: the key ``derived_from`` of its manifest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer

from distinit.schemas.base import Name, Record, Sha256, without_none
from distinit.schemas.output_reports import FeatureFidelityReport, FidelityReport
from distinit.schemas.provenance import Provenance
from distinit.schemas.teacher import TEACHER_ID_PATTERN, Encoding
from distinit.schemas.wording import counted, one_line

__all__ = ["Derivation", "Operation", "SourceCache", "SourceTeacher"]

MAX_SOURCES = 1_000

Operation = Literal["merge", "subset", "encode", "relabel"]

_TeacherId = Annotated[str, StringConstraints(pattern=f"^{TEACHER_ID_PATTERN.pattern}$")]


class SourceTeacher(Record):
    """A teacher of a source, as the source records it."""

    id: _TeacherId = Field(description="id of the teacher in the source")
    encoding: Encoding = Field(description="how the source stores its targets")
    fidelity: FidelityReport | None = Field(
        None, description="what that encoding changed, over all frames of the source"
    )
    precision_loss: FidelityReport | None = Field(
        None, description="what the arithmetic changed, over the first frames of each unit group"
    )
    feature_fidelity: FeatureFidelityReport | None = Field(
        None,
        description="what that encoding changed of features, over all frames of the source. "
        "None: not known, and the key is left out",
    )
    feature_precision_loss: FeatureFidelityReport | None = Field(
        None, description="as precision_loss, for features. None: the key is left out"
    )
    software: dict[str, str] = Field(
        {}, description="versions of the software that ran the teacher"
    )

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(dump(self), "feature_fidelity", "feature_precision_loss")


class SourceCache(Record):
    """A cache that rows were copied from."""

    content_digest: Sha256 = Field(description="content digest, recomputed from the source's bytes")
    videos: int = Field(ge=0, description="videos of the result whose outcome is this source's")
    teachers: dict[_TeacherId, SourceTeacher] = Field(
        description="id in the result -> the teacher in this source"
    )
    provenance: Provenance | None = Field(
        None,
        description="license, source and contact, as the owner of this source states them; left "
        "out if nothing is stated",
    )

    @model_serializer(mode="wrap")
    def _without_unstated(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(dump(self), "provenance")


class Derivation(Record):
    """How a cache was made from other caches, without decoding a video or running a teacher."""

    operation: Operation = Field(description="the command: merge | subset | encode | relabel")
    sources: tuple[SourceCache, ...] = Field(
        min_length=1, max_length=MAX_SOURCES, description="in the order in which they were given"
    )
    parameters: dict[Name, int | float | Name] = Field(
        {}, max_length=100, description="name -> value, for the options that decided the content"
    )
    notes: tuple[Name, ...] = Field(
        (), max_length=1_000, description="decisions that a reader should know, one line each"
    )

    def lines(self, taken: str = "") -> list[str]:
        """The derivation as text: the operation and its parameters, then one line per source.

        ``taken``: words after the number of videos. The text of README.md, which is checked, has
        none.
        """
        given = "; ".join(f"{one_line(k)} {one_line(v)}" for k, v in self.parameters.items())
        of = counted(len(self.sources), "cache")
        return [
            f"{self.operation} of {of}{f' ({given})' if given else ''}",
            *(
                f"source {s.content_digest}: {counted(s.videos, 'video')}{taken}"
                for s in self.sources
            ),
            *map(one_line, self.notes),
        ]
