"""The project's error tree: every failure a user can cause or meet has a class here.

A message answers three questions: what was expected, what was found, what to do.
The CLI prints it without a traceback and exits with ``exit_code``.
"""

from __future__ import annotations

from distinit.schemas.wording import one_line, printable

__all__ = [
    "CacheCorruptError",
    "CacheError",
    "CacheMismatchError",
    "CheckpointError",
    "ComputeError",
    "ConfigError",
    "CorpusError",
    "DatasetError",
    "DecodeError",
    "DecodeKilledError",
    "DistInitError",
    "FFmpegNotFoundError",
    "FrameStoreError",
    "LockedError",
    "RunMismatchError",
    "StorageError",
    "TargetError",
    "TeacherError",
    "TooManyFailuresError",
    "UnreachableError",
    "WeightsError",
]


_INDENT = " " * 12  # below the detail: a line that a value brings along is told apart


class DistInitError(Exception):
    """Root of the tree. ``problem`` is one sentence; the rest is optional detail."""

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        expected: object = None,
        found: object = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.expected = expected
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        # Names and values in a message may come from a stranger's file: see wording.one_line.
        lines = [one_line(self.problem)]
        for label, detail in (
            ("expected:", self.expected),
            ("found:", self.found),
            ("to do:", self.remedy),
        ):
            if detail is not None:
                text = printable(detail).replace("\n", f"\n{_INDENT}")
                lines.append(f"  {label:9} {text}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by BaseException's own reduce, and these
        # errors cross process boundaries (Ray actors, loader workers).
        return (_rebuild, (type(self), self.problem, self.expected, self.found, self.remedy))


def _rebuild(
    cls: type[DistInitError], problem: str, expected: object, found: object, remedy: str | None
) -> DistInitError:
    return cls(problem, expected=expected, found=found, remedy=remedy)


class ConfigError(DistInitError):
    """A configuration or command-line value that cannot be used."""

    exit_code = 2


class CorpusError(DistInitError):
    """The input videos cannot be listed: missing folder, empty list, unreadable file."""

    exit_code = 2


class UnreachableError(CorpusError):
    """The server that the videos come from does not answer: this is no video's fault."""

    exit_code = 1


class DatasetError(DistInitError):
    """A labelled dataset or its split files are missing, malformed or inconsistent."""

    exit_code = 2


class FFmpegNotFoundError(DistInitError):
    """No usable ffmpeg binary."""


class DecodeError(DistInitError):
    """One video could not be decoded completely. Recorded per video, ends no run."""


class DecodeKilledError(DecodeError):
    """Something outside ended ffmpeg. It says nothing about the video: try again."""


class TeacherError(DistInitError):
    """An unknown teacher, or one that cannot be built."""

    exit_code = 2


class TargetError(DistInitError):
    """A teacher has no usable answer for a video. Recorded per video, ends no run."""


class WeightsError(DistInitError):
    """A weights file that is missing, unreadable, hostile or of another architecture."""


class CacheError(DistInitError):
    """A target cache that cannot be read or written as asked."""


class CacheMismatchError(CacheError):
    """The cache belongs to another corpus, sampling or teacher than the one asked for."""


class CacheCorruptError(CacheError):
    """Bytes on disk disagree with the manifest or a commit record."""


class LockedError(DistInitError):
    """Another process is writing there."""


class FrameStoreError(DistInitError):
    """A frame store that is missing, incomplete or of another geometry."""


class CheckpointError(DistInitError):
    """A checkpoint or student file that cannot be loaded as asked."""


class RunMismatchError(DistInitError):
    """A run directory that belongs to another configuration."""


class StorageError(DistInitError):
    """The disk refused: full, read-only, no permission."""


class ComputeError(DistInitError):
    """A worker died, ran out of memory, or could not be scheduled."""


class TooManyFailuresError(DistInitError):
    """More videos failed than ``max_failed`` allows."""
