"""Building a frame store: it resumes, records failures and stores what decoding gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.videos import make_video

from distinit.pipeline.corpus.listing import Corpus, list_corpus
from distinit.pipeline.frames.build import build_store
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.video.decode import open_video
from distinit.pipeline.video.views import View
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.video import DecodeConfig


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    make_video(root / "a.mp4", frames=40, rate=20)
    make_video(root / "wide" / "b [1].mp4", frames=9, size=(96, 48), seed=1)
    whole = make_video(root / "c.mp4", frames=60, seed=2).read_bytes()
    (root / "c.mp4").write_bytes(whole[: len(whole) // 2])
    return root


def build(corpus: Corpus, root: Path, geometry: FrameGeometry | None = None) -> FrameStore:
    return build_store(corpus, root, geometry or FrameGeometry(), DecodeConfig(), NullProgress())


def test_every_frame_is_stored_and_a_truncated_video_is_not(videos: Path, tmp_path: Path) -> None:
    corpus = list_corpus(str(videos))
    store = build(corpus, tmp_path / "store")
    id_of = {file.path: file.video_id for file in corpus.files}
    found: dict[str, object] = {
        v.video_id: (v.frame_count, v.height, v.width, v.fps) for v in store.videos.values()
    }
    assert found == {
        id_of["a.mp4"]: (40, 128, 171, pytest.approx(20, rel=0.05)),
        id_of["wide/b [1].mp4"]: (9, 128, 171, pytest.approx(10, rel=0.15)),
    }
    assert list(store.failed) == [id_of["c.mp4"]]
    assert "moov atom not found" in store.failed[id_of["c.mp4"]].error
    with open_video(videos / "a.mp4", {"x": View.squash(128, 171)}, DecodeConfig()) as stream:
        source_NHWC = np.concatenate([block.views["x"] for block in stream])
    stored_NHWC = store.clip(id_of["a.mp4"], range(40)).permute(0, 2, 3, 1).numpy()
    mse_N = ((stored_NHWC.astype(float) - source_NHWC) ** 2).mean(axis=(1, 2, 3))
    assert (10 * np.log10(255**2 / mse_N) > 30).all()


def test_short_edge_keeps_the_aspect_ratio(videos: Path, tmp_path: Path) -> None:
    corpus = list_corpus(str(videos / "wide"))
    store = build(corpus, tmp_path / "store", FrameGeometry(mode="short_edge", short_edge=32))
    info = store.videos[corpus.files[0].video_id]
    assert (info.height, info.width) == (32, 64)


def test_resume_decodes_only_what_is_missing(videos: Path, tmp_path: Path) -> None:
    corpus = list_corpus(str(videos))
    build(corpus, tmp_path / "store")
    units = sorted((tmp_path / "store").glob("unit-*.arrow"))
    assert len(units) == 3
    before = [path.stat().st_mtime_ns for path in units]
    (tmp_path / "store" / "commits" / "unit-00001.json").unlink()
    store = build(corpus, tmp_path / "store")
    after = [path.stat().st_mtime_ns for path in units]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert len(store.videos) == 2


def test_a_store_of_other_videos_is_refused(videos: Path, tmp_path: Path) -> None:
    build(list_corpus(str(videos / "wide")), tmp_path / "store")
    with pytest.raises(FrameStoreError, match="another plan"):
        build(list_corpus(str(videos)), tmp_path / "store")


def test_an_unexpected_error_stops_and_leaves_no_partial_file(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distinit.pipeline.frames.writer.encode_jpeg", full_disk)
    with pytest.raises(OSError, match="No space left"):
        build(list_corpus(str(videos)), tmp_path / "store")
    assert not list((tmp_path / "store").glob("*.partial"))
    with pytest.raises(FrameStoreError, match="not finished"):
        FrameStore.open(tmp_path / "store")
