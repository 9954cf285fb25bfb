"""The audit of a small real cache: exact statistics, a self-contained page, escaped text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner
from helpers.caches import planned_video
from PIL import Image

from distinit.cli import main
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.audit import AuditConfig, AuditResult
from distinit.schemas.errors import CacheError, ConfigError, FrameStoreError
from distinit.schemas.frames import FlowSpec, FrameGeometry
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.teacher import PreprocessSpec, TeacherIdentity, TeacherRecord, WeightsRecipe
from distinit.schemas.video import SamplingConfig
from distinit.stages.audit import audit

CERTAIN, HALF, UNIFORM = [50.0, 0, 0, 0], [0, 50.0, 50.0, 0], [0.0, 0, 0, 0]
LOGITS = {
    "mixed.mp4": [CERTAIN, CERTAIN, HALF, UNIFORM],  # entropies 0, 0, ln 2, ln 4
    "unsure.mp4": [UNIFORM] * 70,  # longer than one unit of 64 rows
    "half <b>&amp;.mp4": [HALF] * 2,
}
BROKEN = "broken <script>.mp4"
LABELS = ("<img src=x onerror=alert(1)>", '"quoted" & $math$', "cat", "猫")
ERROR = "moov atom not found <script>"


def digest_of(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


def id_of(path: str) -> str:
    return digest_of(path)[:16]


def make_record(teacher_id: str, target: str) -> TeacherRecord:
    preprocessing = PreprocessSpec(
        resize_mode="short_edge", resize_size=256, crop_size=224, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    identity = TeacherIdentity.model_validate(
        {
            "architecture": "test/<i>net</i>",
            "weights_sha256": "c0ffee" + "0" * 58,
            "preprocessing": preprocessing,
            "target": target,
            "classes": 4,
            "label_space": "test-4",
            "label_names": LABELS if target == "logits" else (),
        }
    )
    return TeacherRecord(
        id=teacher_id,
        fingerprint=identity.fingerprint,
        identity=identity,
        encoding="float16",
        batch_size=4,
        software={"torch": "<u>2</u>"},
        recipe=WeightsRecipe(name="<b>V2</b>", softened_by=("mixup",)),
    )


def write_cache(root: Path, records: list[TeacherRecord], *, finish: bool = True) -> None:
    planned = []
    for path in (*LOGITS, BROKEN):
        rows = len(LOGITS.get(path, [0] * 3))
        planned.append(planned_video(digest_of(path), path, rows))
    with CacheWriter.create_or_open(
        root,
        videos=planned,
        sampling=SamplingConfig(),
        teachers={record.id: record for record in records},
        unit_rows=64,
    ) as writer:
        for spec in writer.pending_groups() if finish else ():
            with GroupWriter(spec) as group:
                for video in spec.videos:
                    failed = video.path == BROKEN
                    outcome = VideoOutcome(
                        video_id=video.video_id,
                        status="failed" if failed else "ok",
                        frame_count=video.reserved_rows,
                        width=64,
                        height=48,
                        duration_seconds=1.0,
                        error=ERROR if failed else None,
                    )
                    if failed:
                        group.fail_video(outcome)
                        continue
                    index_N = np.arange(video.reserved_rows)
                    logits_NC = np.array(LOGITS[video.path], np.float32)
                    targets = {record.id: logits_NC for record in records}
                    hash_N = index_N.astype(np.uint64)
                    group.add(video, index_N, index_N, "1/25", hash_N, targets)
                    group.finish_video(outcome)
                group.commit()
        if finish:
            writer.finalise()


def write_store(root: Path, contents: Mapping[str, list[list[float]]] = LOGITS) -> None:
    store = FrameStoreWriter(root, FrameGeometry(), "0" * 64)
    with store.open_unit(0) as unit:
        for path, rows in contents.items():
            frames = np.zeros((len(rows), 128, 171, 3), np.uint8)
            frames[..., 0] = 200
            unit.append(id_of(path), digest_of(path), 0, frames, 25.0)
        unit.commit()
    store.finalise([0])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AuditResult]:
    root = tmp_path_factory.mktemp("audit")
    write_cache(root / "cache", [make_record("net", "logits"), make_record("pool", "features")])
    write_store(root / "frames")
    config = AuditConfig(
        cache=str(root / "cache"), frames=str(root / "frames"), out=str(root / "report")
    )
    return root / "report", audit(config)


class Page(HTMLParser):
    """Parses a page for its tags, links, event handlers and text."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.scripts = 0
        self.handlers: list[str] = []
        self.text = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in {"src", "href", "srcset", "data", "action", "poster"}:
                self.links.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.text += data


def data_of(document: str) -> dict[str, Any]:
    """The numbers in a page."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', document)
    found: dict[str, Any] = json.loads(text)
    return found


def test_videos_frames_and_failures_are_counted(report: tuple[Path, AuditResult]) -> None:
    out, result = report
    assert (result.videos, result.failed_videos, result.frames) == (4, 1, 76)
    assert result.failures[0].path == BROKEN
    assert result.failures[0].error == ERROR
    assert AuditResult.model_validate_json((out / "audit.json").read_bytes()) == result
    assert len(json.loads((out / "audit.json").read_text())["content_digest"]) == 64


def test_the_summary_has_the_statistics_and_the_path_of_the_page(
    report: tuple[Path, AuditResult],
) -> None:
    out, result = report
    lines = result.summary().splitlines()
    assert lines[0] == "3 videos, 76 frames (1 video failed)"
    assert "teacher net: entropy quartiles 1.39 / 1.39 / 1.39 nats" in lines
    assert "   90% of frames have at most 1.386 nats" in lines
    assert any(line.startswith("teacher pool: 76 features of ") for line in lines)
    assert lines[-1] == f"report  {out / 'report.html'}"
    assert "note:" not in result.summary()


def test_kept_fractions_are_exact(report: tuple[Path, AuditResult]) -> None:
    confidence = report[1].teachers[0].confidence
    assert confidence is not None
    kept = {row.max_entropy_nats: row.frames for row in confidence.kept}
    assert list(kept) == [0.125 * k for k in range(1, 13)]
    assert [kept[t] for t in (0.125, 0.625, 0.75, 1.375, 1.5)] == [2, 2, 5, 5, 76]
    assert confidence.kept[0].fraction == 2 / 76
    assert confidence.quartiles_nats == (float(np.float32(math.log(4))),) * 3
    expected_mean = (3 * math.log(2) + 71 * math.log(4)) / 76
    assert confidence.mean_entropy_nats == pytest.approx(expected_mean, abs=1e-6)
    assert sum(confidence.histogram.frames) == 76


def test_classes_and_videos_are_named_and_ordered(report: tuple[Path, AuditResult]) -> None:
    confidence = report[1].teachers[0].confidence
    assert confidence is not None
    classes = [(row.class_index, row.name, row.frames) for row in confidence.top_classes]
    assert classes == [(0, LABELS[0], 73), (1, LABELS[1], 3)]
    assert confidence.classes_seen == 2
    first = [(row.path, row.frames) for row in confidence.most_confident_videos]
    last = [(row.path, row.frames) for row in confidence.least_confident_videos]
    # Means: mixed (ln 2 + ln 4) / 4 = .52, half ln 2 = .69, unsure ln 4.
    assert (first, last) == ([("mixed.mp4", 4), ("half <b>&amp;.mp4", 2)], [("unsure.mp4", 70)])
    best = confidence.most_confident_frames
    assert [row.path for row in best] == ["mixed.mp4", "half <b>&amp;.mp4"]  # half of three
    assert (best[0].frame_index, best[0].top1_name) == (0, LABELS[0])
    assert best[1].top1_probability == pytest.approx(0.5)


def test_feature_teachers_have_no_entropy(report: tuple[Path, AuditResult]) -> None:
    out, result = report
    assert [t.record.id for t in result.teachers] == ["net", "pool"]
    assert result.teachers[1].confidence is None
    assert "its entropy is not defined" in (out / "report.html").read_text()
    found = result.teachers[1].features
    assert found is not None
    assert (found.vectors, found.channels) == (76, result.teachers[1].record.identity.classes)
    assert "Effective rank" in (out / "report.html").read_text()


def test_pictures_are_written(report: tuple[Path, AuditResult]) -> None:
    out, result = report
    figures = [f"{n}.{kind}" for n in ("entropy", "kept", "classes") for kind in ("png", "pdf")]
    names = (*figures, "most-confident.png", "least-confident.png")
    of_features = [f"pool-{n}.{kind}" for n in ("norms", "spectrum") for kind in ("png", "pdf")]
    assert result.pictures == (*(f"net-{name}" for name in names), *of_features)
    sheet = Image.open(out / "net-most-confident.png").convert("RGB")
    assert sheet.size == (10 + 2 * 194, 10 + 184)  # half of three videos, one frame each
    assert np.abs(np.array(sheet.getpixel((60, 60))) - (200, 0, 0)).max() <= 3
    left_over = {path.name for path in out.iterdir()} - {*result.pictures}
    assert left_over == {"report.html", "audit.json", *result.tables}


def test_the_page_refers_to_no_other_file(report: tuple[Path, AuditResult]) -> None:
    document = (report[0] / "report.html").read_text()
    page = Page(document)
    assert "One frame per video: the least confident one" in document
    assert page.links == ["#teacher-1", "#teacher-2"]
    assert set(re.findall(r"https?://\S*", document)) == {'http://www.w3.org/2000/svg";'}
    assert "@import" not in document
    assert set(re.findall(r"url\(.*?\)", document)) == {"url(#kept-1)"}
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', document)
    script = document.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    (teacher,) = data_of(document)["teachers"]
    assert [len(sheet) for sheet in teacher["sheets"]] == [2, 2, 0]
    assert len(document) < 120_000


def test_the_page_shows_hostile_names_as_text(report: tuple[Path, AuditResult]) -> None:
    page = Page((report[0] / "report.html").read_text())
    assert page.tags.isdisjoint({"i", "u"})
    assert (page.scripts, page.handlers) == (2, [])
    hostile = (BROKEN, ERROR, "half <b>&amp;.mp4", "test/<i>net</i>", "<u>2</u>")
    recipe = "<b>V2</b>, trained with mixup: its entropies are higher"
    for text in (*LABELS[:2], *hostile, recipe):
        assert text in page.text


def test_without_a_frame_store_there_are_only_plots(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", [make_record("net", "logits")])
    result = audit(AuditConfig(cache=str(tmp_path / "cache"), out=str(tmp_path / "report")))
    assert [name for name in result.pictures if name.endswith(".png")] == [
        "net-entropy.png",
        "net-kept.png",
        "net-classes.png",
    ]
    assert data_of((tmp_path / "report/report.html").read_text())["images"] == []
    confidence = result.teachers[0].confidence
    assert confidence is not None
    assert len(confidence.most_confident_frames) == 2  # still listed in audit.json


@pytest.mark.parametrize(
    ("contents", "note", "pictures"),
    [
        (
            {"mixed.mp4": LOGITS["mixed.mp4"]},
            "{count} of {frames} frames missing from the contact sheets: {store} does not contain "
            "their videos",
            8,
        ),
        (
            {"other.mp4": [CERTAIN]},
            "no contact sheets: {store} contains none of the videos they would show; pass the "
            "frame store of the videos of this cache",
            6,
        ),
    ],
)
def test_frames_of_videos_that_the_store_lacks_are_counted(
    contents: Mapping[str, list[list[float]]], note: str, pictures: int, tmp_path: Path
) -> None:
    write_cache(tmp_path / "cache", [make_record("net", "logits")])
    write_store(tmp_path / "store", contents)
    result = audit(
        AuditConfig(
            cache=str(tmp_path / "cache"),
            frames=str(tmp_path / "store"),
            out=str(tmp_path / "report"),
        )
    )
    confidence = result.teachers[0].confidence
    assert confidence is not None
    samples = (*confidence.most_confident_frames, *confidence.least_confident_frames)
    shown = {(sample.path, sample.frame_index) for sample in samples}
    count = sum(path != "mixed.mp4" for path, _ in shown)
    expected = note.format(count=count, frames=len(shown), store=tmp_path / "store")
    assert result.teachers[0].sheet_note == expected
    assert f"  note: {expected}" in result.summary().splitlines()
    assert f"Note: {expected}" in Page((tmp_path / "report/report.html").read_text()).text
    assert len(result.pictures) == pictures


def test_an_unfinished_cache_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", [make_record("net", "logits")], finish=False)
    with pytest.raises(CacheError, match="not complete"):
        audit(AuditConfig(cache=str(tmp_path / "cache"), out=str(tmp_path / "report")))
    assert not (tmp_path / "report").exists()


def test_a_flow_store_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", [make_record("net", "logits")])
    spec = FlowSpec(flow_range=20, jpeg_quality=95, opencv="test")
    FrameStoreWriter(tmp_path / "flow", FrameGeometry(), "0" * 64, spec).finalise([])
    config = AuditConfig(
        cache=str(tmp_path / "cache"), frames=str(tmp_path / "flow"), out=str(tmp_path / "out")
    )
    with pytest.raises(FrameStoreError, match="contains optical flow"):
        audit(config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["cache", "cache/teachers", "store"])
def test_a_report_inside_a_cache_or_store_is_refused(tmp_path: Path, name: str) -> None:
    write_cache(tmp_path / "cache", [make_record("teacher", "logits")])
    write_store(tmp_path / "store")
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / name
    with pytest.raises(ConfigError, match="nothing else is written there"):
        audit(AuditConfig(cache=str(tmp_path / "cache"), out=str(out)))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_tables_have_the_numbers_of_the_page(report: tuple[Path, AuditResult]) -> None:
    out, result = report
    assert result.tables == ("audit.parquet", "audit-classes.parquet", "audit-videos.parquet")
    of = f"FROM '{out}/audit.parquet' WHERE max_entropy_nats = "
    row = duckdb.sql(f"SELECT kept_frames, kept_clips_share, kept_videos, classes_left {of} 0.75")
    # Clips of 8 frames: mixed.mp4 has one clip, of whose 8 frames 6 are kept.
    assert row.fetchall() == [(5, pytest.approx((3 / 4 + 0 + 1) / 3), 2, 2)]
    classes = duckdb.sql(
        f"SELECT class_index, name, frames FROM '{out}/audit-classes.parquet' ORDER BY class_index"
    )
    assert classes.fetchall() == list(zip(range(4), LABELS, (73, 3, 0, 0), strict=True))
    videos = duckdb.sql(f"SELECT path, frames FROM '{out}/audit-videos.parquet' ORDER BY frames")
    assert videos.fetchall() == [("half <b>&amp;.mp4", 2), ("mixed.mp4", 4), ("unsure.mp4", 70)]


def test_met_conditions_fail_the_command(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", [make_record("net", "logits")])
    line = ["audit", str(tmp_path / "cache"), "--out", str(tmp_path / "report"), "--fail-if"]
    good = CliRunner().invoke(main, [*line, "kept(0.75) < .06"])
    assert (good.exit_code, "failed:" in good.output) == (0, False)
    bad = CliRunner().invoke(main, [*line, "kept(0.75) < .07", "--fail-if", "videos_failed > .2"])
    assert bad.exit_code == 1
    failed = [text for text in bad.output.splitlines() if text.startswith("failed: ")]
    assert failed == [
        "failed: kept(0.75) < 0.07: found 0.0657895 for net",
        "failed: videos_failed > 0.2: found 0.25",
    ]
    assert (tmp_path / "report/report.html").is_file()
    wrong = CliRunner().invoke(main, [*line, "kept < 1"])
    assert (wrong.exit_code, "kept(NATS)" in wrong.output) == (2, True)
