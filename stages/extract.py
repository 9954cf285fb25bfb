"""Stage 1: videos and frozen teachers -> target cache and frame store."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from distinit.pipeline.cache.completion import ExtractCommand, missing_lines
from distinit.pipeline.cache.copies import refuse_copy
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.output_stats import output_report
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.compute.executor import Executor
from distinit.pipeline.compute.in_process import InProcessExecutor
from distinit.pipeline.compute.ray_actors import RayExecutor
from distinit.pipeline.corpus.listing import Corpus
from distinit.pipeline.corpus.spool import Spool
from distinit.pipeline.extraction.driver import run_tasks
from distinit.pipeline.extraction.failures import too_many_failures
from distinit.pipeline.extraction.probing import Prober, plan_videos
from distinit.pipeline.extraction.refill import refill_store
from distinit.pipeline.extraction.task import WorkerSpec
from distinit.pipeline.extraction.worker import ExtractionWorker
from distinit.pipeline.frames.writer import FrameStoreWriter, store_lock
from distinit.pipeline.output_paths import refuse_inside_data, refuse_nested
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.teachers.fingerprint import software_versions
from distinit.pipeline.teachers.registry import load_teachers
from distinit.pipeline.transport.secrets import refuse_stated_secrets
from distinit.pipeline.video.binary import find_ffmpeg
from distinit.schemas.errors import (
    TeacherError,
    TooManyFailuresError,
)
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.output_reports import OutputReport
from distinit.schemas.provenance import Provenance
from distinit.schemas.teacher import (
    TeacherIdentity,
    TeacherRecord,
    TeacherRequest,
    identity_differences,
)
from distinit.schemas.wording import counted
from distinit.stages.extract_corpus import CurrentCorpus, list_current_corpus
from distinit.stages.extract_precision import resolve_precision
from distinit.stages.extract_repair import find_damage_to_repair
from distinit.stages.extract_result import ExtractResult, FailedVideo
from distinit.stages.extract_tasks import pending_tasks, report_removed

__all__ = ["ExtractResult", "FailedVideo", "extract"]

_SHOWN = 20


def extract(config: ExtractConfig, *, progress: Progress | None = None) -> ExtractResult:
    """Fill the cache of ``config``: create it, resume it, or add videos or teachers to it.

    Raises ConfigError, CorpusError, TeacherError, WeightsError and CacheError before any video is
    decoded; StorageError if the disk cannot be written, after which rerunning the same command
    resumes; and TooManyFailuresError as soon as too many videos have failed. All good videos are
    committed.
    """
    began = time.monotonic()
    progress = progress or NullProgress()
    given, config = config, _with_absolute_paths(config)
    _check_output_paths(config)
    refuse_stated_secrets(config.provenance)
    precision = resolve_precision(config)
    config = config.model_copy(update={"precision": precision})
    repair = find_damage_to_repair(config, progress)
    # With Ray workers, the driver may have no GPU: it only needs the identity of the teachers.
    # They are loaded before the videos are read: hashing a large corpus takes long.
    teachers = _load_teachers(config, "cpu" if config.compute.workers else config.device)
    prober = Prober(config.decode, config.sampling)
    current = list_current_corpus(config, Spool.of(config.spool), prober, progress)
    if repair is not None:
        current = repair.begin(current, teachers)
    corpus = current.corpus
    records = {
        name: _teacher_record(config, teacher, request)
        for (name, teacher), request in zip(teachers.items(), config.teachers, strict=True)
    }
    with _open_cache(config, current, prober, records, progress) as writer, _store_lock(config):
        writer.describe(config.provenance)
        current.record_in(writer)
        retried = current.videos_to_retry(writer, retry_failed=config.retry_failed)
        writer.replan(list(plan_videos(prober, corpus.source, retried)))
        store = _open_store(config, writer)
        frames_done = _run_tasks(config, corpus, writer, teachers, progress)
        if store is not None:
            refill_store(writer, store, corpus, config.decode, progress)
        manifest = writer.finalise(progress)
        if store is not None and manifest.complete:
            store.finalise(group.first_unit for group in writer.plan.groups)
        if repair is not None:
            repair.report(manifest, progress)
        _report_signature(writer, progress)
        result = _result(given, current, writer, manifest, frames_done, time.monotonic() - began)
    _check_failures(config, result)
    return result


def _with_absolute_paths(config: ExtractConfig) -> ExtractConfig:
    """``config`` with absolute paths: workers on other nodes have another working folder."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).absolute())

    teachers = tuple(t.model_copy(update={"weights": absolute(t.weights)}) for t in config.teachers)
    paths = {"cache": absolute(config.cache), "frames": absolute(config.frames)}
    return config.model_copy(update={"teachers": teachers, **paths})


def _check_output_paths(config: ExtractConfig) -> None:
    refuse_inside_data(Path(config.cache).parent)
    refuse_copy(CacheLayout(Path(config.cache)))
    if config.frames is not None:
        refuse_nested(Path(config.cache), Path(config.frames))
        refuse_inside_data(Path(config.frames).parent)


def _load_teachers(config: ExtractConfig, device: str) -> dict[str, Teacher]:
    return load_teachers(
        config.teachers,
        device=device,
        precision=config.precision,
        batch_size=config.batch_size,
        compiled=config.compile,
    )


def _teacher_record(
    config: ExtractConfig, teacher: Teacher, request: TeacherRequest
) -> TeacherRecord:
    return TeacherRecord(
        id=teacher.id,
        fingerprint=teacher.identity.fingerprint,
        identity=teacher.identity,
        encoding=request.encoding,
        precision=teacher.precision,
        batch_size=config.batch_size,
        compiled=config.compile,
        device=config.device if config.compute.workers else teacher.device,
        software={**software_versions(), "ffmpeg": find_ffmpeg().version},
        name=request.name,
        weights_file=None if request.weights is None else Path(request.weights).name,
        recipe=teacher.recipe,
    )


def _open_cache(
    config: ExtractConfig,
    current: CurrentCorpus,
    prober: Prober,
    records: Mapping[str, TeacherRecord],
    progress: Progress,
) -> CacheWriter:
    new_videos = current.new_videos
    if new_videos:
        progress.start("probe", len(new_videos), "videos")
    videos = []
    for video in plan_videos(prober, current.corpus.source, new_videos):
        videos.append(video)
        progress.advance()
    progress.finish()
    writer = CacheWriter.create_or_open(
        Path(config.cache),
        videos=videos,
        sampling=config.sampling,
        teachers=records,
        unit_rows=config.unit_rows,
    )
    _report_repairs(writer.repairs, progress)
    return writer


def _report_repairs(repairs: Sequence[str], progress: Progress) -> None:
    for line in repairs[:_SHOWN]:
        progress.message(f"repair: {line}")
    if len(repairs) > _SHOWN:
        progress.message(f"repair: ... {len(repairs) - _SHOWN} more")


def _report_signature(writer: CacheWriter, progress: Progress) -> None:
    if writer.outdated_signature:
        name, sign = writer.layout.signature.name, "distinit cache sign"
        progress.message(
            f"warning: {name} signs this cache as it was before: sign it again with `{sign}`"
        )


def _run_tasks(
    config: ExtractConfig,
    corpus: Corpus,
    writer: CacheWriter,
    teachers: Mapping[str, Teacher],
    progress: Progress,
) -> int:
    """Run all pending tasks, then those of videos with more rows than planned."""
    executor: Executor | None = None
    frames_done = 0
    failed = len(writer.failed_videos()) + len(corpus.unavailable)
    planned = writer.plan.latest.values()
    video_count = sum(entry.in_corpus for entry in planned) + len(corpus.unavailable)
    allowed = config.allowed_failures(video_count) - failed
    try:
        while tasks := pending_tasks(writer, replan=not config.repair):
            spec = _worker_spec(config, corpus, writer)
            if executor is None:
                report_removed(tasks, progress)
                executor = _make_executor(config)
            ran = run_tasks(
                executor,
                _worker_factory(config, spec, teachers),
                tasks,
                config.compute.max_attempts,
                allowed,
                progress,
                parallel_videos=spec.parallel_videos,
            )
            frames_done += ran.frame_count
            allowed -= ran.failed_count
            if ran.broken_teacher:
                raise TooManyFailuresError(
                    "a teacher has no usable output for most videos; all good ones are committed",
                    expected="a teacher with finite outputs for most videos",
                    found=ran.broken_teacher,
                    remedy="check this teacher, then rerun the same command to resume",
                )
            if ran.stopped_early:
                break
        return frames_done
    finally:
        if executor is not None:
            executor.close()


def _store_lock(config: ExtractConfig) -> AbstractContextManager[object]:
    return nullcontext() if config.frames is None else store_lock(Path(config.frames))


def _open_store(config: ExtractConfig, writer: CacheWriter) -> FrameStoreWriter | None:
    """Create or open the frame store, and mark its damaged units to be written again."""
    if config.frames is None:
        return None
    store = FrameStoreWriter(Path(config.frames), config.geometry, writer.plan.digest)
    store.pending_units(group.first_unit for group in writer.plan.groups)
    return store


def _make_executor(config: ExtractConfig) -> Executor:
    return RayExecutor(config.compute) if config.compute.workers else InProcessExecutor()


def _worker_spec(config: ExtractConfig, corpus: Corpus, writer: CacheWriter) -> WorkerSpec:
    return WorkerSpec(
        source=replace(corpus.source, root=corpus.root.absolute()),
        frames_root=None if config.frames is None else Path(config.frames).absolute(),
        plan_digest=writer.plan.digest,
        geometry=config.geometry,
        sampling=config.sampling,
        decode=config.decode,
        parallel_videos=config.decode.videos_at_once(_worker_cpus(config)),
    )


def _worker_cpus(config: ExtractConfig) -> float | None:
    return config.compute.cpus_per_worker if config.compute.workers else os.cpu_count()


def _worker_factory(
    config: ExtractConfig,
    spec: WorkerSpec,
    teachers: Mapping[str, Teacher],
) -> Callable[[], ExtractionWorker]:
    """A function that makes a worker: with ``teachers`` in this process, with its own on Ray."""
    if config.compute.workers == 0:
        return lambda: ExtractionWorker(spec, teachers)
    identities = {name: teacher.identity for name, teacher in teachers.items()}
    return lambda: ExtractionWorker(spec, _load_same_teachers(config, identities))


def _load_same_teachers(
    config: ExtractConfig, identities: Mapping[str, TeacherIdentity]
) -> dict[str, Teacher]:
    """Load the teachers on a worker. Raises TeacherError if they differ from the driver's."""
    teachers = _load_teachers(config, config.device)
    for name, teacher in teachers.items():
        if found := identity_differences(identities[name], teacher.identity):
            raise TeacherError(
                f"teacher {name} on worker {socket.gethostname()} differs from that of the driver",
                expected="the same teacher on every node",
                found="\n".join(found),
                remedy="use the same weights file and the same software on all nodes",
            )
    return teachers


def _result(
    config: ExtractConfig,
    current: CurrentCorpus,
    writer: CacheWriter,
    manifest: CacheManifest,
    frames_done: int,
    seconds: float,
) -> ExtractResult:
    damage = writer.state().damage
    reasons = current.corpus.unavailable
    unavailable = tuple(FailedVideo(path=path, error=why) for path, why in reasons.items())
    return ExtractResult(
        cache=config.cache,
        frames_store=config.frames,
        content_digest=manifest.content_digest,
        complete=manifest.complete,
        missing=_missing(config, writer),
        corpus=current.report,
        videos=manifest.corpus.videos + len(unavailable),
        frames=manifest.corpus.frames,
        rows=manifest.row_space.rows,
        gone=manifest.corpus.gone,
        failed=tuple(
            FailedVideo(path=entry.path, error=outcome.error or "")
            for entry, outcome in writer.failed_videos()
        )
        + unavailable,
        unavailable=len(unavailable),
        damaged={path: o.damage or "" for path, o in damage.items() if not o.concealed},
        concealed={path: o.damage or "" for path, o in damage.items() if o.concealed},
        decoder_errors={path: o.decoder_errors for path, o in damage.items() if o.decoder_errors},
        teachers=tuple(manifest.teachers),
        unstated=(manifest.provenance or Provenance()).missing,
        encodings={name: record.encoding for name, record in writer.records.items()},
        encoding_losses={
            name: record.losses[0]
            for name, record in writer.records.items()
            if record.losses[0] is not None
        },
        answers=_output_reports(writer),
        frames_done=frames_done,
        seconds=round(seconds, 2),
    )


def _missing(config: ExtractConfig, writer: CacheWriter) -> tuple[str, ...]:
    """What the cache still lacks, and the commands that complete it; empty if it is complete."""
    state = writer.state()
    decode = config.decode.model_dump(mode="json", exclude_defaults=True)
    further = [] if config.frames is None else ["--frames", config.frames]
    for name, value in decode.items():
        further += ["--set", f"decode.{name}={value}"]
    run = ExtractCommand(config.cache, config.sampling, config.videos, tuple(further))
    lines = missing_lines(state.lacking, writer.records, run)
    if not lines and state.waiting:
        command = run.for_teacher(next(iter(writer.records.values())))
        lines = [f"{counted(state.waiting, 'video')} to be decoded again; run: {command}"]
    return tuple(lines)


def _output_reports(writer: CacheWriter) -> dict[str, OutputReport]:
    commits = writer.state().commits
    reports = {
        name: output_report((c.answers for c in commits[name].values()), record.identity)
        for name, record in writer.records.items()
    }
    return {name: report for name, report in reports.items() if report is not None}


def _check_failures(config: ExtractConfig, result: ExtractResult) -> None:
    allowed = config.allowed_failures(result.videos)
    if len(result.failed) > allowed:
        raise too_many_failures(
            [(video.path, video.error) for video in result.failed],
            result.videos,
            allowed,
            is_default=config.max_failed == "auto",
            stopped_early=not result.complete,
        )
