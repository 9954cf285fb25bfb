"""Damaged and forged folders against everything that reads them.

    python benchmarks/fuzz.py --target cache --cases 2000
    python benchmarks/fuzz.py --target training --cases 3000
    python benchmarks/fuzz.py --target cache --only 17 --seed 0

Each case is a copy of a small whole folder with one change. Every operation of the target then runs
on it in a process of its own, with a deadline and a bound on its address space. What may become of
it:

- refused: an error that says what is wrong, or a check that reports it;
- same: the change does not matter, the values are those of the whole folder;
- other: other values, and the change was forged: every checksum that covers it was recomputed, so
  that only its sender could know;
- WRONG: other values without a word, although a checksum covers what was changed;
- traceback, hang, memory, crash: what no bytes of a stranger may bring about.

Exits with 1 if there is one of the latter two. A target is a module ``fuzz_NAME.py`` beside this
one with an object ``TARGET`` (see ``Target``).
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

TARGETS = ("cache", "frames", "training")
OUTCOMES = ("refused", "same", "other", "WRONG", "traceback", "hang", "memory", "crash")
BAD = frozenset(OUTCOMES[3:])
_MEMORY_ERRORS = ("Cannot allocate memory", "malloc of size", "Unable to allocate")

type Operation = Callable[[Path], str]
"""Reads a folder; returns a digest of the values, raises DistInitError where it is refused."""


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to a folder."""

    what: str
    forged: bool = False
    """Checksums that cover the change were recomputed."""


class Target(Protocol):
    """What is fuzzed."""

    @property
    def operations(self) -> Mapping[str, Operation]:
        """Everything that reads such a folder."""
        ...

    def build(self, root: Path) -> None:
        """Write a small whole folder."""
        ...

    def change(self, root: Path, rng: random.Random) -> Change:
        """Change one thing in a copy of it."""
        ...


@dataclass
class Tally:
    """Outcomes of each operation, and the cases that must not be."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    bad: list[dict[str, Any]] = field(default_factory=list)

    def add(self, case: int, change: Change, operation: str, outcome: str, said: str) -> None:
        """One operation on one case."""
        self.counts.setdefault(operation, Counter())[outcome] += 1
        if outcome in BAD:
            found = {"case": case, "change": change.what, "operation": operation}
            self.bad.append({**found, "outcome": outcome, "said": said})

    def table(self) -> str:
        """Lines for people."""
        width = max(len(name) for name in self.counts)
        lines = [" " * width + "".join(f"{name:>10}" for name in OUTCOMES)]
        for name, counts in self.counts.items():
            cells = "".join(f"{counts[outcome]:>10}" for outcome in OUTCOMES)
            lines.append(f"{name:<{width}}{cells}")
        return "\n".join(lines)


class Sandbox:
    """Runs operations of a target in forked processes."""

    def __init__(self, target: Target, deadline_seconds: float, memory_mib: int) -> None:
        self._target = target
        self._deadline_seconds = deadline_seconds
        self._memory_mib = memory_mib

    def run(self, root: Path, home: Path) -> dict[str, tuple[str, str]]:
        """Operation -> ("values", digest), or an outcome and its message.

        One process runs all operations; after one that ends it, another one goes on.
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
        """Outcomes in order, and how the process ended before it had done all."""
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
        done = {name: (outcome, said) for name, outcome, said in lines}
        if not in_time:
            return done, ("hang", f"longer than {self._deadline_seconds:g} s")
        return done, None if status == 0 else ("crash", f"status {status}")

    def _collect(self, read_end: int, count: int) -> tuple[bool, bytes]:
        """(whether the process ended by itself, what it wrote)."""
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
        """Never returns."""
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
    """("values", digest), or ("refused" | "memory" | "traceback", message)."""
    try:
        return "values", operation(root)
    except DistInitError as error:
        starved = any(text in str(error) for text in _MEMORY_ERRORS)
        return ("memory" if starved else "refused"), str(error)[:2000]
    except MemoryError:
        return "memory", traceback.format_exc(limit=-3)[:2000]
    except Exception:
        return "traceback", traceback.format_exc(limit=-8)[-3000:]


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def open_target(name: str) -> Target:
    """The target of a module beside this one."""
    target: Target = importlib.import_module(f"fuzz_{name}").TARGET
    return target


def build_apart(target: Target, root: Path) -> None:
    """In a process of its own: threads that it starts must not be there when others are forked."""
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
        raise click.ClickException("the folder to change cannot be built")


def fuzz(
    target: Target,
    work: Path,
    cases: range,
    seed: int,
    deadline_seconds: float,
    memory_mib: int,
    echo: Callable[[str], None] = lambda _: None,
) -> Tally:
    """Run the cases in folder ``work``."""
    whole, home, tally = work / "whole", work / "home", Tally()
    home.mkdir()
    build_apart(target, whole)
    sandbox = Sandbox(target, deadline_seconds, memory_mib)
    expected = sandbox.run(whole, home)
    if unsound := {name: found for name, found in expected.items() if found[0] != "values"}:
        raise click.ClickException(f"the whole folder is not read: {unsound}")
    for case in cases:
        rng = random.Random(f"{seed} {case}")
        root, case_home = work / "case", work / "case-home"
        shutil.copytree(whole, root, symlinks=True)
        if rng.random() < 0.5:  # this machine has read the whole folder before
            shutil.copytree(home, case_home)
        change = target.change(root, rng)
        for name, (outcome, said) in sandbox.run(root, case_home).items():
            if outcome == "values":
                outcome = "other" if change.forged else "WRONG"
                outcome = "same" if said == expected[name][1] else outcome
            tally.add(case, change, name, outcome, said)
            if outcome in BAD:
                echo(f"case {case}: {change.what}; {name}: {outcome}\n{said}\n")
        for folder in (root, case_home):
            shutil.rmtree(folder, ignore_errors=True)
        if (case + 1) % 100 == 0:
            echo(f"{case + 1} cases, {len(tally.bad)} that must not be")
    return tally


@click.command(help=__doc__)
@click.option("--target", "name", type=click.Choice(TARGETS), default="cache", show_default=True)
@click.option("--cases", type=click.IntRange(1), default=200, show_default=True)
@click.option("--first", type=click.IntRange(0), default=0, show_default=True)
@click.option("--only", type=click.IntRange(0), help="One case, by its number.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--deadline", default=20.0, show_default=True, help="Seconds for one operation.")
@click.option("--memory", default=1024, show_default=True, help="MiB of address space to allocate.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
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
    # Arrow's other allocators reserve a gigabyte of addresses at first; it is not imported yet.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    # Libraries start threads when they are imported, which wait; and take care of forks.
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
        click.echo(f"\n{len(chosen)} cases of {name}, {len(tally.bad)} outcomes that must not be")
    if tally.bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
