"""Distillation from a cache at a URL: the student of the folder, in limited space."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.progress import RecordingProgress
from helpers.short_distills import extract_null, short_distill
from helpers.web import WebFolder, serve

from distinit.schemas.audit import AuditConfig
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError, TransferError
from distinit.stages.audit import audit
from distinit.stages.distill import distill


@pytest.fixture(scope="module")
def extracted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_null(corpus, tmp_path_factory.mktemp("extracted"))


@pytest.fixture
def web(extracted: Path) -> Iterator[WebFolder]:
    for folder in serve(WebFolder(ranges=True)):
        folder.add(extracted / "cache", "/one")
        yield folder


def at_url(config: DistillConfig, url: str, out: Path) -> DistillConfig:
    return config.model_copy(update={"cache": url, "out": str(out)})


def test_a_cache_at_a_url_gives_the_student_of_the_folder(
    extracted: Path, web: WebFolder, tmp_path: Path
) -> None:
    config = short_distill(extracted, tmp_path / "local", 2)
    local, progress = distill(config), RecordingProgress()
    url = f"{web.base}/one"
    remote = distill(at_url(config, url, tmp_path / "remote"), progress=progress)
    assert Path(remote.student).read_bytes() == Path(local.student).read_bytes()
    assert remote.cache_digest == local.cache_digest
    assert f"shards are read from {url} and kept up to 20 GiB" in progress.messages
    shards = {path: count for path, count in web.gets.items() if "/c/" in path}
    assert set(shards.values()) == {1}, "each shard is received once"
    record = json.loads((tmp_path / "remote/run.json").read_text())
    assert record["config"]["cache"] == url
    # The run goes on with the folder, and the run of the folder with the URL.
    moved = config.model_copy(update={"out": str(tmp_path / "remote")})
    assert distill(moved).model_copy(update={"out": ""}) == remote.model_copy(update={"out": ""})
    assert distill(at_url(config, url, tmp_path / "local")).loss == local.loss


def test_a_run_whose_server_is_gone_is_resumed(
    extracted: Path, web: WebFolder, tmp_path: Path
) -> None:
    config = at_url(short_distill(extracted, tmp_path, 2), f"{web.base}/one", tmp_path / "run")
    shard = next(path for path in web.files if "/c/" in path)
    data = web.files.pop(shard)
    with pytest.raises(TransferError, match="cannot be transferred"):
        distill(config)
    web.files[shard] = data
    assert distill(config).steps == 2


def test_shards_beyond_the_limit_are_announced(
    extracted: Path, web: WebFolder, tmp_path: Path
) -> None:
    config = at_url(short_distill(extracted, tmp_path, 2), f"{web.base}/one", tmp_path / "run")
    progress = RecordingProgress()
    distill(config.model_copy(update={"read_through_gib": 1e-5}), progress=progress)
    (line,) = [text for text in progress.messages if "again and again" in text]
    assert line.startswith("warning: the shards of these teachers have ")


@pytest.mark.parametrize("secret", ["http://user:hunter2@host/one", "https://host/one?key=hunter2"])
def test_urls_with_secrets_are_refused(secret: str, extracted: Path, tmp_path: Path) -> None:
    config = at_url(short_distill(extracted, tmp_path, 2), secret, tmp_path / "run")
    with pytest.raises(ConfigError, match="has a user, a password or a query") as caught:
        distill(config)
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_audit_of_a_url_is_that_of_the_folder(
    extracted: Path, web: WebFolder, tmp_path: Path
) -> None:
    local = audit(AuditConfig(cache=str(extracted / "cache"), out=str(tmp_path / "local")))
    remote = audit(AuditConfig(cache=f"{web.base}/one", out=str(tmp_path / "remote")))
    assert remote.teachers == local.teachers
    assert not any("/c/" in path for path in web.gets), "an audit needs no shards"
