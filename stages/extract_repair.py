"""``extract --repair``: extracts damaged and missing units of a cache, and adds nothing to it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.opening import read_cache_plan
from distinit.pipeline.cache.plan import UnitPlan
from distinit.pipeline.cache.records import read_manifest
from distinit.pipeline.cache.repair import mark_units
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.progress import Progress
from distinit.schemas.errors import CacheError, CorpusError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.wording import counted, first_names, one_line
from distinit.stages.extract_corpus import CurrentCorpus

__all__ = ["Repair", "find_damage_to_repair"]


@dataclass(frozen=True, slots=True)
class Repair:
    """The damage of a cache. ``content_digest``: of the cache before it was damaged."""

    root: Path
    plan: UnitPlan
    damaged: tuple[tuple[str, int], ...]
    content_digest: str

    def begin(self, current: CurrentCorpus, teachers: Collection[str]) -> CurrentCorpus:
        """Mark the damaged units for extraction; the corpus of the cache stays as it is.

        Raises CacheError for ``teachers`` that the cache does not have, and CorpusError if a video
        of a unit that they lack is missing. Nothing is changed then.
        """
        units = self._units_of(teachers)
        here = {file.video_id for file in current.corpus.files}
        missing = {
            video.path: None
            for group in self.plan.groups
            if not units.isdisjoint(group.unit_range)
            for video in group.videos
            if self.plan.latest[video.video_id] is video and video.video_id not in here
        }
        if missing:
            raise CorpusError(
                f"{counted(len(missing), 'video')} of the damaged units cannot be found; nothing "
                "was changed",
                expected="every video of these units, found by its content",
                found=f"missing: {first_names(map(one_line, missing), 5)}",
                remedy="give the folder that has them; or run `distinit extract` without --repair, "
                "which gives up the rows of missing videos",
            )
        if self.damaged:
            mark_units(self.root, self.damaged)
        return replace(current, frozen=True)

    def _units_of(self, teachers: Collection[str]) -> set[int]:
        """Units that are damaged, or that one of ``teachers`` lacks: a repair that was interrupted
        has marked them before.
        """
        layout, units = CacheLayout(self.root), {unit for _, unit in self.damaged}
        known = read_manifest(layout).teachers
        for name in teachers:
            if name not in known:
                raise CacheError(
                    f"the cache has no teacher {one_line(name)} to repair",
                    expected=f"one of {', '.join(sorted(known))}",
                    remedy="leave --repair out to add a teacher",
                    named_input=True,
                )
            units |= set(range(self.plan.units)) - layout.committed_units(name)
        return units

    def report(self, manifest: CacheManifest, progress: Progress) -> None:
        """Say what was repaired, and whether the cache is the same as before."""
        progress.message(f"repair: {counted(len(self.damaged), 'damaged unit')} found")
        if manifest.complete and self.content_digest not in ("", manifest.content_digest):
            progress.message(
                f"warning: the content digest is now {manifest.content_digest}, not "
                f"{self.content_digest} as before: this machine computes other last bits. To have "
                "the published cache, fetch the damaged units from its sender"
            )


def find_damage_to_repair(config: ExtractConfig, progress: Progress) -> Repair | None:
    """Verify every byte of the cache; None without ``config.repair``.

    Raises CacheError if the cache is missing, or its plan or manifest is damaged.
    """
    if not config.repair:
        return None
    root = Path(config.cache)
    layout = CacheLayout(root)
    if not layout.manifest.is_file():
        raise CacheError(
            f"{root} is not a target cache: there is nothing to repair",
            expected="a folder with a manifest.json",
            remedy="leave --repair out to create a cache",
            named_input=True,
        )
    digest = read_manifest(layout).content_digest
    report = verify_cache(root, progress=progress)
    for line in report.problems[:20]:
        progress.message(f"repair: {line}")
    plan = read_cache_plan(root)
    if plan is None:
        raise CacheError(
            f"the plan of {root} is damaged: its units are not known",
            remedy="run the same `distinit extract` without --repair, which rebuilds the plan",
        )
    return Repair(root, plan, report.damaged_units, digest)
