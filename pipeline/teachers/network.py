"""A network with loaded weights and its full identity: what every source of teachers returns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torchvision.models import ResNet50_Weights

from distinit.pipeline.teachers.fingerprint import state_dict_sha256
from distinit.pipeline.teachers.pooling import Features
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import (
    PreprocessSpec,
    TeacherIdentity,
    TeacherRequest,
    WeightsRecipe,
)

__all__ = [
    "IMAGENET_CLASSES",
    "Labels",
    "Network",
    "assemble",
    "imagenet_labels",
    "name_default_id",
    "named_labels",
]

IMAGENET_CLASSES = 1000
_LONGEST_ID = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9._@+-]+")


@dataclass(frozen=True)
class Labels:
    """The meaning of the logits: the name of the label space, and class names if known."""

    space: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """A network with loaded weights. ``default_id`` is its folder name if the user gives none.

    ``recipe``: how the weights were trained, if that is known.
    """

    module: nn.Module
    identity: TeacherIdentity
    default_id: str
    recipe: WeightsRecipe | None = None


def imagenet_labels(classes: int) -> Labels:
    """ImageNet-1k's labels for 1000 classes; for any other number, a label space without names."""
    if classes != IMAGENET_CLASSES:
        return Labels(f"unnamed-{classes}", ())
    return Labels("imagenet-1k", tuple(ResNet50_Weights.DEFAULT.meta["categories"]))


def named_labels(names: Sequence[str], space: str | None = None) -> Labels:
    """Labels with these names; without ``space``, the label space is named by their digest."""
    return Labels(space or f"names-{sha256_of(list(names))[:16]}", tuple(names))


def assemble(
    module: nn.Module,
    request: TeacherRequest,
    *,
    architecture: str,
    preprocessing: PreprocessSpec,
    classes: int,
    labels: Labels,
    stem: str,
    published: bool = False,
    features: Features,
    recipe: WeightsRecipe | None = None,
) -> Network:
    """Compute the identity of a loaded network; for feature teachers, apply ``features``.

    The default id starts with ``stem``. If the weights are not ``published`` under that name, the
    first 8 digits of their digest are added. Raises TeacherError if the number of names is wrong,
    or the network cannot give the pool.
    """
    _require_names(labels, classes, architecture)
    weights_sha256 = state_dict_sha256(module.state_dict())
    if request.target == "features":
        module, classes = features(request.pool)
        labels = Labels("features", ())
    identity = TeacherIdentity(
        architecture=architecture,
        weights_sha256=weights_sha256,
        preprocessing=with_resize(preprocessing, request).model_copy(update={"flip": request.flip}),
        target=request.target,
        pool=request.pool,
        classes=classes,
        label_space=labels.space,
        label_names=labels.names,
    )
    parts = [stem] if published else [stem, weights_sha256[:8]]
    return Network(module, identity, name_default_id(parts, request), recipe)


def with_resize(spec: PreprocessSpec, request: TeacherRequest) -> PreprocessSpec:
    """``spec`` with the resize of the request: if fast, ffmpeg's bilinear scaling is used."""
    if request.resize == "exact":
        return spec.model_copy(update={"resize": "exact"})
    return spec.model_copy(update={"resize": "fast", "interpolation": "bilinear"})


def name_default_id(parts: Sequence[str], request: TeacherRequest) -> str:
    """A folder name of ``parts``, and of target, pool, resize and flip if not the default."""
    extras = [
        *(["features"] if request.target == "features" else []),
        *([request.pool] if request.pool is not None else []),
        *(["fast"] if request.resize == "fast" else []),
        *(["flip"] if request.flip else []),
    ]
    stem, *tail = [_UNSAFE.sub("-", part) for part in (*parts, *extras)]
    end = "".join(f"-{part}" for part in tail)
    return stem.lstrip("._-+@")[: _LONGEST_ID - len(end)] + end


def _require_names(labels: Labels, classes: int, architecture: str) -> None:
    if labels.names and len(labels.names) != classes:
        raise TeacherError(
            f"the number of class names of {architecture} differs from the width of its output",
            expected=f"{classes} names",
            found=f"{len(labels.names)} names",
            remedy="give one name per class in index order, or none",
        )
