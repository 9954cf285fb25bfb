"""Builds the teacher that a request names, from the source that its name belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.teachers.base import NetworkTeacher, Precision, Teacher
from distinit.pipeline.teachers.efficientnet_lite import LITE_NAMES, load_efficientnet_lite
from distinit.pipeline.teachers.forward import BatchSize
from distinit.pipeline.teachers.names import PLACES, TIMM, is_plain_name, unknown_teacher
from distinit.pipeline.teachers.network import Network
from distinit.pipeline.teachers.null import NULL_NAME, NullTeacher
from distinit.pipeline.teachers.places365 import load_places365
from distinit.pipeline.teachers.plugin import load_plugin
from distinit.pipeline.teachers.timm_models import load_timm
from distinit.pipeline.teachers.torchvision_models import load_torchvision
from distinit.schemas.base import PLUGIN
from distinit.schemas.errors import ConfigError
from distinit.schemas.teacher import TeacherRequest

__all__ = ["load_network", "load_teacher", "load_teachers"]


def load_teacher(
    request: TeacherRequest,
    *,
    device: str = "cpu",
    precision: Precision | Literal["auto"] = "fp32",
    batch_size: BatchSize = "auto",
    compiled: bool = False,
) -> Teacher:
    """Build the teacher that ``request`` names, on ``device`` (auto, cpu, cuda, cuda:N).

    On a GPU, ``batch_size="auto"`` measures several sizes, which takes some seconds. Nothing is
    downloaded, and no code from pickles is executed; the code of a plugin is. Raises TeacherError
    for an unknown name or a missing package, ConfigError for an unknown or missing device, and
    WeightsError for weights that are missing or do not fit.
    """
    if request.name == NULL_NAME:
        return NullTeacher(request)
    resolved = str(resolve_device(device))
    network = load_network(request, device=resolved)
    return NetworkTeacher(
        request.id or network.default_id,
        network,
        device=resolved,
        precision=precision,
        batch_size=batch_size,
        compiled=compiled,
    )


def load_teachers(
    requests: Iterable[TeacherRequest],
    *,
    device: str = "cpu",
    precision: Precision | Literal["auto"] = "fp32",
    batch_size: BatchSize = "auto",
    compiled: bool = False,
) -> dict[str, Teacher]:
    """The teachers by id, in order; arguments and errors as for ``load_teacher``.

    Raises ConfigError if two have the same id.
    """
    loaded: dict[str, Teacher] = {}
    for request in requests:
        teacher = load_teacher(
            request, device=device, precision=precision, batch_size=batch_size, compiled=compiled
        )
        if teacher.id in loaded:
            raise ConfigError(
                f"two teachers have the id {teacher.id}",
                expected="a different id for each teacher",
                remedy="set the id of one of them: --set teachers.1.id=NAME",
            )
        loaded[teacher.id] = teacher
    return loaded


def load_network(request: TeacherRequest, *, device: str = "cpu") -> Network:
    """The network that ``request`` names, as a torch module. Raises TeacherError, WeightsError."""
    if request.name in LITE_NAMES:
        return load_efficientnet_lite(request)
    if request.name.startswith(PLACES):
        return load_places365(request)
    if request.name.startswith(TIMM):
        return load_timm(request)
    if request.name.startswith(PLUGIN):
        return load_plugin(request, device=device)
    if not is_plain_name(request.name):
        raise unknown_teacher(request.name)
    return load_torchvision(request)
