"""A corpus of explicitly named files, with any extensions."""

from __future__ import annotations

from pathlib import Path

import pytest

from distinit.pipeline.corpus.listing import list_files
from distinit.schemas.errors import CorpusError


def test_only_the_named_files_are_listed(tmp_path: Path) -> None:
    for name in ("b [1].avi", "a.odd", "c.avi"):
        (tmp_path / name).write_bytes(name.encode())
    corpus = list_files(tmp_path, ["b [1].avi", "a.odd"])
    assert corpus.root == tmp_path
    assert {file.path for file in corpus.files} == {"b [1].avi", "a.odd"}
    with pytest.raises(CorpusError, match="cannot be read"):
        list_files(tmp_path, ["d.avi"])
