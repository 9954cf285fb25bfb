"""``distinit cache push`` and ``pull``: one team sends a cache, another receives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.caches import CORPUS, TEACHERS, run_all
from helpers.killing import kill_at
from helpers.objects import s3_bucket
from helpers.web import WebFolder, serve

from distinit.cli import main
from distinit.pipeline.cache.reader import TargetCache
from distinit.schemas.exit_codes import ExitCode

SHARD = "teachers/alpha/logits/c/1/0"


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of team A; not to be changed."""
    root = tmp_path_factory.mktemp("team-a") / "cache"
    run_all(root, CORPUS, TEACHERS)
    return root


@pytest.fixture
def bucket() -> Iterator[str]:
    """The URL of an empty place on an S3 server."""
    with s3_bucket("shared"):
        yield "s3://shared/caches/one"


def run(*arguments: object) -> tuple[int, str]:
    ended = CliRunner().invoke(main, ["cache", *map(str, arguments)])
    assert "Traceback" not in ended.output
    return ended.exit_code, ended.output


def files_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_team_a_sends_to_s3_and_team_b_receives_and_verifies(
    sent: Path, bucket: str, tmp_path: Path
) -> None:
    digest = TargetCache.open(sent).manifest.content_digest
    code, text = run("push", sent, bucket)
    assert code == ExitCode.OK, text
    assert f"next: distinit cache pull {bucket} FOLDER --expect {digest}" in text
    copy = tmp_path / "team-b"
    code, text = run("pull", bucket, copy, "--expect", digest)
    assert code == ExitCode.OK, text
    assert f"next: distinit cache verify {copy}" in text
    code, text = run("verify", copy, "--expect", digest)
    assert (code, f"  digest    {digest}" in text) == (ExitCode.OK, True), text
    assert files_of(copy) == files_of(sent)


def test_the_results_are_json(sent: Path, bucket: str, tmp_path: Path) -> None:
    digest = TargetCache.open(sent).manifest.content_digest
    ended = CliRunner().invoke(main, ["cache", "push", str(sent), bucket, "--json"])
    pushed = json.loads(ended.stdout)
    files = files_of(sent)
    assert pushed == {
        "path": str(sent),
        "target": bucket,
        "content_digest": digest,
        "files": len(files),
        "kept": 0,
        "sent_bytes": sum(map(len, files.values())),
    }
    target = tmp_path / "part"
    (tmp_path / "list.txt").write_text("a.mp4\n# a remark\n")
    words = ["--teacher", "beta", "--videos", str(tmp_path / "list.txt"), "--workers", "2"]
    ended = CliRunner().invoke(main, ["cache", "pull", bucket, str(target), *words, "--json"])
    pulled = json.loads(ended.stdout)
    assert (pulled["partial"], pulled["teachers"], pulled["units"]) == (True, ["beta"], 1)
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    assert {event["phase"] for event in events} == {"records", "pull"}
    info = json.loads(CliRunner().invoke(main, ["cache", "info", str(target), "--json"]).stdout)
    assert info["partial"] == "a partial copy: 1 of 7 units, 1 of 2 teachers"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--expect", "0" * 64), ExitCode.FAILED, "is not the expected cache"),
        (("--expect", "abc"), ExitCode.USAGE, "--expect is not a content digest"),
        (("--workers", "0"), ExitCode.USAGE, "1 to 64"),
        (("--workers", "65"), ExitCode.USAGE, "1 to 64"),
        (("--teacher", "alpah"), ExitCode.USAGE, "did you mean alpha?"),
        (("--units", "٣"), ExitCode.USAGE, "does not name units of the cache"),
        (("--units", "0-99"), ExitCode.USAGE, "numbers and ranges from 0 to 6, such as 0-6"),
        (("--videos", "nowhere.txt"), ExitCode.USAGE, "nowhere.txt"),
    ],
)
def test_options_that_do_not_fit_are_explained(
    words: tuple[str, ...], code: ExitCode, text: str, sent: Path, tmp_path: Path
) -> None:
    found, output = run("pull", sent, tmp_path / "copy", *words)
    assert (found, text in output) == (code, True), output
    assert list(tmp_path.iterdir()) == []


def test_a_partial_copy_is_not_repaired(sent: Path, tmp_path: Path) -> None:
    assert run("pull", sent, tmp_path / "part", "--units", "0")[0] == ExitCode.OK
    text = run("info", tmp_path / "part")[1]
    assert "part (a partial copy: 1 of 7 units, 2 of 2 teachers)" in text
    code, text = run("verify", tmp_path / "part")
    assert code == ExitCode.OK
    assert "note: a partial copy: 1 of 7 units, 2 of 2 teachers" in text
    code, text = run("verify", tmp_path / "part", "--repair")
    assert (code, "is a partial copy of a cache, which is only read" in text) == (2, True)
    shard = next((tmp_path / "part").glob("teachers/alpha/logits/c/*/0"))
    shard.write_bytes(shard.read_bytes()[:-1])
    code, text = run("verify", tmp_path / "part")
    assert (code, "DAMAGED" in text) == (ExitCode.FAILED, True)
    again = f"distinit cache pull URL {tmp_path / 'part'}\n"
    assert (again in text, "--repair" in text) == (True, False)
    code, text = run("pull", sent, tmp_path / "part", "--units", "0")
    assert (code, ", 1 received (" in text) == (ExitCode.OK, False), text
    assert run("verify", tmp_path / "part")[0] == ExitCode.OK


@pytest.mark.parametrize("options", [(), ("--repair",)])
def test_nothing_is_extracted_into_a_partial_copy(
    options: tuple[str, ...], sent: Path, tmp_path: Path
) -> None:
    assert run("pull", sent, tmp_path / "part", "--units", "0")[0] == ExitCode.OK
    before = files_of(tmp_path / "part")
    words = ["--videos", str(tmp_path), "--teacher", "null", "--cache", str(tmp_path / "part")]
    ended = CliRunner().invoke(main, ["extract", *options, *words])
    assert ended.exit_code == ExitCode.USAGE
    assert "is a partial copy of a cache, which is only read" in ended.output
    assert run("describe", tmp_path / "part", "--license", "MIT")[0] == ExitCode.USAGE
    assert files_of(tmp_path / "part") == before


def test_an_unfinished_pull_is_not_described_as_a_cache(sent: Path, tmp_path: Path) -> None:
    assert run("pull", sent, tmp_path / "copy")[0] == ExitCode.OK
    (tmp_path / "copy/.pull").write_text("0" * 64)
    (tmp_path / "copy").rename(tmp_path / "copy.partial")
    code, text = run("info", tmp_path / "copy.partial")
    assert (code, "is not a cache yet" in text) == (ExitCode.FAILED, True), text


@pytest.mark.parametrize(
    ("pattern", "moment"),
    [("plan.parquet", "after"), ("0", "before"), ("0", "after"), ("copy", "before")],
)
def test_a_killed_pull_is_resumed_by_the_same_command(
    pattern: str, moment: str, sent: Path, tmp_path: Path
) -> None:
    command = ["cache", "pull", str(sent), "copy", "--workers", "1"]
    kill_at(pattern, "before" if moment == "before" else "after", command, tmp_path)
    assert not (tmp_path / "copy").exists(), "a half copy is never taken for a whole one"
    arrived = files_of(tmp_path / "copy.partial").keys() & files_of(sent).keys()
    ended = CliRunner().invoke(main, ["cache", "pull", str(sent), str(tmp_path / "copy"), "--json"])
    assert ended.exit_code == 0, ended.stderr
    kept = arrived - {"manifest-sha256.txt"}
    assert json.loads(ended.stdout)["kept"] >= len(kept) > 0
    assert files_of(tmp_path / "copy") == files_of(sent)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("pattern", ["0", "manifest.json"])
def test_a_killed_push_is_resumed_by_the_same_command(
    pattern: str, sent: Path, tmp_path: Path
) -> None:
    kill_at(pattern, "before", ["cache", "push", str(sent), "there", "--workers", "1"], tmp_path)
    assert not (tmp_path / "there/manifest.json").exists()
    assert run("pull", tmp_path / "there", tmp_path / "copy")[0] == ExitCode.USAGE
    ended = CliRunner().invoke(
        main, ["cache", "push", str(sent), str(tmp_path / "there"), "--json"]
    )
    assert json.loads(ended.stdout)["kept"] > 0
    assert run("pull", tmp_path / "there", tmp_path / "copy")[0] == ExitCode.OK
    assert files_of(tmp_path / "copy") == files_of(sent)


@pytest.fixture
def web(sent: Path) -> Iterator[WebFolder]:
    for folder in serve(WebFolder(ranges=True)):
        folder.add(sent, "/one")
        yield folder


def started(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "distinit", "cache", *words]
    return subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_pull_over_the_network_that_is_ended_from_outside_is_resumed(
    number: signal.Signals, sent: Path, web: WebFolder, tmp_path: Path
) -> None:
    whole = web.files[f"/one/{SHARD}"]
    web.redirects[f"/one/{SHARD}"] = f"{web.base}/slow"
    web.slow["/slow"] = whole
    process = started(tmp_path, "pull", f"{web.base}/one", "copy", "--workers", "2")
    deadline = time.monotonic() + 120
    while not web.gets["/slow"] and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    web.released.set()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == (-number if number == signal.SIGKILL else ExitCode.TERMINATED)
    assert b"Traceback" not in errors
    assert not (tmp_path / "copy").exists()
    del web.redirects[f"/one/{SHARD}"]
    code, text = run("pull", f"{web.base}/one", tmp_path / "copy")
    assert code == ExitCode.OK, text
    assert files_of(tmp_path / "copy") == files_of(sent)


def test_a_list_of_videos_that_is_a_pipe_is_refused(sent: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.txt")
    code, text = run("pull", sent, tmp_path / "copy", "--videos", tmp_path / "list.txt")
    assert (code, "not a regular file" in text) == (ExitCode.USAGE, True), text


def test_only_one_process_pulls_into_a_folder(sent: Path, web: WebFolder, tmp_path: Path) -> None:
    web.redirects[f"/one/{SHARD}"] = f"{web.base}/slow"
    web.slow["/slow"] = web.files[f"/one/{SHARD}"]
    process = started(tmp_path, "pull", f"{web.base}/one", "copy")
    try:
        deadline = time.monotonic() + 120
        while not web.gets["/slow"] and time.monotonic() < deadline:
            time.sleep(0.02)
        code, text = run("pull", f"{web.base}/one", tmp_path / "copy")
        assert (code, "another process is writing" in text) == (ExitCode.FAILED, True), text
    finally:
        web.released.set()
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert files_of(tmp_path / "copy") == files_of(sent)


def test_credentials_are_neither_stored_nor_shown(web: WebFolder, tmp_path: Path) -> None:
    secret = web.base.replace("://", "://user:hunter2@")
    code, text = run("pull", f"{secret}/one?token=hunter3", tmp_path / "copy")
    assert code == ExitCode.OK, text
    web.files.clear()
    code, failed = run("pull", f"{secret}/one?token=hunter3", tmp_path / "other")
    assert code == ExitCode.USAGE
    assert "hunter" not in text + failed
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"hunter" not in path.read_bytes()
    assert not (tmp_path / "other").exists()
