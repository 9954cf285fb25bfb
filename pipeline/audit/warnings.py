"""The warnings on the first screen of an audit, each with its threshold and its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from distinit.pipeline.audit.duplicates import LIMITS, duplicates
from distinit.pipeline.audit.pictures import FLAT_SHARE, FROZEN_SHARE, SAME_BITS
from distinit.pipeline.audit.sharpness import BLURRED_VARIANCE, DARK_LEVEL, blurred_and_dark
from distinit.pipeline.audit.statistics import CacheStatistics
from distinit.pipeline.audit.video_states import video_states
from distinit.pipeline.cache.copies import describe_copy
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.audit import AuditWarning, TeacherAudit
from distinit.schemas.audit_comparisons import TeacherPairAudit
from distinit.schemas.wording import counted, first_names

__all__ = ["cache_warnings", "pair_warnings", "pixel_warnings", "teacher_warnings"]

_NAMED = 8  # videos that a warning names
_SMALL_SHARE = 0.9  # of the corpus
_OWN = "DistInit's own threshold, see docs/decisions/053-what-an-audit-measures.md"
_MANY_FRAMES = 20  # per class, before classes can be called dead
_DEAD_SHARE = 0.5  # of the classes
_UNSURE = 0.8  # of ln(classes)
_DOMINANT = 0.5  # of the frames in one class
_NARROW_NATS = 0.02  # spread of the entropies
_ENOUGH_PAIRS, _UNSTEADY = 50, 0.25
_PERMUTED_GAIN, _ENOUGH_PAIR_FRAMES = 0.3, 200


def cache_warnings(statistics: CacheStatistics) -> Iterator[AuditWarning]:
    """What is wrong with the videos of a cache, whatever the teacher.

    Raises CacheCorruptError for damaged tables.
    """
    copy = statistics.cache.copy
    if copy is not None:
        yield AuditWarning(
            kind="partial copy",
            text=f"{describe_copy(copy, statistics.cache.manifest)}; only its rows are counted",
            rule="copy.json in the folder of the cache",
        )
    yield from _video_states(statistics)
    pictures, paths = statistics.pictures, statistics.videos.paths
    flat, frozen = pictures.flat(), pictures.frozen()
    copies = duplicates(statistics.cache, statistics.videos.ids, pictures.copies())
    if flat:
        yield AuditWarning(
            kind="black or single-colour videos",
            text=f"{counted(len(flat), 'video')} without any structure in nearly all frames",
            rule=f"perceptual hash 0 in {FLAT_SHARE:.0%} of the frames: no block is brighter than "
            f"its left neighbour; {_OWN}",
            videos=_named(flat, paths),
        )
    if frozen:
        yield AuditWarning(
            kind="frozen videos",
            text=f"{counted(len(frozen), 'video')} that show one picture only",
            rule=f"equal perceptual hashes in {FROZEN_SHARE:.0%} of neighbouring frames; {_OWN}",
            videos=_named(frozen, paths),
        )
    if copies.pairs or copies.left_out:
        yield AuditWarning(
            kind="duplicate videos",
            text=f"{counted(len(copies.pairs), 'pair')} of videos that show the same pictures"
            + (f"; {counted(copies.left_out, 'more pair')} not compared" * bool(copies.left_out)),
            rule=f"perceptual hashes of {LIMITS.min_share:.0%} of the frames, in order, differ in "
            f"at most {LIMITS.max_bits} of 64 bits, and fit clearly worse a little "
            "earlier or later, as for `distinit cache match`; decision 46",
            videos=tuple(f"{paths[one]} = {paths[other]}" for one, other in copies.pairs[:_NAMED]),
        )


def pixel_warnings(statistics: CacheStatistics, store: FrameStore) -> Iterator[AuditWarning]:
    """What the pixels of a few frames of each video show. Raises FrameStoreError."""
    blurred, dark = blurred_and_dark(store, statistics.videos.ids)
    for kind, videos, rule in (
        (
            "blurred videos",
            blurred,
            f"variance of the Laplacian below {BLURRED_VARIANCE:g} in each of three frames",
        ),
        ("dark videos", dark, f"mean brightness below {DARK_LEVEL:g} of 255 in three frames"),
    ):
        if videos:
            yield AuditWarning(
                kind=kind,
                text=f"{counted(len(videos), 'video')} of the frame store",
                rule=f"{rule}; {_OWN}",
                videos=_named(videos, statistics.videos.paths),
            )


def _video_states(statistics: CacheStatistics) -> Iterator[AuditWarning]:
    everything = statistics.cache.videos.num_rows
    states = video_states(statistics.cache.videos)
    if states.failed.num_rows:
        yield AuditWarning(
            kind="failed videos",
            text=f"{states.failed.num_rows:,} of {counted(states.videos, 'video')} could not be "
            "used",
            rule="any failed video; extraction ends in an error above --max-failed (5 %)",
            videos=tuple(states.failed.column("path")[:_NAMED].to_pylist()),
        )
    if states.damaged.num_rows:
        yield AuditWarning(
            kind="damaged videos",
            text=f"{states.damaged.num_rows:,} of {counted(states.videos, 'video')}; frames are or "
            f"may be missing from {statistics.cache.manifest.corpus.damaged:,} of them",
            rule="any damaged video, decision 17; the decoder conceals errors in the others",
            videos=tuple(states.damaged.column("path")[:_NAMED].to_pylist()),
        )
    used = int((statistics.pictures.frames_V > 0).sum())
    if everything and used < _SMALL_SHARE * everything:
        yield AuditWarning(
            kind="small share of the corpus",
            text=f"only {used:,} of {counted(everything, 'video')} have frames in the cache",
            rule=f"below {_SMALL_SHARE:.0%} of the videos that were ever listed; {_OWN}",
        )


def teacher_warnings(statistics: CacheStatistics, teacher: TeacherAudit) -> Iterator[AuditWarning]:
    """What is suspicious about the outputs of one teacher that stores logits."""
    found, name = teacher.confidence, teacher.record.id
    if found is None:
        return
    for text in () if teacher.answers is None else teacher.answers.warnings:
        rule = "99 % of the highest entropy or of the frames, 1 % of ties; decision 21"
        yield AuditWarning(kind="uninformative outputs", text=text, rule=rule, teacher=name)
    scan = statistics.scans[name]
    classes = len(scan.joint_CB)
    if found.frames >= _MANY_FRAMES * classes and found.classes_seen < _DEAD_SHARE * classes:
        dead = classes - found.classes_seen
        yield AuditWarning(
            kind="dead classes",
            text=f"{dead:,} of {classes:,} classes are never the most probable one",
            rule=f"more than {_DEAD_SHARE:.0%} of the classes, in a cache with at least "
            f"{_MANY_FRAMES} frames per class; {_OWN}",
            teacher=name,
        )
    spread = float(np.sqrt(_variance(statistics, name)))
    if found.frames >= _ENOUGH_PAIRS and spread < _NARROW_NATS:
        yield AuditWarning(
            kind="near-constant outputs",
            text=f"the entropies differ by {spread:.3f} nats only (standard deviation)",
            rule=f"below {_NARROW_NATS} nats; {_OWN}",
            teacher=name,
        )
    top = found.top_classes[0] if found.top_classes else None
    if top and classes > 2 and found.frames >= _ENOUGH_PAIRS and top.fraction > _DOMINANT:
        yield AuditWarning(
            kind="near-constant outputs",
            text=f"class {top.name} is the most probable one for {top.fraction:.0%} of the frames",
            rule=f"more than {_DOMINANT:.0%} of the frames; {_OWN}",
            teacher=name,
        )
    yield from _labels(statistics, name)
    yield from _preprocessing(statistics, teacher)


def _labels(statistics: CacheStatistics, name: str) -> Iterator[AuditWarning]:
    """Labels that are no class of the teacher: the calibration leaves their videos out."""
    if name in statistics.labels and (unknown := statistics.labels[name].labels.unknown):
        yield AuditWarning(
            kind="labels that are no class",
            text=f"{counted(len(unknown), 'label')} that this teacher does not have, such as "
            f"{first_names(unknown, 3)}; their videos are not part of the calibration",
            rule="any such label: write a name, a synonym or the number of a class",
            teacher=name,
        )


def _preprocessing(statistics: CacheStatistics, teacher: TeacherAudit) -> Iterator[AuditWarning]:
    found, name = teacher.confidence, teacher.record.id
    scan = statistics.scans[name]
    assert found is not None
    median = found.quartiles_nats[1]
    if median > _UNSURE * found.highest_possible_nats:
        yield AuditWarning(
            kind="wrong preprocessing suspected",
            text=f"the median entropy is {median:.2f} of at most "
            f"{found.highest_possible_nats:.2f} nats",
            rule=f"above {_UNSURE:.0%} of ln(classes): compare mean, std and channel order with "
            f"those of the training; {_OWN}",
            teacher=name,
        )
    pairs = scan.same_pictures
    if pairs >= _ENOUGH_PAIRS and scan.same_pictures_other_class > _UNSTEADY * pairs:
        share = scan.same_pictures_other_class / pairs
        yield AuditWarning(
            kind="wrong preprocessing or mixed-up rows suspected",
            text=f"for {share:.0%} of neighbouring frames that show the same picture, the class "
            "that had a majority changes",
            rule=f"above {_UNSTEADY:.0%} of {_ENOUGH_PAIRS} or more pairs of equal hashes (up to "
            f"{SAME_BITS} bits); {_OWN}",
            teacher=name,
        )


def _variance(statistics: CacheStatistics, name: str) -> float:
    scan = statistics.scans[name]
    mean = float(scan.video_entropy_sum_nats.sum()) / scan.frames
    return max(0.0, float(scan.video_square_sum.sum()) / scan.frames - mean**2)


def pair_warnings(pairs: Sequence[TeacherPairAudit]) -> Iterator[AuditWarning]:
    """Teachers of one label space that agree only if the classes of one are renumbered."""
    for pair in pairs:
        same, mapped = pair.unmapped_agreement, pair.mapped_agreement
        if same is None or mapped is None or pair.frames < _ENOUGH_PAIR_FRAMES:
            continue
        if mapped - same < _PERMUTED_GAIN or mapped < 2 * same:
            continue
        yield AuditWarning(
            kind="permuted classes suspected",
            text=f"{pair.first} and {pair.second} name the same class in {same:.0%} of the cases, "
            f"but in {mapped:.0%} if classes are renumbered as in other videos",
            rule=f"{_PERMUTED_GAIN:.0%} more, and twice as many; each pair of classes counts once "
            f"per video, over at least {_ENOUGH_PAIR_FRAMES} frames; {_OWN}",
        )


def _named(videos: Sequence[int], paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(paths[video] for video in videos[:_NAMED])
