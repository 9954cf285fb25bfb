"""Student files load again, load in plain torchvision, and are rejected if they do not match."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from distinit.pipeline.records import file_entry
from distinit.pipeline.students.heads import Student, new_student
from distinit.pipeline.students.io import (
    NORMALIZATION_NAME,
    load_backbone,
    read_student,
    save_student,
)
from distinit.pipeline.students.torchvision_nets import CLASSIFIERS
from distinit.schemas.errors import CheckpointError
from distinit.schemas.run import HeadRecord, StudentRecord
from distinit.schemas.training import ClipConfig, StudentConfig

TINY = StudentConfig(name="tiny_r2plus1d_10")


def save(folder: Path, config: StudentConfig = TINY, seed: int = 0) -> Student:
    student = new_student(config, {"imagenet": 7}, seed)
    record = StudentRecord(
        student=config,
        clip=ClipConfig(),
        feature_dim=student.feature_dim,
        heads=(HeadRecord(name="imagenet", outputs=7, label_space="seven"),),
        trained_by="distill",
        config={},
    )
    save_student(folder, student, record)
    return student


def test_a_saved_student_loads_with_the_same_tensors(tmp_path: Path) -> None:
    saved = save(tmp_path)
    loaded, record = read_student(tmp_path)
    assert record.heads[0].outputs == 7
    expected = saved.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(t, expected[name]) for name, t in loaded.state_dict().items())


def test_load_backbone_keeps_the_heads_and_reports_every_tensor(tmp_path: Path) -> None:
    source = save(tmp_path)
    target = new_student(TINY, {"labels": 3}, seed=9)
    head_weight = target.state_dict()["heads.labels.weight"].clone()
    report = load_backbone(target, TINY, tmp_path)
    assert report.reinitialised == ("heads.labels.bias", "heads.labels.weight")
    assert report.unused == ("heads.imagenet.bias", "heads.imagenet.weight")
    names = sorted(n for n in source.state_dict() if n.startswith("backbone."))
    assert report.loaded == tuple(names)
    state = target.state_dict()
    assert all(torch.equal(state[n], source.state_dict()[n]) for n in names)
    assert torch.equal(state["heads.labels.weight"], head_weight)


def documented_lines() -> str:
    """The code in docs/distillation.md that loads a student in plain torchvision."""
    text = (Path(__file__).parents[3] / "docs" / "distillation.md").read_text()
    return text.partition("without this package:\n\n```python\n")[2].partition("```")[0]


def test_the_documented_lines_load_in_plain_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save(tmp_path, StudentConfig(name="r2plus1d_18"))
    monkeypatch.chdir(tmp_path)
    code = documented_lines()
    lines = [line for line in code.splitlines() if line and "import " not in line]
    assert len(lines) == 3
    assert "distinit" not in code
    names: dict[str, torch.nn.Module] = {}
    exec(code, {}, names)
    model = names["model"]
    model.fc = torch.nn.Identity()
    clip = torch.randn(1, 3, 2, 16, 16)
    with torch.inference_mode():
        assert torch.equal(model.eval()(clip), saved.eval().backbone(clip))


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_every_torchvision_student_loads_in_torchvision(name: str) -> None:
    student = new_student(StudentConfig(name=name), {"a": 3}, seed=0)
    state = student.state_dict()
    plain = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    model = getattr(torchvision.models.video, name)()
    outcome = model.load_state_dict(plain, strict=False)
    assert outcome.unexpected_keys == []
    classifier = f"{CLASSIFIERS[name]}."
    assert outcome.missing_keys
    assert all(key.startswith(classifier) for key in outcome.missing_keys)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_plain_state_dict_loads_as_a_backbone(tmp_path: Path, suffix: str) -> None:
    model = torchvision.models.video.r3d_18()
    path = tmp_path / f"kinetics{suffix}"
    if suffix == ".pt":
        torch.save(model.state_dict(), path)
    else:
        save_file(model.state_dict(), path)
    config = StudentConfig(name="r3d_18")
    student = new_student(config, {"labels": 3}, seed=1)
    report = load_backbone(student, config, path)
    assert report.unused == ("fc.bias", "fc.weight")
    loaded = student.state_dict()["backbone.layer4.1.conv2.0.weight"]
    assert torch.equal(loaded, model.state_dict()["layer4.1.conv2.0.weight"])


def test_another_architecture_is_rejected(tmp_path: Path) -> None:
    save(tmp_path)
    config = StudentConfig(name="r3d_18")
    with pytest.raises(CheckpointError, match="another network") as caught:
        load_backbone(new_student(config, {"a": 3}, 0), config, tmp_path)
    assert "tiny_r2plus1d_10" in str(caught.value)


def test_another_shape_is_rejected_and_nothing_is_loaded(tmp_path: Path) -> None:
    flow = StudentConfig(name="tiny_r2plus1d_10", in_channels=2)
    source = new_student(flow, {}, 0).state_dict()
    path = tmp_path / "other.safetensors"
    save_file({k.removeprefix("backbone."): v for k, v in source.items()}, path)
    student = new_student(TINY, {"a": 3}, seed=4)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    with pytest.raises(CheckpointError, match="does not fit"):
        load_backbone(student, TINY, path)
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())


def test_a_file_without_matching_tensors_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "nothing.safetensors"
    save_file({"something.else": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"is missing"):
        load_backbone(new_student(TINY, {"a": 3}, 0), TINY, path)


def test_missing_and_damaged_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no student at"):
        read_student(tmp_path)
    save(tmp_path)
    path = tmp_path / "student.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_student(tmp_path)


def test_pickled_code_is_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pt"
    torch.save({"state_dict": Path("/tmp")}, path)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_backbone(new_student(TINY, {"a": 3}, 0), TINY, path)


def test_a_flipped_bit_in_the_tensors_is_detected(tmp_path: Path) -> None:
    save(tmp_path)
    path = tmp_path / "student.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1  # in a weight, which stays finite
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged, or belongs to another"):
        read_student(tmp_path)
    with pytest.raises(CheckpointError, match="is damaged, or belongs to another"):
        load_backbone(new_student(TINY, {"a": 3}, 0), TINY, tmp_path)


def test_a_changed_normalization_is_refused_by_name(tmp_path: Path) -> None:
    student = save(tmp_path)
    path = tmp_path / NORMALIZATION_NAME
    save_file({"imagenet/mean_C": torch.zeros(7), "imagenet/scale_C": torch.ones(7)}, path)
    _, record = read_student(tmp_path)
    save_student(tmp_path, student, record.model_copy(update={"normalization": file_entry(path)}))
    assert read_student(tmp_path)[1].normalization == file_entry(path)
    save_file({"imagenet/mean_C": torch.zeros(7), "imagenet/scale_C": torch.full((7,), 2.0)}, path)
    with pytest.raises(CheckpointError, match="is damaged, or belongs to another") as caught:
        read_student(tmp_path)
    assert caught.value.problem.startswith(f"{path} ")
    assert caught.value.remedy == (
        "copy normalization.safetensors and student.json from the run folder again"
    )
    path.unlink()
    assert read_student(tmp_path)[1].normalization is not None
