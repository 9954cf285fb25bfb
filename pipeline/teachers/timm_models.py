"""Teachers from timm, if it is installed; it is not a dependency."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from distinit.pipeline.teachers.heads import fit_classes
from distinit.pipeline.teachers.network import Network, assemble, imagenet_labels
from distinit.pipeline.teachers.recipes import timm_recipe
from distinit.pipeline.teachers.weights import load_strictly, read_state_dict
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import PreprocessSpec, TeacherRequest
from distinit.schemas.wording import did_you_mean, shell_line

__all__ = ["load_timm"]


def load_timm(request: TeacherRequest) -> Network:
    """Build ``timm:NAME`` from a local weights file; nothing is downloaded.

    Preprocessing is that of the model's pretrained configuration. Raises TeacherError if timm is
    not installed, the name is unknown or ``weights`` is None, WeightsError if the weights do not
    fit.
    """
    name = request.name.partition(":")[2]
    timm = _import_timm()
    if not timm.is_model(name):
        raise TeacherError(
            f"timm has no model {name}",
            expected="a name from timm.list_models()",
            remedy=did_you_mean(name.partition(".")[0], timm.list_models())
            or shell_line(["python", "-c", "import timm; print(timm.list_models())"]),
        )
    if request.weights is None:
        raise TeacherError(
            f"the teacher {request.name} needs a weights file",
            expected="--weights FILE (.safetensors or .pth)",
            found="no --weights; distinit never downloads weights",
            remedy="save timm.create_model(name, pretrained=True).state_dict() to a file",
        )
    state_dict = read_state_dict(Path(request.weights))
    with torch.random.fork_rng(devices=[]):
        module = timm.create_model(name, pretrained=False)
        classes = fit_classes(module, state_dict)
    load_strictly(module, state_dict, source=request.weights)
    return assemble(
        module,
        request,
        architecture=f"timm/{name}",
        preprocessing=_preprocessing(timm.data.resolve_model_data_config(module), name),
        classes=classes,
        labels=imagenet_labels(classes),
        stem=f"timm-{name}",
        recipe=timm_recipe(name),
    )


def _preprocessing(config: dict[str, Any], name: str) -> PreprocessSpec:
    _, height, width = config["input_size"]
    crop_mode, interpolation = config.get("crop_mode", "center"), config["interpolation"]
    if (
        height != width
        or crop_mode not in ("center", "squash")
        or interpolation not in ("bilinear", "bicubic")
    ):
        raise TeacherError(
            f"the preprocessing of timm:{name} is not supported",
            expected="a square input, crop mode center or squash, bilinear or bicubic",
            found=f"{height}x{width}, {crop_mode}, {interpolation}",
            remedy="write a plugin teacher for this model",
        )
    return PreprocessSpec(
        resize_mode="squash" if crop_mode == "squash" else "short_edge",
        resize_size=int(height / config["crop_pct"]),
        crop_size=height,
        interpolation=interpolation,
        mean=config["mean"],
        std=config["std"],
    )


def _import_timm() -> Any:
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
