"""Teachers and caches side by side: parts of ``audit.json``."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record

__all__ = ["CacheDrift", "Distance", "TeacherPairAudit"]


class TeacherPairAudit(Record):
    """Two teachers of one cache over the frames that both have a usable output for."""

    first: str = Field(description="id of the first teacher")
    second: str = Field(description="id of the second teacher")
    frames: int = Field(ge=0, description="frames that both have a usable output for")
    correlation: float = Field(description="correlation of their entropies; 0 without a spread")
    edges_first_nats: tuple[float, ...] = Field(description="edges of the bins of the first, nats")
    edges_second_nats: tuple[float, ...] = Field(
        description="edges of the bins of the second, nats"
    )
    joint_frames: tuple[tuple[int, ...], ...] = Field(
        description="frames by bin of the first teacher's entropy, then of the second's"
    )
    only_first_sure: float = Field(
        ge=0,
        le=1,
        description="share of the frames of which only the first is surer than its own median",
    )
    only_second_sure: float = Field(ge=0, le=1, description="the same with the teachers exchanged")
    agreement: float | None = Field(
        None,
        description="share of the frames with the same most probable class; None: their label "
        "spaces differ",
    )
    mapped_agreement: float | None = Field(
        None,
        description="agreement after renumbering, over the pairs of classes with one that is "
        "renumbered, each counted once per video. New numbers are learnt from every second video "
        "and judged on the others, and vice versa. None: fewer than 5 classes can be judged",
    )
    unmapped_agreement: float | None = Field(
        None, description="agreement of the same pairs without renumbering"
    )


class Distance(Record):
    """A distance of two caches, and what a bootstrap over videos says about it."""

    value: float = Field(ge=0, description="the distance")
    low: float | None = Field(
        None,
        ge=0,
        description="2.5 % quantile of the distance of resamples of both caches. These are never "
        "equal, so it may lie above a distance that is no more than chance. None: fewer than 10 "
        "videos in one of them",
    )
    high: float | None = Field(None, ge=0, description="97.5 % quantile of the same")
    noise: float | None = Field(
        None,
        ge=0,
        description="97.5 % quantile of the distance that resamples have by chance alone, if the "
        "caches are equally distributed; None: fewer than 10 videos in one of them",
    )

    def in_words(self, unit: str = "") -> str:
        """The distance and how sure it is, for the page."""
        if self.low is None or self.high is None or self.noise is None:
            return "too few videos to say whether this is chance: fewer than 10 in a cache"
        by_chance = (
            f"other videos of the same kind differ by up to {self.noise:.3f}{unit} by chance"
        )
        if self.value <= self.noise:
            return f"no more than chance: {by_chance}"
        return (
            f"more than chance: {by_chance}; with other videos, it would be between "
            f"{self.low:.3f} and {self.high:.3f}{unit} in 95 % of draws"
        )


class CacheDrift(Record):
    """The same teacher in two caches."""

    cache: str = Field(description="folder of the other cache, as given")
    content_digest: str = Field(description="content digest of the other cache")
    teacher: str = Field(description="id of the teacher, in both caches")
    same_teacher: bool = Field(description="whether the weights and the preprocessing are the same")
    frames: int = Field(ge=0, description="frames of the other cache")
    videos: int = Field(ge=0, description="videos of the other cache with rows")
    edges_nats: tuple[float, ...] = Field(description="edges of the bins of both densities, nats")
    first_frames: tuple[int, ...] = Field(description="frames per bin of the audited cache")
    other_frames: tuple[int, ...] = Field(description="frames per bin of the other cache")
    entropy_distance: Distance = Field(
        description="Wasserstein distance of the entropies, nats: how far they are moved on average"
    )
    class_distance: Distance = Field(
        description="total variation of the shares of the classes: 0 is equal, 1 is disjoint"
    )
