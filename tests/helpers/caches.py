"""Tiny caches: a corpus of a few videos, two teachers with made-up logits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from distinit.pipeline.cache.cards import checksum_lines
from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import PlannedRows, PlannedVideo
from distinit.pipeline.cache.tree import list_tree
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.records import file_entry
from distinit.schemas.corpus import ProbeSummary, VideoFile
from distinit.schemas.manifest import CacheManifest, UnitCommit, VideoOutcome
from distinit.schemas.teacher import PreprocessSpec, TeacherIdentity, TeacherRecord
from distinit.schemas.video import SamplingConfig

CAPACITY = 64
CLASSES = 7


def make_teacher(
    teacher_id: str,
    *,
    classes: int = CLASSES,
    encoding: str = "float16",
    target: str = "logits",
    weights: str = "0" * 64,
    pool: str | None = None,
) -> TeacherRecord:
    preprocessing = PreprocessSpec(
        resize_mode="short_edge",
        resize_size=8,
        crop_size=8,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    identity = TeacherIdentity.model_validate(
        {
            "architecture": "test/tiny",
            "weights_sha256": weights,
            "preprocessing": preprocessing,
            "target": target,
            "classes": classes,
            "label_space": f"test-{classes}",
            "label_names": (),
            "pool": pool,
        }
    )
    return TeacherRecord(
        id=teacher_id,
        fingerprint=identity.fingerprint,
        identity=identity,
        encoding=encoding,
        batch_size=4,
        software={"distinit": "test"},
    )


def planned_video(digest: str, path: str, rows: int, *, frames: int | None = None) -> PlannedVideo:
    """A video whose probe found ``frames`` (default: one per row)."""
    file = VideoFile(digest[:16], path, digest, size_bytes=1000, mtime_ns=1)
    return PlannedVideo(file, ProbeSummary(rows if frames is None else frames, 25.0), rows)


def with_file(video: PlannedVideo, root: Path) -> PlannedVideo:
    """The video with the size and time of its file below ``root``."""
    found = (root / video.file.path).stat()
    file = replace(video.file, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns)
    return replace(video, file=file)


def make_planned(name: str, rows: int) -> PlannedVideo:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return planned_video(digest, f"{name}.mp4", rows)


Outputs = Callable[[str, TeacherRecord, np.ndarray], np.ndarray]
"""(video_id, teacher, frame indices) -> fp32 [N, C]."""


def logits_of(video_id: str, teacher: TeacherRecord, index_N: np.ndarray) -> np.ndarray:
    """fp32 [N, C], a function of (video, teacher, frame) only."""
    out = []
    for i in index_N:
        key = hashlib.sha256(f"{video_id}/{teacher.id}/{int(i)}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
        out.append(3 * rng.standard_normal(teacher.identity.classes))
    return np.array(out, np.float32).reshape(len(index_N), teacher.identity.classes)


def hash_of(video_id: str, index_N: np.ndarray) -> np.ndarray:
    return index_N.astype(np.uint64) * np.uint64(2**40) + np.uint64(int(video_id[:8], 16))


def outcome_of(video_id: str, frames: int, error: str | None = None) -> VideoOutcome:
    status = "failed" if error else "ok"
    return VideoOutcome(
        video_id=video_id,
        status=status,
        frame_count=frames,
        width=64,
        height=48,
        duration_seconds=frames / 25,
        error=error,
    )


@dataclass
class Corpus:
    """Made-up videos: number of frames by name; decoding the ``broken`` ones fails at the end."""

    frames: dict[str, int]
    broken: frozenset[str] = frozenset()
    announced: dict[str, int] = field(default_factory=dict)

    @property
    def planned(self) -> list[PlannedVideo]:
        return [make_planned(n, self.announced.get(n, f)) for n, f in self.frames.items()]

    def name_of(self, video: PlannedRows | PlannedVideo) -> str:
        file = video.file if isinstance(video, PlannedVideo) else video.video.file
        return file.path.removesuffix(".mp4")

    def id_of(self, name: str) -> str:
        return make_planned(name, 0).file.video_id


def run_task(
    spec: GroupSpec,
    corpus: Corpus,
    block: int = 10,
    commit: bool = True,
    outputs: Outputs = logits_of,
) -> tuple[UnitCommit, ...]:
    """Do what a worker does, without pixels; with ``commit=False``, stop before the commit."""
    task = GroupWriter(spec)
    for video in spec.videos:
        name = corpus.name_of(video)
        frames = corpus.frames[name]
        for start in range(0, frames, block):
            index_N = np.arange(start, min(start + block, frames))
            logits = {t.id: outputs(video.video_id, t, index_N) for t in spec.teachers}
            hash_N = hash_of(video.video_id, index_N)
            task.add(video, index_N, index_N * 512, "1/12800", hash_N, logits)
        if name in corpus.broken:
            task.fail_video(outcome_of(video.video_id, frames, "made to fail"))
        else:
            task.finish_video(outcome_of(video.video_id, frames))
    return task.commit() if commit else ()


def run_all(
    root: Path,
    corpus: Corpus,
    teachers: Iterable[TeacherRecord],
    *,
    block: int = 10,
    order: Callable[[list[GroupSpec]], Iterable[GroupSpec]] = list,
    sampling: SamplingConfig | None = None,
    outputs: Outputs = logits_of,
) -> CacheManifest:
    """Do what the driver does: run all pending groups and finalise the cache."""
    with open_writer(root, corpus, teachers, sampling=sampling) as writer:
        while True:
            specs = writer.pending_groups()
            for spec in order(list(specs)):
                run_task(spec, corpus, block, outputs=outputs)
            if not specs and not writer.replan_spilled():
                return writer.finalise()


def open_writer(
    root: Path,
    corpus: Corpus,
    teachers: Iterable[TeacherRecord],
    *,
    sampling: SamplingConfig | None = None,
    unit_rows: int | None = CAPACITY,
) -> CacheWriter:
    records: Mapping[str, TeacherRecord] = {t.id: t for t in teachers}
    return CacheWriter.create_or_open(
        root,
        videos=corpus.planned,
        sampling=sampling or SamplingConfig(),
        teachers=records,
        unit_rows=unit_rows,
    )


def resign(root: Path) -> None:
    """Do what an attacker would: make all commit records and checksums match the files."""
    layout = CacheLayout(root)
    for path in root.glob("teachers/*/commits/*.json"):
        commit = json.loads(path.read_text())
        commit["files"] = {n: file_entry(root / n).model_dump() for n in commit["files"]}
        path.write_text(UnitCommit.model_validate(commit).resealed().model_dump_json())
    layout.checksums.write_text(checksum_lines(layout, list_tree(layout).files, {}))


CORPUS = Corpus(
    frames={"a": 30, "b": 30, "c": 150, "d": 5, "e": 64, "bad": 20},
    broken=frozenset({"bad"}),
)
TEACHERS = (make_teacher("alpha"), make_teacher("beta", classes=5, encoding="int8"))
