"""Student files: ``student.safetensors`` beside ``student.json``.

Backbone tensors are stored as ``backbone.<name>`` with the network's own names, so a student of
torchvision's architecture loads in plain torchvision, without this package (nine: ``backbone.``):

    tensors = load_file("student.safetensors")
    model = torchvision.models.video.r2plus1d_18()
    model.load_state_dict({k[9:]: v for k, v in tensors.items() if k[:9] == "backbone."},
                          strict=False)
"""

from __future__ import annotations

from pathlib import Path

import pydantic
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from distinit.pipeline.storage import atomic_path, atomic_write_bytes
from distinit.pipeline.students.heads import Student
from distinit.pipeline.students.registry import build_student
from distinit.schemas.errors import CheckpointError
from distinit.schemas.run import LoadReport, StudentRecord
from distinit.schemas.training import StudentConfig

__all__ = [
    "RECORD_NAME",
    "TENSORS_NAME",
    "load_backbone",
    "load_student",
    "read_student_record",
    "save_student",
    "student_path",
]

TENSORS_NAME = "student.safetensors"
RECORD_NAME = "student.json"
BACKBONE = "backbone."


def save_student(folder: Path, student: Student, record: StudentRecord) -> Path:
    """Write the tensors, then the record; returns the tensor file's path."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in student.state_dict().items()}
    path = folder / TENSORS_NAME
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    atomic_write_bytes(folder / RECORD_NAME, (record.model_dump_json(indent=2) + "\n").encode())
    return path


def load_student(source: Path) -> tuple[Student, StudentRecord]:
    """Rebuild the student of a run folder (or of its ``student.safetensors``), on the CPU.

    Raises CheckpointError if a file is missing or damaged, or tensors and record disagree.
    """
    path = student_path(source)
    record = _read_record(path)
    tensors = _read_tensors(path)
    heads = {head.name: head.outputs for head in record.heads}
    student = Student(build_student(record.student), heads)
    _refuse_differences(path, student.state_dict(), tensors, RECORD_NAME)
    student.load_state_dict(tensors)
    return student, record


def load_backbone(student: Student, config: StudentConfig, source: Path) -> LoadReport:
    """Copy a backbone into ``student`` (built from ``config``) and say what was used.

    ``source`` is a run folder or a ``student.safetensors`` of this project, or a plain state dict
    with the network's own names (``.safetensors``, or ``.pt``/``.pth`` read with
    ``weights_only=True``), such as torchvision's Kinetics weights. Heads are never taken over.

    Raises CheckpointError unless every tensor of the backbone is there, with its shape.
    """
    path = student_path(source)
    if path.with_name(RECORD_NAME).is_file() and path.name == TENSORS_NAME:
        _refuse_other_architecture(path, _read_record(path).student, config)
    tensors = _read_tensors(path)
    wanted = {k: v for k, v in student.state_dict().items() if k.startswith(BACKBONE)}
    prefix = "" if any(name.startswith(BACKBONE) for name in tensors) else BACKBONE
    found = {k: v for k, v in ((prefix + k, v) for k, v in tensors.items()) if k in wanted}
    _refuse_differences(path, wanted, found, f"a {config.name} backbone")
    student.load_state_dict(found, strict=False)
    return LoadReport(
        loaded=tuple(sorted(found)),
        reinitialised=tuple(sorted(set(student.state_dict()) - set(found))),
        unused=tuple(sorted(name for name in tensors if prefix + name not in found)),
    )


def read_student_record(source: Path) -> StudentRecord:
    """The record of the student that ``source`` names, as in ``load_student``."""
    return _read_record(student_path(source))


def student_path(source: Path) -> Path:
    """The tensor file that ``source`` (a run folder or a file) names.

    Raises CheckpointError if there is none.
    """
    path = source / TENSORS_NAME if source.is_dir() else source
    path = path.with_name(TENSORS_NAME) if path.name == RECORD_NAME else path
    if not path.is_file():
        raise CheckpointError(
            f"there is no student at {source}",
            expected=f"a run folder with {TENSORS_NAME}, or a weights file",
            remedy="finish the distill or finetune run first, or correct the path",
        )
    return path


def _read_record(path: Path) -> StudentRecord:
    record = path.with_name(RECORD_NAME)
    try:
        return StudentRecord.model_validate_json(record.read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        raise CheckpointError(
            f"{record} cannot be read",
            expected=f"the record that belongs to {TENSORS_NAME}",
            found=str(error).splitlines()[0],
            remedy="copy both files from the run folder again",
        ) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    except Exception as error:
        # torch.load raises pickle's own errors, which it does not document.
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise _unreadable(path, "no dictionary of tensors")
    return tensors


def _unreadable(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read as weights",
        expected="an intact .safetensors file, or a .pt/.pth with tensors only",
        found=found,
        remedy="copy the file again, or retrain",
    )


def _refuse_other_architecture(path: Path, found: StudentConfig, wanted: StudentConfig) -> None:
    if found != wanted:
        raise CheckpointError(
            f"{path} holds another network",
            expected=f"{wanted.name}, {wanted.in_channels} input channels",
            found=f"{found.name}, {found.in_channels} input channels",
            remedy="leave student unset to take the network of the distilled run",
        )


def _refuse_differences(
    path: Path, wanted: dict[str, Tensor], found: dict[str, Tensor], expected: str
) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is not known" for name in found if name not in wanted]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{path} does not fit the student",
            expected=f"the tensors of {expected}",
            found="; ".join(problems[:3]) + more,
            remedy="use the student's own architecture, or a file that belongs to it",
        )
