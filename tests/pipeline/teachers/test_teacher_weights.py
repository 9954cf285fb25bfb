"""Weight files: read without executing, loaded whole or refused with reasons."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distinit.pipeline.teachers.weights import (
    load_strictly,
    read_state_dict,
    require_hash_prefix,
)
from distinit.schemas.errors import WeightsError

TENSORS = {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.tensor([7.0, 8.0])}


class MakesAFolder:
    """Pickled, it makes a folder when it is loaded carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def assert_is_tensors(state_dict: dict[str, torch.Tensor]) -> None:
    assert list(state_dict) == list(TENSORS)
    assert all(torch.equal(state_dict[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "epoch": 3, "arch": "resnet18"},
        {"model": TENSORS, "optimizer": {}},
        {f"module.{name}": tensor for name, tensor in TENSORS.items()},
        {f"_orig_mod.{name}": tensor for name, tensor in TENSORS.items()},
        {"state_dict": {name.replace(".", ".module."): t for name, t in TENSORS.items()}},
    ],
    ids=["bare", "state_dict", "model", "data parallel", "compiled", "nested parallel"],
)
def test_reads_the_usual_forms(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth.tar")
    assert_is_tensors(read_state_dict(tmp_path / "w.pth.tar"))


def test_reads_safetensors(tmp_path: Path) -> None:
    save_file(dict(reversed(TENSORS.items())), tmp_path / "w.safetensors")
    state_dict = read_state_dict(tmp_path / "w.safetensors")
    assert_is_tensors({name: state_dict[name] for name in TENSORS})


def test_reads_the_format_before_torch_1_6(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert_is_tensors(read_state_dict(tmp_path / "w.pth"))


def test_refuses_pickled_code_without_running_it(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    torch.save({"state_dict": MakesAFolder(trap)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="was refused"):
        read_state_dict(tmp_path / "w.pth")
    assert not trap.exists()


def test_refuses_a_whole_pickled_network(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="bare state dict"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut short"])
def test_refuses_what_cannot_be_read(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        read_state_dict(tmp_path / name)


def test_refuses_a_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state_dict(path)


def test_refuses_what_is_no_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "history": [1.0]}, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as raised:
        read_state_dict(tmp_path / "w.pth")
    assert raised.value.found == "a mapping with the keys epoch, history"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing at that path"):
        read_state_dict(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="a folder"):
        read_state_dict(tmp_path)


def test_load_strictly_loads() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    load_strictly(network, TENSORS, source="w.pth")
    assert torch.equal(network[0].weight, TENSORS["0.weight"])
    assert torch.equal(network[0].bias, TENSORS["0.bias"])


def test_load_strictly_names_what_differs() -> None:
    network = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    extra = {f"extra{i}": torch.zeros(1) for i in range(5)}
    with pytest.raises(WeightsError, match=r"weights in w\.pth are of another network") as raised:
        load_strictly(network, TENSORS | extra, source="w.pth")
    assert raised.value.found == (
        "missing: 1.weight, 1.bias; unexpected: extra0, extra1, extra2 and 2 more; "
        "other shapes: 0.weight [2, 3] instead of [2, 4]"
    )


def test_batch_norm_counters_may_be_missing() -> None:
    state_dict = nn.BatchNorm2d(2).state_dict()
    state_dict["weight"] = torch.tensor([3.0, 4.0])
    del state_dict["num_batches_tracked"]
    network = nn.BatchNorm2d(2)
    load_strictly(network, state_dict, source="w.pth")
    assert network.weight.tolist() == [3.0, 4.0]


def test_hash_in_the_name_is_checked(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    good, bad = tmp_path / f"net-{digest[:8]}.pth", tmp_path / "net-0676ba61.pth"
    for path in (good, bad):
        path.write_bytes(b"weights")
    require_hash_prefix(good)
    with pytest.raises(WeightsError, match="not what its name says") as raised:
        require_hash_prefix(bad)
    assert raised.value.expected == "a sha256 that starts with 0676ba61"
    (tmp_path / "net.pth").write_bytes(b"weights")
    require_hash_prefix(tmp_path / "net.pth")
