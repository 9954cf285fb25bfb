"""Vocabularies: the metadata of a file of text embeddings, and the teachers made with one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from distinit.schemas.base import Name, Record, Sha256
from distinit.schemas.wording import shown

__all__ = ["MAX_TEMPLATES", "Relabelling", "VocabularyMetadata"]

MAX_TEMPLATES = 1_000

_ClassName = Annotated[str, StringConstraints(max_length=1_000)]


class Relabelling(Record):
    """What the logits of a teacher were computed from: stored features and a vocabulary."""

    parent_fingerprint: Sha256 = Field(
        description="fingerprint of the teacher whose stored features were used"
    )
    vocabulary_sha256: Sha256 = Field(
        description="digest of the vocabulary: text embeddings, names and scale"
    )


class VocabularyMetadata(Record):
    """The JSON text under the key ``distinit_vocabulary`` in the header of a vocabulary file."""

    key: ClassVar[str] = "distinit_vocabulary"

    text_tower: Name = Field(
        min_length=1, description="network that embedded the texts, e.g. open_clip/ViT-B-32:openai"
    )
    image_architecture: Name | None = Field(
        None,
        description="architecture of the image network that shares its space, as the key "
        "`architecture` of a teacher's identity. None: only the weights are named",
    )
    image_weights_sha256: Sha256 | None = Field(
        None, description="its weights_sha256. None: any weights of this architecture"
    )
    templates: tuple[Name, ...] = Field(
        (), max_length=MAX_TEMPLATES, description="prompts whose embeddings were averaged"
    )
    names: tuple[_ClassName, ...] = Field(
        min_length=2, description="name of each row of text_embeddings_KD"
    )

    @model_validator(mode="after")
    def _names_an_image_network(self) -> Self:
        if self.image_architecture is None and self.image_weights_sha256 is None:
            raise ValueError("name the image network: image_architecture or image_weights_sha256")
        return self

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        first: dict[str, int] = {}
        for number, name in enumerate(self.names):
            if not name.strip():
                raise ValueError(f"the name of row {number} is empty")
            if name in first:
                raise ValueError(
                    f"rows {first[name]} and {number} have the same name {shown(name)}"
                )
            first[name] = number
        return self
