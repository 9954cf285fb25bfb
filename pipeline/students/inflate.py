"""2D-to-3D inflation (Carreira and Zisserman 2017): the baseline that the paper compares with.

A 3D convolution gets the weights of the 2D convolution in the same place, repeated over time and
divided by the number of repeats, so that a clip of one repeated image has the same features as the
image. Batch norm is copied. Both networks must have the same layers: R3D and MC3 from ResNet, and
tiny_r3d_9 from tiny_r2d_9, which is a student itself: distil it with clips of one frame.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import ResNet18_Weights, ResNet34_Weights

from distinit.pipeline.students.heads import Student
from distinit.pipeline.students.tiny import TINY_STUDENTS
from distinit.pipeline.teachers.weights import (
    StateDict,
    checkpoints_dir,
    read_state_dict,
    require_hash_prefix,
)
from distinit.schemas.errors import CheckpointError, ConfigError, WeightsError
from distinit.schemas.run import LoadReport
from distinit.schemas.training import StudentConfig

__all__ = ["INFLATION_SOURCES", "image_weights", "inflate_backbone", "inflated_source"]

INFLATION_SOURCES = {
    "r3d_18": "resnet18",
    "mc3_18": "resnet18",
    "vmz_r3d_18": "resnet18",
    "vmz_r3d_34": "resnet34",
    "tiny_r3d_9": "tiny_r2d_9",
}
_URLS = {
    "resnet18": ResNet18_Weights.IMAGENET1K_V1.url,
    "resnet34": ResNet34_Weights.IMAGENET1K_V1.url,
}
_BACKBONE = "backbone."
_CLASSIFIERS = ("fc.", "heads.")
"""Of torchvision's image networks, and of students that are image networks."""
# In torchvision's VideoResNet, the stem is an nn.Sequential, as is each convolution with its norm.
_RENAMES = (
    (re.compile(r"^stem\.0\."), "conv1."),
    (re.compile(r"^stem\.1\."), "bn1."),
    (re.compile(r"\.conv([12])\.0\."), r".conv\1."),
    (re.compile(r"\.conv([12])\.1\."), r".bn\1."),
)


def inflated_source(config: StudentConfig) -> str:
    """Name of the 2D network that ``config`` is inflated from.

    Raises ConfigError for a student without a 2D counterpart, such as R(2+1)D.
    """
    if config.name not in INFLATION_SOURCES:
        raise ConfigError(
            f"{config.name} cannot be inflated from an image network",
            expected=f"one of {', '.join(INFLATION_SOURCES)}",
            found="R(2+1)D splits each convolution into a spatial and a temporal one, with other "
            "widths, so no 2D network has the same layers"
            if "2plus1d" in config.name
            else "no known 2D network has the same layers",
            remedy="inflate vmz_r3d_18, or use --init distinit:RUN, which works for any student",
        )
    return INFLATION_SOURCES[config.name]


def image_weights(config: StudentConfig, file: Path | None) -> Path:
    """The file to inflate from: ``file``, or by default torchvision's local ImageNet weights.

    Nothing is downloaded. Raises ConfigError as ``inflated_source``, WeightsError if the file is
    missing or does not match the hash in its name.
    """
    source = inflated_source(config)
    if file is None and source not in _URLS:
        raise WeightsError(
            f"the image network {source} has no published weights",
            expected=f"a {source} to inflate {config.name} from",
            remedy=f"distil one: --student {source} --set clip.frames=1, then use --init "
            "inflated:RUN/student.safetensors",
        )
    is_named = file is not None
    if file is None:
        file = checkpoints_dir() / str(_URLS[source]).rsplit("/", 1)[-1]
    if not file.is_file():
        raise WeightsError(
            f"the weights of {source} to inflate from are not on this machine",
            expected=str(file),
            found="no such file; distinit never downloads weights",
            remedy=f"put {file.name} there, or name another file: --init inflated:FILE",
            named_input=is_named,
        )
    require_hash_prefix(file)
    return file


def inflate_backbone(student: Student, config: StudentConfig, file: Path) -> LoadReport:
    """Load the backbone of ``student`` (built from ``config``) from the 2D state dict in ``file``.

    If the student reads optical flow, each input channel of its first convolution gets the mean
    over the RGB channels of the file. The image classifier is not used.

    Raises ConfigError as ``inflated_source``, WeightsError for an unreadable file, and
    CheckpointError unless every tensor of the backbone has a counterpart in the file.
    """
    source = inflated_source(config)
    image = _image_network(file)
    backbone = {k: v for k, v in student.state_dict().items() if k.startswith(_BACKBONE)}
    name_of = {name: _image_name(name, source) for name in backbone}
    _refuse_other(file, source, image, set(name_of.values()))
    inflated = {}
    for name, tensor in backbone.items():
        # Files written before torch 0.4.1 have no num_batches_tracked: keep the student's.
        found = image.get(name_of[name], tensor)
        inflated[name] = _inflate(found, tensor) if tensor.ndim == 5 else found
        if inflated[name].shape != tensor.shape:
            raise CheckpointError(
                f"{file} does not fit {config.name}",
                expected=f"{name_of[name]} of a {source}",
                found=f"shape {list(found.shape)} for {name} {list(tensor.shape)}",
                remedy=f"give the weights of a {source}",
            )
    student.load_state_dict(inflated, strict=False)
    return LoadReport(
        loaded=tuple(sorted(inflated)),
        reinitialised=tuple(sorted(set(student.state_dict()) - set(inflated))),
        unused=tuple(sorted(set(image) - set(name_of.values()))),
    )


def _image_network(file: Path) -> StateDict:
    """The tensors in ``file``; those of a student's backbone have their names in the network."""
    return {name.removeprefix(_BACKBONE): t for name, t in read_state_dict(file).items()}


def _image_name(name: str, source: str) -> str:
    """Name in ``source``: ``backbone.layer1.0.conv1.0.weight`` -> ``layer1.0.conv1.weight``."""
    name = name.removeprefix(_BACKBONE)
    if source in TINY_STUDENTS:
        return name
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _inflate(image_OIHW: Tensor, video_OITHW: Tensor) -> Tensor:
    """Repeat the weights over time and divide them by the number of repeats."""
    inputs, frames = video_OITHW.shape[1:3]
    if image_OIHW.ndim != 4:
        return image_OIHW
    if image_OIHW.shape[1] == 3 and inputs != 3:
        image_OIHW = image_OIHW.mean(dim=1, keepdim=True).expand(-1, inputs, -1, -1)
    repeated: Tensor = image_OIHW.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames
    return repeated.to(torch.float32)


def _refuse_other(file: Path, source: str, image: StateDict, expected: set[str]) -> None:
    required = {name for name in expected if not name.endswith("num_batches_tracked")}
    missing = sorted(required - set(image))
    # A deeper ResNet has all the names of a shallow one and more, so extra names matter too.
    unknown = sorted(n for n in set(image) - expected if not n.startswith(_CLASSIFIERS))
    if missing or unknown:
        raise CheckpointError(
            f"{file} is not a {source}",
            expected=f"the tensors of {source}",
            found=f"{len(missing)} missing ({', '.join(missing[:3]) or 'none'}), "
            f"{len(unknown)} unknown ({', '.join(unknown[:3]) or 'none'})",
            remedy=f"give the weights of a {source}, trained on ImageNet or Places365",
        )
