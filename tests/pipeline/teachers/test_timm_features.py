"""Features of timm networks with random weights, compared with timm's own pooling."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformer

from distinit.pipeline.teachers.network import Network
from distinit.pipeline.teachers.timm_features import timm_features
from distinit.pipeline.teachers.timm_models import load_timm
from distinit.schemas.errors import TeacherError, WeightsError
from distinit.schemas.teacher import TeacherRequest

PICTURES = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


def made(name: str, **options: int) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = timm.create_model(name, pretrained=False, **options).eval()
        for parameter in network.parameters():  # registers and norms start as constants
            torch.nn.init.normal_(parameter, std=0.2)
    assert isinstance(network, torch.nn.Module)
    return network


def loaded(network: torch.nn.Module, folder: Path, name: str, pool: str | None) -> Network:
    file = folder / "weights.safetensors"
    save_file(network.state_dict(), file)
    return load_timm(
        TeacherRequest(name=f"timm:{name}", weights=str(file), target="features", pool=pool)
    )


def rows_of(network: Network) -> torch.Tensor:
    with torch.inference_mode():
        rows = network.module.eval()(PICTURES)
    assert rows.shape == (2, network.identity.classes)
    assert isinstance(rows, torch.Tensor)
    return rows


@pytest.mark.parametrize(
    ("pool", "classes", "cells"),
    [(None, 64, 1), ("cls", 64, 1), ("mean", 64, 1), ("cls+mean", 128, 1), ("grid:5", 1600, 25)],
)
def test_a_transformer_with_a_class_token(
    pool: str | None, classes: int, cells: int, tmp_path: Path
) -> None:
    network = made("test_vit")
    with torch.inference_mode():
        tokens_NTD = network.forward_features(PICTURES)
        class_token_ND, patches_NPD = tokens_NTD[:, 0], tokens_NTD[:, 1:]
        cells_NKD = patches_NPD.reshape(2, 5, 2, 5, 2, 64).mean(dim=(2, 4)).flatten(1)
        expected = {
            None: network.forward_head(tokens_NTD, pre_logits=True),
            "cls": class_token_ND,
            "mean": patches_NPD.mean(dim=1),
            "cls+mean": torch.cat([class_token_ND, patches_NPD.mean(dim=1)], dim=1),
            "grid:5": cells_NKD,
        }[pool]
    found = loaded(network, tmp_path, "test_vit", pool)
    torch.testing.assert_close(rows_of(found), expected)
    identity = found.identity
    assert (identity.classes, identity.cells, identity.channels) == (
        classes,
        cells,
        classes // cells,
    )
    assert (identity.pool, identity.target, identity.label_space) == (pool, "features", "features")
    assert identity.preprocessing.crop_size == 160


def test_registers_are_neither_class_tokens_nor_patches(tmp_path: Path) -> None:
    network = made("test_vit2")  # one register, the mean of the patches, then a norm
    with torch.inference_mode():
        tokens_NTD = network.forward_features(PICTURES)
        expected = network.fc_norm(tokens_NTD[:, 1:].mean(dim=1))
    torch.testing.assert_close(rows_of(loaded(network, tmp_path, "test_vit2", "mean")), expected)
    with pytest.raises(TeacherError, match="timm:test_vit2 has no class token"):
        loaded(network, tmp_path, "test_vit2", "cls")


def test_the_head_is_kept_as_it_is(tmp_path: Path) -> None:
    network = made("test_vit3", num_classes=12)  # attention pooling, then a projection to 12
    with torch.inference_mode():
        expected = network(PICTURES)
        before = network.forward_head(network.forward_features(PICTURES), pre_logits=True)
    found = loaded(network, tmp_path, "test_vit3", "head")
    torch.testing.assert_close(rows_of(found), expected)
    assert (found.identity.classes, found.identity.label_names) == (12, ())
    torch.testing.assert_close(rows_of(loaded(network, tmp_path, "test_vit3", None)), before)


def test_weights_without_a_classifier_are_those_of_features(tmp_path: Path) -> None:
    network = made("test_vit", num_classes=0)
    with torch.inference_mode():
        expected = network(PICTURES)
    for pool in (None, "cls", "head"):
        torch.testing.assert_close(rows_of(loaded(network, tmp_path, "test_vit", pool)), expected)
    request = TeacherRequest(name="timm:test_vit", weights=str(tmp_path / "weights.safetensors"))
    with pytest.raises(WeightsError, match="no classifier for timm:test_vit") as raised:
        load_timm(request)
    assert raised.value.expected == "a tensor head.weight"


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_the_map_of_a_convolutional_network(name: str, tmp_path: Path) -> None:
    network = timm.create_model(name, pretrained=False).eval()
    with torch.inference_mode():
        map_NDHW = network.forward_features(PICTURES)
    assert map_NDHW.shape[2:] == (5, 5)
    values = map_NDHW.shape[1]
    mean = loaded(network, tmp_path, name, "mean")
    torch.testing.assert_close(rows_of(mean), map_NDHW.mean(dim=(2, 3)))
    grid = loaded(network, tmp_path, name, "grid:5")
    assert (grid.identity.cells, grid.identity.channels) == (25, values)
    expected = map_NDHW.permute(0, 2, 3, 1).reshape(2, 25 * values)
    torch.testing.assert_close(rows_of(grid), expected)
    with pytest.raises(TeacherError, match=f"timm:{name} has no class token"):
        loaded(network, tmp_path, name, "cls")
    with pytest.raises(TeacherError, match="cannot be pooled to 6 x 6 cells"):
        loaded(network, tmp_path, name, "grid:6")


def test_a_map_with_the_channels_last() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        swin = SwinTransformer(
            img_size=32, patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4
        ).eval()
    with torch.inference_mode():
        map_NHWD = swin.forward_features(PICTURES[:, :, :32, :32])
        network, width = timm_features(swin, "grid:2", name="swin", side=32)
        rows = network(PICTURES[:, :, :32, :32])
    assert (tuple(map_NHWD.shape), width) == ((2, 4, 4, 16), 64)
    expected = map_NHWD.reshape(2, 2, 2, 2, 2, 16).mean(dim=(2, 4)).flatten(1)
    torch.testing.assert_close(rows, expected)


def test_both_heads_of_a_distilled_transformer_are_removed() -> None:
    network = made("deit_tiny_distilled_patch16_224", num_classes=3)
    found, width = timm_features(network, None, name="deit", side=224)
    assert width == 192
    picture = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tokens_NTD = found.forward_features(picture)
        torch.testing.assert_close(found(picture), tokens_NTD[:, :2].mean(dim=1))


def test_an_output_that_is_neither_tokens_nor_a_map_is_refused() -> None:
    network = made("test_resnet")
    network.forward_features = lambda pictures: [pictures]
    with pytest.raises(TeacherError, match="made has neither tokens nor a feature map") as raised:
        timm_features(network, "mean", name="made", side=160)
    assert raised.value.found == "list"
