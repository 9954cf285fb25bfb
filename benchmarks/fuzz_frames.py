"""Frame stores with one thing wrong: each is read whole, checked, and opened for writing.

    python benchmarks/fuzz_frames.py [--count 3000] [--seed 0] [--json]

A small store is copied and one file of it is damaged (bits, blocks, lengths), exchanged (a link, a
pipe, a folder, nothing) or rewritten by someone who knows the format (a record with a wild value
and a seal that fits). Then every frame of every video is read and decoded, `verify` looks at it,
and a writer looks for what is to be done again. What may come of it: the frames that were stored,
or an error of ours. Counted as faults: any other exception, other bytes without an error, a fault
that `verify` calls ok, a case that takes longer than a minute, and a process that dies. The cases
run in child processes with bounded memory: 4 GB of address space above what the libraries take.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np

from distinit.pipeline.frames.jpeg import decode_frames
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.verify import verify_store
from distinit.pipeline.frames.writer import FrameStoreWriter, store_lock
from distinit.pipeline.progress import NullProgress
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import DistInitError, FrameStoreError
from distinit.schemas.frames import FlowSpec, FrameGeometry

FAULTS = ("traceback", "other bytes", "missed by verify", "too slow", "died")
_SECONDS = 60
_SPACE_BYTES = 4 << 30
_CASES_A_PROCESS = 250
_WILD: tuple[Any, ...] = (
    -1, 0, 1, 7, 255, 65_535, 65_536, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**63, 10**400, 1e308,
    0.5, True, None, "", "a", "../x", "/etc/passwd", "\ud800", "\x1b[31m", "f" * 64, [], {}, [[[]]],
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One damaged store: what was done, and whether by someone who made the seals fit."""

    what: str
    forged: bool = False


type Mutation = Callable[[random.Random, Path], Case]
type Frames = dict[tuple[str, int], bytes]


def build(root: Path, *, flow: bool = False) -> Frames:
    """A store of three videos in two units; its JPEGs by (video, frame)."""
    channels = 2 if flow else 3
    spec = FlowSpec(flow_range=20, jpeg_quality=95, opencv="none") if flow else None
    pixels = np.random.default_rng(0).integers(0, 256, (9, 24, 40, channels), np.uint8)
    with store_lock(root):
        writer = FrameStoreWriter(root, FrameGeometry(), "1" * 64, spec)
        with writer.open_unit(0) as unit:
            unit.append("a", "a" * 64, 0, pixels, 10.0)
            unit.append("b", "b" * 64, 0, pixels[:4], 25.0)
            unit.fail_video("d", "d" * 64, "made to fail")
            unit.commit()
        with writer.open_unit(1) as unit:
            unit.append("b", "b" * 64, 4, pixels[4:7], 25.0)
            unit.append("c", "c" * 64, 0, pixels[:, :16], 0.0)
            unit.commit()
        writer.finalise([0, 1])
    return dict(frames_of(FrameStore.open(root)))


def frames_of(store: FrameStore) -> Iterator[tuple[tuple[str, int], bytes]]:
    """Every frame of a store, decoded too. Raises what reading it raises."""
    for video_id, info in store.videos.items():
        for frame in range(min(info.frame_count, 1_000)):
            (jpeg,) = store.jpegs(video_id, [frame])
            decode_frames([jpeg], store.channels)
            yield (video_id, frame), jpeg


def _a_file(rng: random.Random, root: Path, pattern: str = "*") -> Path:
    return rng.choice(sorted(p for p in root.rglob(pattern) if p.is_file() and p.name != ".lock"))


def flip_bits(rng: random.Random, root: Path) -> Case:
    path = _a_file(rng, root)
    data = bytearray(path.read_bytes())
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 1, 2, 8)))]
    for place in places:
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return Case(f"bits of {path.name} flipped at {places}")


def overwrite(rng: random.Random, root: Path) -> Case:
    path = _a_file(rng, root)
    data = bytearray(path.read_bytes())
    start, length = rng.randrange(len(data)), rng.choice((1, 4, 8, 64, 4_096))
    fill = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    end = min(len(data), start + length)
    data[start:end] = fill[: end - start]
    path.write_bytes(data)
    return Case(f"{path.name}: {length} bytes at {start} overwritten")


def exchange(rng: random.Random, root: Path) -> Case:
    path = _a_file(rng, root, "*.arrow")
    data = bytearray(path.read_bytes())
    length = rng.choice((1, 4, 8, 256))
    first, second = (rng.randrange(len(data) - length) for _ in range(2))
    one, other = bytes(data[first : first + length]), bytes(data[second : second + length])
    data[second : second + length] = one
    data[first : first + length] = other
    path.write_bytes(data)
    return Case(f"{path.name}: {length} bytes at {first} and {second} exchanged")


def change_length(rng: random.Random, root: Path) -> Case:
    path = _a_file(rng, root)
    size = path.stat().st_size
    length = rng.choice((0, 1, size - 1, size + 1, rng.randrange(size), size + 4_096, 1 << 36))
    os.truncate(path, length)
    return Case(f"{path.name}: {length} bytes instead of {size}")


def replace_file(rng: random.Random, root: Path) -> Case:
    path = _a_file(rng, root)
    what = rng.choice(("nothing", "folder", "pipe", "/dev/zero", "a link to itself", "another"))
    data = path.read_bytes()
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "/dev/zero":
        path.symlink_to("/dev/zero")
    elif what == "a link to itself":
        path.symlink_to(path.name)
    elif what == "another":
        others = [p.read_bytes() for p in sorted(root.rglob(f"*{path.suffix}")) if p.is_file()]
        path.write_bytes(rng.choice(others or [data[::-1]]))
    return Case(f"{what} in place of {path.name}")


def rewrite_record(rng: random.Random, root: Path) -> Case:
    """A wild value in a record whose seal fits: what a stranger with intent would send."""
    path = _a_file(rng, root, "*.json")
    record = json.loads(path.read_text())
    holder, key = rng.choice(list(_places(record)))
    value = rng.choice(_WILD)
    if rng.random() < 0.2:
        del holder[key]
        value = "nothing"
    else:
        holder[key] = value
    if "seal" in record:
        others = {name: value for name, value in record.items() if name != "seal"}
        with contextlib.suppress(UnicodeEncodeError):  # no seal fits a lone surrogate
            record["seal"] = sha256_of(json.loads(_text(others)))
    path.write_text(_text(record))
    return Case(f"{path.name}: {key} is {str(value)[:30]!r}", forged=True)


def _text(record: Any) -> str:
    return json.dumps(record).replace("1e+400", "1e400")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def rewrite_footer(rng: random.Random, root: Path) -> Case:
    """Arrow's own metadata, at the end of the file and before each batch, with sizes unchanged."""
    path = _a_file(rng, root, "*.arrow")
    data = bytearray(path.read_bytes())
    start = rng.choice((0, len(data) - 600))
    for _ in range(rng.choice((1, 3, 10))):
        place = start + rng.randrange(600)
        data[place : place + 4] = rng.randbytes(4)
    path.write_bytes(data)
    return Case(f"{path.name}: metadata from {start} on overwritten")


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, flip_bits, overwrite, exchange, change_length, replace_file, rewrite_record,
    rewrite_record, rewrite_footer,
)  # fmt: skip


def outcome(root: Path, stored: Frames, case: Case, *, changed: bool) -> str:
    """What comes of a case: "same", "refused", or one of FAULTS."""
    ends = [_read(root, stored), _verified(root, case, changed=changed), _reopened(root)]
    return next((end for end in ends if end.split("\n")[0] in FAULTS), ends[0])


def _read(root: Path, stored: Frames) -> str:
    try:
        found = dict(frames_of(FrameStore.open(root)))
    except DistInitError as error:
        str(error)
        return "refused"
    except Exception:
        return f"traceback\n{traceback.format_exc()}"
    return "same" if found.items() <= stored.items() else "other bytes"


def _verified(root: Path, case: Case, *, changed: bool) -> str:
    try:
        report = verify_store(root, deep=True, progress=NullProgress())
    except DistInitError:
        return "refused"
    except Exception:
        return f"traceback\n{traceback.format_exc()}"
    if changed and not case.forged and report.complete and not report.problems:
        return "missed by verify"
    return "same"


def _reopened(root: Path) -> str:
    try:
        with store_lock(root):
            writer = FrameStoreWriter(root, FrameGeometry(), "1" * 64)
            writer.pending_units([0, 1])
    except DistInitError:
        return "refused"
    except Exception:
        return f"traceback\n{traceback.format_exc()}"
    return "same"


class FramesTarget:
    """The same for ``benchmarks/fuzz.py``: see its ``Target``."""

    @property
    def operations(self) -> Mapping[str, Callable[[Path], str]]:
        return {"read": _digest_of_frames, "verify": _digest_if_ok, "reopen": _digest_of_pending}

    def build(self, root: Path) -> None:
        build(root)

    def change(self, root: Path, rng: random.Random) -> Case:
        return rng.choice(MUTATIONS)(rng, root)


TARGET = FramesTarget()


def _digest_of_frames(root: Path) -> str:
    frames = sorted(frames_of(FrameStore.open(root)))
    return sha256_of([[*place, jpeg.hex()] for place, jpeg in frames])


def _digest_if_ok(root: Path) -> str:
    report = verify_store(root, deep=True, progress=NullProgress())
    if report.problems or not report.complete:
        raise FrameStoreError("verify names problems", found=report.problems)
    return sha256_of([report.units, report.frames, report.bytes])


def _digest_of_pending(root: Path) -> str:
    with store_lock(root):
        pending = FrameStoreWriter(root, FrameGeometry(), "1" * 64).pending_units([0, 1])
    if pending:
        raise FrameStoreError("units are to be done again", found=pending)
    return ""


def run_case(seed: int, originals: Path, stored: dict[str, Frames], work: Path) -> tuple[str, str]:
    """(what was done, what came of it) of case ``seed``."""
    rng = random.Random(seed)
    kind = rng.choice(sorted(stored))
    root = work / "store"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(originals / kind, root)
    case = rng.choice(MUTATIONS)(rng, root)
    changed = _says(root) != _says(originals / kind)
    return f"{kind}: {case.what}", outcome(root, stored[kind], case, changed=changed)


def _says(root: Path) -> dict[str, Any]:
    """The bytes of all files; of JSON what it says, as its spaces say nothing."""
    said: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        regular = path.is_file() and not path.is_symlink()
        if not regular or path.stat().st_size > 1 << 24:
            said[str(path.relative_to(root))] = None
            continue
        data: Any = path.read_bytes()
        if path.suffix == ".json":
            with contextlib.suppress(ValueError):
                data = json.loads(data)
        said[str(path.relative_to(root))] = data
    return said


def run_cases(seeds: range, originals: Path, stored: dict[str, Frames], pipe: Connection) -> None:
    """Run cases one after the other; each is announced before it begins."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _SPACE_BYTES, used + _SPACE_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/derived"
        for seed in seeds:
            pipe.send(seed)
            shutil.rmtree(f"{folder}/derived", ignore_errors=True)
            signal.alarm(_SECONDS)  # its default action ends the process
            pipe.send((seed, *run_case(seed, originals, stored, Path(folder) / "work")))
            signal.alarm(0)
    pipe.send(None)


def fuzz(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """How often each outcome came, and the faults in words."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        stored = {
            "rgb": build(Path(folder) / "rgb"),
            "flow": build(Path(folder) / "flow", flow=True),
        }
        first, end = seed, seed + count
        while first < end:
            seeds = range(first, min(end, first + _CASES_A_PROCESS))
            first = _watch(seeds, Path(folder), stored, counts, faults)
    return counts, faults


def _watch(
    seeds: range,
    originals: Path,
    stored: dict[str, Frames],
    counts: Counter[str],
    faults: list[str],
) -> int:
    """Run ``seeds`` in a child process; the first one that is still to be run."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=run_cases, args=(seeds, originals, stored, theirs))
    child.start()
    theirs.close()
    running = seeds.start
    try:
        while (message := ours.recv()) is not None:
            if isinstance(message, int):
                running = message
                continue
            number, what, end = message
            counts[end.split("\n")[0]] += 1
            if end.split("\n")[0] in FAULTS:
                faults.append(f"case {number}: {what}: {end}")
        child.join()
        return seeds.stop
    except EOFError:
        child.join()
        end = "too slow" if child.exitcode == -signal.SIGALRM else "died"
        counts[end] += 1
        faults.append(f"case {running}: {end} with exit code {child.exitcode}")
        return running + 1


@click.command(help=__doc__)
@click.option("--count", default=3_000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True, help="Of the first case.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(count: int, seed: int, as_json: bool) -> None:
    counts, faults = fuzz(count, seed)
    if as_json:
        click.echo(json.dumps({"counts": counts, "faults": faults}))
    else:
        click.echo("\n".join(faults))
        click.echo(", ".join(f"{name} {counts[name]}" for name in ("same", "refused", *FAULTS)))
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
