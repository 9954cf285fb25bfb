"""Scene classification teachers: Places365 networks, from the files that their authors publish."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from distinit.pipeline.storage import read_bounded
from distinit.pipeline.teachers.network import Labels, Network, assemble
from distinit.pipeline.teachers.torchvision_features import torchvision_features
from distinit.pipeline.teachers.torchvision_models import build_classifier, require_classifier
from distinit.pipeline.teachers.weights import read_state_dict, require_weights_file
from distinit.schemas.errors import TeacherError, WeightsError
from distinit.schemas.teacher import PreprocessSpec, TeacherRequest
from distinit.schemas.wording import shown

__all__ = ["CATEGORIES_FILE", "PLACES_PREPROCESSING", "load_places365", "read_categories"]

CATEGORIES_FILE = "categories_places365.txt"
"""Class names are read from the file of this name in the folder of the weights, if it exists."""

PLACES_PREPROCESSING = PreprocessSpec(
    resize_mode="squash",
    resize_size=256,
    crop_size=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
_CLASSES = 365
_MAX_CATEGORIES_BYTES = 1 << 20  # the published file is 7 kB


def load_places365(request: TeacherRequest) -> Network:
    """Build ``places365:ARCH`` (resnet18, resnet50, alexnet, ...) from a published checkpoint.

    Raises TeacherError if ``weights`` is None or the architecture is unknown, WeightsError if the
    weights do not fit the architecture or do not have 365 classes.
    """
    architecture = request.name.partition(":")[2]
    require_classifier(architecture)
    if request.weights is None:
        raise TeacherError(
            f"the teacher {request.name} needs a weights file",
            expected=f"--weights {architecture}_places365.pth.tar",
            found="no --weights",
            remedy="download the file from the Places365 project (CSAILVision/places365)",
        )
    path = require_weights_file(Path(request.weights))
    module, classes = build_classifier(architecture, read_state_dict(path), None, source=str(path))
    if classes != _CLASSES:
        raise WeightsError(
            f"the weights in {path} are not those of a Places365 network",
            expected=f"{_CLASSES} classes",
            found=f"{classes} classes",
            remedy=f"for weights of another dataset, use --teacher {architecture}",
        )
    return assemble(
        module,
        request,
        architecture=f"places365/{architecture}",
        preprocessing=PLACES_PREPROCESSING,
        classes=classes,
        labels=Labels("places365", read_categories(path.with_name(CATEGORIES_FILE))),
        stem=f"places365-{architecture}",
        features=partial(
            torchvision_features,
            module,
            name=request.name,
            side=PLACES_PREPROCESSING.crop_size,
        ),
    )


def read_categories(path: Path) -> tuple[str, ...]:
    """Class names in index order from lines like ``/a/airfield 0``; empty if there is no file.

    Raises WeightsError if the file is too large, is not UTF-8 text, or its indices are not 0 to
    364 in order.
    """
    if not path.exists():
        return ()
    try:
        text = read_bounded(path, _MAX_CATEGORIES_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise _unusable(path, getattr(error, "strerror", None) or "not UTF-8 text") from error
    lines = [line.split() for line in text.splitlines() if line]
    if len(lines) != _CLASSES:
        raise _unusable(path, f"{len(lines)} lines")
    for index, line in enumerate(lines):
        if line[-1:] != [str(index)]:
            raise _unusable(path, f"{shown(' '.join(line))} as line {index + 1}")
    return tuple(line[0].split("/", 2)[-1] for line in lines)


def _unusable(path: Path, found: str) -> WeightsError:
    return WeightsError(
        f"the class names in {path} are not those of Places365",
        expected=f"{_CLASSES} lines of text '/letter/name index', with indices from 0 in order",
        found=found,
        remedy="replace the file by the published one, or remove it to do without class names",
    )
