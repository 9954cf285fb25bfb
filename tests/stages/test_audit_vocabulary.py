"""An audit with a vocabulary shows stored features as if their teacher had logits."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.sources import write_cache
from helpers.vocabularies import make_vocabulary
from pydantic import ValidationError

from distinit.pipeline.progress import NullProgress
from distinit.schemas.audit import AuditConfig
from distinit.schemas.errors import VocabularyError
from distinit.stages.audit import audit
from distinit.stages.cache_relabel import cache_relabel


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audit-vocabulary")
    write_cache(root / "cache", ("alpha", "gamma"), target="features")
    make_vocabulary(root / "birds.safetensors", 7, names=5)
    return root


def test_it_shows_what_an_audit_of_the_relabelled_cache_shows(root: Path, tmp_path: Path) -> None:
    vocabulary = str(root / "birds.safetensors")
    cache_relabel(
        root / "cache",
        tmp_path / "relabelled",
        [Path(vocabulary)],
        teacher="gamma",
        progress=NullProgress(),
    )
    expected = audit(
        AuditConfig(cache=str(tmp_path / "relabelled"), out=str(tmp_path / "expected"))
    )
    found = audit(
        AuditConfig(
            cache=str(root / "cache"),
            out=str(tmp_path / "out"),
            vocabulary=vocabulary,
            teacher="gamma",
        )
    )
    assert [teacher.record.id for teacher in found.teachers] == ["gamma@birds"]
    assert found.teachers[0].confidence == expected.teachers[0].confidence
    assert found.teachers[0].confidence is not None
    assert found.content_digest == expected.content_digest
    assert found.cache == str(root / "cache")
    assert (tmp_path / "out" / "report.html").is_file()
    assert not list((tmp_path / "out").glob("*.partial"))


def test_refusals(root: Path, tmp_path: Path) -> None:
    make_vocabulary(tmp_path / "wide.safetensors", 8)
    values = {"cache": str(root / "cache"), "out": str(tmp_path / "out"), "teacher": "alpha"}
    with pytest.raises(VocabularyError, match="does not fit teacher alpha"):
        audit(AuditConfig(**values, vocabulary=str(tmp_path / "wide.safetensors")))
    with pytest.raises(ValidationError, match="teacher needs a vocabulary"):
        AuditConfig(**values)
    with pytest.raises(ValidationError, match="has one cache"):
        AuditConfig(**values, vocabulary="v", compare=("other",))
