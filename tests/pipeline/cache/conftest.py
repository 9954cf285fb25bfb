"""The corpus, the teachers and a complete cache that the tests of the cache share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.caches import CORPUS, TEACHERS, Corpus, run_all

from distinit.schemas.teacher import TeacherRecord


@pytest.fixture
def corpus() -> Corpus:
    """Six videos: one longer than two units, one that fills a unit, one that fails."""
    return CORPUS


@pytest.fixture
def teachers() -> list[TeacherRecord]:
    return list(TEACHERS)


@pytest.fixture(scope="session")
def built_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete cache of the corpus; not to be changed."""
    root = tmp_path_factory.mktemp("built") / "cache"
    run_all(root, CORPUS, TEACHERS)
    return root


@pytest.fixture
def cache_root(built_cache: Path, tmp_path: Path) -> Path:
    """A copy of the complete cache, to do anything with."""
    return Path(shutil.copytree(built_cache, tmp_path / "cache"))
