"""Logits of a vocabulary: scale x cosine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.caches import make_teacher
from helpers.vocabularies import make_vocabulary, random_embeddings
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from distinit.pipeline.vocabulary.relabelled import relabelled_id, relabelled_record
from distinit.schemas.errors import VocabularyError


def test_logits_are_scaled_cosines(tmp_path: Path) -> None:
    vocabulary = make_vocabulary(tmp_path / "v.safetensors", 6, scale=50.0)
    features_ND = 7 * random_embeddings(9, 6, seed=5)
    logits_NK = vocabulary.logits(features_ND)
    text_KD = torch.from_numpy(random_embeddings(4, 6))
    cosine_NK = cosine_similarity(torch.from_numpy(features_ND)[:, None], text_KD[None], dim=2)
    assert logits_NK.shape == (9, 4)
    assert logits_NK.dtype == np.float32
    assert np.abs(logits_NK - 50 * cosine_NK.numpy()).max() < 1e-4


def test_features_that_are_all_0_have_the_cosine_0(tmp_path: Path) -> None:
    vocabulary = make_vocabulary(tmp_path / "v.safetensors", 6)
    assert vocabulary.logits(np.zeros((1, 6), np.float32)).tolist() == [[0.0] * 4]


@given(rows=st.integers(0, 40), values=st.integers(1, 30))
def test_blocks_cover_all_rows_once(
    rows: int, values: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vocabulary = make_vocabulary(tmp_path_factory.mktemp("v") / "v.safetensors", 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distinit.pipeline.vocabulary.vocabulary._BLOCK_VALUES", values)
        parts = list(vocabulary.blocks(rows))
    assert [row for part in parts for row in range(rows)[part]] == list(range(rows))
    assert all(part.stop - part.start <= max(1, values // 4) for part in parts)


def test_the_identity_names_the_features_and_the_vocabulary(tmp_path: Path) -> None:
    features = make_teacher("clip", classes=6, target="features", encoding="int8")
    vocabulary = make_vocabulary(tmp_path / "birds.safetensors", 6)
    record = relabelled_record(features, vocabulary, "float16")
    identity = record.identity
    assert (record.id, record.encoding) == ("clip@birds", "float16")
    assert (identity.target, identity.classes) == ("logits", 4)
    assert identity.label_names == ("class 0", "class 1", "class 2", "class 3")
    assert identity.relabelled is not None
    assert identity.relabelled.parent_fingerprint == features.fingerprint
    assert identity.relabelled.vocabulary_sha256 == vocabulary.sha256
    other = make_vocabulary(tmp_path / "birds.safetensors", 6, scale=11.0)
    fingerprints = {relabelled_record(features, v).fingerprint for v in (vocabulary, other)}
    assert len(fingerprints | {features.fingerprint}) == 3
    # The same names are one label space, whatever embedded them.
    assert relabelled_record(features, other).identity.label_space == identity.label_space


def test_ids_stay_valid_names_of_folders(tmp_path: Path) -> None:
    vocabulary = make_vocabulary(tmp_path / ("ä b" * 40 + ".safetensors"), 6)
    assert (
        relabelled_id("t" * 100, vocabulary) == "t" * 59 + "@" + ("- b".replace(" ", "-") * 40)[:40]
    )


def test_features_of_another_space_are_refused(tmp_path: Path) -> None:
    features = make_teacher("clip", classes=6, target="features")
    path = tmp_path / "v.safetensors"
    for vocabulary, found in (
        (make_vocabulary(path, 5), "6 dimensions"),
        (make_vocabulary(path, 6, image_architecture="timm/other"), "features of test/tiny"),
        (make_vocabulary(path, 6, image_weights_sha256="b" * 64), f"weights {'0' * 64}"),
    ):
        with pytest.raises(VocabularyError) as caught:
            relabelled_record(features, vocabulary)
        assert found in str(caught.value)
        assert "vocabulary v does not fit teacher clip" in str(caught.value)
    with pytest.raises(VocabularyError) as caught:
        relabelled_record(make_teacher("alpha", classes=6), make_vocabulary(path, 6))
    assert "a teacher that stores features" in str(caught.value)
    grid = features.identity.model_copy(update={"pool": "grid:2", "classes": 24})
    with pytest.raises(VocabularyError) as caught:
        relabelled_record(features.model_copy(update={"identity": grid}), make_vocabulary(path, 24))
    assert "4 cells for each frame (pool grid:2)" in str(caught.value)
