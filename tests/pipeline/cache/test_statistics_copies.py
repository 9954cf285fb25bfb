"""Statistics of feature teachers in copies of a cache, and in caches that are read at a URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.caches import CORPUS, make_teacher, run_all
from helpers.objects import s3_bucket
from helpers.progress import RecordingProgress
from helpers.pulls import files_of, pull
from helpers.web import WebFolder, serve
from safetensors.numpy import load_file

from distinit.pipeline.cache import TargetCache
from distinit.pipeline.cache.copies import Selection
from distinit.pipeline.cache.push import push_cache
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.cache.verify_copy import verify_copy
from distinit.pipeline.progress import NullProgress

FILE = "teachers/f/statistics.safetensors"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("statistics") / "cache"
    run_all(root, CORPUS, [make_teacher("f", target="features"), make_teacher("logits")])
    return root


@pytest.fixture
def web(local: Path) -> Iterator[WebFolder]:
    for folder in serve(WebFolder(ranges=True)):
        folder.add(local, "/one")
        yield folder


def problems_of(copy: Path) -> tuple[str, ...]:
    return verify_copy(copy, deep=True, workers=1, progress=NullProgress()).problems


def test_push_and_pull_keep_the_bytes(local: Path, tmp_path: Path) -> None:
    with s3_bucket("statistics"):
        url = "s3://statistics/one"
        push_cache(local, url, replace=False, workers=4, progress=RecordingProgress())
        pull(url, tmp_path / "copy")
    assert files_of(tmp_path / "copy") == files_of(local)
    assert (tmp_path / "copy" / FILE).is_file()
    assert verify_cache(tmp_path / "copy").problems == ()


def test_a_partial_copy_has_those_of_the_whole_cache(
    web: WebFolder, local: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    pull(f"{web.base}/one", copy, Selection(teachers=("f",), videos=("a.mp4",)))
    assert (copy / FILE).read_bytes() == (local / FILE).read_bytes()
    assert TargetCache.open(copy).targets("f").feature_statistics.vectors == 279
    assert problems_of(copy) == ()
    (copy / FILE).write_bytes((copy / FILE).read_bytes()[:-1] + b"\0")
    (problem,) = problems_of(copy)
    assert problem.startswith(f"{FILE}: sha256 ")


def test_a_copy_without_the_teacher_lacks_them(web: WebFolder, tmp_path: Path) -> None:
    pull(f"{web.base}/one", tmp_path / "copy", Selection(teachers=("logits",)))
    assert not (tmp_path / "copy" / FILE).exists()
    assert problems_of(tmp_path / "copy") == ()


@pytest.mark.parametrize("keep_gib", [None, 1.0])
def test_a_url_gives_those_of_the_folder(
    web: WebFolder, local: Path, keep_gib: float | None
) -> None:
    remote = TargetCache.open(f"{web.base}/one", keep_gib=keep_gib)
    found = remote.targets("f").feature_statistics
    expected = TargetCache.open(local).targets("f").feature_statistics
    assert (found.vectors, expected.vectors) == (279, 279)
    np.testing.assert_array_equal(found.mean_C, expected.mean_C)
    np.testing.assert_array_equal(found.covariance_CC, expected.covariance_CC)


def test_the_lines_of_the_format_document_read_them(local: Path) -> None:
    document = Path(__file__).parents[3] / "docs/cache-format.md"
    _, _, section = document.read_text().partition("## Statistics of features\n")
    code = "\n".join(
        line[4:] for line in section.partition("\n## ")[0].splitlines() if line.startswith("    ")
    ).replace("teachers/body/statistics.safetensors", str(local / FILE))
    read: dict[str, np.ndarray] = {}
    exec(code, {}, read)
    targets = TargetCache.open(local).targets("f")
    rows_NC = np.concatenate([targets.of(v).logits_NC for v in targets.video_ids]).astype("f8")
    np.testing.assert_allclose(read["covariance"], np.cov(rows_NC.T, bias=True), atol=1e-13)
    tensors = load_file(local / FILE)
    np.testing.assert_allclose(tensors["mean"], rows_NC.mean(axis=0), atol=1e-14)
