"""Compares two caches on the frames that both have: divergence, agreement, entropies."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from distinit.pipeline.combining.agreement import teacher_differences
from distinit.pipeline.combining.comparing import (
    ComparedFrames,
    TeacherComparison,
    compare_teachers,
    frame_lines,
    shared_videos,
)
from distinit.pipeline.combining.rows import RowReader
from distinit.pipeline.combining.source import Source, open_source
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.progress import Progress
from distinit.pipeline.records import write_record
from distinit.pipeline.storage import atomic_path, atomic_write_bytes, refuse_links
from distinit.schemas.combining import CacheDiff
from distinit.schemas.errors import CacheMismatchError, ConfigError
from distinit.schemas.wording import did_you_mean, shown

__all__ = ["cache_diff"]

_COLUMNS = (
    "path",
    "digest",
    "frame_index",
    "teacher_a",
    "teacher_b",
    "identical",
    "same_top1",
    "kl_ab_nats",
    "kl_ba_nats",
    "entropy_a_nats",
    "entropy_b_nats",
    "largest_difference",
)

type _OnFrames = Callable[[TeacherComparison, ComparedFrames], None]


def cache_diff(
    folder_a: Path,
    folder_b: Path,
    *,
    teachers: Sequence[str] = (),
    out: Path | None = None,
    progress: Progress,
) -> CacheDiff:
    """Compare the caches A and B; videos are matched by their bytes.

    Args:
        folder_a: Cache A, complete.
        folder_b: Cache B, complete.
        teachers: Pairs ``ID`` or ``ID_IN_A:ID_IN_B``; none: all ids that both have.
        out: Folder for diff.json, frames.csv, and a PNG and a PDF file per pair.
        progress: Shows the videos that were compared.

    Raises:
        CacheMismatchError: The teachers of a pair have other classes or targets.
        CacheError: A cache is not complete, or damaged.
        ConfigError: Unknown teachers, or no teacher that both have.
    """
    if out is not None:
        refuse_inside_data(out)
        refuse_links(out)
    a, b = (open_source(folder, progress, verify=False) for folder in (folder_a, folder_b))
    comparisons = [TeacherComparison(a.records[x], b.records[y]) for x, y in _pairs(a, b, teachers)]
    _check_comparable(comparisons)
    videos = shared_videos(a, b)
    readers = RowReader(a), RowReader(b)
    with _frame_table(out) as on_frames:
        only_a, only_b, pictures = compare_teachers(
            *readers, comparisons, videos, on_frames, progress
        )
    for reader in readers:
        reader.close()
    compared_a = {comparison.teacher_a.id for comparison in comparisons}
    compared_b = {comparison.teacher_b.id for comparison in comparisons}
    result = CacheDiff(
        digest_a=a.digest,
        digest_b=b.digest,
        videos=len(videos),
        videos_only_a=_with_rows(a) - len(videos),
        videos_only_b=_with_rows(b) - len(videos),
        frames_only_a=only_a,
        frames_only_b=only_b,
        other_pictures=pictures,
        teachers_only_a=tuple(sorted(a.records.keys() - compared_a)),
        teachers_only_b=tuple(sorted(b.records.keys() - compared_b)),
        teachers=tuple(comparison.result() for comparison in comparisons),
        notes=tuple(_notes(comparisons)),
    )
    return result if out is None else _written(result, comparisons, out)


def _pairs(a: Source, b: Source, teachers: Sequence[str]) -> list[tuple[str, str]]:
    """The teachers to compare: (id in A, id in B)."""
    given = [name.split(":", 1) for name in teachers]
    pairs = [(words[0], words[-1]) for words in given]
    if not teachers:
        pairs = [(name, name) for name in sorted(a.records.keys() & b.records.keys())]
    if not pairs:
        raise ConfigError(
            "the caches have no teacher id in common",
            expected="teachers to compare",
            found=f"A: {', '.join(sorted(a.records))}\nB: {', '.join(sorted(b.records))}",
            remedy="name a pair: --teacher ID_IN_A:ID_IN_B",
        )
    for pair in pairs:
        for side, source, name in zip("AB", (a, b), pair, strict=True):
            if name not in source.records:
                raise ConfigError(
                    f"cache {side} has no teacher {shown(name)}",
                    expected=f"one of {', '.join(sorted(source.records))}",
                    remedy=did_you_mean(name, source.records) or "see `distinit cache info`",
                )
    return list(dict.fromkeys(pairs))


def _check_comparable(comparisons: Sequence[TeacherComparison]) -> None:
    for comparison in comparisons:
        a, b = (
            (t.identity.target, t.identity.classes, t.identity.label_space)
            for t in (comparison.teacher_a, comparison.teacher_b)
        )
        if a != b:
            raise CacheMismatchError(
                f"teachers {comparison.teacher_a.id} and {comparison.teacher_b.id} cannot be "
                "compared",
                expected=f"{a[1]} {a[0]} of {a[2]}, as in A",
                found=f"{b[1]} {b[0]} of {b[2]}",
                remedy="choose teachers of the same classes with --teacher",
            )


def _with_rows(source: Source) -> int:
    return sum(outcome.status == "ok" for outcome in source.decoded.values())


def _notes(comparisons: Sequence[TeacherComparison]) -> Iterator[str]:
    for comparison in comparisons:
        for line in teacher_differences(
            comparison.teacher_a, comparison.teacher_b, ("in A", "in B")
        ):
            yield f"{comparison.teacher_a.id}: {line}"


@contextmanager
def _frame_table(out: Path | None) -> Iterator[_OnFrames]:
    """Writes frames.csv, one line per frame and pair of teachers, if there is a folder for it."""
    if out is None:
        yield lambda _comparison, _found: None
        return
    with atomic_path(out / "frames.csv") as partial, partial.open("w", newline="") as file:
        yield _line_writer(file)


def _line_writer(file: TextIO) -> _OnFrames:
    writer = csv.writer(file)
    writer.writerow(_COLUMNS)

    def write(comparison: TeacherComparison, found: ComparedFrames) -> None:
        writer.writerows(frame_lines(comparison, found))

    return write


def _written(result: CacheDiff, comparisons: Sequence[TeacherComparison], out: Path) -> CacheDiff:
    from distinit.pipeline.combining.diff_plot import diff_figure  # matplotlib is slow to import
    from distinit.pipeline.plotting.rendering import figure_pdf, figure_png

    files = [out / "frames.csv"]
    for comparison in comparisons:
        if not (comparison.has_entropy and comparison.frames):
            continue
        figure = diff_figure(comparison)
        ids = dict.fromkeys((comparison.teacher_a.id, comparison.teacher_b.id))
        for suffix, data in (("png", figure_png(figure)), ("pdf", figure_pdf(figure))):
            path = out / f"{'--'.join(ids)}.{suffix}"
            atomic_write_bytes(path, data)
            files.append(path)
    files.append(out / "diff.json")
    result = result.model_copy(update={"files": tuple(map(str, files))})
    write_record(result, out / "diff.json")
    return result
