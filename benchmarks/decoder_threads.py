"""Do decoded frames depend on the number of decoder threads? For whole and for damaged videos.

    python benchmarks/decoder_threads.py VIDEO ... [--threads 4] [--seed 0]

Each video is decoded whole, and with 5, 10 and 15 flipped bits: with one thread, and twice with
several. Prints how often the frames differ from those of one thread, and between the two runs.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections import Counter
from pathlib import Path

import click

from distinit.pipeline.video.decode import open_video
from distinit.pipeline.video.views import View
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig
from distinit.schemas.wording import counted

FLIPS = (0, 5, 10, 15)


def flipped(data: bytes, bits: int, rng: random.Random) -> bytes:
    """Flip ``bits`` bits between 5 % and 95 % of the file, where the pictures are."""
    changed = bytearray(data)
    for _ in range(bits):
        at = rng.randrange(len(data) // 20, len(data) * 19 // 20)
        changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def frames_digest(path: Path, threads: int) -> str:
    """sha256 of all frames, or the reason why the video cannot be decoded."""
    digest = hashlib.sha256()
    try:
        with open_video(path, {"v": View.source()}, DecodeConfig(threads=threads)) as stream:
            for block in stream:
                digest.update(block.views["v"].tobytes())
    except DecodeError as error:
        return error.problem.partition(":")[2]
    return digest.hexdigest()


@click.command(help=__doc__)
@click.argument("videos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--threads", default=4, show_default=True, type=click.IntRange(min=2))
@click.option("--seed", default=0, show_default=True)
def main(videos: tuple[Path, ...], threads: int, seed: int) -> None:
    rng = random.Random(seed)
    unlike_one: Counter[int] = Counter()
    unlike_again: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for video in videos:
            for bits in FLIPS:
                copy = Path(folder) / f"copy{video.suffix}"
                copy.write_bytes(flipped(video.read_bytes(), bits, rng))
                one, first, second = (frames_digest(copy, count) for count in (1, threads, threads))
                unlike_one[bits] += first != one
                unlike_again[bits] += second != first
    click.echo(f"{counted(len(videos), 'video')}, {threads} threads")
    for bits in FLIPS:
        click.echo(
            f"{bits:3d} bits flipped: {unlike_one[bits]} differ from one thread, "
            f"{unlike_again[bits]} between two runs"
        )


if __name__ == "__main__":
    main()
