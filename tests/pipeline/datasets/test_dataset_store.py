"""The geometry of a dataset's frame store follows from the crop."""

from __future__ import annotations

from pathlib import Path

import pytest

from distinit.pipeline.datasets.store import geometry_of
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import FrameGeometry


def test_geometry_follows_the_crop(tmp_path: Path, store: FrameStore) -> None:
    assert geometry_of(tmp_path / "none", 112) == FrameGeometry()
    assert geometry_of(tmp_path / "none", 224) == FrameGeometry(mode="short_edge", short_edge=256)
    assert geometry_of(store.root, 128) == FrameGeometry()
    with pytest.raises(FrameStoreError, match="smaller than the crop"):
        geometry_of(store.root, 129)
