"""Verifies a cache: its bytes, its digest, its signature, and a sample of its targets."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field

from distinit.pipeline.cache.copies import refuse_copy
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import refuse_no_cache
from distinit.pipeline.cache.repair import repair_cache
from distinit.pipeline.cache.verify import VerifyReport, verify_cache
from distinit.pipeline.cache.verify_copy import verify_copy
from distinit.pipeline.progress import Progress
from distinit.schemas.base import Record
from distinit.schemas.errors import ConfigError
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.wording import counted, first_lines
from distinit.stages.cache_damage import repair_commands, what_to_do
from distinit.stages.cache_signature import (
    SignatureOutcome,
    check_public_key,
    signature_outcome,
)
from distinit.stages.recompute_result import Recomputed, RecomputeRequest

__all__ = ["CacheVerification", "cache_verify", "check_expected"]

_PROBLEMS_SHOWN = 20
_DIGEST = re.compile("[0-9a-f]{64}")


class CacheVerification(Record):
    """All differences between the files and the records of a cache."""

    path: str = Field(description="folder of the cache")
    ok: bool = Field(
        description="complete, no problems, the expected digest; recomputed rows are right"
    )
    complete: bool = Field(description="every unit is committed")
    deep: bool = Field(description="whether every byte was read, not only sizes")
    content_digest: str = Field(
        description="recomputed from the records; empty if the cache is not complete"
    )
    expected_digest: str | None = Field(None, description="value of --expect")
    files: int = Field(description="files that were checked")
    rows: int = Field(description="rows of the cache")
    bytes: int = Field(description="size of these files, bytes")
    problems: tuple[str, ...] = Field(description="what is wrong, one line each")
    notes: tuple[str, ...] = Field(description="what is unusual, but no damage")
    missing: tuple[str, ...] = Field(
        (), description="what an intact but incomplete cache lacks, and the commands that add it"
    )
    returned_units: tuple[str, ...] = Field(
        (), description="units that --repair marked to be extracted again"
    )
    damaged_units: tuple[str, ...] = Field(
        (), description="units that can be extracted again, if there are problems"
    )
    repair_commands: tuple[str, ...] = Field(
        (), description="commands that extract these units again, one per teacher"
    )
    signature: SignatureOutcome | None = Field(
        None, description="whether --signed-by fits; None without that option"
    )
    recomputed: Recomputed | None = Field(
        None, description="outcome of --recompute; None: not requested, or there are problems"
    )

    @property
    def exit_code(self) -> ExitCode:
        """0: ok. 1: damaged, or not the expected cache. 3: incomplete, repaired, or unchecked."""
        if self.ok:
            return ExitCode.OK
        unfinished = not self.complete and not self.problems
        unfinished |= self.recomputed is not None and self.recomputed.checked_rows == 0
        if self.signature is not None and not self.signature.ok:
            return ExitCode.FAILED
        if self.complete and self.expected_digest not in (None, self.content_digest):
            return ExitCode.FAILED
        if unfinished or self.returned_units:
            return ExitCode.INCOMPLETE
        return ExitCode.FAILED

    def summary(self) -> str:
        """Text for the terminal: the result, the problems, and what to do."""
        checked = (
            f"{counted(self.files, 'file')}, {counted(self.rows, 'row')}, {self.bytes / 1e6:.1f} MB"
        )
        agrees = "all bytes match" if self.deep else "files and sizes match (bytes not checked)"
        again = "rerun the same `distinit extract`"
        if self.problems:
            lines = [f"DAMAGED: {checked}: {counted(len(self.problems), 'problem')}"]
            lines += first_lines(self.problems, _PROBLEMS_SHOWN)
        elif not self.complete:
            lines = [f"INCOMPLETE: {checked}: {agrees}, but units are missing"]
            lines += [f"  {line}" for line in self.missing]
            lines.append(f"  to do: {again}, or run the command above")
        elif self.recomputed is not None and not self.recomputed.ok:
            lines = [self.recomputed.verdict(f"{checked}: {agrees}")]
        elif self.expected_digest not in (None, self.content_digest):
            lines = [f"ANOTHER CACHE: {checked}: {agrees}, but the digest is not the expected one"]
        elif not self.ok:
            lines = [f"NOT AS SIGNED: {checked}: {agrees}, but not the signature"]
        elif self.recomputed is not None:
            lines = [self.recomputed.verdict(f"{checked}: {agrees}")]
        else:
            lines = [f"ok: {checked}: {agrees}"]
        lines += [f"  digest    {self.content_digest}"] if self.content_digest else []
        if self.expected_digest not in (None, self.content_digest):
            lines.append(f"  expected  {self.expected_digest}")
        lines += [] if self.signature is None else self.signature.lines()
        lines += self.recomputed.lines() if self.recomputed is not None else []
        lines += [f"  note: {note}" for note in self.notes]
        if self.returned_units:
            lines += [f"repair: {again} to extract these units again:"]
            lines += first_lines(self.returned_units, _PROBLEMS_SHOWN)
        elif self.problems:
            lines += what_to_do(Path(self.path), self.damaged_units, self.repair_commands)
        return "\n".join(lines)


def check_expected(digest: str | None) -> None:
    """Raise ConfigError if the value of --expect is not a content digest."""
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise ConfigError(
            "--expect is not a content digest",
            expected="64 hexadecimal digits, as `distinit cache info` shows them",
            found=digest[:80],
        )


def cache_verify(
    path: Path,
    *,
    deep: bool,
    expect: str | None = None,
    repair: bool = False,
    signed_by: Path | None = None,
    workers: int | None = None,
    recomputing: RecomputeRequest | None = None,
    progress: Progress | None = None,
) -> CacheVerification:
    """Check a cache; damage is reported, not raised.

    Args:
        path: Folder of the cache.
        deep: Read every byte.
        expect: The content digest that the sender of the cache published.
        repair: Mark damaged units to be extracted again; implies ``deep``.
        signed_by: The public key (PEM) of the sender, whose signature the files must have.
        workers: Threads; None: one per CPU core.
        recomputing: Also compute some rows again, if the cache is complete and has no problems.
        progress: Shows the bytes that were read.

    Raises:
        CacheError: The folder is not a cache, or ``repair`` is set and it contains links.
        ConfigError: ``expect`` is not a digest, or ``signed_by`` is not a public key.
        DistInitError: As ``recompute``.
    """
    check_expected(expect)
    refuse_no_cache(path)
    if signed_by is not None:
        check_public_key(signed_by)
    if CacheLayout(path).copy.exists():
        if repair:
            refuse_copy(CacheLayout(path))
        report = verify_copy(path, deep=deep, workers=workers, progress=progress)
    elif repair:
        report = repair_cache(path, workers=workers, progress=progress)
    else:
        report = verify_cache(path, deep=deep, workers=workers, progress=progress)
    signature = None if signed_by is None else signature_outcome(path, signed_by, report.sha256)
    result = _verification(path, report, expect, repair, signature)
    return result if recomputing is None else _with_recomputed(result, recomputing, progress)


def _with_recomputed(
    result: CacheVerification, request: RecomputeRequest, progress: Progress | None
) -> CacheVerification:
    path = Path(result.path)
    if result.problems or not result.complete or CacheLayout(path).copy.exists():
        note = "nothing was recomputed: the cache must be whole, complete and without problems"
        return result.model_copy(update={"ok": False, "notes": (*result.notes, note)})
    from distinit.stages.cache_recompute import recompute  # imports torch

    recomputed = recompute(path, request, progress=progress)
    return result.model_copy(update={"ok": result.ok and recomputed.ok, "recomputed": recomputed})


def _verification(
    path: Path,
    report: VerifyReport,
    expect: str | None,
    repair: bool,
    signature: SignatureOutcome | None,
) -> CacheVerification:
    as_expected = expect in (None, report.content_digest)
    as_expected &= signature is None or signature.ok
    returned = report.damaged_units if repair else ()
    unfinished = not report.complete and not report.problems
    return CacheVerification(
        path=str(path),
        ok=report.ok and report.complete and as_expected,
        complete=report.complete and not returned,
        deep=report.deep,
        content_digest=report.content_digest,
        expected_digest=expect,
        files=report.files,
        rows=report.rows,
        bytes=report.bytes,
        problems=report.problems,
        notes=report.notes,
        missing=TargetCache.open(path, allow_incomplete=True).missing if unfinished else (),
        returned_units=tuple(f"unit {unit} of teacher {name}" for name, unit in returned),
        damaged_units=tuple(
            f"unit {unit} of teacher {name}" for name, unit in report.damaged_units
        ),
        repair_commands=() if returned else repair_commands(path, report.damaged_units),
        signature=signature,
    )
