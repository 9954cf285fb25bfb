"""What an extraction leaves behind, as a record and as lines for people."""

from __future__ import annotations

from pydantic import Field

from distinit.pipeline.extraction.failures import damage_lines, failure_lines
from distinit.schemas.base import Record
from distinit.schemas.corpus import CorpusReport
from distinit.schemas.teacher import FidelityReport, OutputReport
from distinit.schemas.wording import counted, one_line, shell_line

__all__ = ["ExtractResult", "FailedVideo"]


class FailedVideo(Record):
    """A video that is not in the cache, and why."""

    path: str
    error: str


class ExtractResult(Record):
    """What an extraction left behind."""

    cache: str
    frames_store: str | None
    content_digest: str
    complete: bool = Field(description="every video is decided; failed ones are listed")
    missing: tuple[str, ...] = Field(
        (), description="what a cache that is not complete lacks, and the commands to run"
    )
    corpus: CorpusReport = Field(description="what is new, changed and gone")
    videos: int = Field(description="of the corpus, failed ones too")
    frames: int = Field(description="decoded frames of the videos that are ok")
    rows: int = Field(description="in use, those of gone videos too")
    gone: int = Field(0, description="further videos, which the corpus no longer has")
    failed: tuple[FailedVideo, ...]
    unavailable: int = Field(
        description="of the failed: files that cannot be read, and URLs that cannot be fetched. "
        "The cache does not know them; the same command tries them again"
    )
    damaged: dict[str, str] = Field(
        description="path -> what is missing, of videos that are in the cache all the same"
    )
    concealed: dict[str, str] = Field(
        description="path -> errors, of videos with all frames that are damaged within pictures"
    )
    decoder_errors: dict[str, int] = Field(
        description="path -> number, of all of these; 1000: or more"
    )
    teachers: tuple[str, ...]
    encodings: dict[str, str] = Field(description="of each teacher")
    encoding_losses: dict[str, FidelityReport] = Field(
        description="what the stored form of each teacher's logits lost, over the whole cache"
    )
    answers: dict[str, OutputReport] = Field(
        {},
        description="whether each teacher of logits tells the frames apart, over the whole cache",
    )
    frames_done: int = Field(description="decoded by this run; the rest was there already")
    seconds: float

    def summary(self) -> str:
        """Counts, failures with reasons, paths, and what to type next."""
        ok = self.videos - len(self.failed)
        damaged = f" ({len(self.damaged)} damaged)" if self.damaged else ""
        lines = [
            f"{ok} of {counted(self.videos, 'video')}{damaged}, "
            f"{counted(self.frames, 'frame')}, "
            f"{counted(self.rows, 'row')}{' (those of gone videos too)' if self.gone else ''}, "
            f"teachers: {', '.join(map(one_line, self.teachers))}",
            f"this run: {counted(self.frames_done, 'frame')} in {self.seconds:.1f} s",
            *self.corpus.lines()[1:],
        ]
        lines += [
            f"{one_line(name)} stored as {self.encodings[name]} lost: {loss}"
            for name, loss in self.encoding_losses.items()
        ]
        lines += [
            f"warning: teacher {one_line(name)}: {one_line(warning)}"
            for name, report in self.answers.items()
            for warning in report.warnings
        ]
        if self.failed:
            lines += ["", f"{counted(len(self.failed), 'video')} failed, not in the cache:"]
            lines += failure_lines((video.path, video.error) for video in self.failed)
        if self.unavailable:
            lines.append(
                f"{self.unavailable} of them could not be read or fetched: the same command tries "
                "again"
            )
        lines += damage_lines(self.damaged, self.concealed)
        lines += ["", f"cache   {one_line(self.cache)}"]
        if self.frames_store is not None:
            lines.append(f"frames  {one_line(self.frames_store)}")
        if not self.complete:
            return "\n".join([*lines, *(f"NOT COMPLETE: {line}" for line in self.missing)])
        lines.append(f"digest  {self.content_digest}")
        audit = ["distinit", "audit", self.cache, "--frames", self.frames_store or "FRAMES"]
        return "\n".join([*lines, "", f"next: {shell_line([*audit, '--out', 'REPORT'])}"])
