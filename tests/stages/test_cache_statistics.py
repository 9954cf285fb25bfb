"""``distinit cache statistics``: adds statistics to a cache that lacks them, or corrects them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import caches
from helpers.caches import CORPUS
from helpers.command_line import run_command
from helpers.derived_caches import part
from helpers.golden import GOLDEN

from distinit.pipeline.cache import TargetCache
from distinit.pipeline.cache.verify import verify_cache

FILE = "teachers/f/statistics.safetensors"


def test_wrong_statistics_are_corrected(tmp_path: Path) -> None:
    root = tmp_path / "c"
    features = caches.make_teacher("f", target="features")
    before = caches.run_all(root, CORPUS, [features, caches.make_teacher("logits")])
    kept = (root / FILE).read_bytes()
    (root / FILE).write_bytes(b"wrong")
    code, output = run_command(["cache", "statistics", str(root), "--json"])
    assert code == 0
    result = json.loads(output[output.index("{\n") :])
    assert result["content_digest"] == before.content_digest
    assert (result["teachers"]["f"]["vectors"], result["teachers"]["f"]["channels"]) == (279, 7)
    assert list(result["teachers"]) == ["f"]
    assert (root / FILE).read_bytes() == kept
    assert verify_cache(root).ok
    assert "mean and covariance: in the cache" in run_command(["cache", "info", str(root)])[1]


def test_an_older_cache_gets_them(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "golden"))
    assert "mean and covariance: none" in run_command(["cache", "info", str(root)])[1]
    digest = TargetCache.open(root).manifest.content_digest
    code, output = run_command(["cache", "statistics", str(root)])
    assert (code, "73 vectors of 2 channels" in output) == (0, True)
    report = verify_cache(root)
    assert (report.problems, report.notes, report.content_digest) == ((), (), digest)
    assert TargetCache.open(root).targets("body").feature_statistics.vectors == 73


def test_a_cache_without_features_is_refused(tmp_path: Path) -> None:
    caches.run_all(tmp_path / "c", CORPUS, [caches.make_teacher("alpha")])
    code, output = run_command(["cache", "statistics", str(tmp_path / "c")])
    assert code != 0
    assert "teachers alpha, which store logits" in output


@pytest.mark.parametrize(
    ("words", "vectors"),
    [
        (["subset", "{a}", "--out", "{out}", "--video", "[ac].mp4"], 180),
        (["merge", "{a}", "{b}", "--out", "{out}"], 279),
        (["encode", "{whole}", "--out", "{out}", "--encoding", "int8"], 279),
    ],
)
def test_a_derived_cache_has_those_of_its_own_rows(
    tmp_path: Path, words: list[str], vectors: int
) -> None:
    features = caches.make_teacher("f", target="features")
    corpora = {"a": part("abcd"), "b": part(["d", "e", "bad"]), "whole": CORPUS}
    for name, corpus in corpora.items():
        caches.run_all(tmp_path / name, corpus, [features])
    folders = {name: str(tmp_path / name) for name in (*corpora, "out")}
    code, output = run_command(["cache", *(word.format(**folders) for word in words)])
    assert code == 0, output
    targets = TargetCache.open(tmp_path / "out").targets("f")
    rows = [targets.of(video_id).logits_NC for video_id in targets.video_ids]
    rows_NC = np.concatenate(rows).astype(np.float64)
    found = targets.feature_statistics
    assert found.vectors == len(rows_NC) == vectors
    np.testing.assert_allclose(found.mean_C, rows_NC.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(found.covariance_CC, np.cov(rows_NC.T, bias=True), atol=1e-13)
    assert verify_cache(tmp_path / "out").problems == ()


def test_a_condition_on_the_effective_rank_decides_the_exit_code(tmp_path: Path) -> None:
    caches.run_all(tmp_path / "c", CORPUS, [caches.make_teacher("f", target="features")])
    covariance_CC = TargetCache.open(tmp_path / "c").targets("f").feature_statistics.covariance_CC
    share_C = np.linalg.eigvalsh(covariance_CC) / np.trace(covariance_CC)
    rank = float(np.exp(-(share_C * np.log(share_C)).sum()))
    assert 1 < rank < 7
    line = ["audit", str(tmp_path / "c"), "--fail-if"]
    met = [*line, f"effective_rank < {rank + 0.01:.4f}", "--out", str(tmp_path / "met")]
    unmet = [*line, f"effective_rank < {rank - 0.01:.4f}", "--out", str(tmp_path / "unmet")]
    assert run_command(met)[0] == 1
    assert run_command(unmet)[0] == 0
