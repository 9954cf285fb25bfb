"""Teachers from timm, if it is installed (extra ``timm``), with weights from a local file."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from math import floor, isqrt
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distinit.pipeline.teachers.network import Network, assemble, imagenet_labels
from distinit.pipeline.teachers.recipes import timm_recipe
from distinit.pipeline.teachers.timm_features import classifier_layers, timm_features
from distinit.pipeline.teachers.weights import StateDict, load_strictly, read_state_dict
from distinit.schemas.errors import TeacherError, WeightsError
from distinit.schemas.teacher import MAX_CLASSES, PreprocessSpec, TeacherRequest
from distinit.schemas.wording import did_you_mean, shell_line

__all__ = ["import_timm", "load_timm"]


def load_timm(request: TeacherRequest) -> Network:
    """Build ``timm:NAME`` from a local weights file; nothing is downloaded.

    Preprocessing is that of the model's pretrained configuration. A vision transformer gets the
    input size of its weights' position embedding. Raises TeacherError if timm is not installed,
    the name is unknown or ``weights`` is None, WeightsError if the weights do not fit.
    """
    name = request.name.partition(":")[2]
    timm = import_timm()
    _require_known(timm, name)
    if request.weights is None:
        raise TeacherError(
            f"the teacher {request.name} needs a weights file",
            expected="--weights FILE (.safetensors or .pth)",
            found="no --weights; distinit never downloads weights",
            remedy="save timm.create_model(name, pretrained=True).state_dict() to a file "
            "(docs/teachers.md)",
        )
    state_dict = read_state_dict(Path(request.weights))
    module, classes = _build(timm, name, state_dict, request)
    load_strictly(module, state_dict, source=request.weights)
    preprocessing = _preprocessing(_data_config(timm, module), name)
    return assemble(
        module,
        request,
        architecture=f"timm/{name}",
        preprocessing=preprocessing,
        classes=classes,
        labels=imagenet_labels(classes),
        stem=f"timm-{name}",
        recipe=timm_recipe(name),
        features=partial(timm_features, module, name=request.name, side=preprocessing.crop_size),
    )


def _require_known(timm: Any, name: str) -> None:
    if not timm.is_model(name):
        raise TeacherError(
            f"timm has no model {name}",
            expected="a name from timm.list_models()",
            remedy=did_you_mean(name.partition(".")[0], timm.list_models())
            or shell_line(["python", "-c", "import timm; print(timm.list_models())"]),
        )


def _build(
    timm: Any, name: str, state_dict: StateDict, request: TeacherRequest
) -> tuple[nn.Module, int]:
    """The network with the classes and the input size of ``state_dict``, and its classes.

    Raises WeightsError if logits are requested and the weights have no classifier.
    """

    def create(**options: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(name, pretrained=False, **options)

    module = create()
    layers = classifier_layers(module)
    classes = _classes(state_dict, layers)
    if classes == 0 and request.target == "logits":
        raise WeightsError(
            f"the weights have no classifier for {request.name}",
            expected=f"a tensor {layers[0]}.weight" if layers else "a network with a classifier",
            found=f"{len(state_dict)} tensors, among them {', '.join(list(state_dict)[:3])}",
            remedy="use target features, or name the architecture that these weights are of",
        )
    options = {"num_classes": classes} if classes != module.num_classes else {}
    if (pixels := _input_pixels(module, state_dict)) is not None:
        options["img_size"] = pixels
    return (create(**options) if options else module), classes


def _classes(state_dict: StateDict, layers: tuple[str, ...]) -> int:
    """Number of classes of the stored classifier; 0 if there is none."""
    weight = state_dict.get(f"{layers[0]}.weight") if layers else None
    if weight is None or weight.ndim == 0:
        return 0
    classes = int(weight.shape[0])
    if not 1 <= classes <= MAX_CLASSES:
        raise WeightsError(
            f"the weights have a classifier of {classes:,} classes",
            expected=f"1 .. {MAX_CLASSES:,}",
            found=f"{layers[0]}.weight of shape {list(weight.shape)}",
            remedy="name the architecture that these weights were trained with",
        )
    return classes


def _input_pixels(module: Any, state_dict: StateDict) -> int | None:
    """Height and width that the stored position embedding is for; None: those of ``module``."""
    stored, built = state_dict.get("pos_embed"), getattr(module, "pos_embed", None)
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    if stored is None or built is None or grid is None or stored.ndim != 3 or built.ndim != 3:
        return None
    others = built.shape[1] - grid[0] * grid[1]  # tokens in front of the patches
    patches = int(stored.shape[1]) - others
    side = isqrt(max(patches, 0))
    if stored.shape[1] == built.shape[1] or side == 0 or side * side != patches:
        return None  # if it does not fit, loading reports the shapes
    return side * int(module.patch_embed.patch_size[0])


def _data_config(timm: Any, module: Any) -> Mapping[str, Any]:
    """timm's settings for evaluation, at the input size that the network was built with."""
    built = getattr(getattr(module, "patch_embed", None), "img_size", None)
    options = {} if built is None else {"input_size": (3, *built)}
    config: Mapping[str, Any] = timm.data.resolve_model_data_config(module, args=options)
    return config


def _preprocessing(config: Mapping[str, Any], name: str) -> PreprocessSpec:
    channels, height, width = config["input_size"]
    crop_mode, interpolation = config.get("crop_mode", "center"), config["interpolation"]
    if (
        (channels, height) != (3, width)
        or crop_mode not in ("center", "squash")
        or interpolation not in ("bilinear", "bicubic")
    ):
        raise TeacherError(
            f"the preprocessing of timm:{name} is not supported",
            expected="a square RGB input, crop mode center or squash, bilinear or bicubic",
            found=f"{channels} channels, {height}x{width}, {crop_mode}, {interpolation}",
            remedy="write a plugin teacher for this model",
        )
    return PreprocessSpec(
        resize_mode="squash" if crop_mode == "squash" else "short_edge",
        resize_size=floor(height / config["crop_pct"]),
        crop_size=height,
        interpolation=interpolation,
        mean=config["mean"],
        std=config["std"],
    )


def import_timm() -> Any:
    """The package timm. Raises TeacherError if it is not installed."""
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise TeacherError(
            "the Python package timm is not installed",
            expected="timm, for teachers named timm:NAME",
            found="none in this environment",
            remedy="pip install timm",
        ) from error
