"""What a cache that is not complete lacks, and the command that completes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distinit.pipeline.cache.layout import CacheLayout
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.video import SamplingConfig
from distinit.schemas.wording import counted, one_line, shell_line

__all__ = ["ExtractCommand", "lacking_units", "missing_lines"]


@dataclass(frozen=True, slots=True)
class ExtractCommand:
    """An extraction into ``cache``. ``videos`` stands for the corpus where it is not known."""

    cache: str
    sampling: SamplingConfig
    videos: str = "VIDEOS"
    further: tuple[str, ...] = ()
    """Options of the run at hand that change what is stored."""

    def for_teacher(self, record: TeacherRecord) -> str:
        """The command that goes on with one teacher, for a shell."""
        arguments = ["distinit", "extract", "--videos", self.videos]
        arguments += ["--teacher", record.name or record.id]
        if record.weights_file is not None:
            arguments += ["--weights", record.weights_file]
        arguments += ["--cache", self.cache]
        if record.encoding != "float16":
            arguments += ["--encoding", record.encoding]
        if self.sampling.mode != "all":
            mode = self.sampling.mode
            arguments += [f"--{mode.replace('_', '-')}", str(getattr(self.sampling, mode))]
        for setting in _settings(record):
            arguments += ["--set", setting]
        return shell_line([*arguments, *self.further])


def lacking_units(layout: CacheLayout, manifest: CacheManifest) -> dict[str, int]:
    """Teacher -> units that it has not committed, of teachers that lack some."""
    units = manifest.row_space.units
    lacking = {name: units - len(layout.committed_units(name)) for name in manifest.teachers}
    return {name: count for name, count in lacking.items() if count > 0}


def missing_lines(
    lacking: Mapping[str, int], records: Mapping[str, TeacherRecord], run: ExtractCommand
) -> list[str]:
    """One line a teacher: how many units it lacks, and what to run."""
    return [
        f"teacher {one_line(name)} lacks {counted(count, 'unit')}; run: "
        + run.for_teacher(records[name])
        for name, count in lacking.items()
    ]


def _settings(record: TeacherRecord) -> list[str]:
    """What of the teacher is not as it is by default."""
    preprocessing = record.identity.preprocessing
    changed = {
        "teachers.0.id": record.id if record.id != (record.name or record.id) else None,
        "teachers.0.flip": "true" if preprocessing.flip else None,
        "teachers.0.resize": "fast" if preprocessing.resize == "fast" else None,
        "teachers.0.target": "features" if record.identity.target == "features" else None,
        "precision": record.precision if record.precision != "fp32" else None,
    }
    return [f"{key}={value}" for key, value in changed.items() if value is not None]
