"""Target of ``fuzz.py``: run folders with a student and checkpoints.

The operations are everything that reads a run folder received from others: the student, its
backbone as an init, the checkpoints when the run resumes, and the list of runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fuzz import Change, Operation
from fuzz_json import damage_json
from safetensors.torch import load_file, save

from distinit.pipeline.finetuning.init import resolve_init
from distinit.pipeline.students.heads import Student, new_student
from distinit.pipeline.students.io import read_student, save_student
from distinit.pipeline.training.checkpoint import CheckpointStore
from distinit.pipeline.training.run_dir import open_run
from distinit.schemas.base import sha256_of
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import CheckpointError
from distinit.schemas.run import CheckpointRecord, HeadRecord, StudentRecord
from distinit.schemas.training import ClipConfig, StudentConfig
from distinit.stages.runs import list_runs

__all__ = ["TARGET"]

STUDENT = StudentConfig(name="tiny_r2plus1d_10")
CONFIG = DistillConfig(cache="c", frames="f", out="o", student=STUDENT)
NEWEST = 4
_DTYPES = (torch.int64, torch.bool, torch.complex64, torch.float16, torch.float64)


def _student() -> tuple[Student, torch.optim.AdamW]:
    student = new_student(STUDENT, {"teacher": 5}, 0)
    return student, torch.optim.AdamW(student.parameters(), lr=0.1)


def _digest(tensors: Mapping[str, torch.Tensor], *more: str) -> str:
    sha = hashlib.sha256("\n".join(more).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(name.encode() + tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _load(root: Path) -> str:
    student, record = read_student(root / "run")
    return _digest(student.state_dict(), record.model_dump_json())


def _init(root: Path) -> str:
    init = resolve_init(f"distinit:{root / 'run'}", None)
    student, report = init.build(3, 0, head_only=False)
    return _digest(student.state_dict(), report.model_dump_json())


def _resume(root: Path) -> str:
    run = open_run(root / "run", "distill", CONFIG, {})
    student, optimizer = _student()
    messages: list[str] = []
    store = CheckpointStore(run.checkpoints, run.record.config_digest, 2)
    found = store.load_latest(student, optimizer, messages.append)
    if found is None or found[1].global_step != NEWEST:
        raise CheckpointError("\n".join(messages) or "no checkpoint")
    named = {
        f"{name} {i:03d}": tensor
        for i, state in enumerate(optimizer.state.values())
        for name, tensor in state.items()
    }
    return _digest(student.state_dict() | named, found[1].model_dump_json())


def _runs(root: Path) -> str:
    table = list_runs(root)
    table.summary()
    text = table.model_dump_json().replace(str(root), "")
    return hashlib.sha256(text.encode()).hexdigest()


class _Training:
    """Run folders; see ``fuzz.Target``."""

    @property
    def operations(self) -> Mapping[str, Operation]:
        """Everything that reads a received run."""
        return {"student": _load, "init": _init, "resume": _resume, "runs": _runs}

    def build(self, root: Path) -> None:
        """Write a distill run with two checkpoints and a student, without any training."""
        torch.set_num_threads(1)
        run = open_run(root / "run", "distill", CONFIG, {})
        student, optimizer = _student()
        for parameter in student.parameters():
            parameter.grad = torch.ones_like(parameter)
        store = CheckpointStore(run.checkpoints, run.record.config_digest, 2)
        for step in range(1, NEWEST + 1):
            optimizer.step()
            if step in (2, NEWEST):
                store.save(_checkpoint(step), student, optimizer)
        lines = [{"step": step, "epoch": step / 4, "loss": 1 / step} for step in range(1, 5)]
        run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        head = HeadRecord(name="teacher", outputs=5, label_space="five")
        record = StudentRecord(
            student=STUDENT,
            clip=ClipConfig(),
            feature_dim=student.feature_dim,
            heads=(head,),
            trained_by="distill",
            config=CONFIG.model_dump(mode="json"),
        )
        save_student(run.root, student, record)

    def change(self, root: Path, rng: random.Random) -> Change:
        """Change one file; in some cases, recompute the checksums that cover it."""
        path = rng.choice(sorted(p for p in root.rglob("*") if p.is_file()))
        # A checksum covers only the tensors. In records, any possible value is accepted.
        covered = path.suffix == ".safetensors"
        kind = rng.random()
        if kind < 0.1:
            return Change(_replace(path, rng), forged=not covered)
        if kind < 0.4 or not path.stat().st_size:
            return Change(_damage(path, rng), forged=not covered)
        if path.suffix == ".json":
            data, what = damage_json(path.read_bytes(), rng)
            path.write_bytes(data)
            return Change(f"{path.name}: {what}", forged=True)
        if not covered:
            return Change(_damage(path, rng), forged=True)
        what = _other_tensors(path, rng) if kind < 0.7 else _other_header(path, rng)
        _forge(path)
        return Change(f"{path.name}: {what}", forged=True)


def _checkpoint(step: int) -> CheckpointRecord:
    return CheckpointRecord(
        config_digest="",
        epoch=0,
        step=step,
        global_step=step,
        window={"loss": 1.0},
        window_steps=1,
        files={},
    )


def _replace(path: Path, rng: random.Random) -> str:
    """Replace a file by something else, or by nothing."""
    path.unlink()
    what = rng.choice(("nothing", "folder", "pipe", "zeros", "link", "sparse"))
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "zeros":
        path.symlink_to("/dev/zero")
    elif what == "link":
        path.symlink_to(path.name)
    elif what == "sparse":
        path.touch()
        os.truncate(path, 1 << 40)
    return f"{what} in place of {path.name}"


def _damage(path: Path, rng: random.Random) -> str:
    """Flip a bit, overwrite bytes, or change the length."""
    data = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "overwrite", "cut", "append")) if data else "append"
    at = rng.randrange(len(data)) if data else 0
    if kind == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "overwrite":
        length = min(rng.choice((1, 4, 64, 4096)), len(data) - at)
        data[at : at + length] = rng.randbytes(length)
    elif kind == "cut":
        del data[at:]
    else:
        data += rng.randbytes(rng.choice((1, 8, 4096)))
    path.write_bytes(data)
    return f"{path.name}: {kind} at {at}"


def _other_tensors(path: Path, rng: random.Random) -> str:
    """Write a valid file with different tensors."""
    tensors = load_file(path)
    name = rng.choice(sorted(tensors))
    kind = rng.choice(("type", "shape", "nan", "missing", "extra", "none", "value"))
    if kind == "type":
        tensors[name] = tensors[name].to(rng.choice(_DTYPES))
    elif kind == "shape":
        tensors[name] = torch.zeros(rng.choice(((), (0,), (1, 1), (7, 3, 2))))
    elif kind == "nan":
        tensors[name] = torch.full_like(tensors[name].float(), rng.choice((torch.nan, torch.inf)))
    elif kind == "missing":
        del tensors[name]
    elif kind == "extra":
        tensors[rng.choice(("x", "x" * 10_000, "\x1b[2J", ""))] = torch.zeros(3)
    elif kind == "none":
        tensors = {}
    else:
        tensors[name] = tensors[name] + 1
    path.write_bytes(save(tensors))
    return f"{kind} of {name}"


def _other_header(path: Path, rng: random.Random) -> str:
    """Keep the tensor data, but change the header that describes it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, what = damage_json(data[8 : 8 + length], rng)
    claimed_bytes = rng.choice((len(header), len(header), len(header), 0, 2**40, 2**64 - 1))
    path.write_bytes(struct.pack("<Q", claimed_bytes) + header + data[8 + length :])
    return f"header of {claimed_bytes} bytes: {what}"


def _forge(path: Path) -> None:
    """Recompute the checksum that covers a tensor file."""
    data = path.read_bytes()
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    name = "student.json" if path.name.startswith("student") else "checkpoint.json"
    record: dict[str, Any] = json.loads((path.parent / name).read_text())
    if name == "student.json":
        record["tensors"] = entry
    else:
        record["files"][path.name] = entry
        record["seal"] = sha256_of({k: v for k, v in record.items() if k != "seal"})
    (path.parent / name).write_text(json.dumps(record))


TARGET = _Training()
