"""The digest of a network's weights, and the versions of the software that runs it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata

import torch

__all__ = ["software_versions", "state_dict_sha256"]


def state_dict_sha256(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Hex sha256 over the name, dtype, shape and bytes of all tensors, sorted by name.

    It does not depend on the device or the memory layout, but on every bit of every weight.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        header = f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0"
        digest.update(header.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def software_versions() -> dict[str, str]:
    """Versions of the software that a forward pass depends on, for ``TeacherRecord.software``."""
    versions = {"python": platform.python_version()}
    for package in ("distinit", "torch", "torchvision", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a source tree that was never installed
            versions[package] = "unknown"
    return versions
