"""Caches on the Hugging Face hub, with a small one on the loopback interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.caches import CORPUS, TEACHERS, run_all
from helpers.hub import Hub, small_hub
from helpers.progress import RecordingProgress

from distinit.pipeline.cache.copies import Selection
from distinit.pipeline.cache.pull import pull_cache
from distinit.pipeline.cache.push import Pushed, push_cache
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.transport.hub import HubStore, refuse_too_many_files
from distinit.schemas.errors import CacheError, ConfigError, TransferError

PLACE = "hf://datasets/team/caches/one"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with small_hub() as found:
        yield found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sent") / "cache"
    run_all(root, CORPUS, TEACHERS)
    return root


def push(root: Path, *, replace: bool = False) -> Pushed:
    progress = RecordingProgress()
    return push_cache(root, PLACE, replace=replace, workers=4, progress=progress)


def files_of(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def test_the_hub_delivers_what_it_was_sent(hub: Hub, cache: Path, tmp_path: Path) -> None:
    push(cache)
    assert {name.removeprefix("one/"): data for name, data in hub.files.items()} == files_of(cache)
    assert [len(names) for names in hub.commits] == [66, 1], "few commits, the manifest last"
    assert hub.commits[-1] == ["one/manifest.json"]
    progress = RecordingProgress()
    pull_cache(PLACE, tmp_path / "copy", Selection(), workers=4, expect=None, progress=progress)
    assert files_of(tmp_path / "copy") == files_of(cache)
    assert hub.tokens == {"Bearer hf_secret"}
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"hf_secret" not in path.read_bytes()


def test_large_files_that_the_hub_has_are_not_sent_again(hub: Hub, cache: Path) -> None:
    push(cache)
    shards = sum(name.endswith("/0") for name in hub.files)
    assert push(cache).kept == shards > 0


def test_a_push_ends_if_somebody_else_commits_meanwhile(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = HubStore.flush

    def flush_after_another(store: HubStore) -> None:
        if len(hub.commits) == 1:  # all files but the manifest were sent
            hub.files["one/README.md"] = b"by others"
            hub.commits.append(["one/README.md"])
        flush(store)

    monkeypatch.setattr(HubStore, "flush", flush_after_another)
    with pytest.raises(TransferError, match="somebody else has changed the repository"):
        push(cache)
    assert "one/manifest.json" not in hub.files


def test_the_same_push_again_ends_what_another_one_interrupted(hub: Hub, cache: Path) -> None:
    hub.files["one/README.md"] = b"by others"
    hub.commits.append(["one/README.md"])
    push(cache)
    assert {name.removeprefix("one/"): data for name, data in hub.files.items()} == files_of(cache)


def test_a_cache_on_the_hub_is_read_in_parts(hub: Hub, cache: Path) -> None:
    push(cache)
    video_id = CORPUS.id_of("c")
    found = TargetCache.open(f"{PLACE}").targets("beta").of(video_id)
    expected = TargetCache.open(cache).targets("beta").of(video_id)
    np.testing.assert_array_equal(found.logits_NC, expected.logits_NC)


def test_another_cache_is_replaced_on_request(hub: Hub, cache: Path, tmp_path: Path) -> None:
    push(cache)
    run_all(tmp_path / "new", CORPUS, TEACHERS[:1])
    with pytest.raises(CacheError, match="another cache is at hf://"):
        push(tmp_path / "new")
    push(tmp_path / "new", replace=True)
    found = {name.removeprefix("one/"): data for name, data in hub.files.items()}
    assert found == files_of(tmp_path / "new")


@pytest.mark.parametrize(
    "address", ["hf://models/a/b", "hf://datasets/a", "hf://datasets/a/b/../c?x", "hf://a/b c"]
)
def test_other_addresses_are_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a place on the hub"):
        pull_cache(
            address,
            tmp_path / "copy",
            Selection(),
            workers=1,
            expect=None,
            progress=RecordingProgress(),
        )


def test_a_repository_that_does_not_exist_is_an_error(hub: Hub, cache: Path) -> None:
    with pytest.raises((TransferError, CacheError)):
        push_cache(
            cache,
            "hf://datasets/team/other",
            replace=False,
            workers=1,
            progress=RecordingProgress(),
        )
    assert hub.files == {}


def test_a_folder_with_too_many_files_is_refused_before_anything_is_sent() -> None:
    names = [f"frames/unit-{unit:05d}.parquet" for unit in range(10_000)]
    refuse_too_many_files([*names, "manifest.json"], PLACE)
    with pytest.raises(ConfigError) as caught:
        refuse_too_many_files([*names, "frames/unit-10000.parquet"], PLACE)
    assert "10,001 files in frames: one for each unit" in str(caught.value)
