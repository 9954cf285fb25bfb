"""Teachers from torchvision: its image classifiers with their weights and preprocessing presets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torchvision
from torch import nn
from torchvision.models import WeightsEnum

from distinit.pipeline.teachers.heads import fit_classes
from distinit.pipeline.teachers.network import Network, assemble, imagenet_labels
from distinit.pipeline.teachers.recipes import torchvision_recipe
from distinit.pipeline.teachers.torchvision_features import torchvision_features
from distinit.pipeline.teachers.weights import (
    StateDict,
    checkpoints_dir,
    load_strictly,
    read_state_dict,
    require_hash_prefix,
    require_weights_file,
)
from distinit.schemas.errors import TeacherError, WeightsError
from distinit.schemas.teacher import PreprocessSpec, TeacherRequest
from distinit.schemas.wording import closest_names, did_you_mean, shown

__all__ = [
    "PublishedWeights",
    "build_classifier",
    "classifier_names",
    "load_torchvision",
    "published_weights",
    "require_classifier",
]

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Heads of GoogLeNet and Inception that are only used in training."""
_FIRST_RECIPE = "IMAGENET1K_V1"
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:\w+))$")


def classifier_names() -> list[str]:
    """All image classifiers of the installed torchvision."""
    return cast("list[str]", torchvision.models.list_models(module=torchvision.models))


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """What torchvision says about one file of weights."""

    tag: str
    is_default: bool
    """Whether a name without a tag means these weights."""
    classes: int
    input_pixels: int
    parameters: int
    licence: str | None
    path: Path
    """Where the file is once torchvision has downloaded it."""


def published_weights(name: str) -> list[PublishedWeights]:
    """The weights of one classifier. Raises TeacherError for an unknown name."""
    choices = _weights_of(name)
    default = _tagged(name, choices, "")
    return [
        PublishedWeights(
            tag=weights.name,
            is_default=weights is default,
            classes=len(weights.meta["categories"]),
            input_pixels=_preset(weights).crop_size,
            parameters=weights.meta["num_params"],
            licence=weights.meta.get("license"),
            path=checkpoints_dir() / _file_name(weights),
        )
        for weights in choices
    ]


def load_torchvision(request: TeacherRequest) -> Network:
    """Build ``resnet50`` or ``resnet50@IMAGENET1K_V2`` from local weights; nothing is downloaded.

    Without a tag it is IMAGENET1K_V1; ``@DEFAULT`` is torchvision's default.

    Raises TeacherError if the name or the weights tag is unknown, and WeightsError if the weights
    are missing, damaged or of another network.
    """
    name, _, tag = request.name.partition("@")
    choices = _weights_of(name)
    if request.weights is None:
        weights = _tagged(name, choices, tag)
        path = _cached_file(request.name, weights)
    else:
        path = require_weights_file(Path(request.weights))
        weights = _tagged(name, choices, tag) if tag else _recognised(name, choices, path)
    published = path.name == _file_name(weights)
    if published:
        require_hash_prefix(path)
    network, classes = build_classifier(name, read_state_dict(path), weights, source=str(path))
    preprocessing = _preset(weights)
    return assemble(
        network,
        request,
        architecture=f"torchvision/{name}",
        preprocessing=preprocessing,
        classes=classes,
        labels=imagenet_labels(classes),
        stem=f"{name}-{weights.name}" if published else name,
        published=published,
        recipe=torchvision_recipe(weights) if published else None,
        features=partial(torchvision_features, network, name=name, side=preprocessing.crop_size),
    )


def build_classifier(
    name: str, state_dict: StateDict, weights: WeightsEnum | None, *, source: str
) -> tuple[nn.Module, int]:
    """A torchvision classifier with these weights, and its number of classes.

    ``weights`` only determines the input size of a vision transformer. Raises TeacherError for an
    unknown name, WeightsError for a state dict of another network.
    """
    require_classifier(name)
    state_dict = {
        _OLD_DENSENET.sub(r"\1\2", key): tensor
        for key, tensor in state_dict.items()
        if not key.startswith(_AUXILIARY)
    }
    # Building a network draws random numbers: keep the caller's random state unchanged.
    with torch.random.fork_rng(devices=[]):
        network = torchvision.models.get_model(name, weights=None, **_options(name, weights))
        classes = fit_classes(network, state_dict)
    load_strictly(network, state_dict, source=source)
    return network, classes


def _options(name: str, weights: WeightsEnum | None) -> dict[str, Any]:
    if name in ("googlenet", "inception_v3"):
        # The options that torchvision uses when it loads these weights.
        return {"transform_input": True, "aux_logits": False, "init_weights": False}
    if name.startswith("vit_") and weights is not None:
        return {"image_size": weights.meta["min_size"][0]}
    return {}


def require_classifier(name: str) -> None:
    """Raise TeacherError, with the closest names, unless torchvision has this classifier."""
    if name not in classifier_names():
        raise TeacherError(
            f"torchvision has no classifier {shown(name)}",
            expected="a name that `distinit teachers` lists",
            remedy=did_you_mean(name, classifier_names()) or "choose one of these names",
        )


def _weights_of(name: str) -> list[WeightsEnum]:
    require_classifier(name)
    choices = list(torchvision.models.get_model_weights(name))
    return [w for w in choices if w.meta.get("categories")]  # some are backbones only


def _tagged(name: str, choices: list[WeightsEnum], tag: str) -> WeightsEnum:
    """The weights called ``tag``: without a tag IMAGENET1K_V1 if there are such (decision 28)."""
    by_tag = {weights.name: weights for weights in choices}
    if tag == "" and _FIRST_RECIPE in by_tag:
        return by_tag[_FIRST_RECIPE]
    if tag in ("", "DEFAULT"):
        default = torchvision.models.get_model_weights(name).DEFAULT
        return by_tag.get(default.name, choices[0])
    if tag not in by_tag:
        raise TeacherError(
            f"torchvision has no weights {shown(tag)} for {name}",
            expected=" or ".join(by_tag),
            remedy=f"write {name}@{next(iter(closest_names(tag, by_tag) or by_tag))}",
        )
    return by_tag[tag]


def _recognised(name: str, choices: list[WeightsEnum], path: Path) -> WeightsEnum:
    """The published weights with this file name; otherwise the default, whose preset is used."""
    for weights in choices:
        if _file_name(weights) == path.name:
            return weights
    return _tagged(name, choices, "")


def _cached_file(name: str, weights: WeightsEnum) -> Path:
    path = checkpoints_dir() / _file_name(weights)
    if not path.is_file():
        raise WeightsError(
            f"the weights of {name} ({weights.name}) are not on this machine",
            expected=str(path),
            found="no such file; distinit never downloads weights",
            remedy=f"put {path.name} into {path.parent}, or name a file with --weights",
        )
    return path


def _file_name(weights: WeightsEnum) -> str:
    return str(weights.url).rsplit("/", 1)[-1]


def _preset(weights: WeightsEnum) -> PreprocessSpec:
    preset = weights.transforms()
    return PreprocessSpec(
        resize_mode="short_edge",
        resize_size=preset.resize_size[0],
        crop_size=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        antialias=bool(preset.antialias),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
