"""Labels, default ids and the identity of networks."""

from __future__ import annotations

import pytest
from torch import nn

from distinit.pipeline.teachers.network import (
    Labels,
    assemble,
    imagenet_labels,
    name_default_id,
    named_labels,
)
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import TEACHER_ID_PATTERN, PreprocessSpec, TeacherRequest

SPEC = PreprocessSpec(
    resize_mode="squash",
    resize_size=8,
    crop_size=8,
    interpolation="bicubic",
    mean=(0, 0, 0),
    std=(1, 1, 1),
)


def test_labels() -> None:
    assert imagenet_labels(10) == Labels("unnamed-10", ())
    assert imagenet_labels(1000).names[999] == "toilet tissue"
    assert named_labels(["a"], "letters") == Labels("letters", ("a",))
    assert named_labels(["a"]).space.startswith("names-")
    assert named_labels(["a"]).space != named_labels(["b"]).space


@pytest.mark.parametrize("part", ["timm-hf_hub/a b", "../../etc", "näme", "x" * 300])
def test_default_ids_are_safe_folder_names(part: str) -> None:
    name = name_default_id([part, "0a1b2c3d"], TeacherRequest(name="resnet50", target="features"))
    assert TEACHER_ID_PATTERN.fullmatch(name)


def test_default_ids_differ_even_if_the_stem_is_shortened() -> None:
    stem = "x" * 300
    requests = [
        TeacherRequest(name="resnet50", target=target, resize=resize)
        for target in ("logits", "features")
        for resize in ("exact", "fast")
    ]
    assert len({name_default_id([stem, "0a1b2c3d"], request) for request in requests}) == 4


def no_features(pool: str | None) -> tuple[nn.Module, int]:
    raise AssertionError(f"these are logits, not features of pool {pool}")


def test_the_number_of_class_names_must_be_that_of_the_classes() -> None:
    with pytest.raises(TeacherError, match="differs from the width of its output") as raised:
        assemble(
            nn.Linear(2, 3),
            TeacherRequest(name="resnet50"),
            architecture="made",
            preprocessing=SPEC,
            classes=3,
            labels=Labels("two", ("a", "b")),
            stem="made",
            features=no_features,
        )
    assert (raised.value.expected, raised.value.found) == ("3 names", "2 names")


def test_fast_records_the_interpolation_that_is_used() -> None:
    network = assemble(
        nn.Linear(2, 3),
        TeacherRequest(name="resnet50", resize="fast"),
        architecture="made",
        preprocessing=SPEC,
        classes=3,
        labels=Labels("three", ()),
        stem="made",
        published=True,
        features=no_features,
    )
    assert network.identity.preprocessing.resize == "fast"
    assert network.identity.preprocessing.interpolation == "bilinear"
    assert network.default_id == "made-fast"
