"""Two teams: one extracts, signs and sends a cache; the other trains on its own video copies.

The second team has no teacher, and every copy has another encoding and another name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command_line import run_command
from helpers.objects import s3_bucket
from helpers.videos import drifting_frames, encode_frames, remake

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.exit_codes import ExitCode

NAMES = ("river", "street", "harbour")
FRAMES = 40
X264 = ("-c:v", "libx264", "-crf", "23", "-pix_fmt", "yuv420p", "-fps_mode", "passthrough")
HALF_SIZE = "scale=iw/2:ih/2"


def run(*arguments: object) -> tuple[int, str]:
    return run_command([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def team_a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos of team A, the cache made from them, and its keys."""
    root = tmp_path_factory.mktemp("team-a")
    for seed, name in enumerate(NAMES):
        frames_NHWC = drifting_frames(FRAMES, seed, speed=2)
        encode_frames(root / "videos" / f"{name}.mp4", frames_NHWC, rate=25)
    code, text = run(
        "extract", "--videos", root / "videos", "--teacher", "null", "--cache", root / "cache"
    )
    assert code == ExitCode.OK, text
    code, text = run("cache", "keygen", "--out", root / "team")
    assert code == ExitCode.OK, text
    code, text = run("cache", "sign", root / "cache", "--key", root / "team")
    assert code == ExitCode.OK, text
    return root


@pytest.fixture
def bucket(team_a: Path) -> Iterator[str]:
    """The URL on an S3 server to which team A has sent its cache."""
    with s3_bucket("two-teams"):
        url = "s3://two-teams/cache"
        code, text = run("cache", "push", team_a / "cache", url)
        assert code == ExitCode.OK, text
        yield url


def copies_of(videos: Path, folder: Path) -> Path:
    """Copies at half the size, in another container and under other names."""
    folder.mkdir()
    for number, name in enumerate(NAMES):
        remake(videos / f"{name}.mp4", folder / f"download-{number}.mkv", *X264, "-vf", HALF_SIZE)
    return folder


def received(bucket: str, team_a: Path, root: Path) -> Path:
    """The cache as team B has pulled and verified it."""
    digest = TargetCache.open(team_a / "cache").manifest.content_digest
    code, text = run("cache", "pull", bucket, root / "cache", "--expect", digest)
    assert code == ExitCode.OK, text
    key = team_a / "team.pub"  # team A has published it
    code, text = run("cache", "verify", root / "cache", "--expect", digest, "--signed-by", key)
    assert code == ExitCode.OK, text
    return root / "cache"


def train(root: Path) -> tuple[int, str]:
    """Build the frame store of team B's copies, and train on them for two steps."""
    match = root / "copies.match"
    code, text = run(
        *("frames", "build", "--videos", root / "copies", "--match", match),
        *("--out", root / "frames"),
    )
    assert code == ExitCode.OK, text
    return run(
        *("distill", "--cache", root / "cache", "--frames", root / "frames", "--match", match),
        *("--student", "tiny_r2plus1d_10", "--out", root / "run", "--epochs", "1"),
        *("--set", "clip.frames=4", "--set", "clip.crop=32", "--set", "runtime.batch_size=2"),
        *("--set", "optimizer.clips_per_epoch=4", "--device", "cpu"),
    )


def test_team_b_trains_on_its_own_copies_without_the_teacher(
    team_a: Path, bucket: str, tmp_path: Path
) -> None:
    cache = received(bucket, team_a, tmp_path)
    copies = copies_of(team_a / "videos", tmp_path / "copies")
    code, text = run(
        "cache", "match", cache, "--videos", copies, "--out", tmp_path / "copies.match"
    )
    assert code == ExitCode.OK, text
    code, text = train(tmp_path)
    assert code == ExitCode.OK, text
    assert (tmp_path / "run" / "student.safetensors").is_file()
    store = FrameStore.open(tmp_path / "frames")
    assert len(store.videos) == len(NAMES)


def test_a_shifted_copy_is_refused_by_name_and_not_trained_on(
    team_a: Path, bucket: str, tmp_path: Path
) -> None:
    cache = received(bucket, team_a, tmp_path)
    copies = copies_of(team_a / "videos", tmp_path / "copies")
    without_first = f"select=gte(n\\,1),{HALF_SIZE}"
    remake(team_a / "videos" / "street.mp4", copies / "download-1.mkv", *X264, "-vf", without_first)
    match = tmp_path / "copies.match"
    code, text = run("cache", "match", cache, "--videos", copies, "--out", match)
    assert code == ExitCode.INCOMPLETE, text
    (line,) = [line for line in text.splitlines() if "street.mp4" in line]
    assert "shifted" in line
    code, text = train(tmp_path)
    assert code == ExitCode.OK, text
    store = FrameStore.open(tmp_path / "frames")
    assert len(store.videos) == len(NAMES) - 1
