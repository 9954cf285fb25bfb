"""The digest of a network's weights, and the versions of the software that runs it."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import torch

from distinit.pipeline.storage import sha256_file

__all__ = ["lock_sha256", "software_versions", "state_dict_sha256"]

_LOCK = Path(__file__).parents[2] / "requirements.lock"
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
    """Versions of the software that a forward pass depends on, for ``TeacherRecord.software``.

    ``lock`` stands for those of all other packages, see ``lock_sha256``.
    """
    versions = {"python": platform.python_version(), "lock": lock_sha256()}
    for package in ("distinit", "torch", "torchvision", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a source tree that was never installed
            versions[package] = "unknown"
    return versions


def lock_sha256() -> str:
    """sha256 of the lock file of this clone, or of what is installed where there is no clone.

    The lock file, requirements.lock, has the version and the hash of every package. Without it,
    the digest is over the lines ``name==version`` of distinit and of all packages that it
    requires, as they are installed, sorted.
    """
    if _LOCK.is_file():
        return sha256_file(_LOCK)
    lines = "".join(f"{name}=={version}\n" for name, version in sorted(_required("distinit")))
    return hashlib.sha256(lines.encode()).hexdigest()


def _required(package: str) -> set[tuple[str, str]]:
    """Name and version of an installed package and of everything that it requires, recursively."""
    found: dict[str, str] = {}
    names = [package]
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another system, or not installed
            continue
        found[name] = installed.version
        given = [line for line in installed.requires or () if "extra ==" not in line]
        names += [match[0] for line in given if (match := _REQUIREMENT.match(line))]
    return set(found.items())
