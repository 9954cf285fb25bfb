"""Run everything that reads a folder on damaged and forged copies of it.

    python benchmarks/fuzz.py --target cache --cases 2000
    python benchmarks/fuzz.py --target training --cases 3000
    python benchmarks/fuzz.py --target cache --only 17 --seed 0

Each case is a copy of a small intact folder with one change. Every operation of the target runs on
it in a separate process, with a deadline and a limit on its address space. Outcomes:

- refused: an error that says what is wrong, or a check that reports it;
- same: the change does not matter, and the values are those of the intact folder;
- other: different values, but the change was forged: every checksum that covers it was recomputed,
  so no reader could notice;
- WRONG: different values without an error, although a checksum covers what was changed;
- traceback, hang, memory, crash: never acceptable, whatever the folder contains.

Exits with 1 if any outcome is WRONG or worse. A target is a module ``fuzz_NAME.py`` in this folder
with an object ``TARGET`` (see ``Target``).
"""

from __future__ import annotations

import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import click

from distinit.schemas.errors import DistInitError

TARGETS = ("cache", "frames", "mapping", "training")
OUTCOMES = ("refused", "same", "other", "WRONG", "traceback", "hang", "memory", "crash")
BAD = frozenset(OUTCOMES[3:])
_MEMORY_ERRORS = ("Cannot allocate memory", "malloc of size", "Unable to allocate")

type Operation = Callable[[Path], str]
"""Reads a folder and returns a digest of its values. Raises DistInitError if it refuses it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change to a folder."""

    what: str
    forged: bool = False
    """Whether the checksums that cover the change were recomputed."""


class Target(Protocol):
    """A kind of folder to fuzz."""

    @property
    def operations(self) -> Mapping[str, Operation]:
        """Everything that reads this kind of folder, by name."""
        ...

    def build(self, root: Path) -> None:
        """Write a small intact folder."""
        ...

    def change(self, root: Path, rng: random.Random) -> Change:
        """Make one change in a copy of it."""
        ...


@dataclass
class Tally:
    """Outcomes of each operation, and the unacceptable cases."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    bad: list[dict[str, Any]] = field(default_factory=list)

    def add(self, case: int, change: Change, operation: str, outcome: str, detail: str) -> None:
        """Count the outcome of one operation on one case."""
        self.counts.setdefault(operation, Counter())[outcome] += 1
        if outcome in BAD:
            found = {"case": case, "change": change.what, "operation": operation}
            self.bad.append({**found, "outcome": outcome, "detail": detail})

    def table(self) -> str:
        """Format the counts as a table."""
        width = max(len(name) for name in self.counts)
        lines = [" " * width + "".join(f"{name:>10}" for name in OUTCOMES)]
        for name, counts in self.counts.items():
            cells = "".join(f"{counts[outcome]:>10}" for outcome in OUTCOMES)
            lines.append(f"{name:<{width}}{cells}")
        return "\n".join(lines)


class Sandbox:
    """Runs the operations of a target in forked processes."""

    def __init__(self, target: Target, deadline_seconds: float, memory_mib: int) -> None:
        self._target = target
        self._deadline_seconds = deadline_seconds
        self._memory_mib = memory_mib

    def run(self, root: Path, home: Path) -> dict[str, tuple[str, str]]:
        """Return, for each operation, ("values", digest) or an outcome and its message.

        One process runs all operations. If an operation ends it, a new process runs the rest.
        """
        found: dict[str, tuple[str, str]] = {}
        waiting = list(self._target.operations)
        while waiting:
            done, ended = self._fork(waiting, root, home)
            found |= done
            waiting = waiting[len(done) :]
            if ended and waiting:
                found[waiting.pop(0)] = ended
        return found

    def _fork(
        self, names: list[str], root: Path, home: Path
    ) -> tuple[dict[str, tuple[str, str]], tuple[str, str] | None]:
        """Return the outcomes in order, and how the process ended if it did not finish."""
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            self._child(names, root, home, write_end)
        os.close(write_end)
        in_time, data = self._collect(read_end, len(names))
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        lines = [json.loads(line) for line in data.splitlines()]
        done = {name: (outcome, detail) for name, outcome, detail in lines}
        if not in_time:
            return done, ("hang", f"longer than {self._deadline_seconds:g} s")
        return done, None if status == 0 else ("crash", f"status {status}")

    def _collect(self, read_end: int, count: int) -> tuple[bool, bytes]:
        """Return whether the process ended before the deadline, and what it wrote."""
        data = b""
        until = time.monotonic() + self._deadline_seconds * count
        with os.fdopen(read_end, "rb", buffering=0) as pipe:
            while (left := until - time.monotonic()) > 0:
                if select.select([pipe], [], [], left)[0]:
                    block = pipe.read(1 << 16)
                    if not block:
                        return True, data
                    data += block
        return False, data[: data.rfind(b"\n") + 1]

    def _child(self, names: list[str], root: Path, home: Path, write_end: int) -> None:
        """Run the operations and exit. Never returns."""
        code = 1
        try:
            os.environ["XDG_CACHE_HOME"] = str(home)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            limit = _address_space_bytes() + (self._memory_mib << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            for name in names:
                line = json.dumps([name, *outcome_of(self._target.operations[name], root)])
                os.write(write_end, line.encode() + b"\n")
            code = 0
        finally:
            os._exit(code)


def outcome_of(operation: Operation, root: Path) -> tuple[str, str]:
    """Return ("values", digest), or ("refused" | "memory" | "traceback", message)."""
    try:
        return "values", operation(root)
    except DistInitError as error:
        out_of_memory = any(text in str(error) for text in _MEMORY_ERRORS)
        return ("memory" if out_of_memory else "refused"), str(error)[:2000]
    except MemoryError:
        return "memory", traceback.format_exc(limit=-3)[:2000]
    except Exception:
        return "traceback", traceback.format_exc(limit=-8)[-3000:]


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def open_target(name: str) -> Target:
    """Import the target of this name from this folder."""
    target: Target = importlib.import_module(f"fuzz_{name}").TARGET
    return target


def build_in_child(target: Target, root: Path) -> None:
    """Build the folder in a child process, because no threads may exist when cases are forked."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            target.build(root)
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1] != 0:
        raise click.ClickException("the intact folder could not be built")


def fuzz(
    target: Target,
    work: Path,
    cases: range,
    seed: int,
    deadline_seconds: float,
    memory_mib: int,
    echo: Callable[[str], None] = lambda _: None,
) -> Tally:
    """Run the cases in the folder ``work``."""
    intact, home, tally = work / "intact", work / "home", Tally()
    home.mkdir()
    build_in_child(target, intact)
    sandbox = Sandbox(target, deadline_seconds, memory_mib)
    expected = sandbox.run(intact, home)
    if unreadable := {name: found for name, found in expected.items() if found[0] != "values"}:
        raise click.ClickException(f"the intact folder cannot be read: {unreadable}")
    for case in cases:
        rng = random.Random(f"{seed} {case}")
        root, case_home = work / "case", work / "case-home"
        shutil.copytree(intact, root, symlinks=True)
        if rng.random() < 0.5:  # as if this machine had read the intact folder before
            shutil.copytree(home, case_home)
        change = target.change(root, rng)
        for name, (outcome, detail) in sandbox.run(root, case_home).items():
            if outcome == "values":
                outcome = "other" if change.forged else "WRONG"
                outcome = "same" if detail == expected[name][1] else outcome
            tally.add(case, change, name, outcome, detail)
            if outcome in BAD:
                echo(f"case {case}: {change.what}; {name}: {outcome}\n{detail}\n")
        for folder in (root, case_home):
            shutil.rmtree(folder, ignore_errors=True)
        if (case + 1) % 100 == 0:
            echo(f"{case + 1} cases, {len(tally.bad)} unacceptable outcomes")
    return tally


@click.command(help=__doc__)
@click.option(
    "--target",
    "name",
    type=click.Choice(TARGETS),
    default="cache",
    show_default=True,
    help="Kind of folder to fuzz.",
)
@click.option(
    "--cases", type=click.IntRange(1), default=200, show_default=True, help="Cases to run."
)
@click.option(
    "--first",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of the first case.",
)
@click.option("--only", type=click.IntRange(0), help="Run only the case with this number.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--deadline", default=20.0, show_default=True, help="Seconds per operation.")
@click.option(
    "--memory",
    default=1024,
    show_default=True,
    help="MiB of address space that a process may allocate.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    name: str,
    cases: int,
    first: int,
    only: int | None,
    seed: int,
    deadline: float,
    memory: int,
    as_json: bool,
) -> None:
    # Arrow's other allocators reserve a gigabyte of address space. Arrow is not imported yet.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    # Libraries start idle threads when they are imported, and handle forks themselves.
    warnings.filterwarnings("ignore", ".*multi-threaded.*", DeprecationWarning)
    chosen = range(first, first + cases) if only is None else range(only, only + 1)
    with tempfile.TemporaryDirectory(prefix="distinit-fuzz-") as folder:
        tally = fuzz(
            open_target(name),
            Path(folder),
            chosen,
            seed,
            deadline,
            memory,
            echo=lambda line: click.echo(line, err=True),
        )
    if as_json:
        click.echo(json.dumps({"counts": tally.counts, "bad": tally.bad}))
    else:
        click.echo(tally.table())
        click.echo(f"\n{len(chosen)} cases of {name}, {len(tally.bad)} unacceptable outcomes")
    if tally.bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
