"""Tensor files are checked before they are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from distinit.pipeline.students.heads import new_student
from distinit.pipeline.students.io import load_backbone
from distinit.pipeline.tensors import TensorShape, differences, read_shapes, read_tensors
from distinit.schemas.errors import CheckpointError
from distinit.schemas.training import StudentConfig

TINY = StudentConfig(name="tiny_r2plus1d_10")
ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
WHOLE = save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)})


def file_of(header: Any, body: bytes = b"\0" * 24) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_shapes_and_tensors_are_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(WHOLE)
    shapes = read_shapes(path)
    assert shapes == {
        "a": TensorShape(torch.float32, (2, 3)),
        "b": TensorShape(torch.int64, ()),
    }
    tensors = read_tensors(path, shapes)
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))
    assert int(tensors["b"]) == 7
    assert list(read_tensors(path, ["b"])) == ["b"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a header of 0 bytes"),
        (b"\xff" * 100, "a header of 18,446,744,073,709,551,615 bytes"),
        (file_of([]), "not a JSON object"),
        (file_of(b"{" * 5000), "Expecting property name"),
        (file_of(b"[" * 50000 + b" " * 10), "recursion"),
        (file_of(b'{"a": 1, "a": 2}'), "occurs twice"),
        (file_of({"a": 3}), "does not describe a tensor"),
        (file_of({"a" * 600: ENTRY}), "does not describe a tensor"),
        (file_of({"a": ENTRY | {"dtype": "C64"}}), "a has the type C64"),
        (file_of({"a": ENTRY | {"dtype": ["F32"]}}), "has the type"),
        (file_of({"a": ENTRY | {"shape": [10**9, 10**9]}}), "does not match its shape"),
        (file_of({"a": ENTRY | {"shape": [-2, -3]}}), "no valid shape or data_offsets"),
        (file_of({"a": ENTRY | {"shape": [2.0, 3]}}), "no valid shape or data_offsets"),
        (file_of({"a": ENTRY | {"shape": [1] * 60}}), "no valid shape or data_offsets"),
        (file_of({"a": ENTRY | {"data_offsets": [4, 28]}}), "overlap or leave gaps"),
        (file_of({"a": ENTRY, "b": ENTRY}), "overlap or leave gaps"),
        (file_of({"a": ENTRY}, b"\0" * 23), "23 bytes of tensors, 24 in the header"),
        (file_of({"a": ENTRY}, b"\0" * 25), "25 bytes of tensors"),
        (file_of({"a": ENTRY}, b"\xff" * 24), "not finite"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises((ValueError, RecursionError), match=message):
        read_tensors(path, read_shapes(path))
    with pytest.raises(CheckpointError):
        load_backbone(new_student(TINY, {"a": 3}, 0), TINY, path)


def test_a_sparse_header_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((1 << 40).to_bytes(8, "little"))
        file.truncate(1 << 41)
    with pytest.raises(ValueError, match="a header of"):
        read_shapes(path)


@given(place=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255), cut=st.integers(0, 60))
def test_no_changed_byte_causes_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    data = bytearray(WHOLE)
    data[place] = value
    path.write_bytes(data[: len(data) - cut])
    try:
        tensors = read_tensors(path, read_shapes(path))
    except (ValueError, RecursionError):
        return
    assert sum(t.nbytes for t in tensors.values()) <= len(WHOLE)


def test_integers_are_refused_as_weights() -> None:
    ours = {"a": TensorShape(torch.float32, (2,)), "n": TensorShape(torch.int64, ())}
    assert differences(ours, ours) == ""
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert differences(ours, ours | {"a": TensorShape(dtype, (2,))}) == ""
    for dtype in (torch.int64, torch.bool, torch.uint8):
        found = ours | {"a": TensorShape(dtype, (2,))}
        assert differences(ours, found) == f"a has type {dtype}, not torch.float32"
    floats = ours | {"n": TensorShape(torch.float32, ())}
    assert differences(ours, floats) == "n has type torch.float32, not torch.int64"
    assert differences(ours, {}) == "a is missing; n is missing"
    assert differences({}, ours) == "a is unknown; n is unknown"


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_another_type_are_refused(
    tmp_path: Path, dtype: torch.dtype, suffix: str
) -> None:
    tensors = {k: v.to(dtype) for k, v in new_student(TINY, {}, 0).state_dict().items()}
    path = tmp_path / f"x{suffix}"
    if suffix == ".pt":
        torch.save(tensors, path)
    else:
        path.write_bytes(save(tensors))
    with pytest.raises(CheckpointError, match=r"has (the )?type"):
        load_backbone(new_student(TINY, {"a": 3}, 0), TINY, path)


def test_a_tensor_without_its_values_is_refused(tmp_path: Path) -> None:
    """A file can describe a tensor of any size that repeats one stored number."""
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1).expand(10**12)}, path)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_backbone(new_student(TINY, {"a": 3}, 0), TINY, path)
