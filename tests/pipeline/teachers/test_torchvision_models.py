"""torchvision teachers: weights from the local cache or a file, presets, identity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from distinit.pipeline.teachers.fingerprint import state_dict_sha256
from distinit.pipeline.teachers.torchvision_models import build_classifier, load_torchvision
from distinit.schemas.errors import TeacherError, WeightsError
from distinit.schemas.teacher import TeacherRequest

StateDict = dict[str, torch.Tensor]


def request(path: Path | None, name: str = "squeezenet1_1", **fields: object) -> TeacherRequest:
    weights = None if path is None else str(path)
    return TeacherRequest.model_validate({"name": name, "weights": weights, **fields})


def test_identity_from_a_file(squeezenet_file: Path, squeezenet_state: StateDict) -> None:
    network = load_torchvision(request(squeezenet_file))
    identity, digest = network.identity, state_dict_sha256(squeezenet_state)
    assert identity.architecture == "torchvision/squeezenet1_1"
    assert identity.weights_sha256 == digest
    assert (identity.classes, identity.label_space, identity.label_names) == (7, "unnamed-7", ())
    assert network.default_id == f"squeezenet1_1-{digest[:8]}"
    spec = identity.preprocessing
    assert (spec.resize_mode, spec.resize_size, spec.crop_size) == ("short_edge", 256, 224)
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (spec.interpolation, spec.antialias, spec.resize) == ("bilinear", True, "exact")


def test_weights_with_1000_classes_have_imagenet_labels(tmp_path: Path) -> None:
    torch.save(squeezenet1_1().state_dict(), tmp_path / "w.pth")
    identity = load_torchvision(request(tmp_path / "w.pth")).identity
    assert identity.label_space == "imagenet-1k"
    assert identity.label_names == tuple(SqueezeNet1_1_Weights.DEFAULT.meta["categories"])
    assert identity.label_names[:2] == ("tench", "goldfish")


def test_the_preset_is_that_of_the_named_weights(tmp_path: Path, squeezenet_file: Path) -> None:
    from torchvision.models import mobilenet_v2

    torch.save(mobilenet_v2(num_classes=2).state_dict(), tmp_path / "m.pth")
    sizes = {
        tag: load_torchvision(
            request(tmp_path / "m.pth", f"mobilenet_v2{tag}")
        ).identity.preprocessing.resize_size
        for tag in ("", "@IMAGENET1K_V1", "@IMAGENET1K_V2", "@DEFAULT")
    }
    assert sizes == {"": 256, "@IMAGENET1K_V1": 256, "@IMAGENET1K_V2": 232, "@DEFAULT": 232}


def test_weights_and_every_setting_change_the_fingerprint(
    squeezenet_state: StateDict, squeezenet_file: Path, tmp_path: Path
) -> None:
    nudged = {name: tensor.clone() for name, tensor in squeezenet_state.items()}
    first = next(iter(nudged))
    nudged[first].view(torch.uint8).view(-1)[0] ^= 1
    torch.save(nudged, tmp_path / "nudged.pth")
    identity = load_torchvision(request(squeezenet_file)).identity
    spec = identity.preprocessing
    others = [
        load_torchvision(request(tmp_path / "nudged.pth")).identity,
        load_torchvision(request(squeezenet_file, resize="fast")).identity,
        load_torchvision(request(squeezenet_file, target="features")).identity,
        *(
            identity.model_copy(update={"preprocessing": spec.model_copy(update=change)})
            for change in (
                {"mean": (0.5, 0.456, 0.406)},
                {"resize_size": 255},
                {"channel_order": "bgr"},
            )
        ),
    ]
    fingerprints = {identity.fingerprint, *(other.fingerprint for other in others)}
    assert len(fingerprints) == 7
    assert load_torchvision(request(squeezenet_file)).identity.fingerprint == identity.fingerprint


def test_default_ids_contain_target_and_resize(squeezenet_file: Path) -> None:
    plain = load_torchvision(request(squeezenet_file)).default_id
    features = load_torchvision(request(squeezenet_file, target="features", resize="fast"))
    assert features.default_id == f"{plain}-features-fast"
    assert (features.identity.classes, features.identity.label_space) == (512, "features")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet50", "resnet50-0676ba61.pth"),
        ("resnet50@IMAGENET1K_V1", "resnet50-0676ba61.pth"),
        ("resnet50@IMAGENET1K_V2", "resnet50-11ad3fa6.pth"),
        ("resnet50@DEFAULT", "resnet50-11ad3fa6.pth"),
    ],
)
def test_a_name_without_a_tag_means_the_first_published_weights(name: str, file: str) -> None:
    with pytest.raises(WeightsError, match=f"put {file}"):
        load_torchvision(request(None, name))


def test_the_error_for_missing_weights_names_their_file_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as raised:
        load_torchvision(request(None, "resnet50@IMAGENET1K_V1"))
    folder = tmp_path / "hub" / "checkpoints"
    assert raised.value.expected == str(folder / "resnet50-0676ba61.pth")
    assert raised.value.remedy is not None
    assert "--weights" in raised.value.remedy
    assert not folder.exists()


@pytest.mark.parametrize("by", ["local cache", "--weights"])
def test_a_damaged_published_file_is_refused(
    by: str, squeezenet_state: StateDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    path.parent.mkdir(parents=True)
    torch.save(squeezenet_state, path)
    with pytest.raises(WeightsError, match="does not match its name"):
        load_torchvision(request(None if by == "local cache" else path))


def test_unknown_names_suggest_others() -> None:
    with pytest.raises(TeacherError) as raised:
        load_torchvision(request(None, "resnet51"))
    assert "resnet50" in str(raised.value.remedy)
    with pytest.raises(TeacherError) as raised:
        load_torchvision(request(None, "resnet50@IMAGENET1K_V9"))
    assert raised.value.expected == "IMAGENET1K_V1 or IMAGENET1K_V2"


def test_weights_of_another_architecture_are_refused(squeezenet_file: Path) -> None:
    with pytest.raises(WeightsError, match="no classifier for ResNet"):
        load_torchvision(request(squeezenet_file, "resnet18"))
    with pytest.raises(WeightsError, match="other shapes: features"):
        load_torchvision(request(squeezenet_file, "squeezenet1_0"))


def test_old_tensor_names_of_densenet_are_renamed() -> None:
    import torchvision

    with torch.random.fork_rng():
        current = torchvision.models.densenet121(num_classes=2).state_dict()
    old = {
        name.replace("norm1", "norm.1")
        .replace("conv1", "conv.1")
        .replace("norm2", "norm.2")
        .replace("conv2", "conv.2"): tensor
        for name, tensor in current.items()
    }
    network, classes = build_classifier("densenet121", old, None, source="w.pth")
    assert classes == 2
    assert state_dict_sha256(network.state_dict()) == state_dict_sha256(current)


def test_training_only_heads_are_dropped() -> None:
    import torchvision

    with torch.random.fork_rng():
        full = torchvision.models.googlenet(aux_logits=True, init_weights=False).state_dict()
    network, classes = build_classifier("googlenet", full, None, source="w.pth")
    assert classes == 1000
    assert not [name for name in network.state_dict() if name.startswith("aux")]
    assert network.transform_input is True


def test_building_does_not_change_the_random_state(squeezenet_file: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_torchvision(request(squeezenet_file))
    np.testing.assert_array_equal(torch.rand(3).numpy(), expected.numpy())
