"""A link anywhere in a cache: refused before the first write, and nothing outside is changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import caches

from distinit.pipeline.cache.repair import repair_cache
from distinit.schemas.errors import CacheError

FILES = [
    ".lock",
    ".fence",
    "manifest.json",
    "plan.parquet",
    "manifest-sha256.txt",
    "frames/unit-00001.parquet",
    "frames/unit-00001.parquet.partial",
    "teachers/alpha/logits/zarr.json",
    "teachers/alpha/logits/c/1/0",
    "teachers/alpha/commits/unit-00001.json",
]
FOLDERS = [
    ".staging",
    "frames",
    "teachers",
    "teachers/alpha",
    "teachers/alpha/commits",
    "teachers/alpha/confidence",
    "teachers/alpha/logits",
    "teachers/alpha/logits/c",
    "teachers/alpha/logits/c/1",
]


def snapshot(root: Path) -> dict[str, object]:
    """Everything below ``root``: bytes of files, targets of links, folders; with its times."""
    found: dict[str, object] = {}
    for folder, folders, names in root.walk():
        for name in (*folders, *names):
            path = folder / name
            state = path.lstat()
            content: object = "folder or special"
            if path.is_symlink():
                content = path.readlink()
            elif path.is_file():
                content = path.read_bytes()
            found[str(path.relative_to(root))] = (content, state.st_mtime_ns, state.st_mode)
    return found


@pytest.mark.parametrize("act", ["resume", "grow", "add a teacher", "repair"])
@pytest.mark.parametrize("name", FILES + FOLDERS)
def test_a_link_is_refused_before_the_first_write(
    cache_root: Path,
    tmp_path: Path,
    corpus: Any,
    teachers: list[Any],
    name: str,
    act: str,
) -> None:
    outside = tmp_path / "outside" / "victim"
    outside.parent.mkdir()
    place = cache_root / name
    if place.exists():
        shutil.move(place, outside)
    elif name in FOLDERS:
        outside.mkdir()
        (outside / "thesis.txt").write_text("mine")
    else:
        outside.write_text("mine")
    place.symlink_to(outside)
    before = snapshot(tmp_path)
    more = caches.Corpus({**corpus.frames, "new": 70}, corpus.broken)
    gamma = caches.make_teacher("gamma")
    acts = {
        "resume": lambda: caches.open_writer(cache_root, corpus, teachers),
        "grow": lambda: caches.open_writer(cache_root, more, teachers),
        "add a teacher": lambda: caches.open_writer(cache_root, corpus, [gamma]),
        "repair": lambda: repair_cache(cache_root),
    }
    with pytest.raises(CacheError, match="holds a link"):
        acts[act]()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_is_refused_and_not_waited_for(
    cache_root: Path, corpus: Any, teachers: list[Any], name: str
) -> None:
    (cache_root / name).unlink(missing_ok=True)
    os.mkfifo(cache_root / name)
    with pytest.raises(CacheError, match="holds a link or a special file"):
        caches.open_writer(cache_root, corpus, teachers)


def test_links_in_a_folder_without_a_manifest_are_refused(
    tmp_path: Path, corpus: Any, teachers: list[Any]
) -> None:
    victim = tmp_path / "thesis.txt"
    victim.write_text("mine")
    for name in (".lock", ".fence", "plan.parquet", "plan.parquet.0a1b2c3d.partial", ".staging"):
        root = tmp_path / f"c{name}"
        root.mkdir()
        (root / name).symlink_to(tmp_path if name == ".staging" else victim)
        with pytest.raises(CacheError, match="holds a link"):
            caches.open_writer(root, corpus, teachers)
        assert [path.name for path in root.iterdir()] == [name]
    assert victim.read_text() == "mine"


def test_the_folder_itself_may_be_a_link(tmp_path: Path, corpus: Any, teachers: list[Any]) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "c").symlink_to(tmp_path / "large-disk")
    assert caches.run_all(tmp_path / "c", corpus, teachers).complete
    assert (tmp_path / "large-disk" / "manifest.json").is_file()
