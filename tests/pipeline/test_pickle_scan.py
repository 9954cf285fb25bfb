"""Small pickles that would take minutes, gigabytes or the process are refused unloaded."""

from __future__ import annotations

import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from distinit.pipeline import pickle_scan
from distinit.pipeline.pickled import read_pickled
from distinit.pipeline.teachers.weights import read_state_dict
from distinit.schemas.errors import WeightsError

START, STOP = b"\x80\x02", b"."
TOO_MANY = "builds more objects than a state dict has"
TOO_DEEP = "nested deeper than those of a state dict"


def archive(folder: Path, operations: bytes) -> Path:
    path = folder / "w.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w/data.pkl", START + operations + STOP)
        file.writestr("w/version", "3\n")
    return path


def integer(value: int) -> bytes:
    return pickle.dumps(value, 2)[len(START) : -len(STOP)]


@pytest.mark.parametrize("operation", [b"}", b"]", b"\x8f", b"("])
def test_the_number_of_objects_is_limited(
    operation: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_scan, "_MAX_OPERATIONS", 1_000)
    with pytest.raises(ValueError, match=TOO_MANY):
        read_pickled(archive(tmp_path, operation * 1_000))


def test_as_many_as_are_allowed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_scan, "_MAX_OPERATIONS", 1_000)
    assert read_pickled(archive(tmp_path, b"]" * 998)) == []


def test_all_pickles_of_the_older_format_count_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_scan, "_MAX_OPERATIONS", 1_000)
    (tmp_path / "w.pt").write_bytes((START + b"]" * 300 + STOP) * 5)
    with pytest.raises(ValueError, match=TOO_MANY):
        read_pickled(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "nested",
    [b"}" + b")" + b"\x85" * 100_000 + b"K\x00s", b"]" + b"2" * 1_000, b"]" * 1_000 + b"a" * 999],
    ids=["a key of tuples, whose hash crashes Python", "copies of the top", "lists"],
)
def test_deep_nesting_is_refused(nested: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=TOO_DEEP):
        read_pickled(archive(tmp_path, nested))


def test_a_long_list_is_not_deep(tmp_path: Path) -> None:
    assert read_pickled(archive(tmp_path, b"]" + b"Nq\x00a" * 1_000)) == [None] * 1_000


def test_keys_that_share_one_hash_are_refused(tmp_path: Path) -> None:
    keys = b"".join(integer(k * sys.hash_info.modulus) + b"N" for k in range(100, 120))
    with pytest.raises(ValueError, match=TOO_MANY):
        read_pickled(archive(tmp_path, b"}(" + keys + b"u"))


@pytest.mark.parametrize("name", ["FloatStorage", "FloatTensor", "UntypedStorage"])
def test_memory_is_not_reserved_by_a_call(name: str, tmp_path: Path) -> None:
    call = b"ctorch\n" + name.encode() + b"\n" + integer(2**31 - 1) + b"\x85R"
    with pytest.raises(pickle_scan.CodeInPickleError, match="a tensor that is not in the file"):
        read_pickled(archive(tmp_path, call))


def test_a_storage_of_the_older_format_is_not_larger_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    claimed = data.replace(b"cpuq\x06K\x03", b"cpuq\x06" + integer(2**28))
    assert claimed != data
    path.write_bytes(claimed)
    with pytest.raises(WeightsError) as raised:
        read_state_dict(path)
    assert "its tensors are larger than the file" in str(raised.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_checkpoints_with_an_optimizer_are_read(zipped: bool, tmp_path: Path) -> None:
    network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(50)))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2)).sum().backward()
    optimizer.step()
    content = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    found = read_pickled(tmp_path / "w.pt")
    assert isinstance(found, dict)
    assert torch.equal(found["model"]["3.weight"], network[3].weight)
