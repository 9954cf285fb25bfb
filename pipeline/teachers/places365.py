"""Teachers for scenes: the Places365 networks in the form their authors publish them."""

from __future__ import annotations

from pathlib import Path

from distinit.pipeline.teachers.network import Labels, Network, assemble
from distinit.pipeline.teachers.torchvision_models import build_classifier
from distinit.pipeline.teachers.weights import read_state_dict, require_weights_file
from distinit.schemas.errors import TeacherError, WeightsError
from distinit.schemas.teacher import PreprocessSpec, TeacherRequest

__all__ = ["CATEGORIES_FILE", "PLACES_PREPROCESSING", "load_places365", "read_categories"]

CATEGORIES_FILE = "categories_places365.txt"
"""Class names are taken from a file of this name beside the weights, where there is one."""

PLACES_PREPROCESSING = PreprocessSpec(
    resize_mode="squash",
    resize_size=256,
    crop_size=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
_CLASSES = 365


def load_places365(request: TeacherRequest) -> Network:
    """Build ``places365:ARCH`` (resnet18, resnet50, alexnet, ...) from a published checkpoint.

    Raises TeacherError without ``weights`` or for an unknown architecture, WeightsError for
    weights that do not fit or do not have 365 classes.
    """
    architecture = request.name.partition(":")[2]
    if request.weights is None:
        raise TeacherError(
            f"the teacher {request.name} needs its weights",
            expected=f"--weights {architecture}_places365.pth.tar",
            found="no --weights",
            remedy="take the file from the Places365 project (CSAILVision/places365)",
        )
    path = require_weights_file(Path(request.weights))
    module, classes = build_classifier(architecture, read_state_dict(path), None, source=str(path))
    if classes != _CLASSES:
        raise WeightsError(
            f"the weights in {path} are not of a Places365 network",
            expected=f"{_CLASSES} classes",
            found=f"{classes} classes",
            remedy=f"for another data set use --teacher {architecture}",
        )
    return assemble(
        module,
        request,
        architecture=f"places365/{architecture}",
        preprocessing=PLACES_PREPROCESSING,
        classes=classes,
        labels=Labels("places365", read_categories(path.with_name(CATEGORIES_FILE))),
        stem=f"places365-{architecture}",
    )


def read_categories(path: Path) -> tuple[str, ...]:
    """Class names in index order from lines like ``/a/airfield 0``; empty without the file.

    Raises WeightsError when the indices are not 0 to 364 in order.
    """
    if not path.is_file():
        return ()
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line]
    if [line[-1:] for line in lines] != [[str(index)] for index in range(_CLASSES)]:
        raise WeightsError(
            f"the class names in {path} are not those of Places365",
            expected=f"{_CLASSES} lines '/letter/name index', indices from 0 in order",
            found=f"{len(lines)} lines",
            remedy="replace the file by the published one, or remove it to go without names",
        )
    return tuple(line[0].split("/", 2)[-1] for line in lines)
