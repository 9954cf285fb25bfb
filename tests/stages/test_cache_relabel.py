"""Caches with the logits of vocabularies, as a live teacher computes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import run_command
from helpers.derived_caches import assert_valid
from helpers.sources import FRAMES, write_cache
from helpers.vocabularies import make_vocabulary, random_embeddings
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cosine_similarity

from distinit.pipeline.cache.confidence import confidence_of
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.vocabulary.targets import VocabularyTargets
from distinit.schemas.errors import CacheError, ConfigError, VocabularyError
from distinit.stages.cache_relabel import cache_relabel

DIMENSIONS = 7


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, DIMENSIONS, 3), nn.Flatten(2)
    )
    return net.eval()


@torch.no_grad()
def features_of(video_id: str, teacher: str, frame: int) -> NDArray[np.float32]:
    """Pooled features of a live network for a made-up picture."""
    key = hashlib.sha256(f"{video_id}/{frame}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:4], "little"))
    picture_1CHW = torch.rand(1, 3, 16, 16, generator=generator)
    pooled: NDArray[np.float32] = network()(picture_1CHW).mean(dim=2)[0].numpy()
    return pooled


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("relabel")
    write_cache(root / "cache", ("alpha",), target="features", logits_of=features_of)
    make_vocabulary(root / "birds.safetensors", DIMENSIONS, scale=100.0)
    make_vocabulary(root / "tools.safetensors", DIMENSIONS, names=6, seed=1, scale=20.0)
    return root


def test_two_vocabularies_give_the_logits_of_a_live_teacher(root: Path, tmp_path: Path) -> None:
    vocabularies = [root / "birds.safetensors", root / "tools.safetensors"]
    result = cache_relabel(root / "cache", tmp_path / "out", vocabularies, progress=NullProgress())
    assert_valid(tmp_path / "out")
    relabelled = TargetCache.open(tmp_path / "out")
    assert sorted(relabelled.teachers) == ["alpha@birds", "alpha@tools"]
    assert result.rows == sum(n for name, n in FRAMES.items() if name != "bad")
    for name, scale, texts_KD in (
        ("birds", 100.0, random_embeddings(4, DIMENSIONS)),
        ("tools", 20.0, random_embeddings(6, DIMENSIONS, 1)),
    ):
        for video_id in relabelled.video_ids:
            stored = relabelled.targets(f"alpha@{name}").of(video_id)
            live_ND = torch.from_numpy(
                np.stack([features_of(video_id, "alpha", int(f)) for f in stored.frame_N])
            )
            texts = torch.from_numpy(texts_KD)
            cosine_NK = cosine_similarity(live_ND[:, None], texts[None], dim=2)
            live_NK = (scale * cosine_NK).numpy()
            error = np.abs(stored.logits_NC - live_NK).max() / np.abs(live_NK).max()
            assert error <= 1e-3
            assert stored.entropy_nats_N is not None
            entropy_N = confidence_of(live_NK).entropy_nats
            assert np.abs(stored.entropy_nats_N - entropy_N).max() < 0.05


def test_the_new_cache_names_what_it_was_made_from(root: Path, tmp_path: Path) -> None:
    cache_relabel(
        root / "cache", tmp_path / "out", [root / "birds.safetensors"], progress=NullProgress()
    )
    source, derived = TargetCache.open(root / "cache"), TargetCache.open(tmp_path / "out")
    record = derived.teachers["alpha@birds"]
    vocabulary = make_vocabulary(tmp_path / "birds.safetensors", DIMENSIONS, scale=100.0)
    assert record.identity.relabelled is not None
    assert record.identity.relabelled.model_dump() == {
        "parent_fingerprint": source.teachers["alpha"].fingerprint,
        "vocabulary_sha256": vocabulary.sha256,
    }
    derivation = derived.manifest.derived_from
    assert derivation is not None
    assert derivation.operation == "relabel"
    assert derivation.sources[0].content_digest == source.manifest.content_digest
    assert derivation.parameters["vocabulary of alpha@birds"] == vocabulary.sha256
    assert record.fidelity is not None
    assert record.fidelity.frames == sum(n for name, n in FRAMES.items() if name != "bad")
    assert record.fidelity.measured_against is None


def test_the_same_logits_and_entropies_as_without_a_new_cache(root: Path, tmp_path: Path) -> None:
    path = root / "birds.safetensors"
    cache_relabel(root / "cache", tmp_path / "out", [path], progress=NullProgress())
    derived = TargetCache.open(tmp_path / "out").targets("alpha@birds")
    vocabulary = make_vocabulary(tmp_path / "birds.safetensors", DIMENSIONS, scale=100.0)
    source = TargetCache.open(root / "cache")
    direct = VocabularyTargets(source, source.teachers["alpha"], vocabulary)
    for video_id in source.video_ids:
        ours, theirs = direct.of(video_id), derived.of(video_id)
        assert np.array_equal(ours.logits_NC.astype(np.float16), theirs.logits_NC)
        assert np.array_equal(ours.entropy_nats_N, theirs.entropy_nats_N)


def test_a_second_run_changes_nothing_and_other_vocabularies_are_refused(
    root: Path, tmp_path: Path
) -> None:
    def relabel(name: str) -> str:
        path = root / f"{name}.safetensors"
        out = tmp_path / "out"
        return cache_relabel(root / "cache", out, [path], progress=NullProgress()).content_digest

    assert relabel("birds") == relabel("birds")
    with pytest.raises(CacheError, match="holds another cache"):
        relabel("tools")


def test_small_encodings(root: Path, tmp_path: Path) -> None:
    path = root / "tools.safetensors"
    for encoding in ("int8", "topk:2"):
        out = tmp_path / encoding
        cache_relabel(root / "cache", out, [path], encoding=encoding, progress=NullProgress())
        assert_valid(out)
        assert TargetCache.open(out).teachers["alpha@tools"].encoding == encoding
    with pytest.raises(ConfigError, match="top-k keeps every class"):
        cache_relabel(root / "cache", out, [path], encoding="topk:6", progress=NullProgress())


def test_refusals(root: Path, tmp_path: Path) -> None:
    def relabel(*paths: Path, cache: str = "cache", teacher: str | None = None) -> None:
        cache_relabel(
            root / cache, tmp_path / "out", paths, teacher=teacher, progress=NullProgress()
        )

    make_vocabulary(tmp_path / "wide.safetensors", DIMENSIONS + 1)
    with pytest.raises(VocabularyError, match="does not fit teacher alpha"):
        relabel(tmp_path / "wide.safetensors")
    make_vocabulary(tmp_path / "other.safetensors", DIMENSIONS, image_architecture="timm/other")
    with pytest.raises(VocabularyError) as caught:
        relabel(tmp_path / "other.safetensors")
    assert "timm/other, which belongs to its text tower test/texts" in str(caught.value)
    birds = root / "birds.safetensors"
    with pytest.raises(ConfigError, match="the same id"):
        relabel(birds, birds)
    with pytest.raises(ConfigError, match="the cache has no teacher"):
        relabel(birds, teacher="alhpa")
    write_cache(root / "logits", ("alpha",))
    with pytest.raises(ConfigError, match="one teacher that stores features"):
        relabel(birds, cache="logits")
    assert not (tmp_path / "out").exists()


def test_a_teacher_of_logits_is_refused_with_the_teachers_that_fit(
    root: Path, tmp_path: Path
) -> None:
    teachers = ("alpha", "beta", "gamma")
    write_cache(tmp_path / "mixed", teachers, target="features", targets={"beta": "logits"})
    write_cache(tmp_path / "logits", ("beta",))
    birds, out = [root / "birds.safetensors"], tmp_path / "out"
    for cache, fitting, remedy in (
        ("mixed", "alpha, gamma", "use teacher alpha"),
        ("logits", "none", "extract features: `distinit extract --target features`"),
    ):
        with pytest.raises(ConfigError) as caught:
            cache_relabel(tmp_path / cache, out, birds, teacher="beta", progress=NullProgress())
        assert str(caught.value).splitlines() == [
            "a vocabulary needs features, and teacher beta stores logits",
            f"  expected: a teacher that stores features; in this cache: {fitting}",
            "  found:    beta",
            f"  to do:    {remedy}",
        ]


def test_the_commands(root: Path, tmp_path: Path) -> None:
    cache, birds, out = str(root / "cache"), str(root / "birds.safetensors"), str(tmp_path / "out")
    code, text = run_command(
        ["cache", "relabel", cache, "--vocabulary", birds, "--out", out, "--quiet"]
    )
    assert (code, "alpha@birds" in text) == (0, True)
    code, text = run_command(["cache", "verify", out, "--recompute", "2", "--videos", str(root)])
    assert code != 0
    assert "computed from stored features and a vocabulary" in text
    code, text = run_command(
        ["cache", "relabel", cache, "--vocabulary", str(root), "--out", out, "--quiet"]
    )
    assert (code, "is not a usable vocabulary" in text) == (2, True)
