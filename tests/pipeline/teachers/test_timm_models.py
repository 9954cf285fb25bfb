"""timm teachers: their identity, their preprocessing beside timm's own, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data.transforms_factory import create_transform

from distinit.pipeline.cache.feature_fidelity import feature_fidelity_of
from distinit.pipeline.teachers.preprocess import preprocess
from distinit.pipeline.teachers.registry import load_teacher
from distinit.pipeline.teachers.timm_models import load_timm
from distinit.schemas.errors import TeacherError, WeightsError
from distinit.schemas.teacher import TeacherRequest

NAME = "timm:mobilenetv3_small_050"


def saved(folder: Path, name: str, **options: int) -> str:
    """A file with random weights."""
    file = folder / "weights.safetensors"
    save_file(timm.create_model(name, pretrained=False, **options).state_dict(), file)
    return str(file)


def picture(height: int, width: int) -> np.ndarray:
    """Waves and noise, uint8 [height, width, 3]."""
    y_H1, x_1W = np.ogrid[:height, :width]
    waves_HW = np.sin(x_1W / 3) * np.cos(y_H1 / 5)
    noise_HW3 = np.random.default_rng(0).normal(0, 10, (height, width, 3))
    return (128 + 50 * waves_HW[..., None] + noise_HW3).clip(20, 235).astype(np.uint8)


def test_missing_timm_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(TeacherError, match="timm is not installed") as raised:
        load_timm(TeacherRequest(name=NAME))
    assert raised.value.remedy == "pip install timm"


@pytest.mark.parametrize(("target", "width"), [("logits", 5), ("features", 1024)])
def test_identity(target: str, width: int, tmp_path: Path) -> None:
    weights = saved(tmp_path, NAME[5:], num_classes=5)
    request = TeacherRequest.model_validate({"name": NAME, "weights": weights, "target": target})
    identity = load_timm(request).identity
    assert identity.architecture == "timm/mobilenetv3_small_050"
    assert identity.classes == width
    assert identity.preprocessing.resize_size == 256
    assert identity.preprocessing.crop_size == 224


def test_the_pool_is_part_of_identity_and_id(tmp_path: Path) -> None:
    weights = saved(tmp_path, "test_resnet")
    requests = [
        TeacherRequest(name="timm:test_resnet", weights=weights, target="features", pool=pool)
        for pool in (None, "mean", "grid:2")
    ]
    found = [load_timm(request) for request in requests]
    assert len({network.identity.fingerprint for network in found}) == 3
    digest = found[0].identity.weights_sha256
    assert {network.identity.weights_sha256 for network in found} == {digest}
    assert [network.default_id for network in found] == [
        f"timm-test_resnet-{digest[:8]}-features{end}" for end in ("", "-mean", "-grid-2")
    ]


def test_missing_weights_and_unknown_names_are_refused() -> None:
    with pytest.raises(TeacherError, match="needs a weights file"):
        load_timm(TeacherRequest(name=NAME))
    with pytest.raises(TeacherError, match="no model"):
        load_timm(TeacherRequest(name="timm:no_such_model"))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    weights = saved(tmp_path, "test_resnet")
    with pytest.raises(WeightsError, match="no classifier for timm:test_vit"):
        load_timm(TeacherRequest(name="timm:test_vit", weights=weights))
    with pytest.raises(WeightsError, match="those of another network"):
        load_timm(TeacherRequest(name="timm:test_vit", weights=weights, target="features"))


@pytest.mark.parametrize("pixels", [96, 160, 192])
def test_a_transformer_gets_the_input_size_of_its_weights(pixels: int, tmp_path: Path) -> None:
    weights = saved(tmp_path, "test_vit", img_size=pixels)
    request = TeacherRequest(name="timm:test_vit", weights=weights, target="features", pool="mean")
    network = load_timm(request)
    assert network.identity.preprocessing.crop_size == pixels
    assert network.identity.preprocessing.resize_size == int(pixels / 0.95)
    with torch.inference_mode():
        assert network.module(torch.zeros(1, 3, pixels, pixels)).shape == (1, 64)


def test_an_input_that_is_not_square_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    network = timm.create_model("test_vit", pretrained=False, img_size=(96, 160))
    save_file(network.state_dict(), weights)
    with pytest.raises(WeightsError, match="those of another network") as raised:
        load_timm(TeacherRequest(name="timm:test_vit", weights=str(weights)))
    assert "pos_embed [1, 61, 64] instead of [1, 101, 64]" in str(raised.value.found)


@pytest.mark.parametrize("size", [(360, 480), (301, 300), (100, 120)])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "mobilenetv3_small_050"])
def test_preprocessing_is_that_of_timm(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """timm resizes with Pillow, which rounds to whole levels between its two passes.

    torchvision's tensors are not rounded there: less than a quarter of the values differ, by one
    level of 255. Values that Pillow clips between its passes would differ more.
    """
    request = TeacherRequest(name=f"timm:{name}", weights=saved(tmp_path, name))
    spec = load_timm(request).identity.preprocessing
    model = timm.create_model(name, pretrained=False)
    transform = create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    frame_HWC = picture(*size)
    expected_CHW = transform(Image.fromarray(frame_HWC))
    found_CHW = preprocess(torch.from_numpy(frame_HWC)[None], spec)[0]
    assert found_CHW.shape == expected_CHW.shape
    levels_CHW = (found_CHW - expected_CHW).abs() * torch.tensor(spec.std)[:, None, None] * 255
    assert levels_CHW.max() < 1.01
    assert (levels_CHW > 0.5).float().mean() < 0.25


def test_a_teacher_of_features_runs(tmp_path: Path) -> None:
    weights = saved(tmp_path, "test_vit")
    request = TeacherRequest(name="timm:test_vit", weights=weights, target="features", pool="cls")
    teacher = load_teacher(request)
    frames_NHWC = np.stack([picture(90, 120), picture(90, 120)[:, ::-1]])
    features_NC = teacher.forward(frames_NHWC)
    assert features_NC.shape == (2, 64)
    assert np.isfinite(features_NC).all()
    flipped = load_teacher(request.model_copy(update={"flip": True}))
    np.testing.assert_allclose(flipped.forward(frames_NHWC)[0], features_NC[1], atol=1e-3)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_features_are_those_of_timm_but_for_rounding(name: str, tmp_path: Path) -> None:
    weights = saved(tmp_path, name)
    request = TeacherRequest(name=f"timm:{name}", weights=weights, target="features", pool="mean")
    frame_HWC = picture(240, 320)
    features_C = load_teacher(request).forward(frame_HWC[None])[0]
    model = timm.create_model(name, pretrained=False, checkpoint_path=weights).eval()
    transform = create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        output = model.forward_features(transform(Image.fromarray(frame_HWC))[None])[0].numpy()
    expected_C = output[1:].mean(axis=0) if output.ndim == 2 else output.mean(axis=(1, 2))
    errors = feature_fidelity_of(expected_C[None], features_C[None])
    assert errors.cosine_error[0] < 1e-4
