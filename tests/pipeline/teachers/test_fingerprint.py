"""What changes the digest of weights, and what must not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from distinit.pipeline.teachers import fingerprint
from distinit.pipeline.teachers.fingerprint import (
    lock_sha256,
    software_versions,
    state_dict_sha256,
)


def test_digest_is_over_name_dtype_shape_and_bytes() -> None:
    weight = torch.tensor([[1.0, 2.0]])
    expected = hashlib.sha256(b"w\0torch.float32\0(1, 2)\0" + weight.numpy().tobytes())
    assert state_dict_sha256({"w": weight}) == expected.hexdigest()


def test_order_of_insertion_and_memory_layout_do_not_matter() -> None:
    kernel, bias = torch.randn(4, 3, 2, 2), torch.zeros(())
    plain = state_dict_sha256({"kernel": kernel, "bias": bias})
    channels_last = kernel.to(memory_format=torch.channels_last)
    assert state_dict_sha256({"bias": bias, "kernel": channels_last}) == plain


def test_any_bit_dtype_shape_or_name_changes_the_digest() -> None:
    weight = torch.zeros(4, dtype=torch.int32)
    one_bit = weight.clone()
    one_bit[3] = 1
    variants = [
        {"w": weight},
        {"w": one_bit},
        {"w": weight.view(torch.float32)},
        {"w": weight.reshape(2, 2)},
        {"v": weight},
    ]
    assert len({state_dict_sha256(variant) for variant in variants}) == 5


def test_bfloat16_has_a_digest() -> None:
    weight = torch.ones(3, dtype=torch.bfloat16)
    expected = hashlib.sha256(b"w\0torch.bfloat16\0(3,)\0" + b"\x80\x3f" * 3)
    assert state_dict_sha256({"w": weight}) == expected.hexdigest()


def test_software_versions_name_torch() -> None:
    versions = software_versions()
    assert set(versions) == {"python", "lock", "distinit", "torch", "torchvision", "numpy"}
    assert torch.__version__.startswith(versions["torch"])


def test_the_digest_of_the_lock_file_is_that_of_its_bytes() -> None:
    lock = Path(__file__).parents[3] / "requirements.lock"
    assert software_versions()["lock"] == hashlib.sha256(lock.read_bytes()).hexdigest()


def test_without_a_lock_file_the_digest_is_over_all_required_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fingerprint, "_LOCK", tmp_path / "nowhere")
    before = lock_sha256()
    required = dict(fingerprint._required("distinit"))
    assert required.keys() >= {"distinit", "torch", "numpy", "pydantic-core"}
    assert "pytest" not in required, "only an extra requires it"
    text = "".join(f"{name}=={required[name]}\n" for name in sorted(required))
    assert before == hashlib.sha256(text.encode()).hexdigest()
