"""Checkpoints: folders of safetensors and JSON files, each complete or absent.

checkpoints/step-000000120/  model.safetensors  optimizer.safetensors  checkpoint.json
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from distinit.pipeline.records import file_entry, read_record, write_record
from distinit.pipeline.storage import (
    PARTIAL_SUFFIX,
    fsync_dir,
    fsync_file,
    sha256_file,
    storage_errors,
)
from distinit.pipeline.students.heads import Student
from distinit.pipeline.tensors import (
    TensorShape,
    differences,
    read_shapes,
    read_tensors,
    write_tensors,
)
from distinit.pipeline.training.optimizer import (
    check_state,
    load_state,
    state_like,
    state_tensors,
)
from distinit.schemas.errors import CheckpointError, StorageError
from distinit.schemas.run import CheckpointRecord

__all__ = ["CheckpointStore", "newest_step"]

MODEL, OPTIMIZER, RECORD = "model.safetensors", "optimizer.safetensors", "checkpoint.json"
_FOLDER = re.compile(r"step-([0-9]{9,13})")
_FILES = frozenset({MODEL, OPTIMIZER, RECORD})
_AGAIN = "rerun the same command to resume"
_REMEDY = "nothing to do: the run falls back to the previous checkpoint"


def newest_step(root: Path) -> int | None:
    """The step of the newest checkpoint in the folder ``root``, which is not read; None if none."""
    found = root.iterdir() if root.is_dir() else ()
    return max((_step_of(p) for p in found if _is_checkpoint(p)), default=None)


class CheckpointStore:
    """Saves and loads the checkpoints of one run."""

    def __init__(self, root: Path, config_digest: str, keep: int) -> None:
        self._root = root
        self._config_digest = config_digest
        self._keep = keep

    def save(
        self, record: CheckpointRecord, student: Student, optimizer: torch.optim.Optimizer
    ) -> Path:
        """Write a checkpoint, sync it, rename it into place, and remove the oldest ones.

        ``record.files`` and ``record.config_digest`` are filled in here. Raises StorageError if
        it cannot be written, or if something other than a checkpoint has its name.
        """
        final = self._root / f"step-{record.global_step:09d}"
        partial = final.with_name(final.name + PARTIAL_SUFFIX)
        with storage_errors(final, _AGAIN):
            self._remove_partial_ones()
            _remove(partial)
            partial.mkdir(parents=True)
            try:
                self._write(record, student, optimizer, partial)
            except BaseException:
                with suppress(OSError, StorageError):  # what is left of it takes room
                    _remove(partial)
                raise
            _remove(final)  # a damaged checkpoint of the same step
            partial.rename(final)
            fsync_dir(self._root)
            for old in [p for p in self._folders() if _is_ours(p)][: -self._keep]:
                _remove(old)
        return final

    def _write(
        self,
        record: CheckpointRecord,
        student: Student,
        optimizer: torch.optim.Optimizer,
        partial: Path,
    ) -> None:
        tensors = {MODEL: student.state_dict(), OPTIMIZER: state_tensors(student, optimizer)}
        for name, values in tensors.items():
            with storage_errors(partial.with_suffix("") / name, _AGAIN):
                write_tensors(_cpu(values), partial / name)
                fsync_file(partial / name)
        files = {name: file_entry(partial / name) for name in tensors}
        full = record.model_copy(update={"files": files, "config_digest": self._config_digest})
        write_record(full.sealed(), partial / RECORD)
        fsync_dir(partial)

    def _remove_partial_ones(self) -> None:
        """Remove what killed processes left: they may have written checkpoints of other steps."""
        for path in list(self._root.glob(f"*{PARTIAL_SUFFIX}")):
            is_named_so = _FOLDER.fullmatch(path.name.removesuffix(PARTIAL_SUFFIX)) is not None
            if is_named_so and _is_folder(path) and _are_ours({p.name for p in path.iterdir()}):
                _remove(path)

    def load_latest(
        self,
        student: Student,
        optimizer: torch.optim.Optimizer | None,
        message: Callable[[str], None],
    ) -> tuple[Path, CheckpointRecord] | None:
        """Load the newest intact checkpoint: weights, and the state of ``optimizer`` if given.

        Returns its folder and record, or None if no checkpoint can be loaded. Calls ``message``
        with the reason for each damaged checkpoint that it skips. If ``optimizer`` is given,
        training goes on, so StorageError is raised for one that ``save`` could not replace.
        """
        for folder in reversed(self._folders()):
            try:
                record = self._read(folder)
                self.restore(folder, student, optimizer)
            except CheckpointError as error:
                if optimizer is not None:
                    _removable_names(folder)
                message(f"skipping a damaged checkpoint: {error.problem} ({error.found})")
            else:
                return folder, record
        return None

    def _folders(self) -> list[Path]:
        found = self._root.iterdir() if self._root.is_dir() else ()
        return sorted(filter(_is_checkpoint, found), key=_step_of)

    def _read(self, folder: Path) -> CheckpointRecord:
        record = read_record(
            folder / RECORD, CheckpointRecord, error=CheckpointError, remedy=_REMEDY
        )
        if not record.is_intact:
            raise _damaged(folder, f"{RECORD} does not match its own digest")
        if record.config_digest != self._config_digest:
            raise _damaged(folder, "it belongs to another configuration")
        if record.global_step != _step_of(folder):
            raise _damaged(folder, f"its record is of step {record.global_step}")
        for name in (MODEL, OPTIMIZER):
            path, entry = folder / name, record.files.get(name)
            if entry is None or not path.is_file() or path.stat().st_size != entry.size:
                raise _damaged(folder, f"{name} is missing or has the wrong size")
            if sha256_file(path) != entry.sha256:
                raise _damaged(folder, f"{name} does not match its sha256")
        return record

    @staticmethod
    def restore(
        folder: Path, student: Student, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Load the weights, and the state of ``optimizer`` if it is given: all or nothing.

        A checksum detects damage but not an attack, so types and shapes are compared before
        anything is loaded. Raises CheckpointError if they differ, if a value is impossible, or if
        a file cannot be read.
        """
        weights = _read_as(folder, MODEL, student.state_dict())
        state = {}
        if optimizer is not None:
            state = _read_as(folder, OPTIMIZER, state_like(student, optimizer))
            try:
                check_state(state, _step_of(folder))
            except ValueError as error:
                raise _damaged(folder, f"{OPTIMIZER}: {error}") from error
        student.load_state_dict(weights)
        if optimizer is not None:
            load_state(student, optimizer, state)


def _read_as(folder: Path, name: str, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors of a file, which must have the names, types and shapes of ``like``."""
    try:
        found = read_shapes(folder / name)
        problems = differences({n: TensorShape.of(t) for n, t in like.items()}, found)
        if problems:
            raise ValueError(problems)
        return read_tensors(folder / name, found)
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder, f"{name}: {error}") from error


def _cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _is_checkpoint(path: Path) -> bool:
    return _FOLDER.fullmatch(path.name) is not None and _is_folder(path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a checkpoint (possibly damaged) and nothing else."""
    names = {path.name for path in folder.iterdir()} if _is_folder(folder) else set()
    return RECORD in names and _are_ours(names)


def _are_ours(names: set[str]) -> bool:
    """Whether all are files of a checkpoint, or temporary files that a killed writer left."""
    return all(
        name in _FILES or (name.startswith(f"{RECORD}.") and name.endswith(PARTIAL_SUFFIX))
        for name in names
    )


def _remove(folder: Path) -> None:
    """Remove a complete or partial checkpoint file by file, so that no other file is removed.

    Raises StorageError if something else has its name.
    """
    if not folder.is_symlink() and not folder.exists():
        return
    for name in _removable_names(folder):
        (folder / name).unlink()
    folder.rmdir()


def _removable_names(folder: Path) -> set[str]:
    """The names of the files of a checkpoint.

    Raises StorageError unless ``folder`` is a folder that holds nothing else.
    """
    paths = list(folder.iterdir()) if _is_folder(folder) else None
    names = {path.name for path in paths or ()}
    if paths is None or not _are_ours(names) or any(map(_is_folder, paths)):
        raise StorageError(
            f"{folder} is in the way: it is not a checkpoint, so it is not removed",
            expected=f"no such folder, or one with only {RECORD} and its tensors",
            remedy="move it away, then rerun the same command",
        )
    return names


def _damaged(folder: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {folder.name} cannot be used",
        expected="an intact checkpoint of this run",
        found=found,
        remedy=_REMEDY,
    )
