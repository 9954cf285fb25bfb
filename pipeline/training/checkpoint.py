"""Checkpoints: a folder of safetensors and JSON, whole or absent.

checkpoints/step-000000120/  model.safetensors  optimizer.safetensors  checkpoint.json
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pydantic
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distinit.pipeline.storage import (
    PARTIAL_SUFFIX,
    fsync_dir,
    fsync_file,
    sha256_file,
    storage_errors,
)
from distinit.pipeline.students.heads import Student
from distinit.schemas.errors import CheckpointError
from distinit.schemas.manifest import FileEntry
from distinit.schemas.run import CheckpointRecord

__all__ = ["CheckpointStore"]

MODEL, OPTIMIZER, RECORD = "model.safetensors", "optimizer.safetensors", "checkpoint.json"
MOMENTUM = "momentum_buffer."


class CheckpointStore:
    """The checkpoints of one run, newest last."""

    def __init__(self, root: Path, config_digest: str, keep: int) -> None:
        self._root = root
        self._config_digest = config_digest
        self._keep = keep

    def save(
        self, record: CheckpointRecord, student: Student, optimizer: torch.optim.Optimizer
    ) -> Path:
        """Write a checkpoint, sync it, rename it into place, and drop the oldest ones.

        ``record.files`` and ``record.config_digest`` are filled in here.
        """
        final = self._root / f"step-{record.global_step:09d}"
        partial = final.with_name(final.name + PARTIAL_SUFFIX)
        with storage_errors(final):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file(_cpu(student.state_dict()), partial / MODEL)
            save_file(_cpu(_momentum(student, optimizer)), partial / OPTIMIZER)
            files = {name: _entry(partial / name) for name in (MODEL, OPTIMIZER)}
            full = record.model_copy(update={"files": files, "config_digest": self._config_digest})
            (partial / RECORD).write_text(full.model_dump_json(indent=2) + "\n")
            for name in (MODEL, OPTIMIZER, RECORD):
                fsync_file(partial / name)
            fsync_dir(partial)
            shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
            partial.rename(final)
            fsync_dir(self._root)
        for old in self._folders()[: -self._keep]:
            shutil.rmtree(old)
        return final

    def latest(self, message: Callable[[str], None]) -> tuple[Path, CheckpointRecord] | None:
        """The newest intact checkpoint; each damaged one that is passed over gets a ``message``."""
        for folder in reversed(self._folders()):
            try:
                return folder, self._read(folder)
            except CheckpointError as error:
                message(f"passing over a damaged checkpoint: {error.problem} ({error.found})")
        return None

    def _folders(self) -> list[Path]:
        steps = {p.name.removeprefix("step-"): p for p in self._root.glob("step-*")}
        return [steps[step] for step in sorted(filter(str.isdigit, steps), key=int)]

    def _read(self, folder: Path) -> CheckpointRecord:
        try:
            record = CheckpointRecord.model_validate_json((folder / RECORD).read_bytes())
        except (OSError, pydantic.ValidationError) as error:
            raise _damaged(folder, str(error).splitlines()[0]) from error
        if record.config_digest != self._config_digest:
            raise _damaged(folder, "it belongs to another configuration")
        for name in (MODEL, OPTIMIZER):
            path, entry = folder / name, record.files.get(name)
            if entry is None or not path.is_file() or path.stat().st_size != entry.size:
                raise _damaged(folder, f"{name} is missing or has another size")
            if sha256_file(path) != entry.sha256:
                raise _damaged(folder, f"{name} has other bytes than were written")
        return record

    @staticmethod
    def restore(
        folder: Path, student: Student, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Load the weights, and the momentum if an optimizer is given. Raises CheckpointError."""
        try:
            student.load_state_dict(load_file(folder / MODEL))
        except (RuntimeError, OSError) as error:
            raise _damaged(folder, str(error).splitlines()[0]) from error
        if optimizer is None:
            return
        buffers = load_file(folder / OPTIMIZER)
        for name, parameter in student.named_parameters():
            if MOMENTUM + name in buffers:
                buffer = buffers[MOMENTUM + name].to(parameter.device)
                optimizer.state[parameter]["momentum_buffer"] = buffer


def _momentum(student: Student, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {}
    for name, parameter in student.named_parameters():
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            found[MOMENTUM + name] = buffer
    return found


def _cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def _entry(path: Path) -> FileEntry:
    return FileEntry(size=path.stat().st_size, sha256=sha256_file(path))


def _damaged(folder: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {folder.name} cannot be used",
        expected="an intact checkpoint of this run",
        found=found,
        remedy="the run falls back to the checkpoint before; nothing to do",
    )
