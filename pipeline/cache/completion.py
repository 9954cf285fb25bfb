"""What an incomplete cache is missing, and the command that completes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distinit.pipeline.cache.layout import CacheLayout
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.video import SamplingConfig
from distinit.schemas.wording import counted, one_line, shell_line

__all__ = ["ExtractCommand", "missing_lines", "missing_units"]


@dataclass(frozen=True, slots=True)
class ExtractCommand:
    """An extraction into ``cache``. ``videos`` is a placeholder where the corpus is not known."""

    cache: str
    sampling: SamplingConfig
    videos: str = "VIDEOS"
    further: tuple[str, ...] = ()
    """Further options of the current run that change what is stored."""

    def for_teacher(self, record: TeacherRecord, *, repair: bool = False) -> str:
        """The shell command that resumes the extraction for one teacher, or repairs its units."""
        arguments = ["distinit", "extract", *(["--repair"] if repair else [])]
        arguments += ["--videos", self.videos]
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


def missing_units(layout: CacheLayout, manifest: CacheManifest) -> dict[str, int]:
    """Teacher -> number of units that it has not committed, for teachers that are not complete."""
    units = manifest.row_space.units
    missing = {name: units - len(layout.committed_units(name)) for name in manifest.teachers}
    return {name: count for name, count in missing.items() if count > 0}


def missing_lines(
    missing: Mapping[str, int], records: Mapping[str, TeacherRecord], run: ExtractCommand
) -> list[str]:
    """One line per teacher: how many units are missing, and what to run."""
    return [
        f"teacher {one_line(name)} lacks {counted(count, 'unit')}; run: "
        + run.for_teacher(records[name])
        for name, count in missing.items()
    ]


def _settings(record: TeacherRecord) -> list[str]:
    """Settings of the teacher that differ from the defaults."""
    preprocessing = record.identity.preprocessing
    changed = {
        "teachers.0.id": record.id if record.id != (record.name or record.id) else None,
        "teachers.0.flip": "true" if preprocessing.flip else None,
        "teachers.0.resize": "fast" if preprocessing.resize == "fast" else None,
        "teachers.0.target": "features" if record.identity.target == "features" else None,
        "teachers.0.pool": record.identity.pool,
        "precision": record.precision if record.precision != "fp32" else None,
    }
    return [f"{key}={value}" for key, value in changed.items() if value is not None]
