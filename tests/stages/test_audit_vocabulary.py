"""An audit with a vocabulary shows stored features as if their teacher had logits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import pytest
from helpers.killing import kill_at
from helpers.sources import write_cache
from helpers.vocabularies import make_vocabulary
from pydantic import ValidationError

from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.progress import NullProgress
from distinit.schemas.audit import AuditConfig
from distinit.schemas.errors import CacheCorruptError, LockedError, StorageError, VocabularyError
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


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A folder with a cache of three units with rows of one teacher, and a vocabulary for it."""
    videos = {"a": 60, "b": 60, "c": 60}
    write_cache(tmp_path / "cache", ("alpha",), target="features", frames=videos)
    make_vocabulary(tmp_path / "birds.safetensors", 7)
    return tmp_path


def long_config(folder: Path) -> AuditConfig:
    vocabulary = str(folder / "birds.safetensors")
    return AuditConfig(cache=str(folder / "cache"), out=str(folder / "out"), vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("file", "moment"),
    [
        ("plan.parquet", "before"),
        ("unit-00001.json", "after"),
        ("audit.json", "before"),
    ],
)
def test_the_next_audit_removes_what_a_killed_one_left(
    file: str, moment: Literal["before", "after"], long: Path
) -> None:
    command = ["audit", "cache", "--vocabulary", "birds.safetensors", "--out", "out"]
    kill_at(file, moment, command, long)
    assert (long / "out/relabelled.partial/cache").is_dir()
    make_vocabulary(long / "birds.safetensors", 7, seed=1)  # the leftover is of other texts
    found = audit(long_config(long))
    assert not list((long / "out").glob("*.partial"))
    birds = [long / "birds.safetensors"]
    relabelled = cache_relabel(long / "cache", long / "new", birds, progress=NullProgress())
    assert found.content_digest == relabelled.content_digest


@pytest.mark.parametrize("damage", ["one byte", "exchanged shards"])
def test_damaged_features_are_refused_and_nothing_is_left(damage: str, long: Path) -> None:
    layout = CacheLayout(long / "cache")
    (spec,) = array_specs("float16", 7)
    first, second = (layout.shard("alpha", spec.name, unit) for unit in (0, 1))
    if damage == "one byte":
        data = bytearray(second.read_bytes())
        data[100] ^= 1
        second.write_bytes(data)
    else:  # each chunk keeps its crc32c
        shutil.copy(first, long / "kept")
        shutil.copy(second, first)
        shutil.copy(long / "kept", second)
    with pytest.raises(CacheCorruptError, match="contradicts the records") as caught:
        audit(long_config(long))
    assert f"alpha/{spec.name}/c/" in str(caught.value)
    assert not list((long / "out").iterdir())


def test_files_of_others_and_running_audits_are_left_alone(long: Path) -> None:
    folder = long / "out/relabelled.partial"
    (folder / "cache").mkdir(parents=True)
    (folder / "cache/notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="is not a folder of an audit"):
        audit(long_config(long))
    assert (folder / "cache/notes.txt").read_text() == "mine"
    with (
        WriterLock(folder / ".lock"),
        pytest.raises(LockedError, match="another process is writing"),
    ):
        audit(long_config(long))
    assert (folder / "cache/notes.txt").read_text() == "mine"
    folder.rename(long / "mine")
    (long / "out/relabelled.partial").symlink_to(long / "mine")
    with pytest.raises(StorageError, match="found:    a link"):
        audit(long_config(long))
    assert (long / "mine/cache/notes.txt").read_text() == "mine"
