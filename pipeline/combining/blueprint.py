"""What a derived cache will hold: its videos, and where the rows of each of them come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from distinit.pipeline.cache.plan import (
    PlannedRows,
    PlannedVideo,
    UnitPlan,
    choose_capacity,
    plan_units,
)
from distinit.pipeline.combining.source import Source
from distinit.pipeline.vocabulary.vocabulary import Vocabulary
from distinit.schemas.derivation import Derivation, SourceCache, SourceTeacher
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.provenance import Provenance
from distinit.schemas.teacher import LOSS_KEYS, TeacherRecord
from distinit.schemas.video import SamplingConfig

__all__ = [
    "Blueprint",
    "DerivedVideo",
    "Origin",
    "capacity_of",
    "common_provenance",
    "source_record",
    "with_new_ids",
]

_ID_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Origin:
    """The video in one of the sources. ``source`` is its position among them."""

    source: int
    video_id: str


@dataclass(frozen=True, slots=True)
class DerivedVideo:
    """One video of a derived cache.

    ``entry``: the reservation in the source that its outcome is taken from.
    ``outcome``: as the source decoded it. Videos with status ok have rows.
    ``targets``: teacher of the result -> the source of its targets; None: NaN, see the next two.
    ``unanswered``, ``refused``: teachers without targets for it, as in a commit record.
    """

    video_id: str
    entry: PlannedRows
    in_corpus: bool
    outcome: VideoOutcome
    origin: Origin
    targets: Mapping[str, Origin | None] = field(default_factory=dict)
    unanswered: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return self.entry.digest

    @property
    def planned(self) -> PlannedVideo:
        video = self.entry.video
        return replace(video, file=replace(video.file, video_id=self.video_id))


@dataclass(frozen=True, slots=True)
class Blueprint:
    """All that determines a derived cache.

    ``records``: teachers of the result, by id, without measured losses.
    ``teacher_ids``: teacher of the result -> its id in each source, in their order; None: absent.
    ``vocabularies``: teacher of the result -> what turns features of the source into its logits.
    """

    sampling: SamplingConfig
    plan: UnitPlan
    records: Mapping[str, TeacherRecord]
    teacher_ids: Mapping[str, Sequence[str | None]]
    videos: Mapping[str, DerivedVideo]
    derivation: Derivation
    provenance: Provenance | None
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        sources: Sequence[Source],
        videos: Iterable[DerivedVideo],
        records: Mapping[str, TeacherRecord],
        teacher_ids: Mapping[str, Sequence[str | None]],
        derivation: Derivation,
        vocabularies: Mapping[str, Vocabulary] | None = None,
    ) -> Blueprint:
        """Lay out ``videos`` as one extraction of them would."""
        by_id = {video.video_id: video for video in videos}
        capacity = capacity_of(sources, sum(v.entry.reserved_rows for v in by_id.values()))
        plan = plan_units((video.planned for video in by_id.values()), capacity)
        marked = {
            v: entry.with_file(entry.video.file, in_corpus=by_id[v].in_corpus)
            for v, entry in plan.latest.items()
        }
        unmeasured = dict.fromkeys(LOSS_KEYS)
        return cls(
            sampling=sources[0].cache.manifest.sampling,
            plan=plan.updated(marked),
            records={
                name: record.model_copy(update={"id": name, **unmeasured})
                for name, record in records.items()
            },
            teacher_ids=teacher_ids,
            videos=by_id,
            derivation=derivation,
            provenance=common_provenance(sources)[0],
            vocabularies=vocabularies or {},
        )


def capacity_of(sources: Sequence[Source], rows: int) -> int:
    """Rows per unit of a derived cache: as an extraction of its videos would choose them.

    If all sources have the same size of unit, and a user chose it for one of them, it stays.
    """
    sizes = {source.state.plan.capacity for source in sources}
    chosen = any(source.chosen_capacity for source in sources)
    return sizes.pop() if chosen and len(sizes) == 1 else choose_capacity(rows)


def common_provenance(sources: Sequence[Source]) -> tuple[Provenance | None, list[str]]:
    """What all sources state alike, and the names of what they state differently."""
    stated = [(source.cache.manifest.provenance or Provenance()).stated for source in sources]
    names = [name for name in Provenance.model_fields if any(name in of for of in stated)]
    alike = {n: stated[0][n] for n in names if all(of.get(n) == stated[0].get(n) for of in stated)}
    common = Provenance.model_validate(alike) if alike else None
    return common, [name for name in names if name not in alike]


def with_new_ids(videos: Iterable[DerivedVideo]) -> list[DerivedVideo]:
    """Name each video after its digest: two videos of different sources may have the same id."""
    ordered = sorted(videos, key=lambda video: video.digest)
    named = []
    for prefix, group in groupby(ordered, key=lambda video: video.digest[:_ID_DIGITS]):
        for number, video in enumerate(group):
            named.append(_renamed(video, f"{prefix}-{number}" if number else prefix))
    return named


def _renamed(video: DerivedVideo, video_id: str) -> DerivedVideo:
    outcome = video.outcome.model_copy(update={"video_id": video_id})
    return replace(video, video_id=video_id, outcome=outcome)


def source_record(
    sources: Sequence[Source],
    videos: Iterable[DerivedVideo],
    teacher_ids: Mapping[str, Sequence[str | None]],
) -> tuple[SourceCache, ...]:
    """What the derivation says of each source."""
    videos_of = Counter(video.origin.source for video in videos)
    return tuple(
        SourceCache(
            content_digest=source.digest,
            provenance=source.cache.manifest.provenance,
            videos=videos_of[number],
            teachers={
                name: _teacher_of(source.records[there])
                for name, ids in teacher_ids.items()
                if (there := ids[number]) is not None
            },
        )
        for number, source in enumerate(sources)
    )


def _teacher_of(record: TeacherRecord) -> SourceTeacher:
    return SourceTeacher(
        id=record.id,
        encoding=record.encoding,
        **{key: getattr(record, key) for key in LOSS_KEYS},
        software=record.software,
    )
