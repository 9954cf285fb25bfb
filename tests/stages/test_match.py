"""``distinit cache match``: which of a receiver's files are copies of the videos of a cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner
from helpers.killing import kill_at
from helpers.progress import RecordingProgress
from helpers.short_distills import extract_null, short_distill
from helpers.videos import drifting_frames, encode_frames, remake

from distinit.cli import main
from distinit.pipeline.matching.mapping import read_mapping, write_mapping
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import (
    ConfigError,
    CorpusError,
    FrameStoreError,
    MatchError,
    RunMismatchError,
)
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.frames import FramesConfig
from distinit.schemas.matching import MatchConfig, MatchedVideo, MatchReport
from distinit.stages.distill import distill
from distinit.stages.extract import extract
from distinit.stages.frames import build_frames
from distinit.stages.match import match_cache

FRAMES = 40
MOVING = ("exact", "crf", "half", "webm", "renamed", "shifted", "cut", "rate", "dropped", "mirror")
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-fps_mode", "passthrough")


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The owner's videos, cache and frame store: one video for each thing that can happen."""
    root = tmp_path_factory.mktemp("owner")
    for seed, name in enumerate((*MOVING, "absent")):
        frames = drifting_frames(FRAMES, seed, speed=2)
        encode_frames(root / "videos" / f"{name}.mp4", frames, rate=25)
    still = drifting_frames(FRAMES, 99, speed=0)
    encode_frames(root / "videos" / "still.mp4", still, rate=25)
    return extract_null(root / "videos", root)


@pytest.fixture(scope="module")
def copies(owned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The receiver's copies of these videos."""
    folder = tmp_path_factory.mktemp("receiver") / "clips"
    folder.mkdir()
    source = owned / "videos"
    shutil.copy(source / "exact.mp4", folder / "exact.mp4")
    remade: dict[str, tuple[str, ...]] = {
        "crf.mp4": (*X264, "-crf", "23"),
        "half.mkv": (*X264, "-crf", "23", "-vf", "scale=48:32"),
        "webm.webm": ("-c:v", "libvpx", "-b:v", "1M", "-fps_mode", "passthrough"),
        "shifted.mp4": (*X264, "-vf", "select=gte(n\\,1)"),
        "cut.mp4": (*X264, "-frames:v", "25"),
        "rate.mp4": ("-c:v", "libx264", "-vf", "fps=30"),
        "dropped.mp4": (*X264, "-vf", "select=not(eq(n\\,20))"),
        "mirror.mp4": (*X264, "-vf", "hflip"),
        "still.mp4": (*X264, "-crf", "28"),
    }
    for name, options in remade.items():
        remake(source / f"{Path(name).stem}.mp4", folder / name, *options)
    remake(source / "renamed.mp4", folder / "x7f3.mkv", *X264, "-crf", "30")
    (folder / "absent.mp4").write_bytes(b"no video")
    return folder


def run_match(owned: Path, copies: Path | str, out: Path, **limits: object) -> MatchReport:
    values = {
        "cache": str(owned / "cache"),
        "videos": str(copies),
        "out": str(out),
        "limits": limits,
    }
    return match_cache(MatchConfig.model_validate(values))


@pytest.fixture(scope="module")
def matched(owned: Path, copies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mapping") / "clips.match"
    run_match(owned, copies, out)
    return out


def rows_of(mapping: Path) -> dict[str, MatchedVideo]:
    return {Path(row.path).stem: row for row in read_mapping(mapping).videos}


def test_every_video_gets_its_verdict(matched: Path) -> None:
    verdicts = {name: (row.kind, row.usable) for name, row in rows_of(matched).items()}
    assert verdicts == {
        "exact": ("exact", True),
        "crf": ("re-encoded", True),
        "half": ("re-encoded", True),
        "webm": ("re-encoded", True),
        "renamed": ("re-encoded", True),
        "still": ("undecidable", True),
        "shifted": ("shifted", False),
        "cut": ("cut", False),
        "dropped": ("cut", False),
        "rate": ("other frame rate", False),
        "mirror": ("missing", False),
        "absent": ("missing", False),
    }


def test_a_verdict_says_what_was_found(matched: Path) -> None:
    rows = rows_of(matched)
    assert rows["renamed"].copy_path == "x7f3.mkv"
    assert (rows["shifted"].shift_frames, rows["shifted"].copy_frame_count) == (-1, FRAMES - 1)
    reasons = {name: row.reason for name, row in rows.items() if row.reason}
    assert reasons == {
        "shifted": "shifted.mp4: shifted by 1 frame, its first frame is frame 1 of the video; "
        "it has frames 1 to 39 of 0 to 39",
        "cut": "cut.mp4: 25 frames instead of 40; it has frames 0 to 24 of 0 to 39",
        "dropped": "dropped.mp4: frames are missing or repeated, only presentation times agree",
        "rate": "rate.mp4: 30.00 frames per second instead of 25.00",
        "mirror": "mirror.mp4: it shows something else (0% of the frames agree)",
        "still": "still.mp4: the picture hardly moves, so its hashes cannot rule out a shift",
        "absent": rows["absent"].reason,
    }
    assert "nothing could be decoded" in rows["absent"].reason
    assert min(row.agreeing_share for row in rows.values() if row.usable) >= 0.9


def test_the_report_counts_names_and_suggests(
    owned: Path, copies: Path, matched: Path, tmp_path: Path
) -> None:
    out = tmp_path / "clips.match"
    arguments = ["cache", "match", str(owned / "cache"), "--videos", str(copies)]
    ended = CliRunner().invoke(main, [*arguments, "--out", str(out), "--quiet"])
    assert ended.exit_code == 3
    assert "6 of 12 videos of the cache can be used, from 12 files" in ended.output
    assert "  shifted.mp4  shifted  shifted.mp4: shifted by 1 frame" in ended.output
    assert f"next: distinit frames build --videos {copies} --match {out}" in ended.output
    assert out.read_bytes() == matched.read_bytes()
    as_json = CliRunner().invoke(main, [*arguments, "--out", str(out), "--json"])
    report = json.loads(as_json.stdout)
    assert (report["usable"], report["videos"], len(report["refused"])) == (6, 12, 6)
    assert list(report["unreadable"]) == ["absent.mp4"]


def test_the_exit_code_says_whether_all_or_none_can_be_used(
    owned: Path, copies: Path, tmp_path: Path
) -> None:
    only = tmp_path / "clips"
    only.mkdir()
    shutil.copy(copies / "mirror.mp4", only)
    assert run_match(owned, only, tmp_path / "none").exit_code == 1
    assert run_match(owned, owned / "videos", tmp_path / "all").exit_code == 0
    assert {row.kind for row in read_mapping(tmp_path / "all").videos} == {"exact"}


def test_static_copies_can_be_refused_and_need_the_name(
    owned: Path, copies: Path, tmp_path: Path
) -> None:
    strict = run_match(owned, copies, tmp_path / "strict", static="refuse")
    assert "still.mp4" in {row.path for row in strict.refused}
    only = tmp_path / "clips"
    only.mkdir()
    shutil.copy(copies / "still.mp4", only / "other.mp4")
    run_match(owned, only, tmp_path / "named")
    still = rows_of(tmp_path / "named")["still"]
    assert (still.kind, still.usable) == ("undecidable", False)
    assert still.reason == (
        "other.mp4: the picture hardly moves, so its hashes cannot rule out a shift; "
        "a file of another name must show motion to be told apart"
    )
    assert still.line() == f"still.mp4  undecidable  {still.reason}"


def test_a_shorter_clip_of_a_still_scene_is_cut_only_if_it_has_the_name(
    owned: Path, copies: Path, tmp_path: Path
) -> None:
    """Two clips of one speaker before one wall agree in all frames."""
    verdicts = {}
    for name in ("still", "other"):
        (tmp_path / name).mkdir()
        remake(copies / "still.mp4", tmp_path / name / f"{name}.mp4", *X264, "-frames:v", "25")
        run_match(owned, tmp_path / name, tmp_path / f"{name}.match")
        verdicts[name] = rows_of(tmp_path / f"{name}.match")["still"].kind
    assert verdicts == {"still": "cut", "other": "missing"}


def test_shifts_are_shown_only_where_they_say_something(
    owned: Path, copies: Path, tmp_path: Path
) -> None:
    report = run_match(owned, copies, tmp_path / "mapping")
    assert {row.kind: row.shifts for row in report.kinds if row.shifts} == {"shifted": "-1"}


def test_copies_that_fit_equally_are_ambiguous_unless_named(
    owned: Path, copies: Path, tmp_path: Path
) -> None:
    only = tmp_path / "clips"
    only.mkdir()
    shutil.copy(copies / "x7f3.mkv", only / "one.mkv")
    remake(only / "one.mkv", only / "two.mp4", "-c", "copy")
    shutil.copy(copies / "crf.mp4", only / "crf.mp4")
    remake(only / "crf.mp4", only / "again.mkv", "-c", "copy")
    run_match(owned, only, tmp_path / "mapping")
    rows = rows_of(tmp_path / "mapping")
    assert (rows["renamed"].kind, rows["renamed"].usable) == ("ambiguous", False)
    assert rows["renamed"].reason == "one.mkv and two.mp4 fit equally: keep one of them"
    assert (rows["crf"].kind, rows["crf"].copy_path) == ("re-encoded", "crf.mp4")


def test_a_copy_of_two_videos_of_the_cache_is_ambiguous(tmp_path: Path) -> None:
    source = tmp_path / "owner" / "a.mp4"
    encode_frames(source, drifting_frames(FRAMES, 1), rate=25)
    remake(source, source.with_name("b.mp4"), "-c:v", "libx264", "-crf", "20")
    extracted = extract_null(source.parent, tmp_path / "extracted")
    clips = tmp_path / "clips"
    clips.mkdir()
    remake(source, clips / "c.mp4", "-c:v", "libx264", "-crf", "30")
    run_match(extracted, clips, tmp_path / "mapping")
    rows = rows_of(tmp_path / "mapping")
    assert {row.kind for row in rows.values()} == {"ambiguous"}
    assert rows["a"].reason == "c.mp4 fits 2 videos of the cache"
    (clips / "c.mp4").rename(clips / "b.mp4")
    run_match(extracted, clips, tmp_path / "mapping")
    rows = rows_of(tmp_path / "mapping")
    assert (rows["a"].kind, rows["b"].kind) == ("ambiguous", "re-encoded")


@pytest.mark.parametrize("sampling", [{"stride": 4, "mode": "stride"}, {"fps": 5, "mode": "fps"}])
def test_a_shift_is_found_in_a_sampled_cache(
    owned: Path, copies: Path, tmp_path: Path, sampling: dict[str, object]
) -> None:
    values = {
        "videos": str(owned / "videos"),
        "teachers": [{"name": "null"}],
        "cache": str(tmp_path / "cache"),
        "sampling": sampling,
    }
    extract(ExtractConfig.model_validate(values))
    run_match(tmp_path, copies, tmp_path / "mapping")
    rows = rows_of(tmp_path / "mapping")
    assert (rows["shifted"].kind, rows["shifted"].shift_frames) == ("shifted", -1)
    assert (rows["crf"].kind, rows["renamed"].kind) == ("re-encoded", "re-encoded")
    assert rows["rate"].kind == "other frame rate"


@pytest.mark.parametrize(
    ("pattern", "moment", "decoded"),
    [
        (r"hashes-.*\.json", "before", 11),
        (r"hashes-.*\.json", "after", 1),  # the broken file is tried again
        ("files.parquet", "after", 11),
        ("clips.match", "before", 1),
    ],
)
def test_a_killed_match_resumes(
    owned: Path,
    copies: Path,
    matched: Path,
    tmp_path: Path,
    pattern: str,
    moment: Literal["before", "after"],
    decoded: int,
) -> None:
    command = ["cache", "match", str(owned / "cache"), "--videos", str(copies)]
    kill_at(pattern, moment, [*command, "--out", "clips.match"], tmp_path)
    assert not (tmp_path / "clips.match").exists()
    progress = RecordingProgress()
    values = {"cache": str(owned / "cache"), "videos": str(copies)}
    config = MatchConfig.model_validate({**values, "out": str(tmp_path / "clips.match")})
    match_cache(config, progress=progress)
    assert (tmp_path / "clips.match").read_bytes() == matched.read_bytes()
    (decode,) = (phase for phase in progress.started if phase[0] == "decode")
    assert decode == ("decode", 11, "videos", 11 - decoded)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_damaged_part_is_decoded_again(owned: Path, copies: Path, tmp_path: Path) -> None:
    out = tmp_path / "clips.match"
    run_match(owned, copies, out)
    before = out.read_bytes()
    (part,) = (tmp_path / "clips.match.hashes").glob("*.npy")
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    (tmp_path / "clips.match.hashes" / "files.parquet").write_bytes(b"PAR1")
    run_match(owned, copies, out)
    assert out.read_bytes() == before


def test_a_receiver_builds_frames_from_copies_and_distils(
    owned: Path, copies: Path, matched: Path, tmp_path: Path
) -> None:
    store = tmp_path / "frames"
    built = build_frames(FramesConfig(videos=str(copies), match=str(matched), out=str(store)))
    assert (built.videos, built.failed) == (6, {})
    values = short_distill(owned, tmp_path / "run", steps=2).model_dump()
    config = DistillConfig.model_validate({**values, "frames": str(store), "match": str(matched)})
    result = distill(config)
    assert result.videos == 6
    assert (result.left_out.refused_by_match, result.left_out.not_in_store) == (6, 0)
    assert "6 without a usable copy" in result.summary()
    assert distill(config).model_dump() == result.model_dump()
    alone = config.model_copy(update={"match": None})
    with pytest.raises(RunMismatchError):
        distill(alone)
    progress = RecordingProgress()
    only = distill(alone.model_copy(update={"out": str(tmp_path / "alone")}), progress=progress)
    assert (only.videos, only.left_out.not_in_store, only.left_out.unknown_in_store) == (1, 11, 5)
    hint = "warning: the frame store has 5 videos with other bytes than any video of the cache"
    assert any(line.startswith(hint) and "--match" in line for line in progress.messages)
    assert hint in only.summary()
    assert only.left_out.examples[0] not in only.summary()


def test_a_store_of_copies_only_needs_the_mapping(
    owned: Path, copies: Path, tmp_path: Path
) -> None:
    (tmp_path / "clips").mkdir()
    shutil.copy(copies / "crf.mp4", tmp_path / "clips")
    store = FramesConfig(videos=str(tmp_path / "clips"), out=str(tmp_path / "frames"))
    build_frames(store)
    values = short_distill(owned, tmp_path / "run", steps=2).model_dump()
    with pytest.raises(FrameStoreError, match="does not hold the videos") as refused:
        distill(DistillConfig.model_validate({**values, "frames": store.out}))
    assert "distinit cache match" in str(refused.value.remedy)


def test_distil_refuses_a_shifted_copy_by_name(
    owned: Path, copies: Path, matched: Path, tmp_path: Path
) -> None:
    rows = [row for row in read_mapping(matched).videos if row.kind in ("exact", "shifted")]
    header = read_mapping(matched).header
    write_mapping(tmp_path / "mapping", rows, header.corpus_digest, header.limits)
    everything = FramesConfig(videos=str(copies), out=str(tmp_path / "frames"))
    build_frames(everything)  # the store holds the shifted copy, too
    values = short_distill(owned, tmp_path / "run", steps=2).model_dump()
    values |= {"frames": everything.out, "match": str(tmp_path / "mapping")}
    left_out = distill(DistillConfig.model_validate(values)).left_out
    assert left_out.refused_by_match == 1
    assert left_out.examples[0] == (
        "shifted.mp4  shifted  shifted.mp4: shifted by 1 frame, its first frame is frame 1 of the "
        "video; it has frames 1 to 39 of 0 to 39"
    )


def test_frames_are_not_built_from_copies_that_changed(
    copies: Path, matched: Path, tmp_path: Path
) -> None:
    clips = shutil.copytree(copies, tmp_path / "clips")
    config = FramesConfig(videos=str(clips), match=str(matched), out=str(tmp_path / "frames"))
    shutil.copy(clips / "half.mkv", clips / "crf.mp4")
    with pytest.raises(MatchError, match="1 copy changed since the match") as changed:
        build_frames(config)
    assert changed.value.found == "crf.mp4"
    (clips / "x7f3.mkv").unlink()
    with pytest.raises(CorpusError, match="copies that the mapping file names") as gone:
        build_frames(config)
    assert gone.value.found == "x7f3.mkv (no such file)"
    with pytest.raises(ConfigError, match="by their path below a folder"):
        build_frames(config.model_copy(update={"videos": str(clips / "half.mkv")}))


def test_a_mapping_for_another_cache_is_refused(owned: Path, matched: Path, tmp_path: Path) -> None:
    clip = encode_frames(tmp_path / "other" / "a.mp4", drifting_frames(8, 1))
    other = extract_null(clip.parent, tmp_path / "extracted")
    values = short_distill(other, tmp_path / "run", steps=2).model_dump()
    with pytest.raises(MatchError, match="not for the cache"):
        distill(DistillConfig.model_validate({**values, "match": str(matched)}))


def test_urls_and_outputs_inside_the_cache_are_refused(owned: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="URLs cannot be matched"):
        run_match(owned, "s3://bucket/clips", tmp_path / "mapping")
    with pytest.raises(ConfigError, match="nothing else is written there"):
        run_match(owned, owned / "videos", owned / "cache" / "mapping")
