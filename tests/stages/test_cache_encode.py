"""Caches in another encoding: as an extraction would have written them, but for float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.caches import CORPUS, make_teacher, run_all
from helpers.command_line import run_command
from helpers.derived_caches import assert_valid, part, stored_bytes

from distinit.pipeline.cache.confidence import fidelity_of
from distinit.pipeline.cache.feature_fidelity import feature_fidelity_of
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.progress import NullProgress
from distinit.schemas.combining import DerivedCache
from distinit.schemas.errors import ConfigError
from distinit.schemas.output_reports import FeatureFidelityReport
from distinit.stages.cache_encode import cache_encode

CONFIDENCE = ("entropy_nats", "top1_class", "top1_probability", "margin", "log_z")


def encode(folder: Path, out: Path, encoding: str, teachers: tuple[str, ...] = ()) -> DerivedCache:
    return cache_encode(folder, out, encoding, teachers=teachers, progress=NullProgress())


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Extractions of the same logits in each encoding, and one of features."""
    root = tmp_path_factory.mktemp("encode")
    for encoding in ("float16", "int8", "topk:3"):
        run_all(root / encoding, CORPUS, [make_teacher("alpha", encoding=encoding)])
    features = make_teacher("features", classes=9, target="features")
    run_all(root / "features", part("acd"), [features])
    return root


def test_int8_is_that_of_an_extraction_but_for_float16(caches: Path, tmp_path: Path) -> None:
    encode(caches / "float16", tmp_path / "out", "int8")
    assert_valid(tmp_path / "out")
    derived, extracted = (TargetCache.open(f) for f in (tmp_path / "out", caches / "int8"))
    for video_id in extracted.video_ids:
        ours, theirs = (c.targets("alpha").of(video_id).logits_NC for c in (derived, extracted))
        # float16 keeps 11 bits; int8 may round to the next of its 255 levels.
        step = np.ptp(theirs, axis=1).max() / 255
        assert np.abs(ours - theirs).max() <= 1.01 * step + 2.0**-10 * np.abs(theirs).max()
        copied, exact = (
            stored_bytes(f, "alpha", video_id) for f in (tmp_path / "out", caches / "int8")
        )
        assert {n: copied[n] for n in CONFIDENCE} == {n: exact[n] for n in CONFIDENCE}


def test_topk_is_that_of_an_extraction_but_for_equal_values(caches: Path, tmp_path: Path) -> None:
    encode(caches / "float16", tmp_path / "out", "topk:3")
    assert_valid(tmp_path / "out")
    source = TargetCache.open(caches / "float16").targets("alpha")
    for video_id in source.video_ids:
        copied, exact = (
            stored_bytes(f, "alpha", video_id) for f in (tmp_path / "out", caches / "topk:3")
        )
        logits_NC = source.of(video_id).logits_NC
        at_ours, at_theirs = (
            np.take_along_axis(logits_NC, ids_NK.reshape(-1, 3).astype(np.int64), axis=1)
            for ids_NK in (np.frombuffer(b.pop("logits_ids"), "<u2") for b in (copied, exact))
        )
        assert np.array_equal(at_ours, at_theirs)
        assert copied == exact


def test_fidelity_is_measured_against_the_source_over_all_rows(
    caches: Path, tmp_path: Path
) -> None:
    result = encode(caches / "float16", tmp_path / "out", "int8")
    report = result.fidelity["alpha"]
    assert report is not None
    source, derived = (TargetCache.open(f) for f in (caches / "float16", tmp_path / "out"))
    before = np.concatenate([source.targets("alpha").of(v).logits_NC for v in source.video_ids])
    after = np.concatenate([derived.targets("alpha").of(v).logits_NC for v in source.video_ids])
    expected = fidelity_of(before, after)
    assert (report.frames, report.measured_against) == (279, "float16")
    assert report.mean_kl_nats == pytest.approx(expected.kl_nats.mean())
    assert report.max_kl_nats == pytest.approx(expected.kl_nats.max())
    assert report.top1_agreement == expected.top1_agrees.mean()
    assert "changes the targets of its source (float16) by" in result.summary()
    record = derived.teachers["alpha"]
    assert (record.encoding, record.encoded_from) == ("int8", ("float16",))
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "encode of 1 cache (encoding int8)" in readme
    assert " to float16) |" in readme


def test_the_history_of_encodings_is_kept_and_verification_allows_for_it(
    caches: Path, tmp_path: Path
) -> None:
    encode(caches / "int8", tmp_path / "wide", "float16")
    encode(tmp_path / "wide", tmp_path / "narrow", "int8")
    for name in ("wide", "narrow"):
        assert_valid(tmp_path / name)
    record = TargetCache.open(tmp_path / "narrow").teachers["alpha"]
    assert record.encoded_from == ("int8", "float16")


def test_the_same_encoding_is_a_copy(caches: Path, tmp_path: Path) -> None:
    result = encode(caches / "int8", tmp_path / "copy", "int8")
    assert result.content_digest == TargetCache.open(caches / "int8").manifest.content_digest


def test_errors_of_features_are_measured_against_the_source(caches: Path, tmp_path: Path) -> None:
    result = encode(caches / "features", tmp_path / "out", "int8")
    assert_valid(tmp_path / "out")
    source, derived = (
        TargetCache.open(f).targets("features") for f in (caches / "features", tmp_path / "out")
    )
    pairs = [(source.of(v).logits_NC, derived.of(v).logits_NC) for v in source.video_ids]
    before_NC, after_NC = (np.concatenate(side) for side in zip(*pairs, strict=True))
    found = result.fidelity["features"]
    assert isinstance(found, FeatureFidelityReport)
    assert (found.frames, found.measured_against) == (len(before_NC), "float16")
    errors = feature_fidelity_of(before_NC, after_NC)
    assert found.mean_cosine_error == pytest.approx(errors.cosine_error.mean())
    assert found.max_relative_error == pytest.approx(errors.relative_error.max())
    assert 1e-7 < found.mean_cosine_error < 1e-4
    sources = TargetCache.open(tmp_path / "out").manifest.derived_from
    assert sources is not None
    stored = sources.sources[0].teachers["features"].feature_fidelity
    assert stored == TargetCache.open(caches / "features").teachers["features"].feature_fidelity
    assert stored is not None
    assert stored.measured_against is None


@pytest.mark.parametrize(
    ("source", "encoding", "problem"),
    [
        ("topk:3", "int8", "topk:3 of teacher alpha cannot be encoded again"),
        ("int8", "topk:3", "int8 of teacher alpha cannot become topk:3"),
        ("float16", "topk:7", "top-k keeps every class"),
        ("features", "topk:3", "features have no top classes"),
        ("float16", "int7", "unusable --encoding"),
    ],
)
def test_encodings_that_would_be_wrong_are_refused(
    caches: Path, tmp_path: Path, source: str, encoding: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        encode(caches / source, tmp_path / "out", encoding)
    assert not (tmp_path / "out").exists()


def test_only_the_named_teachers_are_encoded(tmp_path: Path) -> None:
    teachers = [make_teacher("alpha"), make_teacher("beta", weights="4" * 64)]
    run_all(tmp_path / "two", part("ad"), teachers)
    encode(tmp_path / "two", tmp_path / "out", "int8", ("beta",))
    records = TargetCache.open(tmp_path / "out").teachers
    assert {n: r.encoding for n, r in records.items()} == {"alpha": "float16", "beta": "int8"}
    for name in "ad":
        video_id = CORPUS.id_of(name)
        expected = stored_bytes(tmp_path / "two", "alpha", video_id)
        assert stored_bytes(tmp_path / "out", "alpha", video_id) == expected


def test_the_command_prints_what_changed(caches: Path, tmp_path: Path) -> None:
    words = ["cache", "encode", str(caches / "float16"), "--encoding", "int8", "--quiet"]
    code, shown = run_command([*words, "--out", str(tmp_path / "out")])
    assert (code, "of its source (float16)" in shown) == (0, True)
