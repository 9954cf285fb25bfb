"""Devices: how a name is resolved, and what is set for a student on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from distinit.pipeline.compute.device import memory_format, resolve_device, set_arithmetic
from distinit.schemas.errors import ConfigError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def settings() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = settings()
    yield
    cudnn = torch.backends.cudnn
    cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_only_tf32_computes_in_tf32(precision: str, tf32: bool) -> None:
    set_arithmetic(CUDA, "fp32" if tf32 else "tf32")
    set_arithmetic(CUDA, precision)
    assert settings() == (True, tf32, tf32)


def test_a_cpu_keeps_the_settings_of_the_process() -> None:
    before = settings()
    set_arithmetic(CPU, "tf32")
    assert settings() == before


def test_clips_are_channels_last_on_a_gpu_only() -> None:
    assert memory_format(CUDA) is torch.channels_last_3d
    assert memory_format(CPU) is torch.contiguous_format


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    assert resolve_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r'unknown device "gpu"') as caught:
        resolve_device("gpu")
    assert caught.value.expected == "auto, cpu, cuda or cuda:N"
