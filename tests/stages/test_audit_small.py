"""Audits of caches with next to nothing in them, and audits that are interrupted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from helpers import caches

from distinit.pipeline.progress import NullProgress
from distinit.schemas.audit import AuditConfig, AuditResult
from distinit.schemas.errors import CacheError, ConfigError
from distinit.stages.audit import audit

ONE_CLASS = caches.make_teacher("single", classes=1)
SEVEN = caches.make_teacher("seven")


def audited(root: Path, **settings: Any) -> AuditResult:
    values = {"cache": str(root / "cache"), "out": str(root / "report"), **settings}
    return audit(AuditConfig.model_validate(values))


@pytest.mark.parametrize("frames", [{}, {"empty": 0}])
def test_a_cache_without_frames_has_a_report(frames: dict[str, int], tmp_path: Path) -> None:
    caches.run_all(tmp_path / "cache", caches.Corpus(frames), [SEVEN])
    result = audited(tmp_path)
    assert (result.frames, result.videos, result.teachers[0].confidence) == (0, len(frames), None)
    assert "</html>" in Path(result.report).read_text()
    with pytest.raises(ConfigError, match="cannot be checked"):
        audited(tmp_path, fail_if=["kept(3) < .5"])


def test_one_frame_is_every_quantile(tmp_path: Path) -> None:
    caches.run_all(tmp_path / "cache", caches.Corpus({"one": 1}), [SEVEN])
    result = audited(tmp_path)
    found = result.teachers[0].confidence
    assert found is not None
    assert (result.frames, found.frames, found.classes_seen) == (1, 1, 1)
    assert found.quartiles_nats == pytest.approx([found.mean_entropy_nats] * 3)
    assert (found.curve.frames[-1], found.curve.videos[-1], found.curve.classes[-1]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("kept(1e308) < 2", "kept(1e+308) < 2: found 1 for seven"),
        ("kept(-1e308) < 2", "kept(-1e+308) < 2: found 0 for seven"),
        ("kept(1e-308) < 2", "kept(1e-308) < 2: found 0 for seven"),
        ("frames > -1e308", "frames > -1e+308: found 1"),
    ],
)
def test_conditions_take_numbers_of_any_size(condition: str, found: str, tmp_path: Path) -> None:
    caches.run_all(tmp_path / "cache", caches.Corpus({"one": 1}), [SEVEN])
    assert audited(tmp_path, fail_if=[condition]).failed_conditions == (found,)


def test_a_teacher_of_one_class_is_always_sure(tmp_path: Path) -> None:
    caches.run_all(tmp_path / "cache", caches.Corpus({"a": 12, "b": 5}), [ONE_CLASS])
    found = audited(tmp_path).teachers[0].confidence
    assert found is not None
    assert (found.mean_entropy_nats, found.curve.frames[0], found.classes_seen) == (0, 17, 1)
    assert math.isfinite(found.highest_possible_nats)


def test_a_cache_of_failed_videos_says_so_first(tmp_path: Path) -> None:
    corpus = caches.Corpus({"a": 12, "b": 5}, frozenset("ab"))
    caches.run_all(tmp_path / "cache", corpus, [SEVEN])
    result = audited(tmp_path, fail_if=["videos_failed > .9"])
    assert (result.frames, result.failed_videos) == (0, 2)
    kinds = [warning.kind for warning in result.warnings]
    assert kinds == ["failed videos", "small share of the corpus"]
    assert result.failed_conditions == ("videos_failed > 0.9: found 1",)


def test_an_incomplete_second_teacher_is_refused(tmp_path: Path) -> None:
    corpus = caches.Corpus({"a": 12, "b": 5})
    caches.run_all(tmp_path / "cache", corpus, [SEVEN])
    with caches.open_writer(tmp_path / "cache", corpus, [*caches.TEACHERS[1:]]):
        pass
    with pytest.raises(CacheError, match="not complete"):
        audited(tmp_path)
    assert not (tmp_path / "report").exists()


class _Interrupted(NullProgress):
    def advance(self, amount: float = 1, **shown: Any) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_audit_leaves_the_report_of_the_last_one(tmp_path: Path) -> None:
    caches.run_all(tmp_path / "cache", caches.Corpus({"a": 12}), [SEVEN])
    config = AuditConfig(cache=str(tmp_path / "cache"), out=str(tmp_path / "report"))
    with pytest.raises(KeyboardInterrupt):
        audit(config, progress=_Interrupted())
    assert not (tmp_path / "report").exists()
    audit(config)
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        audit(config, progress=_Interrupted())
    after = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    assert after == before
