"""The encodings study: exact sizes, and bounds on losses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encodings_study
import numpy as np
import pytest
from click.testing import CliRunner
from helpers.videos import make_video

from distinit.pipeline.cache.confidence import fidelity_of


@pytest.fixture(name="logits_NC")
def make_logits() -> np.ndarray:
    return (2 * np.random.default_rng(0).standard_normal((130, 200))).astype(np.float32)


def read_all(candidate: Any, rows: int) -> np.ndarray:
    return np.stack([candidate.read_row(row) for row in range(rows)])


@pytest.mark.parametrize("bits", [4, 5, 6, 7])
def test_packed_codes_are_within_half_a_step(logits_NC: np.ndarray, bits: int) -> None:
    candidate = encodings_study.uniform(logits_NC, bits)
    assert candidate.row_bytes == 200 * bits / 8 + 8
    step_N1 = np.ptp(logits_NC, axis=1, keepdims=True) / (2**bits - 1)
    error_NC = np.abs(read_all(candidate, 130) - logits_NC)
    assert (error_NC <= step_N1 / 2 * (1 + 1e-4)).all()


def test_codecs_return_the_int8_values_unchanged(logits_NC: np.ndarray) -> None:
    int8_NC = read_all(encodings_study.offered(logits_NC, "int8"), 130)
    for candidate in encodings_study.coded_int8(logits_NC):
        assert np.allclose(read_all(candidate, 130), int8_NC, atol=1e-6), candidate.name


def test_the_kl_of_uniform_root_steps_follows_the_formula(logits_NC: np.ndarray) -> None:
    back_NC = read_all(encodings_study.coded_roots(logits_NC, 0.06), 130)
    assert fidelity_of(logits_NC, back_NC).kl_nats == pytest.approx(0.06**2 / 6, rel=0.5)


def test_companded_codes_lose_less_than_uniform_ones(logits_NC: np.ndarray) -> None:
    lost = [
        fidelity_of(logits_NC, read_all(candidate, 130)).kl_nats.mean()
        for candidate in (
            encodings_study.companded(logits_NC, 64),
            encodings_study.uniform(logits_NC, 6),
        )
    ]
    assert lost[0] < lost[1]


def test_the_table_for_real_frames(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", frames=20)
    make_video(tmp_path / "b.mp4", frames=20, seed=1)
    arguments = ["--videos", str(tmp_path), "--teacher", "null", "--frames", "24", "--json"]
    result = CliRunner().invoke(encodings_study.main, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["frames"] == 24
    table = {line["encoding"]: line for line in found["table"]}
    assert table["float16"]["targets, B"] == 2 * 16
    assert table["int8"]["targets, B"] == 16 + 8
    overhead = found["cache_bytes"]["int8"] - 24
    assert table["float16"]["all in, B"] == pytest.approx(32 + overhead, abs=0.1)
    assert table["int8"]["KL max"] <= 2e-4 < table["affine, 4 bits"]["KL max"]
