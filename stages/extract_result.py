"""The result of an extraction, as a record and as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from distinit.pipeline.extraction.failures import damage_lines, failure_lines
from distinit.schemas.base import Record
from distinit.schemas.corpus import CorpusReport
from distinit.schemas.output_reports import FeatureFidelityReport, FidelityReport, OutputReport
from distinit.schemas.wording import counted, one_line, shell_line

__all__ = ["ExtractResult", "FailedVideo"]


class FailedVideo(Record):
    """A video that is not in the cache, and why."""

    path: str = Field(description="path relative to the corpus, or URL")
    error: str = Field(description="why it failed")


class ExtractResult(Record):
    """The state of the cache after an extraction, and what this run did."""

    cache: str = Field(description="folder of the target cache")
    frames_store: str | None = Field(description="folder of the frame store, if there is one")
    content_digest: str = Field(description="digest of the cache; empty until it is complete")
    complete: bool = Field(
        description="every video is in the cache or has failed; `failed` lists the latter"
    )
    missing: tuple[str, ...] = Field(
        (), description="what an incomplete cache lacks, and the commands that add it"
    )
    corpus: CorpusReport = Field(description="videos that are new, changed or gone")
    videos: int = Field(description="videos in the corpus, including failed ones")
    frames: int = Field(description="decoded frames of the videos that have not failed")
    rows: int = Field(description="rows in use, including those of gone videos")
    gone: int = Field(0, description="additional videos in the cache that the corpus no longer has")
    failed: tuple[FailedVideo, ...] = Field(description="videos that are not in the cache")
    unavailable: int = Field(
        description="failed videos whose file cannot be read or whose URL cannot be fetched. "
        "They are not recorded in the cache; rerunning the same command tries them again"
    )
    damaged: dict[str, str] = Field(
        description="path -> what is missing, for damaged videos that are in the cache"
    )
    concealed: dict[str, str] = Field(
        description="path -> errors, for videos with all frames, some of them damaged"
    )
    decoder_errors: dict[str, int] = Field(
        description="path -> number of decoder errors of a damaged video; 1000 means 1000 or more"
    )
    teachers: tuple[str, ...] = Field(description="ids of the teachers of the cache")
    encodings: dict[str, str] = Field(description="teacher -> encoding of its targets")
    encoding_losses: dict[str, FidelityReport | FeatureFidelityReport] = Field(
        description="teacher -> loss of its encoding, over the whole cache"
    )
    answers: dict[str, OutputReport] = Field(
        {},
        description="teacher -> whether its logits differ between frames, over the whole cache",
    )
    unstated: tuple[str, ...] = Field(
        (), description="what the owner has not stated of: license, source, contact"
    )
    frames_done: int = Field(description="frames that this run decoded")
    seconds: float = Field(description="duration of this run")

    def _warnings(self) -> Iterator[tuple[str, list[str]]]:
        """Teacher and warnings: of uninformative outputs, and of an encoding that loses much."""
        for name, report in self.answers.items():
            yield name, report.warnings
        for name, loss in self.encoding_losses.items():
            if isinstance(loss, FeatureFidelityReport):
                yield name, loss.warnings

    def summary(self) -> str:
        """Text for the terminal: counts, failures with reasons, paths, and the next command."""
        ok = self.videos - len(self.failed)
        damaged = f" ({len(self.damaged)} damaged)" if self.damaged else ""
        lines = [
            f"{ok} of {counted(self.videos, 'video')}{damaged}, "
            f"{counted(self.frames, 'frame')}, "
            f"{counted(self.rows, 'row')}{' (including gone videos)' if self.gone else ''}, "
            f"teachers: {', '.join(map(one_line, self.teachers))}",
            f"this run: {counted(self.frames_done, 'frame')} in {self.seconds:.1f} s",
            *self.corpus.lines()[1:],
        ]
        lines += [
            f"{one_line(name)}: storing as {self.encodings[name]} {loss}"
            for name, loss in self.encoding_losses.items()
        ]
        lines += [
            f"warning: teacher {one_line(name)}: {one_line(warning)}"
            for name, warnings in self._warnings()
            for warning in warnings
        ]
        if self.failed:
            lines += ["", f"{counted(len(self.failed), 'video')} failed, not in the cache:"]
            lines += failure_lines((video.path, video.error) for video in self.failed)
        if self.unavailable:
            lines.append(
                f"{self.unavailable} of them could not be read or fetched: rerun the same command "
                "to try again"
            )
        lines += damage_lines(self.damaged, self.concealed)
        lines += ["", f"cache   {one_line(self.cache)}"]
        if self.frames_store is not None:
            lines.append(f"frames  {one_line(self.frames_store)}")
        if not self.complete:
            return "\n".join([*lines, *(f"NOT COMPLETE: {line}" for line in self.missing)])
        lines.append(f"digest  {self.content_digest}")
        if self.unstated:
            options = [word for name in self.unstated for word in (f"--{name}", name.upper())]
            describe = shell_line(["distinit", "cache", "describe", self.cache, *options])
            lines.append(f"not stated: {', '.join(self.unstated)}; before you share it: {describe}")
        frames = [] if self.frames_store is None else ["--frames", self.frames_store]
        audit = ["distinit", "audit", self.cache, *frames, "--out", "REPORT"]
        return "\n".join([*lines, "", f"next: {shell_line(audit)}"])
