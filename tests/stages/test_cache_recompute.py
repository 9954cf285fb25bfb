"""Rows of a cache that are computed again: honest ones pass on any machine, a changed one fails."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import run_command
from helpers.forging import ForgedUnit, forge
from helpers.videos import make_video

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.recompute.draw import draw_rows, rows_by_video
from distinit.schemas.errors import CacheError, CorpusError, DistInitError, TeacherError
from distinit.schemas.extract import ExtractConfig
from distinit.stages.cache_verify import CacheVerification, cache_verify
from distinit.stages.extract import extract
from distinit.stages.recompute_result import Recomputed, RecomputeRequest

PLUGIN = """
import torch
from distinit.schemas.teacher import PreprocessSpec


def teach(weights, device):
    spec = PreprocessSpec(
        resize_mode="squash", resize_size=16, crop_size=16, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 5, padding=2),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(4),
            torch.nn.Flatten(),
            torch.nn.Linear(256, 30),
        )
    return network, spec, [], ""
"""
NAME = "plugin:recomputed_teacher:teach"
FRAMES = {"a.mp4": 70, "b.mp4": 20, "c.mp4": 9}  # units of 64 rows: a takes two
ROWS = 99


def put_plugin(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "recomputed_teacher.py").write_text(PLUGIN.replace("SEED", str(seed)))
    monkeypatch.delitem(sys.modules, "recomputed_teacher", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Extracts a cache of three videos with the plugin, with changes to the configuration."""
    for seed, (name, frames) in enumerate(FRAMES.items()):
        make_video(tmp_path / "videos" / name, frames=frames, seed=seed)
    monkeypatch.syspath_prepend(tmp_path)
    put_plugin(tmp_path, 0, monkeypatch)

    def make(encoding: str = "float16", target: str = "logits", **changes: Any) -> Path:
        teacher = {"name": NAME, "id": "t", "encoding": encoding, "target": target}
        values = {
            "videos": str(tmp_path / "videos"),
            "teachers": [teacher],
            "cache": str(tmp_path / "cache"),
            "unit_rows": 64,
            "device": "cpu",
        }
        assert extract(ExtractConfig.model_validate(values | changes)).complete
        return tmp_path / "cache"

    return make


def verified(cache: Path, rows: int = ROWS, **changes: Any) -> CacheVerification:
    settings: dict[str, Any] = {
        "videos": str(cache.parent / "videos"),
        "seed": 1,
        "teachers": (f"t={NAME}",),
        "device": "cpu",
    }
    return cache_verify(
        cache, deep=True, recomputing=RecomputeRequest(rows, **(settings | changes))
    )


def recomputed(cache: Path, rows: int = ROWS, **changes: Any) -> Recomputed:
    found = verified(cache, rows, **changes).recomputed
    assert found is not None
    return found


@pytest.mark.parametrize("encoding", ["float16", "int8", "topk:4"])
def test_an_honest_cache_has_the_same_bits(made: Callable[..., Path], encoding: str) -> None:
    result = verified(made(encoding))
    assert (result.ok, result.exit_code) == (True, 0)
    found = result.recomputed
    assert found is not None
    (teacher,) = found.teachers
    assert (found.rows, found.drawn, found.not_checked) == (ROWS, ROWS, {})
    assert (teacher.checked, teacher.same_bits, teacher.within_noise) == (ROWS, ROWS, 0)
    assert list(teacher.noise) == [
        "1 in 1,000 pixel values rounded differently",
        "batches of 8",
        "2 threads",
        "another memory layout",
        "without oneDNN",
    ]
    assert 1e-6 < teacher.allowed < 0.05
    text = result.summary()
    assert text.startswith("ok: ")
    assert f"recomputed t: {ROWS} rows: {ROWS} the same bits, 0 within the noise" in text
    assert "is found with a probability of 1" in text


def test_features_are_recomputed_too(made: Callable[..., Path]) -> None:
    (teacher,) = recomputed(made(target="features")).teachers
    assert (teacher.same_bits, teacher.different) == (ROWS, ())


def test_a_cache_of_another_machine_is_within_the_noise(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in 2,000 pixel values is rounded differently there, as by another resize."""
    from distinit.pipeline.teachers import base

    honest = base.preprocess

    def rounded(frames: torch.Tensor, spec: Any) -> torch.Tensor:
        pixels = frames.clone()
        flat = pixels.reshape(-1)
        flat[::2000] = flat[::2000].clamp(1) - 1
        return honest(pixels, spec)

    with monkeypatch.context() as patched:
        patched.setattr(base, "preprocess", rounded)
        patched.setattr(torch.backends.mkldnn, "enabled", False, raising=False)
        cache = made("float16")
    (teacher,) = recomputed(cache).teachers
    assert teacher.different == ()
    assert teacher.within_noise > 20


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_noise_of_bf16_is_measured_against_fp32(
    made: Callable[..., Path], precision: str
) -> None:
    (teacher,) = recomputed(made(precision=precision, batch_size=3)).teachers
    assert (teacher.same_bits, teacher.different) == (ROWS, ())
    assert ("fp32" in teacher.noise) == (precision == "bf16")
    assert (teacher.allowed > 0.01) == (precision == "bf16")


def change_row(unit: ForgedUnit, row: int = 5, amount: float = 0.2) -> None:
    unit.arrays["logits"][row, 3] += np.float16(amount)
    unit.recompute_confidence()


def test_one_changed_row_is_found_by_name(made: Callable[..., Path]) -> None:
    cache = made()
    forge(cache, "t", 1, change_row)
    result = verified(cache)
    assert result.problems == ()  # all checksums were made to match
    assert (result.ok, result.exit_code) == (False, 1)
    found = result.recomputed
    assert found is not None
    (teacher,) = found.teachers
    (row,) = teacher.different
    assert row.row == 64 + 5
    assert row.why.startswith("its targets differ by ")
    assert row.why.endswith("its confidence is not that of the recomputed targets")
    assert teacher.same_bits + teacher.within_noise == ROWS - 1
    assert f"{row.video} frame {row.frame} (row 69): its targets differ" in result.summary()
    assert result.summary().startswith("DIFFERENT: ")


def test_the_chance_of_finding_one_row_is_that_of_drawing_it(made: Callable[..., Path]) -> None:
    cache = made()
    forge(cache, "t", 1, change_row)
    outcomes = [recomputed(cache, 25, seed=seed) for seed in range(4)]
    assert all(len(found.teachers[0].different) <= 1 for found in outcomes)
    assert all("with a probability of 0.25" in found.lines()[-1] for found in outcomes)
    assert recomputed(cache, 25, seed=2) == outcomes[2]


@pytest.mark.parametrize("encoding", ["int8", "topk:4"])
def test_a_changed_row_of_any_encoding_is_found(made: Callable[..., Path], encoding: str) -> None:
    cache = made(encoding)

    def change(unit: ForgedUnit) -> None:
        if encoding == "int8":
            unit.arrays["logits_affine"][5, 0] *= 1.05
            unit.recompute_confidence()
        else:
            unit.arrays["logits_ids"][5, [2, 3]] = unit.arrays["logits_ids"][5, [3, 2]]

    forge(cache, "t", 1, change)
    (teacher,) = recomputed(cache).teachers
    assert [row.row for row in teacher.different] == [69]


def test_rows_shifted_by_one_frame_are_found(made: Callable[..., Path]) -> None:
    cache = made()

    def shift(unit: ForgedUnit) -> None:
        used_N, logits_RC = unit.used_rows, unit.arrays["logits"]
        logits_RC[used_N] = np.roll(logits_RC[used_N], 1, axis=0)
        unit.recompute_confidence()

    forge(cache, "t", 1, shift)
    (teacher,) = recomputed(cache).teachers
    assert sorted(row.row for row in teacher.different) == list(range(64, 70))


def test_videos_are_found_by_content_and_missing_ones_are_named(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    cache = made()
    shutil.move(tmp_path / "videos", tmp_path / "other")
    (tmp_path / "other/a.mp4").rename(tmp_path / "other/renamed.mp4")
    (tmp_path / "other/c.mp4").write_bytes((tmp_path / "other/b.mp4").read_bytes() + b"0")
    found = recomputed(cache, videos=str(tmp_path / "other"))
    assert found.not_checked == {"c.mp4": "not in the given videos (9 rows)"}
    assert found.not_checked_rows == 9
    assert found.teachers[0].checked == ROWS - 9
    shutil.rmtree(tmp_path / "other")
    make_video(tmp_path / "other/x.mp4", frames=5, seed=9)
    with pytest.raises(CorpusError, match="no video of the cache is in") as refused:
        recomputed(cache, videos=str(tmp_path / "other"))
    assert "re-encoded copies" in str(refused.value.expected)


def test_the_verdict_says_how_many_rows_were_checked(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    cache = made()
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(tmp_path / "videos/c.mp4", few)
    result = verified(cache, videos=str(few))
    assert (result.ok, result.exit_code) == (True, 0)
    assert result.summary().startswith("ok, but only 9 of 99 drawn rows could be checked: ")
    assert "only with videos of the same bytes" in result.summary()

    seed = next(s for s in range(100) if not drawn_of(cache, "c.mp4", s))
    result = verified(cache, 1, videos=str(few), seed=seed)
    assert (result.ok, result.exit_code) == (False, 3)
    assert result.summary().startswith("NOT RECOMPUTED: ")
    assert "no drawn row could be checked (of 1)" in result.summary()
    other = result.model_copy(update={"expected_digest": "0" * 64})
    assert other.exit_code == 1


def drawn_of(cache: Path, path: str, seed: int) -> bool:
    """Whether the single row that this seed draws is of this video."""
    opened = TargetCache.open(cache)
    (video,) = rows_by_video(opened, draw_rows(opened, 1, seed)[0])
    return video.path == path


def test_another_network_is_refused(
    made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = made()
    put_plugin(tmp_path, 1, monkeypatch)
    with pytest.raises(TeacherError) as raised:
        recomputed(cache)
    assert raised.value.problem == "teacher t is not the one that the cache was made with"
    assert "weights_sha256" in str(raised.value.found)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"teachers": ()}, CacheError, "the network of teacher t must be named"),
        ({"teachers": ("u",)}, CacheError, 'the cache has no teacher "u"'),
        ({"videos": "nowhere"}, CorpusError, "cannot open the videos nowhere"),
    ],
)
def test_a_plugin_runs_only_if_it_was_named(
    made: Callable[..., Path], changes: dict[str, Any], error: type[DistInitError], said: str
) -> None:
    with pytest.raises(error) as raised:
        recomputed(made(), **changes)
    assert raised.value.problem == said


def test_nothing_is_recomputed_of_a_damaged_cache(made: Callable[..., Path]) -> None:
    cache = made()
    (cache / "README.md").unlink()
    result = verified(cache)
    assert (result.exit_code, result.recomputed) == (1, None)
    assert "nothing was recomputed" in result.notes[0]


def test_the_command(made: Callable[..., Path], tmp_path: Path) -> None:
    cache = made()
    options = ["cache", "verify", str(cache), "--recompute", "10", "--device", "cpu", "--json"]
    code, output = run_command([*options, "--seed", "3", "--teacher", f"t={NAME}"])
    assert (code, "--recompute needs the videos" in output) == (2, True)
    code, output = run_command(["cache", "verify", str(cache), "--seed", "3"])
    assert (code, "need --recompute N" in output) == (2, True)
    options += ["--videos", str(tmp_path / "videos"), "--teacher", f"t={NAME}"]
    code, output = run_command(options)
    result = json.loads(output[output.index("{\n") :])
    assert (code, result["recomputed"]["drawn"]) == (0, 10)
