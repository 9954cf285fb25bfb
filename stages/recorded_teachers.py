"""Loads the teachers of a cache as its records describe them, and checks that they are the same."""

from __future__ import annotations

from collections.abc import Sequence

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.teachers.base import Precision, Teacher
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.base import PLUGIN
from distinit.schemas.errors import CacheError, ConfigError, TeacherError
from distinit.schemas.teacher import TeacherRecord, TeacherRequest, identity_differences
from distinit.schemas.wording import did_you_mean, one_line, shown

__all__ = ["load_recorded"]


def load_recorded(
    cache: TargetCache, teachers: Sequence[str], weights: Sequence[str], *, device: str
) -> dict[str, Teacher]:
    """The teachers of a cache, by id.

    Args:
        cache: The cache, whose records name the networks.
        teachers: ``ID`` or ``ID=NAME``, as NAME in ``--teacher``; none: all teachers of the cache.
        weights: ``ID=FILE``, or ``FILE`` for a single teacher.
        device: auto, cpu, cuda or cuda:N.

    The code of a plugin is executed only if its name was given, never because a cache names it.

    Raises:
        CacheError: A teacher is not in the cache, or its name is not known.
        ConfigError: ``weights`` names another teacher.
        TeacherError: A teacher cannot be loaded, or differs from the one of the cache.
        WeightsError: Its weights are missing, or do not fit.
    """
    names = dict(_pair(text) for text in teachers) or dict.fromkeys(cache.teachers, "")
    for name in names:
        _require_known(name, cache)
    files = _weights_by_id(weights, names)
    loaded = {}
    for name, given in names.items():
        record = cache.teachers[name]
        request = _request(record, given, files.get(name))
        loaded[name] = _same_teacher(record, request, device)
    return loaded


def _pair(text: str) -> tuple[str, str]:
    before, _, after = text.partition("=")
    return before, after


def _require_known(name: str, cache: TargetCache) -> None:
    if name not in cache.teachers:
        raise CacheError(
            f"the cache has no teacher {shown(name)}",
            expected=f"one of {', '.join(sorted(cache.teachers))}",
            remedy=did_you_mean(name, cache.teachers) or "see `distinit cache info`",
            named_input=True,
        )


def _weights_by_id(weights: Sequence[str], names: dict[str, str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for text in weights:
        name, file = _pair(text)
        if name not in names or not file:
            if len(names) != 1:
                raise ConfigError(
                    "--weights does not say for which teacher it is",
                    expected=f"ID=FILE, where ID is one of {', '.join(names)}",
                    found=text,
                )
            name, file = next(iter(names)), text
        files[name] = file
    return files


def _request(record: TeacherRecord, given: str, weights: str | None) -> TeacherRequest:
    """The request that the record came from. Raises CacheError if it is not known."""
    if record.identity.relabelled is not None:
        raise CacheError(
            f"teacher {record.id} was computed from stored features and a vocabulary",
            expected="a teacher that is a network",
            found=f"vocabulary {record.identity.relabelled.vocabulary_sha256}",
            remedy="recompute the features in the cache that it was made from, then run "
            "`distinit cache relabel` again and compare with `distinit cache diff`",
        )
    name = given or record.name
    if not name or (name.startswith(PLUGIN) and not given):
        raise CacheError(
            f"the network of teacher {record.id} must be named",
            expected="--teacher ID=NAME, with a NAME as for `distinit extract --teacher`",
            found=f"the cache names {one_line(record.name) or 'none'}",
            remedy="a plugin is executed only if you name it yourself",
        )
    if weights is None and record.weights_file is not None:
        raise CacheError(
            f"teacher {record.id} needs its weights",
            expected=f"--weights {record.id}=FILE",
            found=f"the cache was made with a file called {one_line(record.weights_file)}",
            remedy="ask the sender of the cache for this file",
        )
    preprocessing = record.identity.preprocessing
    return TeacherRequest(
        name=name,
        weights=weights,
        id=record.id,
        resize=preprocessing.resize,
        flip=preprocessing.flip,
        target=record.identity.target,
        pool=record.identity.pool,
        encoding=record.encoding,
    )


def _same_teacher(record: TeacherRecord, request: TeacherRequest, device: str) -> Teacher:
    precision: Precision = record.precision
    if precision == "fp16" and resolve_device(device).type == "cpu":
        precision = "bf16"  # CPUs have no fp16 arithmetic; bf16 is coarser
    teacher = load_teacher(request, device=device, precision=precision)
    if found := identity_differences(record.identity, teacher.identity):
        raise TeacherError(
            f"teacher {record.id} is not the one that the cache was made with",
            expected="the teacher of the cache",
            found="\n".join(found),
            remedy="give the weights and the network that teacher.json describes",
        )
    return teacher
