"""The recipes of weights, and their place in a cache: a key that older caches do not have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from helpers import caches
from torchvision.models import (
    EfficientNet_B0_Weights,
    ResNet50_Weights,
    SqueezeNet1_1_Weights,
    ViT_B_16_Weights,
    WeightsEnum,
    squeezenet1_1,
)

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.teachers import recipes, torchvision_models
from distinit.pipeline.teachers.recipes import timm_recipe, torchvision_recipe
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.teacher import TeacherRecord, TeacherRequest, WeightsRecipe
from distinit.stages.cache_info import cache_info

ALL_THREE = ("label smoothing", "mixup", "CutMix")
CORPUS = caches.Corpus(frames={"a": 30, "b": 12})
RECIPE = WeightsRecipe(name="MADE_V2", source="here", softened_by=("mixup", "\x1b[2J"))


@pytest.mark.parametrize(
    ("weights", "softened_by"),
    [
        (ResNet50_Weights.IMAGENET1K_V1, ()),
        (ResNet50_Weights.IMAGENET1K_V2, ALL_THREE),
        (ViT_B_16_Weights.IMAGENET1K_V1, ALL_THREE),
        (ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1, None),
        (EfficientNet_B0_Weights.IMAGENET1K_V1, None),  # ported from timm
        (torchvision.models.MaxVit_T_Weights.IMAGENET1K_V1, ("label smoothing", "mixup")),
    ],
)
def test_the_recipe_of_published_weights_names_what_softens_their_outputs(
    weights: WeightsEnum, softened_by: tuple[str, ...] | None
) -> None:
    recipe = torchvision_recipe(weights)
    assert (recipe.name, recipe.softened_by) == (weights.name, softened_by)
    assert recipe.source == weights.meta["recipe"]


def test_every_recipe_in_the_table_is_one_of_torchvision() -> None:
    known = {
        str(weights.meta.get("recipe")).removeprefix("https://github.com/")
        for name in torchvision_models.classifier_names()
        for weights in torchvision.models.get_model_weights(name)
    }
    assert recipes._TORCHVISION.keys() <= known


def test_a_timm_name_with_a_tag_claims_a_recipe() -> None:
    assert timm_recipe("resnet50") is None
    plain, smoothed, unknown = (
        timm_recipe(f"resnet50.{tag}") for tag in ("tv_in1k", "a1_in1k", "fb_swsl_ig1b_ft_in1k")
    )
    assert plain == WeightsRecipe(
        name="tv_in1k", source="the name timm:resnet50.tv_in1k", softened_by=()
    )
    assert smoothed is not None
    assert smoothed.softened_by == ALL_THREE
    assert unknown is not None
    assert unknown.softened_by is None


def test_only_published_weights_have_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another name could hold anything, for example weights of the user's training."""
    published = tmp_path / str(SqueezeNet1_1_Weights.IMAGENET1K_V1.url).rsplit("/", 1)[-1]
    for path in (published, tmp_path / "mine.pth"):
        torch.save(squeezenet1_1().state_dict(), path)
    monkeypatch.setattr(torchvision_models, "require_hash_prefix", lambda path: None)
    found = [
        load_teacher(TeacherRequest(name="squeezenet1_1", weights=str(path))).recipe
        for path in (published, tmp_path / "mine.pth")
    ]
    assert found == [torchvision_recipe(SqueezeNet1_1_Weights.IMAGENET1K_V1), None]


@pytest.mark.parametrize(
    ("softened_by", "text"),
    [
        (None, "V1, whose recipe is not known here"),
        ((), "V1, trained without label smoothing, mixup or CutMix"),
        (("mixup", "\x1b[2J"), r"V1, trained with mixup, \x1b[2J: its entropies are higher"),
    ],
)
def test_a_recipe_is_described_in_one_line(softened_by: tuple[str, ...] | None, text: str) -> None:
    assert str(WeightsRecipe(name="V1", softened_by=softened_by)) == text


def canonical(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def built(root: Path, recipe: WeightsRecipe | None) -> tuple[CacheManifest, TeacherRecord]:
    record = caches.make_teacher("alpha").model_copy(update={"recipe": recipe})
    return caches.run_all(root, CORPUS, [record]), record


def test_a_recipe_changes_neither_fingerprint_nor_content_digest(tmp_path: Path) -> None:
    without, plain = built(tmp_path / "without", None)
    given, record = built(tmp_path / "with", RECIPE)
    assert record.fingerprint == plain.fingerprint
    assert given.content_digest == without.content_digest
    stored = json.loads((tmp_path / "with/teachers/alpha/teacher.json").read_text())
    assert stored["recipe"] == {
        "name": "MADE_V2",
        "source": "here",
        "softened_by": ["mixup", "\x1b[2J"],
    }
    summary = given.teachers["alpha"]
    assert summary.record_sha256 == canonical(stored | {"fidelity": None})
    assert summary.record_sha256 != without.teachers["alpha"].record_sha256
    assert TargetCache.open(tmp_path / "with").teachers["alpha"].recipe == RECIPE
    assert r"MADE_V2, trained with mixup, \x1b[2J" in cache_info(tmp_path / "with").summary()


def test_a_cache_without_the_key_is_read_and_keeps_its_digests(tmp_path: Path) -> None:
    """Its record is what versions without the key wrote, and so is its digest."""
    manifest, _ = built(tmp_path, None)
    path = tmp_path / "teachers/alpha/teacher.json"
    stored = json.loads(path.read_text())
    assert "recipe" not in stored
    assert manifest.teachers["alpha"].record_sha256 == canonical(stored | {"fidelity": None})
    assert TargetCache.open(tmp_path).teachers["alpha"].recipe is None
    assert "trained" not in cache_info(tmp_path).summary()

    # Its record is damaged and written again by a version that knows the recipe.
    path.write_text("{")
    request = caches.make_teacher("alpha").model_copy(update={"recipe": RECIPE})
    with caches.open_writer(tmp_path, CORPUS, [request]) as writer:
        writer.finalise()
    again = json.loads(path.read_text())
    assert again | {"fidelity": None} == stored | {"fidelity": None}
    assert TargetCache.open(tmp_path).manifest.content_digest == manifest.content_digest


def test_a_changed_recipe_is_detected(tmp_path: Path) -> None:
    built(tmp_path, RECIPE)
    path = tmp_path / "teachers/alpha/teacher.json"
    stored = json.loads(path.read_text())
    for change in ({"softened_by": []}, {"extra": 1}, {"softened_by": ["x"] * 21}):
        path.write_text(json.dumps(stored | {"recipe": stored["recipe"] | change}))
        with pytest.raises(CacheCorruptError):
            TargetCache.open(tmp_path)
