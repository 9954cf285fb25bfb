"""From a request to a teacher: which source builds which name."""

from __future__ import annotations

import torch

from distinit.pipeline.teachers.base import NetworkTeacher, Precision, Teacher
from distinit.pipeline.teachers.efficientnet_lite import LITE_NAMES, load_efficientnet_lite
from distinit.pipeline.teachers.network import Network
from distinit.pipeline.teachers.torchvision_models import load_torchvision
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import TeacherRequest

__all__ = ["load_teacher"]


def load_teacher(
    request: TeacherRequest, *, device: str = "cpu", precision: Precision = "fp32"
) -> Teacher:
    """Build the teacher that ``request`` names, on ``device`` (auto, cpu, cuda, cuda:N).

    Nothing is downloaded and no pickle is executed. Raises TeacherError for an unknown name,
    a missing package or device, WeightsError for weights that are missing or do not fit.
    """
    network = _load_network(request)
    return NetworkTeacher(
        request.id or network.default_id,
        network,
        device=_resolve_device(device),
        precision=precision,
    )


def _load_network(request: TeacherRequest) -> Network:
    if request.name in LITE_NAMES:
        return load_efficientnet_lite(request)
    return load_torchvision(request)


def _resolve_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise TeacherError(
            f"a teacher cannot run on {device}",
            expected="a CUDA device that torch can use",
            found="none",
            remedy="use --device cpu",
        )
    return device
