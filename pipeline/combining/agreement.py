"""Which teachers of several sources are the same one, and whether the sources fit together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from distinit.pipeline.combining.source import Source
from distinit.schemas.base import differences
from distinit.schemas.errors import CacheMismatchError, ConfigError
from distinit.schemas.teacher import TeacherRecord, identity_differences
from distinit.schemas.wording import did_you_mean, shown

__all__ = ["AgreedTeachers", "agree_on_teachers", "check_same_sampling", "teacher_differences"]


@dataclass
class AgreedTeachers:
    """The teachers of a result.

    ``records``: by id, as in the first source that has the teacher.
    ``ids``: id in the result -> id in each source, None where it is absent.
    ``renamed``: one line for each teacher that has another id in a later source.
    """

    records: dict[str, TeacherRecord] = field(default_factory=dict)
    ids: dict[str, list[str | None]] = field(default_factory=dict)
    renamed: list[str] = field(default_factory=list)


def check_same_sampling(sources: Sequence[Source]) -> None:
    """Raise CacheMismatchError unless all sources have rows for the same frames."""
    first = sources[0]
    for source in sources[1:]:
        if source.cache.manifest.sampling != first.cache.manifest.sampling:
            raise CacheMismatchError(
                f"{source.layout.root} was made with another sampling",
                expected=f"{first.cache.manifest.sampling}, as in {first.layout.root}",
                found=str(source.cache.manifest.sampling),
                remedy="merge only caches of one sampling, or extract one of them again",
            )


def teacher_differences(
    there: TeacherRecord, now: TeacherRecord, sides: tuple[str, str] = ("there", "now")
) -> list[str]:
    """``field: A there, B now`` for everything that two targets' producers differ in.

    ``sides``: other words for "there" and "now".
    """
    found = identity_differences(there.identity, now.identity, sides)
    return found + differences(_stored_as(there), _stored_as(now), sides=sides)


def _stored_as(record: TeacherRecord) -> dict[str, str]:
    return {
        "encoding": record.encoding,
        "encoded from": ", then ".join(record.encoded_from or ()) or "the teacher's outputs",
        "precision": record.precision,
    }


def agree_on_teachers(
    sources: Sequence[Source], selected: Collection[str] | None = None
) -> AgreedTeachers:
    """Match the teachers of the sources: by id, otherwise by fingerprint and encoding.

    ``selected``: ids of the result; None: all.

    Raises:
        CacheMismatchError: An id names different teachers in two sources.
        ConfigError: No source has a selected teacher.
    """
    found = AgreedTeachers()
    for number, source in enumerate(sources):
        for name in source.records:
            if selected is None or name in selected:
                _add(found, sources, number, name)
    for number, source in enumerate(sources):
        for name in source.records:
            if not any(ids[number] == name for ids in found.ids.values()):
                _match_by_content(found, sources, number, name)
    _check_selected(found.records, sources, selected)
    return found


def _add(found: AgreedTeachers, sources: Sequence[Source], number: int, name: str) -> None:
    record = sources[number].records[name]
    if name in found.records:
        first = _first_with(found, name)
        sides = f"in cache {first + 1}", f"in cache {number + 1}"
        problems = teacher_differences(found.records[name], record, sides)
        if problems:
            raise CacheMismatchError(
                f"teacher {name} of cache {number + 1} ({sources[number].layout.root}) is another "
                f"one than in cache {first + 1} ({sources[first].layout.root})",
                expected="one teacher, precision and encoding for each id",
                found="\n".join(problems),
                remedy="leave it out with --teacher; if only the encoding differs, see "
                "`distinit cache encode`",
            )
        found.ids[name][number] = name
    elif not _match_by_content(found, sources, number, name):
        found.records[name] = record
        found.ids[name] = [None] * len(sources)
        found.ids[name][number] = name


def _match_by_content(
    found: AgreedTeachers, sources: Sequence[Source], number: int, name: str
) -> bool:
    """Recognise a teacher under another id; whether there is one."""
    record = sources[number].records[name]
    for known, there in found.records.items():
        if found.ids[known][number] is None and not teacher_differences(there, record):
            if known in sources[number].records:
                continue  # its own id is matched first
            found.ids[known][number] = name
            found.renamed.append(f"teacher {name} of cache {number + 1} is {known} here")
            return True
    return False


def _first_with(found: AgreedTeachers, name: str) -> int:
    return next(i for i, there in enumerate(found.ids[name]) if there is not None)


def _check_selected(
    records: Mapping[str, TeacherRecord],
    sources: Sequence[Source],
    selected: Collection[str] | None,
) -> None:
    for name in selected or ():
        if name not in records:
            known = sorted({known for source in sources for known in source.records})
            raise ConfigError(
                f"there is no teacher {shown(name)}",
                expected=f"one of {', '.join(known)}",
                remedy=did_you_mean(name, known) or "see `distinit cache info`",
            )
