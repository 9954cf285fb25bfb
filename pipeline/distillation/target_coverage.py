"""Computes the share of clips that have a target, and raises an error if no clip has one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from distinit.pipeline.distillation.targets import TargetReader
from distinit.pipeline.training.metrics import MetricLine
from distinit.schemas.errors import ConfigError
from distinit.schemas.thresholds import TargetShare

__all__ = [
    "KEPT",
    "WITH_TARGET",
    "disjoint_filters",
    "has_enough_clips",
    "refuse_empty_filters",
    "refuse_filters_without_clips",
    "refuse_without_targets",
    "target_shares",
]

WITH_TARGET, KEPT = "with_target/", "kept/"
"""Metric prefixes: the share of all clips with a target, and with a weight, per head."""
_ENOUGH_CLIPS = 200


def target_shares(lines: Sequence[MetricLine], heads: Iterable[str]) -> dict[str, TargetShare]:
    """The shares per head over a run's metric lines; heads without these metrics are omitted."""
    shares = {}
    for head in heads:
        names = (WITH_TARGET + head, KEPT + head)
        found = [line for line in lines if all(name in line for name in names)]
        if found:
            shares[head] = TargetShare(
                with_target=_mean(found, names[0]), kept=_mean(found, names[1])
            )
    return shares


def _mean(lines: Sequence[MetricLine], name: str) -> float:
    """Mean over the steps: a line covers the steps since the previous line."""
    steps_before = [0, *(line["step"] for line in lines[:-1])]
    ends = [line["step"] for line in lines]
    steps = [max(0, end - before) for end, before in zip(ends, steps_before, strict=True)]
    total = sum(count * line[name] for count, line in zip(steps, lines, strict=True))
    return min(1.0, max(0.0, total / max(1, sum(steps))))


def has_enough_clips(lines: Sequence[MetricLine]) -> bool:
    """Whether the lines cover so many clips that a share of 0 cannot be due to chance."""
    if not lines:
        return False
    clips = lines[-1].get("clips", 0)
    return clips >= _ENOUGH_CLIPS or clips == lines[-1].get("clips_total")


def refuse_without_targets(reader: TargetReader, share: TargetShare | None) -> None:
    """Raise ConfigError if, according to ``share``, every clip had weight 0 for ``reader``."""
    if share is None or share.kept > 0:
        return
    if share.with_target == 0:
        raise ConfigError(
            f"no clip had a target of teacher {reader.teacher.id}: nothing is learned from it",
            expected="clips that contain a frame with a target",
            remedy="extract with this teacher again, or remove it from targets",
        )
    raise ConfigError(
        f"the filter of teacher {reader.teacher.id} dropped every clip: nothing is learned from it",
        expected=f"clips whose target has an entropy of at most {reader.threshold_nats:.4g} nats",
        found="only clips with a higher entropy so far",
        remedy="raise targets.filter.max_entropy_nats, or set keep_fraction instead",
    )


def refuse_filters_without_clips(
    readers: Sequence[TargetReader],
    kept: Mapping[str, float],
    most_confident_nats: Callable[[TargetReader], float],
    combine_filters: str,
) -> None:
    """Raise ConfigError, before training, if the filters keep none of the clips as they are drawn.

    ``kept``: teacher id -> share of the clips that its filter keeps; teachers without a filter keep
    all. ``most_confident_nats``: the lowest entropy of a clip's target. A target that averages
    frames has a higher entropy than its frames, which is why ``refuse_empty_filters`` cannot tell.
    """
    empty = [reader for reader in readers if kept.get(reader.teacher.id, 1.0) == 0]
    if not empty or (combine_filters == "any" and len(empty) < _voters(readers)):
        return
    reader = empty[0]
    raise ConfigError(
        f"the filter of teacher {reader.teacher.id} keeps no clip: nothing is learned from it",
        expected=f"clips whose target has an entropy of at most {reader.threshold_nats:.4g} nats",
        found=f"{most_confident_nats(reader):.4g} nats for the most confident clip",
        remedy="raise targets.filter.max_entropy_nats above that, or set keep_fraction instead",
    )


def disjoint_filters(kept: Mapping[str, float]) -> ConfigError:
    """The error if each filter keeps some clips, but no clip passes all of them.

    ``kept``: teacher id -> share of the clips that its filter keeps.
    """
    return ConfigError(
        "no clip passes the filters of all teachers: nothing is learned",
        expected="clips that every filter keeps (combine_filters: all)",
        found=", ".join(f"{name} keeps {share:.1%}" for name, share in kept.items()),
        remedy="raise the thresholds or keep_fractions, or set combine_filters to any",
    )


def refuse_empty_filters(readers: Sequence[TargetReader], combine_filters: str) -> None:
    """Raise ConfigError if the stored entropies show that the filters drop every clip."""
    lowest = [(reader, reader.lowest_entropy_nats()) for reader in readers]
    empty = [(r, nats) for r, nats in lowest if nats is not None and nats > r.threshold_nats]
    if not empty or (combine_filters == "any" and len(empty) < _voters(readers)):
        return
    reader, nats = empty[0]
    raise ConfigError(
        f"the filter of teacher {reader.teacher.id} keeps no clip",
        expected=f"frames with an entropy of at most {reader.threshold_nats:.4g} nats",
        found=f"{nats:.4g} nats for the most confident frame of the cache",
        remedy="raise targets.filter.max_entropy_nats, or set keep_fraction instead",
    )


def _voters(readers: Sequence[TargetReader]) -> int:
    return sum(reader.votes for reader in readers)
