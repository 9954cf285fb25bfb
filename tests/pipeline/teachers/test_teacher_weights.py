"""Weights files are read without executing code, and loaded completely or refused."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from distinit.pipeline.pickled import tensor_problem
from distinit.pipeline.teachers.weights import (
    load_strictly,
    read_state_dict,
    require_hash_prefix,
)
from distinit.schemas.errors import WeightsError

TENSORS = {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.tensor([7.0, 8.0])}


class MakesAFolder:
    """Its pickle makes a folder if it is loaded by a reader that executes code."""

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
        {"student": {}, "teacher": {f"module.{name}": t for name, t in TENSORS.items()}},
        {f"module.{name}": tensor for name, tensor in TENSORS.items()},
        {f"_orig_mod.{name}": tensor for name, tensor in TENSORS.items()},
        {"state_dict": {name.replace(".", ".module."): t for name, t in TENSORS.items()}},
    ],
    ids=["bare", "state_dict", "model", "teacher", "data parallel", "compiled", "nested parallel"],
)
def test_reads_the_usual_forms(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth.tar")
    assert_is_tensors(read_state_dict(tmp_path / "w.pth.tar"))


def test_refuses_several_state_dicts_in_one_file(tmp_path: Path) -> None:
    torch.save({"model": TENSORS, "teacher": TENSORS}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="contains several state dicts") as raised:
        read_state_dict(tmp_path / "w.pth")
    assert raised.value.found == "model, teacher"
    assert raised.value.remedy is not None
    assert 'torch.load(path)["model"]' in raised.value.remedy


def test_refuses_names_that_a_prefix_alone_keeps_apart(tmp_path: Path) -> None:
    name, tensor = next(iter(TENSORS.items()))
    torch.save({**TENSORS, f"module.{name}": tensor}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="names that differ only in a prefix") as raised:
        read_state_dict(tmp_path / "w.pth")
    assert raised.value.found == f"{len(TENSORS) + 1} tensors with {len(TENSORS)} names"


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
def test_refuses_files_that_cannot_be_read(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        read_state_dict(tmp_path / name)


def test_refuses_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state_dict(path)


def test_refuses_content_that_is_not_a_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "history": [1.0]}, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as raised:
        read_state_dict(tmp_path / "w.pth")
    assert raised.value.found == "a mapping with the keys epoch, history"


def test_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
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
    with pytest.raises(
        WeightsError, match=r"weights in w\.pth are those of another network"
    ) as raised:
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
    with pytest.raises(WeightsError, match="does not match its name") as raised:
        require_hash_prefix(bad)
    assert raised.value.expected == "a sha256 that starts with 0676ba61"
    (tmp_path / "net.pth").write_bytes(b"weights")
    require_hash_prefix(tmp_path / "net.pth")


def refusal_of(content: object, tmp_path: Path) -> str:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as raised:
        read_state_dict(tmp_path / "w.pth")
    return str(raised.value.found)


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.zeros(2, dtype=torch.complex64), "b has the type torch.complex64"),
        (torch.zeros(2).to(torch.float8_e4m3fn), "b has the type torch.float8_e4m3fn"),
        (torch.eye(2).to_sparse(), "b is sparse (torch.sparse_coo)"),
        (torch.zeros(2, device="meta"), "b has no values (device meta)"),
        (torch.zeros(1).expand(10**12), "b repeats values instead of holding them"),
        ("text", "b is a str, not a tensor"),
    ],
    ids=["complex", "float8", "sparse", "meta", "expanded", "text"],
)
def test_refuses_values_that_are_not_weights(tensor: object, found: str, tmp_path: Path) -> None:
    assert refusal_of({"a": torch.zeros(2), "b": tensor}, tmp_path) == found


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning", "ignore:TypedStorage:UserWarning")
def test_refuses_quantised_weights(tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    assert refusal_of({"a": quantised}, tmp_path) == "a is quantised (torch.qint8)"


def test_refuses_a_compressed_archive(tmp_path: Path) -> None:
    """4 MB of zeros in a few kB: torch itself would unpack it."""
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole,
        zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for entry in whole.infolist():
            small.writestr(entry.filename, whole.read(entry))
    assert (tmp_path / "w.pth").stat().st_size < 1 << 16
    assert "a" in torch.load(tmp_path / "w.pth", weights_only=True)
    with pytest.raises(WeightsError, match="a compressed archive"):
        read_state_dict(tmp_path / "w.pth")


def test_refuses_an_archive_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    """Entries that share their bytes."""
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1 << 16)}, path)
    data = bytearray(path.read_bytes())
    for place in _central_entries(data):
        data[place + 24 : place + 28] = (1 << 20).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="entries are larger than the file"):
        read_state_dict(path)


def _central_entries(data: bytearray) -> list[int]:
    return [found.start() for found in re.finditer(rb"PK\x01\x02", bytes(data))]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_refuses_a_pickle_that_allocates_memory(zipped: bool, tmp_path: Path) -> None:
    """bytearray(10**12) takes about ten bytes of a pickle, and torch executes it."""

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return bytearray, (10**12,)

    torch.save({"a": Bomb()}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"pickled code \(it refers to .*bytearray\)"):
        read_state_dict(tmp_path / "w.pth")


def test_the_message_does_not_say_how_to_run_pickled_code(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(WeightsError) as raised:
        read_state_dict(tmp_path / "w.pth")
    assert "weights_only" not in str(raised.value)
    assert raised.value.found == ("pickled code (it refers to torch.nn.modules.linear.Linear)")


def test_reading_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(WeightsError, match="a pipe or a device"):
            read_state_dict(tmp_path / name)


def test_a_file_larger_than_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 42)
        with pytest.raises(WeightsError, match="memory of this machine"):
            read_state_dict(tmp_path / name)


def test_tensors_are_never_cast_to_another_kind_of_type() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    for dtype in (torch.int64, torch.bool, torch.float64):
        other = {name: tensor.to(dtype) for name, tensor in TENSORS.items()}
        with pytest.raises(WeightsError) as raised:
            load_strictly(network, other, source="w.pth")
        name = str(dtype).removeprefix("torch.")
        assert raised.value.found == (
            f"other types: 0.weight {name} instead of float32, 0.bias {name} instead of float32"
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrower_floats_are_loaded_without_changing_values(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    load_strictly(network, {n: t.to(dtype) for n, t in TENSORS.items()}, source="w.pth")
    assert network[0].weight.dtype == torch.float32
    assert torch.equal(network[0].weight, TENSORS["0.weight"])


def test_batch_norm_counters_of_another_type_are_ignored() -> None:
    network = nn.BatchNorm2d(2)
    state_dict = {n: t.float() for n, t in nn.BatchNorm2d(2).state_dict().items()}
    state_dict["num_batches_tracked"] += 7
    load_strictly(network, state_dict, source="w.pth")
    assert (network.num_batches_tracked.dtype, int(network.num_batches_tracked)) == (torch.int64, 0)
    whole = nn.BatchNorm2d(2).state_dict() | {"num_batches_tracked": torch.tensor(7)}
    load_strictly(network, whole, source="w.pth")
    assert int(network.num_batches_tracked) == 7


@pytest.mark.parametrize(
    ("name", "value"), [("weight", "nan"), ("weight", "inf"), ("running_var", "nan")]
)
def test_weights_that_are_not_finite_are_refused(name: str, value: str) -> None:
    state_dict = nn.BatchNorm2d(2).state_dict()
    state_dict[name][1] = float(value)
    with pytest.raises(WeightsError, match="are not finite") as raised:
        load_strictly(nn.BatchNorm2d(2), state_dict, source="w.pth")
    assert raised.value.found == f"{name}: 1 of 2 values are NaN or infinite"


def test_a_mask_may_contain_infinity() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.zeros(2))

    state_dict = {"mask": torch.tensor([0.0, -torch.inf])}
    network = Masked()
    load_strictly(network, state_dict, source="w.pth")
    assert torch.equal(network.mask, state_dict["mask"])


def valid_files() -> dict[str, bytes]:
    tensors = {"a.weight": torch.arange(12.0).reshape(3, 4), "n": torch.tensor(3)}
    files = {"w.safetensors": save(tensors)}
    for name, zipped in (("w.pth", True), ("w.pt", False)):
        buffer = io.BytesIO()
        torch.save({"state_dict": tensors}, buffer, _use_new_zipfile_serialization=zipped)
        files[name] = buffer.getvalue()
    return files


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Flip, remove, duplicate, zero or overwrite bytes at one to eight places."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at, length = rng.randrange(len(found) + 1), rng.randint(1, 64)
        match rng.randrange(6):
            case 0 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 1:
                del found[at : at + length]
            case 2:
                found[at:at] = found[at : at + length]
            case 3:
                found[at : at + length] = bytes(len(found[at : at + length]))
            case 4:
                found[at : at + 8] = rng.randbytes(len(found[at : at + 8]))
            case _:
                found = found[:at] or found
    return bytes(found)


def test_damaged_files_give_plain_tensors_or_a_weights_error(tmp_path: Path) -> None:
    """The environment variable WEIGHTS_FUZZ sets the number of files per format, 100 by default."""
    rng = random.Random(0)
    outcomes = {True: 0, False: 0}
    for name, data in valid_files().items():
        for _ in range(int(os.environ.get("WEIGHTS_FUZZ", "100"))):
            (tmp_path / name).write_bytes(mutated(data, rng))
            try:
                state_dict = read_state_dict(tmp_path / name)
            except WeightsError:
                outcomes[False] += 1
            else:
                assert all(tensor_problem(tensor) == "" for tensor in state_dict.values())
                outcomes[True] += 1
    assert min(outcomes.values()) > 0
