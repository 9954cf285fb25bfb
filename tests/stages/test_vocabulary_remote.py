"""Vocabularies with caches at a URL and with partial copies: used where possible, else refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command_line import run_command
from helpers.pulls import pull
from helpers.sources import write_cache, write_frames
from helpers.vocabularies import make_vocabulary
from helpers.web import WebFolder, serve

from distinit.pipeline.cache.copies import Selection
from distinit.schemas.distill import DistillConfig
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.run import DistillResult
from distinit.stages.distill import distill

FRAMES = {"a": 60, "b": 60, "c": 60}  # a unit each


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("remote")
    write_cache(root / "cache", ("alpha", "gamma"), target="features", frames=FRAMES)
    write_frames(root / "frames", FRAMES)
    make_vocabulary(root / "birds.safetensors", 7, scale=8.0)
    return root


@pytest.fixture
def web(root: Path) -> Iterator[WebFolder]:
    for folder in serve(WebFolder(ranges=True)):
        folder.add(root / "cache", "/one")
        yield folder


def trained(root: Path, cache: str, out: Path) -> DistillResult:
    values = {
        "cache": cache,
        "frames": str(root / "frames"),
        "out": str(out),
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 16},
        "targets": [
            {
                "teacher": "alpha",
                "vocabulary": str(root / "birds.safetensors"),
                "filter": {"keep_fraction": 0.5},
            }
        ],
        "optimizer": {"clips_per_epoch": 8, "epochs": 1},
        "runtime": {"batch_size": 2, "device": "cpu", "log_seconds": 0},
    }
    return distill(DistillConfig.model_validate(values))


def test_a_cache_at_a_url_gives_the_student_of_the_folder(
    root: Path, web: WebFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))  # no entropies are known
    remote = trained(root, f"{web.base}/one", tmp_path / "remote")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    local = trained(root, str(root / "cache"), tmp_path / "local")
    assert Path(remote.student).read_bytes() == Path(local.student).read_bytes()
    assert remote.targets == local.targets
    assert any("/alpha/" in path and "/c/" in path for path in web.gets)
    assert not any("/gamma/" in path and "/c/" in path for path in web.gets)


def test_a_partial_copy_is_used_for_what_it_has(root: Path, web: WebFolder, tmp_path: Path) -> None:
    part = tmp_path / "part"
    pull(f"{web.base}/one", part, Selection(teachers=("alpha",), units="0-1"))
    result = trained(root, str(part), tmp_path / "run")
    assert (result.videos, result.left_out.without_targets) == (2, 1)
    assert list(result.targets) == ["alpha@birds"]
    assert result.targets["alpha@birds"].with_target == 1


@pytest.mark.parametrize("command", [["audit"], ["cache", "relabel"]])
def test_commands_that_read_all_features_refuse_urls_and_partial_copies(
    command: list[str], root: Path, web: WebFolder, tmp_path: Path
) -> None:
    part, out = tmp_path / "part", tmp_path / "out"
    pull(f"{web.base}/one", part, Selection(units="0"))
    options = ["--vocabulary", str(root / "birds.safetensors"), "--teacher", "alpha"]
    for cache, found in (
        (f"{web.base}/one", "expected: a cache in a folder"),
        (str(part), "a partial copy: 1 of 3 units"),
    ):
        code, output = run_command([*command, cache, *options, "--out", str(out), "--quiet"])
        assert code == ExitCode.USAGE
        assert found in output
        assert "`distinit cache pull" in output
        assert not out.exists()


def test_a_url_in_place_of_a_folder_is_refused_without_its_password(tmp_path: Path) -> None:
    url = "https://user:hunter2@host/one"
    for command in (["merge", url, url], ["subset", url], ["relabel", url, "--vocabulary", "v"]):
        code, output = run_command(["cache", *command, "--out", str(tmp_path / "out")])
        assert code == ExitCode.USAGE
        assert output.splitlines() == [
            "error: this command reads every byte of a cache, and needs it on a disk",
            "  expected: a cache in a folder",
            "  found:    a URL",
            "  to do:    copy the cache with `distinit cache pull` first, and name that folder",
        ]
