"""Configuration, mapping file and result of `distinit cache match`: a receiver's own copies."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from distinit.schemas.base import Record, SealedRecord, Sha256
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.video import DecodeConfig
from distinit.schemas.wording import counted, first_lines, one_line, shell_line

__all__ = [
    "KINDS",
    "MAPPING_FORMAT_VERSION",
    "KindCount",
    "MappingHeader",
    "MatchConfig",
    "MatchLimits",
    "MatchReport",
    "MatchedVideo",
    "Verdict",
]

MAPPING_FORMAT_VERSION = 1
_REFUSED_SHOWN = 20

Verdict = Literal[
    "exact",
    "re-encoded",
    "undecidable",
    "shifted",
    "cut",
    "other frame rate",
    "ambiguous",
    "missing",
]
KINDS: tuple[Verdict, ...] = get_args(Verdict)
"""All verdicts on a video, in the order of the report."""


class MatchLimits(Record):
    """When two videos count as the same; see decision 46 for the measurements."""

    max_bits: int = Field(
        4,
        ge=0,
        le=16,
        description="largest difference of the perceptual hashes of one frame in two encodings",
        json_schema_extra={"unit": "bits of 64", "source": "decision 46"},
    )
    min_share: float = Field(
        0.9,
        gt=0.5,
        le=1,
        description="smallest share of the stored frames whose hashes must agree",
        json_schema_extra={"unit": "share", "source": "decision 46"},
    )
    window_frames: int = Field(
        300,
        ge=1,
        le=3000,
        description="largest shift that is looked for, in either direction",
        json_schema_extra={"unit": "frames"},
    )
    static: Literal["use", "refuse"] = Field(
        "use",
        description="copies of which the hashes cannot say whether they are shifted, because the "
        "picture hardly moves: use those with the same name and number of frames, or refuse them",
        json_schema_extra={"source": "decision 46"},
    )


class MatchConfig(Record):
    """Configuration of ``cache match``: a cache and a receiver's videos -> mapping file."""

    cache: str = Field(description="folder of the target cache")
    videos: str = Field(
        description="folder of the receiver's videos (searched recursively), or a list of paths "
        "(.txt, .csv, .parquet) that lie below the list's folder"
    )
    out: str = Field(
        description="mapping file (Parquet), outside of a folder of videos; an older mapping file "
        "is replaced, any other file is refused; hashes are kept next to it, in "
        "OUT.hashes, so that a later or interrupted match decodes only new videos"
    )
    limits: MatchLimits = Field(
        default_factory=MatchLimits, description="when two videos count as the same"
    )
    decode: DecodeConfig = Field(
        default_factory=DecodeConfig, description="decoding with ffmpeg, and its limits"
    )


class MappingHeader(SealedRecord):
    """What a mapping file says about itself, as JSON in the metadata of its Parquet schema."""

    format: Literal["distinit-match"] = Field("distinit-match", description="kind of file")
    format_version: Literal[1] = Field(1, description="version of the format")
    corpus_digest: Sha256 = Field(description="corpus.digest of the cache that was matched")
    limits: MatchLimits = Field(description="limits of the match")
    rows_sha256: Sha256 = Field(description="sha256 of the canonical JSON of all rows")


class MatchedVideo(Record):
    """One video of the cache, and the receiver's copy of it: a row of the mapping file."""

    video_id: str = Field(description="id of the video in the cache")
    path: str = Field(description="path of the video in the cache's corpus")
    digest: str = Field(description="sha256 of the owner's file")
    frame_count: int = Field(description="frames of the owner's file")
    kind: Verdict = Field(description="verdict")
    usable: bool = Field(description="whether the copy may stand for the video in training")
    copy_path: str = Field("", description="path of the copy below the receiver's folder")
    copy_digest: str = Field("", description="sha256 of the copy; empty: there is none")
    copy_frame_count: int = Field(0, description="frames of the copy; 0: unknown")
    shift_frames: int = Field(
        0, description="s: frame i + s of the copy shows frame i of the video"
    )
    agreeing_share: float = Field(
        0.0, description="share of the stored frames whose hashes agree; 1 for exact copies"
    )
    reason: str = Field("", description="why the copy is not usable, or what is special")

    def line(self) -> str:
        """The video and its verdict, for a message."""
        why = f"  {one_line(self.reason)}" if self.reason else ""
        return f"{one_line(self.path)}  {self.kind}{why}"


class KindCount(Record):
    """Number of videos with one verdict."""

    kind: Verdict = Field(description="verdict")
    videos: int = Field(ge=0, description="videos with this verdict")
    usable: int = Field(ge=0, description="those whose copies may be trained on")
    shifts: str = Field("", description="smallest and largest shift, frames")
    shares: str = Field("", description="smallest and largest share of agreeing frames, percent")


class MatchReport(Record):
    """The result of ``cache match``."""

    cache: str = Field(description="folder of the cache")
    source: str = Field(description="the receiver's videos, as given by the user")
    out: str = Field(description="mapping file")
    videos: int = Field(description="videos of the cache that can be trained on")
    usable: int = Field(description="videos with a copy that can be used")
    kinds: tuple[KindCount, ...] = Field(description="number of videos per verdict")
    copies: int = Field(description="the receiver's videos with different content")
    unreadable: dict[str, str] = Field(
        description="the receiver's files that cannot be read or decoded -> reason"
    )
    refused: tuple[MatchedVideo, ...] = Field(description="every video without a usable copy")
    seconds: float = Field(description="duration")

    @property
    def exit_code(self) -> ExitCode:
        """0: every video has a usable copy. 3: some have not. 1: none has."""
        if self.usable == 0:
            return ExitCode.FAILED
        return ExitCode.OK if self.usable == self.videos else ExitCode.INCOMPLETE

    def summary(self) -> str:
        """The table of verdicts, then the refused videos by name, and what to do next."""
        lines = [
            f"{self.usable} of {counted(self.videos, 'video')} of the cache can be used, from "
            f"{counted(self.copies, 'file')}, in {self.seconds:.1f} s",
            f"{'verdict':<17}{'videos':>8}{'usable':>8}  {'shift':>12}  {'frames that agree':>17}",
        ]
        for row in self.kinds:
            lines.append(
                f"{row.kind:<17}{row.videos:>8}{row.usable:>8}  {row.shifts:>12}  {row.shares:>17}"
            )
        if self.refused:
            lines.append(f"{counted(len(self.refused), 'video')} without a usable copy:")
            lines += first_lines([video.line() for video in self.refused], _REFUSED_SHOWN)
        if self.unreadable:
            lines.append(f"{counted(len(self.unreadable), 'file')} cannot be read or decoded:")
            reasons = [
                f"{one_line(name)}: {one_line(why)}" for name, why in self.unreadable.items()
            ]
            lines += first_lines(reasons, _REFUSED_SHOWN)
        lines.append(f"mapping  {one_line(self.out)}")
        if self.usable:
            lines += ["", f"next: {shell_line(self._next())}"]
        return "\n".join(lines)

    def _next(self) -> list[str]:
        command = ["distinit", "frames", "build", "--videos", self.source]
        return [*command, "--match", self.out, "--out", f"{self.out}.frames"]
