"""``distinit cache statistics``: adds statistics to a cache that lacks them, or corrects them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from helpers import caches
from helpers.caches import CORPUS
from helpers.command_line import run_command
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
