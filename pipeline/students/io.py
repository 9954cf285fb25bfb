"""Reads and writes student files: ``student.safetensors`` and ``student.json`` next to it.

A backbone tensor is stored as ``backbone.<name in the network>``, so a student with an architecture
of torchvision loads in plain torchvision, without this package (9 is the length of ``backbone.``):

    tensors = load_file("student.safetensors")
    model = torchvision.models.video.r2plus1d_18()
    model.load_state_dict({k[9:]: v for k, v in tensors.items() if k[:9] == "backbone."},
                          strict=False)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from distinit.pipeline.pickled import read_pickled, tensor_problem
from distinit.pipeline.records import file_entry, read_record, write_record
from distinit.pipeline.storage import atomic_path, sha256_file
from distinit.pipeline.students.heads import Student, head_shapes
from distinit.pipeline.students.registry import build_student, require_named_plugin
from distinit.pipeline.tensors import (
    TensorShape,
    differences,
    read_shapes,
    read_tensors,
    write_tensors,
)
from distinit.schemas.errors import CheckpointError
from distinit.schemas.manifest import FileEntry
from distinit.schemas.run import LoadReport, StudentRecord
from distinit.schemas.training import StudentConfig
from distinit.schemas.wording import reason_of

__all__ = [
    "NORMALIZATION_NAME",
    "RECORD_NAME",
    "TENSORS_NAME",
    "load_backbone",
    "read_student",
    "read_student_record",
    "save_student",
    "student_path",
]

TENSORS_NAME = "student.safetensors"
RECORD_NAME = "student.json"
NORMALIZATION_NAME = "normalization.safetensors"
"""How the features were normalized that the heads learnt from; only if some were."""
BACKBONE = "backbone."


def save_student(folder: Path, student: Student, record: StudentRecord) -> Path:
    """Write the tensors, then the record with its ``tensors`` entry filled in.

    Returns the path of the tensor file. Raises StorageError.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in student.state_dict().items()}
    path = folder / TENSORS_NAME
    with atomic_path(path) as partial:
        write_tensors(tensors, partial)
    entry = file_entry(path)
    write_record(record.model_copy(update={"tensors": entry}), folder / RECORD_NAME)
    return path


def read_student(source: Path, plugin: str | None = None) -> tuple[Student, StudentRecord]:
    """Load the student of a run folder (or of its ``student.safetensors``) on the CPU.

    The network is built only after the shapes in the file have been compared with the record, so
    that a hostile record cannot allocate more memory than the file holds. ``plugin``: name of the
    plugin that the user allows to run, if any.

    ``normalization.safetensors`` may be missing: only ``TrainedStudent.teacher_outputs`` needs it.

    Raises CheckpointError if a file is missing, damaged or changed, or if the tensors do not match
    the record; ConfigError if the record names a plugin other than ``plugin``.
    """
    path = student_path(source)
    record = _read_record(path)
    require_named_plugin(record.student, plugin, path.with_name(RECORD_NAME))
    found = _reading(path, read_shapes)
    _refuse_damage(path, record.tensors)
    normalization = path.with_name(NORMALIZATION_NAME)
    if normalization.is_file():
        _refuse_damage(normalization, record.normalization)
    heads = {head.name: head.outputs for head in record.heads}
    _refuse_other_heads(path, head_shapes(heads, record.feature_dim), found)
    student = Student(build_student(record.student), heads)
    _refuse_differences(path, _shapes(student.state_dict()), found, RECORD_NAME)
    student.load_state_dict(_reading(path, lambda file: read_tensors(file, found)))
    return student, record


def load_backbone(student: Student, config: StudentConfig, source: Path) -> LoadReport:
    """Load the backbone of ``student`` (built from ``config``); returns which tensors were used.

    ``source`` is a run folder or a ``student.safetensors`` of this project, or a plain state dict
    with the names of the network (``.safetensors``, or ``.pt``/``.pth`` read with
    ``weights_only=True``), such as torchvision's Kinetics weights. Heads are never loaded.

    Raises CheckpointError unless the file holds every tensor of the backbone with its shape.
    """
    path = student_path(source)
    if path.with_name(RECORD_NAME).is_file() and path.name == TENSORS_NAME:
        record = _read_record(path)
        _refuse_other_architecture(path, record.student, config)
        _refuse_damage(path, record.tensors)
    pickled = None if path.suffix == ".safetensors" else _reading(path, _read_pickled)
    shapes = _reading(path, read_shapes) if pickled is None else _shapes(pickled)
    expected = {k: v for k, v in student.state_dict().items() if k.startswith(BACKBONE)}
    prefix = "" if any(name.startswith(BACKBONE) for name in shapes) else BACKBONE
    name_in_file = {prefix + name: name for name in shapes if prefix + name in expected}
    found = {name: shapes[in_file] for name, in_file in name_in_file.items()}
    _refuse_differences(path, _shapes(expected), found, f"a {config.name} backbone")
    tensors = pickled
    if tensors is None:
        tensors = _reading(path, lambda file: read_tensors(file, name_in_file.values()))
    loaded = {name: tensors[in_file] for name, in_file in name_in_file.items()}
    student.load_state_dict(loaded, strict=False)
    return LoadReport(
        loaded=tuple(sorted(loaded)),
        reinitialised=tuple(sorted(set(student.state_dict()) - set(loaded))),
        unused=tuple(sorted(name for name in shapes if prefix + name not in loaded)),
    )


def read_student_record(source: Path) -> StudentRecord:
    """Read ``student.json`` of the student at ``source``, as in ``read_student``."""
    return _read_record(student_path(source))


def student_path(source: Path) -> Path:
    """The tensor file of ``source``, which is a run folder or one of its files.

    Raises CheckpointError if the file is missing.
    """
    path = source / TENSORS_NAME if source.is_dir() else source
    path = path.with_name(TENSORS_NAME) if path.name == RECORD_NAME else path
    if not path.is_file():
        raise CheckpointError(
            f"no student at {source}",
            expected=f"a run folder with {TENSORS_NAME}, or a weights file",
            remedy="finish the distill or finetune run first, or correct the path",
            named_input=True,
        )
    return path


def _read_record(path: Path) -> StudentRecord:
    is_student = path.name == TENSORS_NAME
    return read_record(
        path.with_name(RECORD_NAME),
        StudentRecord,
        error=CheckpointError,
        remedy="copy both files from the run folder again" if is_student else "name a run folder",
        missing=f"the record that belongs to {TENSORS_NAME} is missing"
        if is_student
        else f"{path} is not the student of a run",
        named_input=not is_student,
    )


def _reading[T](path: Path, read: Callable[[Path], T]) -> T:
    """Returns ``read(path)``. Raises CheckpointError if ``read`` fails."""
    try:
        return read(path)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read as weights",
            expected="an intact .safetensors file, or a .pt/.pth with tensors only",
            found=reason_of(error),
            remedy="copy the file again, or retrain",
        ) from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    """Read a state dict that torch.save wrote. Raises OSError, ValueError."""
    loaded = read_pickled(path)
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict):
        raise ValueError("not a dictionary of plain tensors")
    for name, value in tensors.items():
        if problem := tensor_problem(value):
            raise ValueError(f"not a dictionary of plain tensors: {name} {problem}")
    return tensors


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, TensorShape]:
    return {name: TensorShape.of(tensor) for name, tensor in tensors.items()}


def _refuse_damage(path: Path, entry: FileEntry | None) -> None:
    """Compare the size and sha256 of a file with its entry in the record, if it has one."""
    if entry is None:
        return
    size = path.stat().st_size
    if size != entry.size or _reading(path, sha256_file) != entry.sha256:
        raise CheckpointError(
            f"{path} is damaged, or belongs to another {RECORD_NAME}",
            expected=f"{entry.size:,} bytes with sha256 {entry.sha256}",
            found=f"{size:,} bytes, with another sha256"
            if size == entry.size
            else f"{size:,} bytes",
            remedy=f"copy {path.name} and {RECORD_NAME} from the run folder again",
        )


def _refuse_other_architecture(path: Path, found: StudentConfig, expected: StudentConfig) -> None:
    if found != expected:
        raise CheckpointError(
            f"{path} holds another network",
            expected=f"{expected.name}, {expected.in_channels} input channels",
            found=f"{found.name}, {found.in_channels} input channels",
            remedy="leave --student out to use the network of the distilled run",
        )


def _refuse_other_heads(
    path: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, TensorShape]
) -> None:
    for name, shape in expected.items():
        in_file = found[name].shape if name in found else "no such tensor"
        if in_file != shape:
            raise CheckpointError(
                f"{path} does not fit the heads of {RECORD_NAME}",
                expected=f"{name} of shape {shape}",
                found=in_file,
                remedy="copy both files from the run folder again",
            )


def _refuse_differences(
    path: Path,
    expected: Mapping[str, TensorShape],
    found: Mapping[str, TensorShape],
    owner: str,
) -> None:
    """``owner``: what has the ``expected`` tensors, for the message."""
    if problems := differences(expected, found):
        raise CheckpointError(
            f"{path} does not fit the student",
            expected=f"the tensors of {owner}",
            found=problems,
            remedy="choose the student that the file belongs to, or a file of this student",
        )
