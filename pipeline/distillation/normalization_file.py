"""``normalization.safetensors`` of a run: how the features of its teachers were normalized.

Tensors are named ``<head>/mean_C``, ``<head>/scale_C`` and, for phi_s, ``<head>/rotation_CC``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distinit.pipeline.distillation.normalization import Normalization
from distinit.pipeline.storage import atomic_path
from distinit.pipeline.students.io import NORMALIZATION_NAME
from distinit.pipeline.tensors import TensorShape, read_shapes, read_tensors, write_tensors
from distinit.pipeline.training.run_dir import has_begun
from distinit.schemas.errors import RunMismatchError
from distinit.schemas.wording import one_line, reason_of, shown

__all__ = [
    "read_normalizations",
    "recorded_normalizations",
    "write_normalizations",
]


def write_normalizations(run_root: Path, by_head: Mapping[str, Normalization]) -> None:
    """Record the normalizations of a run; nothing is written if there are none.

    Raises StorageError.
    """
    tensors = {
        f"{head}/{name}": tensor
        for head, normalization in by_head.items()
        for name, tensor in normalization.tensors.items()
    }
    if tensors:
        with atomic_path(run_root / NORMALIZATION_NAME) as partial:
            write_tensors(tensors, partial)


def recorded_normalizations(run_root: Path) -> dict[str, Normalization]:
    """Those that an earlier process of the same run has recorded; none if it has not begun.

    Computed again on another machine, eigenvectors may differ, and with them the targets. Raises
    RunMismatchError for a damaged file.
    """
    is_run = (run_root / "run.json").is_file() and has_begun(run_root)
    if not is_run or not (run_root / NORMALIZATION_NAME).is_file():
        return {}
    return read_normalizations(run_root)


def read_normalizations(run_root: Path) -> dict[str, Normalization]:
    """Head -> normalization, of the run in ``run_root``.

    Raises RunMismatchError if the file is missing or damaged.
    """
    path = run_root / NORMALIZATION_NAME
    try:
        return _read(path)
    except (OSError, ValueError) as error:
        raise RunMismatchError(
            f"{path} cannot be used",
            expected="tensors <head>/mean_C and <head>/scale_C [C], and <head>/rotation_CC [C, C]",
            found=reason_of(error) if isinstance(error, OSError) else str(error),
            remedy="restore the file from a copy of the run, or choose another --out",
        ) from error


def _read(path: Path) -> dict[str, Normalization]:
    shapes = read_shapes(path)
    heads = sorted({name.rpartition("/")[0] for name in shapes})
    for head in heads:
        _check_shapes(head, shapes)
    tensors = {name: tensor.float() for name, tensor in read_tensors(path, shapes).items()}
    found = {
        head: Normalization(
            tensors[f"{head}/mean_C"],
            tensors[f"{head}/scale_C"],
            tensors.get(f"{head}/rotation_CC"),
        )
        for head in heads
    }
    for head, normalization in found.items():
        if not bool((normalization.scale_C > 0).all()):
            raise ValueError(f"{one_line(head)}/scale_C has values that are not above 0")
    return found


def _check_shapes(head: str, shapes: Mapping[str, TensorShape]) -> None:
    """Raise ValueError unless the tensors of ``head`` belong together."""
    names = {name.rpartition("/")[2] for name in shapes if name.rpartition("/")[0] == head}
    required = {"mean_C", "scale_C"}
    if not required <= names <= required | {"rotation_CC"}:
        raise ValueError(f"head {shown(head)} has the tensors {', '.join(sorted(names))}")
    mean = shapes[f"{head}/mean_C"]
    expected = {"mean_C": (*mean.shape,), "scale_C": mean.shape, "rotation_CC": mean.shape * 2}
    for name in names:
        found = shapes[f"{head}/{name}"]
        if len(mean.shape) != 1 or found.shape != expected[name] or found.dtype != mean.dtype:
            raise ValueError(f"{one_line(head)}/{name} has shape {list(found.shape)}")
    if not mean.dtype.is_floating_point:
        raise ValueError(f"{one_line(head)}/mean_C is not of floating-point numbers")
