"""All errors that users can meet, as subclasses of ``DistInitError``.

A message states what was expected, what was found, and what to do. The CLI prints it without a
traceback and exits with ``exit_code``.
"""

from __future__ import annotations

from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.wording import listing, one_line, printable

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
    "FeaturesError",
    "FrameStoreError",
    "LockedError",
    "MatchError",
    "RunMismatchError",
    "StorageError",
    "TargetError",
    "TeacherError",
    "TooManyFailuresError",
    "TransferError",
    "UnreachableError",
    "VocabularyError",
    "WeightsError",
]


_INDENT = " " * 12  # of further lines of a value, so that they do not look like lines of ours


class DistInitError(Exception):
    """Base of all errors. ``problem`` is one sentence; the other arguments are optional details.

    ``named_input``: the problem is an input that the user has named and that is not there, or is
    something else. The exit code is then USAGE, whatever the kind of the input.
    """

    exit_code = ExitCode.FAILED

    def __init__(
        self,
        problem: str,
        *,
        expected: object = None,
        found: object = None,
        remedy: str | None = None,
        named_input: bool = False,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.expected = expected
        self.found = found
        self.remedy = remedy
        self.named_input = named_input
        if named_input:
            self.exit_code = ExitCode.USAGE

    def __str__(self) -> str:
        # Names and values may come from files of others: see wording.one_line.
        lines = [one_line(self.problem)]
        for label, detail in (
            ("expected:", self.expected),
            ("found:", self.found),
            ("to do:", self.remedy),
        ):
            if detail is not None:
                text = printable(listing(detail)).replace("\n", f"\n{_INDENT}")
                lines.append(f"  {label:9} {text}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # BaseException.__reduce__ loses keyword-only arguments, and these errors are pickled
        # between processes (Ray actors, loader workers).
        details = (self.expected, self.found, self.remedy, self.named_input)
        return (_rebuild, (type(self), self.problem, *details))


def _rebuild(
    cls: type[DistInitError],
    problem: str,
    expected: object,
    found: object,
    remedy: str | None,
    named_input: bool,
) -> DistInitError:
    return cls(problem, expected=expected, found=found, remedy=remedy, named_input=named_input)


class ConfigError(DistInitError):
    """A configuration or command-line value that cannot be used."""

    exit_code = ExitCode.USAGE


class CorpusError(DistInitError):
    """The input videos cannot be listed: a missing folder, an empty list, an unreadable file."""

    exit_code = ExitCode.USAGE


class UnreachableError(CorpusError):
    """The server of the videos does not respond, so no video is recorded as failed."""

    exit_code = ExitCode.FAILED


class DatasetError(DistInitError):
    """A labelled dataset or its split files are missing, malformed or inconsistent."""

    exit_code = ExitCode.USAGE


class FFmpegNotFoundError(DistInitError):
    """No usable ffmpeg binary."""


class DecodeError(DistInitError):
    """A video could not be decoded. It is recorded as failed; the run continues."""


class DecodeKilledError(DecodeError):
    """ffmpeg was killed from outside. The video may be fine: try again."""


class TeacherError(DistInitError):
    """An unknown teacher, or one that cannot be built."""

    exit_code = ExitCode.USAGE


class TargetError(DistInitError):
    """A teacher has no usable output for a video. It is recorded; the run continues."""


class WeightsError(DistInitError):
    """A weights file that is missing, unreadable, hostile or of another architecture."""


class VocabularyError(DistInitError):
    """A vocabulary file that is damaged, or does not belong to the teacher it is used with."""

    exit_code = ExitCode.USAGE


class CacheError(DistInitError):
    """A target cache that cannot be read or written as requested."""


class CacheMismatchError(CacheError):
    """The cache belongs to another corpus, sampling or teacher than the requested one."""


class CacheCorruptError(CacheError):
    """Bytes on disk differ from the manifest or a commit record."""


class LockedError(DistInitError):
    """Another process is writing to the same folder."""


class TransferError(DistInitError):
    """Files cannot be sent to, or received from, another place as requested."""


class FrameStoreError(DistInitError):
    """A frame store that is missing, incomplete or of another geometry."""


class MatchError(DistInitError):
    """A mapping file of ``cache match`` that cannot be used: damaged, or of another cache."""


class CheckpointError(DistInitError):
    """A checkpoint or student file that cannot be loaded as requested."""


class FeaturesError(DistInitError):
    """Exported features that are missing, damaged, or of another student or dataset."""


class RunMismatchError(DistInitError):
    """A run directory that belongs to another configuration."""


class StorageError(DistInitError):
    """The file system refused an operation: full, read-only, or no permission."""


class ComputeError(DistInitError):
    """A worker died, ran out of memory, or could not be scheduled."""


class TooManyFailuresError(DistInitError):
    """More videos failed than ``max_failed`` allows."""
