"""Make random single faults in a small complete cache and check that ``cache verify`` finds them.

    python benchmarks/faults.py
    python benchmarks/faults.py --faults 5000 --seed 1 --json

Each fault is made in a new copy of a cache with two teachers, which is then verified deeply.
Faults: bits flipped; bytes removed, appended or zeroed; files truncated, emptied, deleted, renamed,
replaced by the same file of another unit, by a link or by a pipe; JSON keys duplicated and numbers
changed; line ends changed; extra files. A changed time stamp is not a fault and must not be
reported.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.video.binary import find_ffmpeg
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract

_FRAMES = (8, 30, 150, 41, 64)  # one video spans three units of 64 rows
_NUMBER = re.compile(rb"(?<=: )-?\d[\d.e-]*(?=[,\n}])|(?<=\s)\d+(?=[,\n])")
_KEY = re.compile(rb'"\w+": ("[^"]*"|\d+)')
_HANG_SECONDS = 120
_NO_FAULT = "mtime only"

type Fault = Callable[[Path, Path, random.Random], bool]


@dataclass
class Outcome:
    """How many faults of each kind were made and found."""

    done: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # missed faults, and false alarms


def make_cache(work: Path) -> Path:
    """Build a cache of real videos and two null teachers, one float16 and one int8."""
    videos = work / "videos"
    videos.mkdir()
    for number, frames in enumerate(_FRAMES):
        source = f"testsrc2=size=64x48:rate=10,hue=h={number * 50}"
        command = [str(find_ffmpeg().path), "-v", "error", "-f", "lavfi", "-i", source]
        command += ["-frames:v", str(frames), "-pix_fmt", "yuv420p", f"file:{videos}/{number}.mp4"]
        subprocess.run(command, check=True)
    (videos / "torn.mp4").write_bytes((videos / "1.mp4").read_bytes()[:-900])
    values: dict[str, Any] = {
        "videos": str(videos),
        "teachers": [
            {"name": "null", "id": "half"},
            {"name": "null", "id": "byte", "encoding": "int8"},
        ],
        "cache": str(work / "cache"),
        "unit_rows": 64,
        "max_failed": 0.5,
    }
    extract(ExtractConfig.model_validate(values))
    return work / "cache"


def _edit(change: Callable[[bytearray, random.Random], bytes | bytearray]) -> Fault:
    """Make a fault that changes the bytes of one file."""

    def fault(root: Path, path: Path, rng: random.Random) -> bool:
        before = path.read_bytes()
        after = bytes(change(bytearray(before), rng)) if before else b""
        path.write_bytes(after)
        return after != before

    return fault


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _remove(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    del data[start : start + rng.randint(1, 16)]
    return data


def _zero(data: bytearray, rng: random.Random) -> bytearray:
    start, length = rng.randrange(len(data)), rng.randint(1, 64)
    data[start : start + length] = bytes(len(data[start : start + length]))
    return data


def _sub(pattern: re.Pattern[bytes], new: Callable[[bytes, random.Random], bytes]) -> Fault:
    """Make a fault that replaces one match of ``pattern`` in a JSON file."""

    def change(data: bytearray, rng: random.Random) -> bytes:
        matches = list(pattern.finditer(data))
        if not matches:
            return bytes(data)
        match = rng.choice(matches)
        return bytes(data[: match.start()] + new(match[0], rng) + data[match.end() :])

    edit = _edit(change)
    return lambda root, path, rng: path.suffix == ".json" and edit(root, path, rng)


def _another_number(number: bytes, rng: random.Random) -> bytes:
    value = json.loads(number)
    return json.dumps(value + rng.choice([-1, 1]) * rng.choice([1, 7, 1000])).encode()


def _crlf(root: Path, path: Path, rng: random.Random) -> bool:
    before = path.read_bytes()
    if path.suffix not in (".json", ".md", ".txt"):
        return False
    path.write_bytes(before.replace(b"\n", b"\r\n"))
    return b"\n" in before


def _replace(root: Path, path: Path, rng: random.Random) -> bool:
    """Replace a file by the same file of another unit or teacher."""
    kind = re.sub(r"\d+", "*", path.relative_to(root).as_posix().split("/", 2)[-1])
    others = [
        other
        for other in root.rglob("*")
        if other.is_file()
        and re.sub(r"\d+", "*", other.relative_to(root).as_posix().split("/", 2)[-1]) == kind
        and other.read_bytes() != path.read_bytes()
    ]
    if not others:
        return False
    shutil.copyfile(rng.choice(others), path)
    return True


def _delete(root: Path, path: Path, rng: random.Random) -> bool:
    path.unlink()
    return True


def _rename(root: Path, path: Path, rng: random.Random) -> bool:
    suffix = rng.choice([".bak", "~", ".partial", "0"])
    path.rename(path.with_name(path.name + suffix))
    return True


def _extra(root: Path, path: Path, rng: random.Random) -> bool:
    name = rng.choice(["notes.txt", "unit-00099.json", ".hidden", "0", "x.parquet"])
    other = path.with_name(name)
    if other.exists():
        return False
    other.write_bytes(rng.choice([b"", path.read_bytes()]))
    return True


def _link(root: Path, path: Path, rng: random.Random) -> bool:
    """Move a file and put a link in its place: every check of the contents would pass."""
    elsewhere = root.parent / f"elsewhere-{root.name}"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
    return True


def _pipe(root: Path, path: Path, rng: random.Random) -> bool:
    path.unlink()
    os.mkfifo(path)
    return True


def _touch(root: Path, path: Path, rng: random.Random) -> bool:
    seconds = rng.randrange(2**31)
    os.utime(path, (seconds, seconds))
    return True


FAULTS: dict[str, Fault] = {
    "bit flipped": _edit(_flip),
    "bytes removed": _edit(_remove),
    "bytes zeroed": _edit(_zero),
    "bytes appended": _edit(lambda data, rng: data + rng.randbytes(rng.randint(1, 9))),
    "cut": _edit(lambda data, rng: data[: rng.randrange(len(data))]),
    "emptied": _edit(lambda data, rng: b""),
    "deleted": _delete,
    "renamed": _rename,
    "another unit's": _replace,
    "JSON key doubled": _sub(_KEY, lambda pair, rng: pair + b", " + pair),
    "JSON number changed": _sub(_NUMBER, _another_number),
    "line ends changed": _crlf,
    "extra file": _extra,
    "link": _link,
    "pipe": _pipe,
    _NO_FAULT: _touch,
}


@contextmanager
def no_hang() -> Iterator[None]:
    """Turn a verification that hangs into an error, so that it counts as a missed fault."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no verdict within {_HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def one_fault(cache: Path, work: Path, kind: str, rng: random.Random, outcome: Outcome) -> None:
    """Make a fault of this kind in a random file of a copy, and verify the copy."""
    files = sorted(path.relative_to(cache) for path in cache.rglob("*") if path.is_file())
    files = [
        name for name in files if name.name != ".lock"
    ]  # private to the writer, never published
    while True:
        root = Path(tempfile.mkdtemp(dir=work)) / "cache"
        shutil.copytree(cache, root)
        name = rng.choice(files)
        if FAULTS[kind](root, root / name, rng):
            break
        shutil.rmtree(root.parent)
    try:
        with no_hang():
            reported = not verify_cache(root).ok
    except Exception as error:  # a traceback is not a verdict
        reported = kind == _NO_FAULT
        outcome.wrong.append(f"{type(error).__name__}: {error}")
    outcome.done[kind] += 1
    outcome.found[kind] += reported
    if reported == (kind == _NO_FAULT):
        outcome.wrong.append(f"{kind}: {name}")
    shutil.rmtree(root.parent)


def run(faults: int, seed: int) -> Outcome:
    """Make ``faults`` faults, cycling through all kinds."""
    rng, outcome, kinds = random.Random(seed), Outcome(), list(FAULTS)
    with tempfile.TemporaryDirectory(prefix="distinit-faults-") as folder:
        work = Path(folder)
        cache = make_cache(work)
        if problems := verify_cache(cache).problems:
            raise click.ClickException(f"the cache has a problem before any fault: {problems[0]}")
        for number in range(faults):
            one_fault(cache, work, kinds[number % len(kinds)], rng, outcome)
    return outcome


@click.command(help=__doc__)
@click.option(
    "--faults", type=click.IntRange(1), default=500, show_default=True, help="Faults to make."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(faults: int, seed: int, as_json: bool) -> None:
    began = time.monotonic()
    outcome = run(faults, seed)
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        click.echo(json.dumps({**vars(outcome), "seconds": seconds}))
    else:
        click.echo(f"{'fault':22}{'made':>6}{'found':>7}{'missed':>8}")
        for kind, done in outcome.done.items():
            found = outcome.found[kind]
            missed = "(not a fault)" if kind == _NO_FAULT else done - found
            click.echo(f"{kind:22}{done:>6}{found:>7}{missed:>8}")
        click.echo(f"missed or falsely reported: {len(outcome.wrong)}; {seconds} s")
        for line in outcome.wrong[:20]:
            click.echo(f"  {line}")
    if outcome.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
