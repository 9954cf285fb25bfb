"""Resolves ``auto | cpu | cuda | cuda:N`` to a torch device."""

from __future__ import annotations

import torch

from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import did_you_mean, shown

__all__ = ["memory_format", "resolve_device", "set_arithmetic"]

_TYPES = ("cpu", "cuda")


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is the GPU if one is available, else the CPU.

    Raises ConfigError for an unknown name or a GPU that does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise _unknown(name) from None
    if device.type not in _TYPES:
        raise _unknown(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ConfigError(
                f"device {shown(name)} does not exist",
                found=f"{count} CUDA devices",
                remedy="use --device cpu, or run `distinit doctor` to see why CUDA is missing",
            )
    return device


def _unknown(name: str) -> ConfigError:
    return ConfigError(
        f"unknown device {shown(name)}",
        expected="auto, cpu, cuda or cuda:N",
        remedy=did_you_mean(name, ("auto", *_TYPES)),
    )


def memory_format(device: torch.device) -> torch.memory_format:
    """The memory format of clips and 3D networks that is fastest on ``device``."""
    return torch.channels_last_3d if device.type == "cuda" else torch.contiguous_format


def set_arithmetic(device: torch.device, precision: str) -> None:
    """Choose the kernels of a GPU for a student: the fastest ones of the given ``precision``.

    The sizes of clips are fixed, so cuDNN may measure which kernel is the fastest. ``fp32`` is full
    float32, although torch would use TF32 for convolutions; ``tf32`` uses it for matrix products
    too. Both settings hold for the whole process. Does nothing on a CPU.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
