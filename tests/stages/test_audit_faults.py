"""Each planted fault is on the first screen of the audit; a sound cache has no warnings."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers import caches
from helpers.progress import RecordingProgress
from helpers.pulls import pull
from helpers.videos import make_video
from playwright.sync_api import Browser

from distinit.cli import main
from distinit.pipeline.cache.copies import Selection
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.audit import AuditConfig, AuditResult
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.teacher import TeacherRecord
from distinit.stages.audit import audit
from distinit.stages.extract import extract

FRAMES, VIDEOS, CLASSES = 30, 12, 7
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "10", "-g", "10")
Logits = Callable[[int, np.ndarray], np.ndarray]
"""(number of the video, labels of its frames [N]) -> logits [N, C]"""


def sure_of(number: int, label_N: np.ndarray) -> np.ndarray:
    """A teacher that is right, and more or less sure."""
    rng = np.random.default_rng(number)
    logits_NC = rng.normal(0, 0.3, (FRAMES, CLASSES))
    logits_NC[np.arange(FRAMES), label_N] += 2 + 3 * rng.random()
    return logits_NC


def write_cache(
    root: Path,
    teachers: Mapping[str, Logits],
    hashes: Mapping[int, np.ndarray] | None = None,
    broken: frozenset[str] = frozenset(),
    videos: int = VIDEOS,
) -> dict[str, str]:
    """Write a cache; returns the label of each path, of 2 of 3 videos."""
    records: list[TeacherRecord] = [caches.make_teacher(name) for name in teachers]
    corpus = caches.Corpus({f"v{number:02}": FRAMES for number in range(videos)}, broken)
    labels = {}
    with caches.open_writer(root, corpus, records) as writer:
        for spec in writer.pending_groups():
            group = GroupWriter(spec)
            for video in spec.videos:
                name = corpus.name_of(video)
                number = int(name[1:])
                label_N = np.full(FRAMES, number % CLASSES)
                if number % 3:
                    labels[f"{name}.mp4"] = str(number % CLASSES)
                rng = np.random.default_rng(100 + number)
                flips = np.uint64(1) << rng.integers(0, 64, FRAMES).astype(np.uint64)
                flips[0] = rng.integers(2**63)
                hash_N = np.bitwise_xor.accumulate(flips)
                hash_N = (hashes or {}).get(number, hash_N)
                index_N = np.arange(FRAMES)
                outputs = {
                    t: made(number, label_N).astype(np.float32) for t, made in teachers.items()
                }
                group.add(video, index_N, index_N, "1/25", hash_N, outputs)
                if name in broken:
                    group.fail_video(caches.outcome_of(video.video_id, FRAMES, "broken"))
                else:
                    group.finish_video(caches.outcome_of(video.video_id, FRAMES))
            group.commit()
        writer.finalise()
    return labels


def audited(tmp_path: Path, **settings: object) -> AuditResult:
    values = {"cache": str(tmp_path / "cache"), "out": str(tmp_path / "report"), **settings}
    return audit(AuditConfig.model_validate(values))


def kinds(result: AuditResult) -> list[str]:
    """The warnings, which must all be on the first screen of the page."""
    page = Path(result.report).read_text()
    header = page[page.index("<header>") : page.index("</header>")]
    for warning in result.warnings:
        assert f"<strong>{warning.kind.capitalize()}" in header
    return [warning.kind for warning in result.warnings]


def test_a_sound_cache_has_no_warnings(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", {"good": sure_of})
    assert kinds(audited(tmp_path)) == []


def test_faulty_videos_are_found(tmp_path: Path) -> None:
    moving = np.random.default_rng(1).integers(2**63, size=FRAMES).astype(np.uint64)
    hashes = {
        2: np.zeros(FRAMES, np.uint64),
        3: np.full(FRAMES, 0x1234_5678_9ABC_DEF0, np.uint64),
        4: moving,
        5: moving ^ np.uint64(1),
        6: np.where(np.isin(np.arange(FRAMES), (7, 15, 22)), moving, ~moving),  # no copy
    }
    write_cache(tmp_path / "cache", {"good": sure_of}, hashes, frozenset({"v07", "v08"}))
    result = audited(tmp_path)
    assert {warning.kind: warning.videos for warning in result.warnings} == {
        "failed videos": tuple(f.path for f in result.failures),
        "small share of the corpus": (),
        "black or single-colour videos": ("v02.mp4",),
        "frozen videos": ("v03.mp4",),
        "duplicate videos": result.warnings[-1].videos,
    }
    assert set(result.warnings[-1].videos[0].split(" = ")) == {"v04.mp4", "v05.mp4"}
    assert len(kinds(result)) == 5
    printed = [line for line in result.summary().splitlines() if line.startswith("warning: ")]
    assert len(printed) == 5
    assert "warning: frozen videos: 1 video that show one picture only: v03.mp4" in printed


def test_videos_that_were_really_damaged_are_found(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    make_video(videos / "good.mp4", frames=12)
    cut = make_video(videos / "cut.mkv", 40, (160, 120), args=H264)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 6 // 10])
    bad = make_video(videos / "bad.avi", 30, (160, 120), args=("-c:v", "mpeg4", "-g", "10"))
    data = bytearray(bad.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 16] = random.Random(0).randbytes(16)
    bad.write_bytes(data)
    (videos / "none.mp4").write_bytes(b"not a video")
    extract(
        ExtractConfig.model_validate(
            {
                "videos": str(videos),
                "teachers": [{"name": "null"}],
                "cache": str(tmp_path / "cache"),
                "max_failed": 0.5,
            }
        )
    )
    result = audited(tmp_path, fail_if=["videos_damaged > .4", "videos_failed > .3"])
    found = {warning.kind: (warning.text, set(warning.videos)) for warning in result.warnings}
    assert found["damaged videos"] == (
        "2 of 4 videos; frames are or may be missing from 1 of them",
        {"cut.mkv", "bad.avi"},
    )
    assert found["failed videos"] == ("1 of 4 videos could not be used", {"none.mp4"})
    assert {"damaged videos", "failed videos", "small share of the corpus"} <= set(kinds(result))
    assert (result.damaged_videos, result.failed_videos) == (2, 1)
    assert result.failed_conditions == ("videos_damaged > 0.4: found 0.5",)


def test_a_partial_copy_counts_its_own_frames_only(tmp_path: Path) -> None:
    caches.run_all(tmp_path / "cache", caches.CORPUS, caches.TEACHERS)
    pull(tmp_path / "cache", tmp_path / "part", Selection(("beta",), "1"))
    rows = sum(pq.read_table(path).num_rows for path in (tmp_path / "part/frames").iterdir())
    everything = TargetCache.open(tmp_path / "cache").manifest.row_space.rows
    for name, expected in (("part", rows), ("cache", everything)):
        progress = RecordingProgress()
        config = AuditConfig(cache=str(tmp_path / name), out=str(tmp_path / "report"))
        result = audit(config, progress=progress)
        assert progress.started == [("audit", expected, "frames", 0)]
        assert progress.advanced == result.frames == expected
    assert 0 < rows < everything


def write_blurred_and_dark_frames(root: Path) -> None:
    """Write a frame store in which v00 is sharp, v01 blurred and v02 dark."""
    store = FrameStoreWriter(root, FrameGeometry(), "0" * 64)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (FRAMES, 128, 171, 3)).astype(np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, 171)[:, None], (FRAMES, 128, 171, 3)).astype(
        np.uint8
    )
    with store.open_unit(0) as unit:
        for number, frames in ((0, noise), (1, ramp), (2, np.zeros_like(noise))):
            video = caches.make_planned(f"v{number:02}", 0).file
            unit.append(video.video_id, video.digest, 0, frames, 25.0)
        unit.commit()
    store.finalise([0])


def test_blurred_and_dark_videos_are_found_in_the_frame_store(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", {"good": sure_of})
    write_blurred_and_dark_frames(tmp_path / "frames")
    found = audited(tmp_path, frames=str(tmp_path / "frames"))
    assert {warning.kind: warning.videos for warning in found.warnings} == {
        "blurred videos": ("v01.mp4",),
        "dark videos": ("v02.mp4",),
    }
    assert kinds(found) == ["blurred videos", "dark videos"]


def constant(number: int, label_N: np.ndarray) -> np.ndarray:
    return np.tile(np.arange(CLASSES) * 2.0, (len(label_N), 1))


def mixed_up(number: int, label_N: np.ndarray) -> np.ndarray:
    return sure_of(number, np.random.default_rng(number).integers(0, CLASSES, FRAMES))


def unsure(number: int, label_N: np.ndarray) -> np.ndarray:
    return 0.4 * sure_of(number, label_N)


def permuted(number: int, label_N: np.ndarray) -> np.ndarray:
    return np.roll(sure_of(number, label_N), 2, axis=1)


FAULTY_TEACHERS: Mapping[str, Logits] = {
    "a_good": sure_of,
    "b_permuted": permuted,
    "c_constant": constant,
    "d_mixed": mixed_up,
    "e_unsure": unsure,
}


def test_faulty_teachers_are_found(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", FAULTY_TEACHERS, videos=4 * CLASSES)
    result = audited(tmp_path)
    found = {(warning.teacher, warning.kind) for warning in result.warnings}
    assert found == {
        (None, "permuted classes suspected"),
        ("c_constant", "uninformative outputs"),
        ("c_constant", "dead classes"),
        ("c_constant", "near-constant outputs"),
        ("d_mixed", "wrong preprocessing or mixed-up rows suspected"),
        ("e_unsure", "wrong preprocessing suspected"),
    }
    kinds(result)


def test_all_faults_at_once_are_on_the_first_screen(tmp_path: Path, browser: Browser) -> None:
    moving = np.random.default_rng(1).integers(2**63, size=FRAMES).astype(np.uint64)
    hashes = {9: np.zeros(FRAMES, np.uint64), 3: np.full(FRAMES, moving[0]), 4: moving, 5: moving}
    broken = frozenset({"v07", "v08", "v15", "v16"})
    write_cache(tmp_path / "cache", FAULTY_TEACHERS, hashes, broken, videos=4 * CLASSES)
    write_blurred_and_dark_frames(tmp_path / "frames")
    result = audited(tmp_path, frames=str(tmp_path / "frames"))
    found = kinds(result)
    assert set(found) >= {
        "failed videos",
        "small share of the corpus",
        "black or single-colour videos",
        "frozen videos",
        "duplicate videos",
        "blurred videos",
        "dark videos",
        "permuted classes suspected",
        "uninformative outputs",
        "dead classes",
        "near-constant outputs",
        "wrong preprocessing or mixed-up rows suspected",
        "wrong preprocessing suspected",
    }
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(Path(result.report).resolve().as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    boxes = [line.bounding_box() for line in page.locator("header .warnings > li").all()]
    page.close()
    assert len(boxes) == len(found)
    assert [box for box in boxes if box is None or box["y"] + box["height"] > 900] == []


def test_labels_and_other_caches_are_on_the_page(tmp_path: Path) -> None:
    labels = write_cache(tmp_path / "cache", {"good": sure_of})
    write_cache(tmp_path / "other", {"good": lambda n, label_N: 0.5 * sure_of(n, 0 * label_N)})
    (tmp_path / "l.csv").write_text(
        "path,label\n" + "".join(f"{path},{label}\n" for path, label in labels.items())
    )
    plain = Path(audited(tmp_path).report).read_text()
    assert "confidence, not calibration" in plain
    result = audited(
        tmp_path,
        labels=str(tmp_path / "l.csv"),
        compare=[str(tmp_path / "other")],
        fail_if=["accuracy < 1", "ece > 0.9"],
    )
    assert "labels that are no class" not in kinds(result)
    found = result.teachers[0].labels
    assert found is not None
    assert (found.videos, found.frames, found.accuracy) == (8, 240, 1)
    assert result.failed_conditions == ()
    (drift,) = result.drifts
    assert (drift.teacher, drift.same_teacher, drift.frames) == ("good", True, 360)
    assert drift.class_distance.value == pytest.approx(10 / 12), "2 of 12 are of class 0"
    distance = drift.entropy_distance
    assert distance.low is not None
    assert distance.noise is not None
    assert distance.low > distance.noise
    page = Path(result.report).read_text()
    assert "confidence, not calibration" not in page
    assert re.search(r"Reliability diagram", page)
    assert "Drift of <code>good</code>" in page
    names = {"good-reliability.png", "good-reliability.pdf", "drift-1-good.png", "drift-1-good.pdf"}
    assert names <= set(result.pictures)


def test_conditions_that_cannot_be_checked_are_refused(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", {"good": sure_of})
    line = ["audit", str(tmp_path / "cache"), "--out", str(tmp_path / "report"), "--fail-if"]
    for condition in ("accuracy < .5", "ece > .1"):
        done = CliRunner().invoke(main, [*line, condition])
        assert (done.exit_code, "add --labels CSV" in done.output) == (2, True), done.output
    assert not (tmp_path / "report").exists()
    (tmp_path / "labels.csv").write_text("path,label\nv00.mp4,no such class\n")
    done = CliRunner().invoke(main, [*line, "ece > .1", "--labels", str(tmp_path / "labels.csv")])
    assert (done.exit_code, "no frame with a label" in done.output) == (2, True), done.output


def test_labels_that_are_no_class_are_on_the_terminal(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", {"good": sure_of})
    (tmp_path / "l.csv").write_text("path,label\nv00.mp4,0\nv01.mp4,no such class\n")
    result = audited(tmp_path, labels=str(tmp_path / "l.csv"))
    assert (
        "warning: labels that are no class (good): 1 label that this teacher does not have, such "
        "as no such class; their videos are not part of the calibration"
    ) in result.summary().splitlines()
    assert "30, from 1 video<" in Path(result.report).read_text()
