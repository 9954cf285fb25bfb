"""How many of the clips had something to teach, and what to say where there were few or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distinit.pipeline.distillation.targets import TargetReader
from distinit.pipeline.training.metrics import MetricLine
from distinit.schemas.errors import ConfigError
from distinit.schemas.run import LeftOut, TargetShare
from distinit.schemas.wording import one_line

__all__ = [
    "KEPT",
    "WITH_TARGET",
    "are_telling",
    "left_out_lines",
    "refuse_empty_filters",
    "refuse_untaught",
    "share_lines",
    "target_shares",
]

WITH_TARGET, KEPT = "with_target/", "kept/"
"""Figures of metric lines: shares of all clips, by head."""
_FEW = 0.5
_TELLING_CLIPS = 200


def target_shares(lines: Sequence[MetricLine], heads: Iterable[str]) -> dict[str, TargetShare]:
    """The shares over a run's metric lines, for each head; heads without figures are left out."""
    shares = {}
    for head in heads:
        names = (WITH_TARGET + head, KEPT + head)
        known = [line for line in lines if all(name in line for name in names)]
        if known:
            shares[head] = TargetShare(
                with_target=_mean(known, names[0]), kept=_mean(known, names[1])
            )
    return shares


def _mean(lines: Sequence[MetricLine], name: str) -> float:
    """Mean over the steps: a line stands for the steps since the one before."""
    steps_before = [0, *(line["step"] for line in lines[:-1])]
    ends = [line["step"] for line in lines]
    steps = [max(0, end - before) for end, before in zip(ends, steps_before, strict=True)]
    total = sum(count * line[name] for count, line in zip(steps, lines, strict=True))
    return min(1.0, max(0.0, total / max(1, sum(steps))))


def are_telling(lines: Sequence[MetricLine]) -> bool:
    """Whether a share of 0 over these lines is more than bad luck in a very short epoch."""
    if not lines:
        return False
    clips = lines[-1].get("clips", 0)
    return clips >= _TELLING_CLIPS or clips == lines[-1].get("clips_total")


def left_out_lines(left_out: LeftOut) -> list[str]:
    """What is not trained on, for people; empty if nothing was left out."""
    counts = {
        "failed": left_out.failed,
        "of earlier runs": left_out.gone,
        "not in the frame store": left_out.not_in_store,
        "with another number of frames in the frame store": left_out.other_frame_count,
        "without a target": left_out.without_targets,
    }
    reasons = [f"{count} {why}" for why, count in counts.items() if count]
    if not reasons:
        return []
    examples = "".join(f"; {one_line(text)}" for text in left_out.examples)
    return [f"left out: {', '.join(reasons)}{examples}"]


def share_lines(shares: dict[str, TargetShare]) -> list[str]:
    """One line a head for people, with a warning where most clips had no target."""
    lines = []
    for head, share in shares.items():
        kept = "" if share.kept == share.with_target else f", {share.kept:.1%} kept by the filter"
        lines.append(f"{one_line(head)}: {share.with_target:.1%} of the clips had a target{kept}")
        if share.with_target < _FEW:
            lines.append(
                f"warning: most clips taught head {one_line(head)} nothing: extract with a smaller "
                "stride, or complete the cache"
            )
    return lines


def refuse_untaught(reader: TargetReader, share: TargetShare | None) -> None:
    """Raise ConfigError if no clip so far has had a weight for what ``reader`` teaches."""
    if share is None or share.kept > 0:
        return
    if share.with_target == 0:
        raise ConfigError(
            f"no clip had a target of teacher {reader.teacher.id}: nothing is learned from it",
            expected="clips with a frame that the teacher has seen",
            remedy="extract with this teacher again, or leave it out of targets",
        )
    raise ConfigError(
        f"the filter of teacher {reader.teacher.id} dropped every clip: nothing is learned from it",
        expected=f"clips with an entropy of at most {reader.threshold_nats:.4g} nats",
        found="none in a whole epoch",
        remedy="raise targets.filter.max_entropy_nats, or give keep_fraction instead",
    )


def refuse_empty_filters(readers: Sequence[TargetReader], combine_filters: str) -> None:
    """Raise ConfigError if filters will drop every clip, where stored entropies tell."""
    surest = [(reader, reader.surest_entropy_nats()) for reader in readers]
    empty = [(r, nats) for r, nats in surest if nats is not None and nats > r.threshold_nats]
    if not empty or (combine_filters == "any" and len(empty) < len(readers)):
        return
    reader, nats = empty[0]
    raise ConfigError(
        f"the filter of teacher {reader.teacher.id} keeps no clip",
        expected=f"frames with an entropy of at most {reader.threshold_nats:.4g} nats",
        found=f"{nats:.4g} nats for the surest frame of the cache",
        remedy="raise targets.filter.max_entropy_nats, or give keep_fraction instead",
    )
