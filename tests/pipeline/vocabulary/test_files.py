"""Vocabulary files: what is written is read, and what gives no logits is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.vocabularies import make_vocabulary, metadata_of, random_embeddings
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import save_file

from distinit.pipeline.vocabulary import files
from distinit.pipeline.vocabulary.files import read_vocabulary, write_vocabulary
from distinit.schemas.errors import VocabularyError

NAMES = ("cat", "dog", "a lake")


def raw(path: Path, tensors: dict[str, torch.Tensor], names: Any = NAMES, **changes: Any) -> Path:
    """Write a file as a stranger may: without any check."""
    header = {"text_tower": "t", "image_architecture": "test/tiny", "names": list(names), **changes}
    save_file(tensors, path, metadata={"distinit_vocabulary": json.dumps(header)})
    return path


def embeddings(names: int = 3) -> torch.Tensor:
    return torch.from_numpy(random_embeddings(names, 5))


def test_a_written_vocabulary_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "my birds.safetensors"
    embeddings_KD = random_embeddings(3, 5)
    texts = metadata_of(NAMES, templates=("a photo of a {}.",), image_weights_sha256="a" * 64)
    written = write_vocabulary(path, embeddings_KD, texts, scale=100.0)
    found = read_vocabulary(path)
    assert (found.label, found.names, found.scale) == ("my-birds", NAMES, 100.0)
    assert found.metadata == texts
    assert found.sha256 == written.sha256
    norms_K = np.linalg.norm(embeddings_KD.astype(np.float64), axis=1)
    assert found.text_KD.shape == (3, 5)
    assert np.abs(found.text_KD * norms_K[:, None] - embeddings_KD).max() < 1e-12


def test_without_a_scale_logits_are_cosines(tmp_path: Path) -> None:
    found = read_vocabulary(raw(tmp_path / "v.safetensors", {"text_embeddings_KD": embeddings()}))
    assert found.scale == 1.0
    own_KK = found.logits(embeddings().numpy())
    assert np.abs(np.diagonal(own_KK) - 1).max() < 1e-6


def test_the_digest_depends_on_what_decides_the_logits_only(tmp_path: Path) -> None:
    def digest(name: str, **changes: Any) -> str:
        return make_vocabulary(tmp_path / f"{name}.safetensors", 5, **changes).sha256

    same = digest("a")
    assert digest("b") == same
    assert digest("c", text_tower="another name") == same
    others = {digest("d", seed=1), digest("e", scale=9.0)}
    assert len(others | {same}) == 3
    assert digest("g", names=5) != same


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda e: {"text_embeddings_KD": e.fill_(float("nan"))}, "values that are not finite"),
        (lambda e: {"text_embeddings_KD": e * torch.tensor([1, 0, 1])[:, None].float()}, "all 0"),
        (lambda e: {"text_embeddings_KD": e[:2]}, "3 names for 2 embeddings"),
        (lambda e: {"text_embeddings_KD": e.half()}, "type torch.float16"),
        (lambda e: {"text_embeddings_KD": e[0]}, "has shape (5,), not (names, dimensions)"),
        (lambda e: {"text_embeddings_KD": e, "more": e.clone()}, "unknown tensor more"),
        (lambda e: {"image": e}, "unknown tensor image"),
        (
            lambda e: {"text_embeddings_KD": e, "scale": torch.zeros(())},
            "scale 0 is outside of 0.01 .. 10000",
        ),
        (
            lambda e: {"text_embeddings_KD": e, "scale": torch.tensor(3e38)},
            "scale 3e+38 is outside of",
        ),
        (lambda e: {"text_embeddings_KD": e, "scale": torch.ones(2)}, "scale has shape (2,)"),
    ],
)
def test_unusable_tensors_are_refused(
    tmp_path: Path, change: Callable[[torch.Tensor], dict[str, torch.Tensor]], found: str
) -> None:
    path = raw(tmp_path / "v.safetensors", change(embeddings()))
    with pytest.raises(VocabularyError) as caught:
        read_vocabulary(path)
    assert found in str(caught.value)
    assert "v.safetensors is not a usable vocabulary" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "changes", "found"),
    [
        (("cat", "dog", "cat"), {}, 'rows 0 and 2 have the same name "cat"'),
        (("cat", " ", "dog"), {}, "the name of row 1 is empty"),
        ((), {}, "names"),
        (("cat", "dog", 3), {}, "names.2"),
        (NAMES, {"image_architecture": None}, "name the image network"),
        (NAMES, {"command": "rm"}, "command"),
        (NAMES, {"text_tower": ""}, "text_tower"),
        (NAMES, {"image_weights_sha256": "0"}, "image_weights_sha256"),
    ],
)
def test_unusable_metadata_are_refused(
    tmp_path: Path, names: Any, changes: dict[str, Any], found: str
) -> None:
    tensors = {"text_embeddings_KD": embeddings()}
    path = raw(tmp_path / "v.safetensors", tensors, names, **changes)
    with pytest.raises(VocabularyError) as caught:
        read_vocabulary(path)
    assert found in str(caught.value)


def test_files_that_are_no_vocabulary_are_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    save_file({"text_embeddings_KD": embeddings()}, plain)
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "link.safetensors").symlink_to("/dev/zero")
    for name, found in (
        ("plain", "no key distinit_vocabulary"),
        ("empty", "0 bytes"),
        ("link", "/dev/zero"),
    ):
        path = tmp_path / f"{name}.safetensors"
        if name == "empty":
            path.write_bytes(b"\xff" * 8)
            found = "a header of"
        if name == "link":
            found = "link.safetensors"
        with pytest.raises(VocabularyError) as caught:
            read_vocabulary(path)
        assert found in str(caught.value)


def test_too_many_classes_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.safetensors"
    make_vocabulary(path, 5, names=4)
    monkeypatch.setattr(files, "MAX_CLASSES", 4)
    with pytest.raises(VocabularyError) as caught:
        make_vocabulary(path, 5)
    assert "4 names are allowed" in str(caught.value)
    monkeypatch.setattr(files, "MAX_EMBEDDING_BYTES", 79)
    monkeypatch.setattr(files, "MAX_CLASSES", 5)
    with pytest.raises(VocabularyError) as caught:
        read_vocabulary(path)
    assert "GiB" in str(caught.value)


def test_the_writer_refuses_what_the_reader_refuses(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError) as caught:
        write_vocabulary(
            tmp_path / "v.safetensors", np.zeros((3, 5), np.float32), metadata_of(NAMES), scale=1
        )
    assert 'the embedding of "cat" is all 0' in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValidationError):
        metadata_of(("cat", "cat"))


@given(data=st.data())
def test_damaged_files_are_refused_or_read(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "v.safetensors"
    make_vocabulary(path, 3, names=2)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = read_vocabulary(path)
    except VocabularyError:
        return
    assert np.isfinite(found.text_KD).all()
    assert found.text_KD.shape == (2, 3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="nothing at that path") as caught:
        read_vocabulary(tmp_path / "birds.safetensors")
    assert "birds.safetensors cannot be read" in str(caught.value)


def test_metadata_without_an_image_network_cannot_be_made() -> None:
    with pytest.raises(ValidationError) as caught:
        metadata_of(NAMES, image_architecture=None)
    (problem,) = caught.value.errors()
    assert problem["msg"] == (
        "Value error, name the image network: image_architecture or image_weights_sha256"
    )
