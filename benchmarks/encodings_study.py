"""Size and loss of different encodings of a teacher's logits, measured on real frames.

    python benchmarks/encodings_study.py --videos VIDEOS --teacher efficientnet_lite0 --frames 2400

Each video contributes an equal share of the frames, as one run of consecutive frames from its
middle, so that codecs over several rows can use the similarity of neighbours. "all in" is the size
per frame of a cache written with these frames, without the 40 kB that do not grow with them.
Encodings that the project does not offer are assumed to need the same tables.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numcodecs
import numpy as np
import torch

from distinit.pipeline.cache.confidence import confidence_of, fidelity_of, filter_flips
from distinit.pipeline.cache.encoding import decode, encode
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.plan import PlannedVideo
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.corpus.listing import list_corpus
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.teachers.registry import load_teacher
from distinit.pipeline.video.decode import open_video
from distinit.pipeline.video.probe import probe_video
from distinit.schemas.corpus import ProbeSummary, VideoFile
from distinit.schemas.errors import DecodeError, DistInitError
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.teacher import TeacherRecord, TeacherRequest
from distinit.schemas.video import DecodeConfig, SamplingConfig

GROUP_ROWS = 64  # rows that a codec compresses together
UNIT_ROWS = 1_024  # the smallest unit, so the one with the most overhead per row
FIXED = {"teacher.json", "croissant.json", "README.md", "manifest.json", "zarr.json"}
CURVATURES = (
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    1.0,
    1.5,
    3.0,
)  # tried for each companded row; the best is kept


@dataclass(frozen=True)
class Run:
    """Consecutive frames of one video, with their fp32 logits [N, C]."""

    file: VideoFile
    index_N: np.ndarray
    pts_N: np.ndarray
    hash_N: np.ndarray
    time_base: str
    logits_NC: np.ndarray


@dataclass(frozen=True)
class Candidate:
    """One way to store rows: bytes per row, and a function that reads one row back as fp32 [C]."""

    name: str
    row_bytes: float
    read_row: Callable[[int], np.ndarray]


def collect(root: Path, files: Sequence[VideoFile], teacher: Teacher, frames: int) -> Iterator[Run]:
    """Yield one run of ``frames / len(files)`` frames per video; skips unreadable videos."""
    config, share = DecodeConfig(), -(-frames // len(files))
    for file in files:
        try:
            yield collect_run(root, file, teacher, share, config)
        except DecodeError as error:
            click.echo(str(error), err=True)


def collect_run(
    root: Path, file: VideoFile, teacher: Teacher, share: int, config: DecodeConfig
) -> Run:
    """Decode the middle ``share`` frames of one video and run the teacher on them."""
    path = root / file.path
    first = max(0, (probe_video(path, config).packet_count - share) // 2)
    parts: list[tuple[np.ndarray, ...]] = []
    with open_video(path, {"teacher": teacher.view}, config) as stream:
        for block in stream:
            stop = first + share - block.first_index
            part = slice(max(0, first - block.first_index), max(0, stop))
            index_N = block.first_index + np.arange(len(block.pts_N))[part]
            if len(index_N):
                logits_NC = teacher.forward(block.views["teacher"][part])
                parts.append((index_N, block.pts_N[part], block.hash_N[part], logits_NC))
            if stop <= len(block.pts_N):
                break
        time_base = stream.time_base
    index_N, pts_N, hash_N, logits_NC = (np.concatenate(column) for column in zip(*parts))  # noqa: B905
    return Run(file, index_N, pts_N, hash_N, time_base, logits_NC)


def cache_bytes(runs: Sequence[Run], teacher: Teacher, encoding: str, folder: Path) -> float:
    """Return bytes per frame of files that grow with frames: shards, tables, commits, checksums."""
    record = TeacherRecord(
        id=teacher.id,
        fingerprint=teacher.identity.fingerprint,
        identity=teacher.identity,
        encoding=encoding,
        batch_size=32,
        software={},
    )
    by_id = {run.file.video_id: run for run in runs}
    sizes = [(run.file, len(run.index_N)) for run in runs]
    videos = [PlannedVideo(file, ProbeSummary(n, 0.0), n) for file, n in sizes]
    with CacheWriter.create_or_open(
        folder,
        videos=videos,
        sampling=SamplingConfig(),
        teachers={teacher.id: record},
        unit_rows=UNIT_ROWS,
    ) as writer:
        for spec in writer.pending_groups():
            with GroupWriter(spec) as group:
                for video in spec.videos:
                    run = by_id[video.video_id]
                    logits = {teacher.id: run.logits_NC}
                    frames = (run.index_N, run.pts_N, run.time_base, run.hash_N)
                    group.add(video, *frames, logits)
                    group.finish_video(decoded(video.video_id, len(run.index_N)))
                group.commit()
        rows = writer.finalise().row_space.rows
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in FIXED]
    return sum(path.stat().st_size for path in files) / rows


def decoded(video_id: str, frames: int) -> VideoOutcome:
    return VideoOutcome(
        video_id=video_id,
        status="ok",
        frame_count=frames,
        width=1280,
        height=720,
        duration_seconds=frames / 30,
    )


def offered(logits_NC: np.ndarray, encoding: str) -> Candidate:
    """An encoding that the project offers."""
    classes = logits_NC.shape[1]
    arrays = dict(encode(logits_NC, encoding).arrays)
    log_z_N = confidence_of(logits_NC).log_z

    def read(row: int) -> np.ndarray:
        one = {name: values[row : row + 1] for name, values in arrays.items()}
        return decode(one, encoding, classes, log_z_N[row : row + 1])[0]

    return Candidate(encoding, sum(values[0].nbytes for values in arrays.values()), read)


def float8(logits_NC: np.ndarray) -> Candidate:
    """e4m3 of the distance to the row's maximum."""
    peak_N1 = logits_NC.max(axis=1, keepdims=True)
    codes_NC = torch.from_numpy(logits_NC - peak_N1).to(torch.float8_e4m3fn)

    def read(row: int) -> np.ndarray:
        values: np.ndarray = codes_NC[row].float().numpy() + peak_N1[row]
        return values

    return Candidate("float8 e4m3", logits_NC.shape[1] + 4, read)


def packed(
    name: str, bits: int, codes_NC: np.ndarray, levels_NL: np.ndarray, side_bytes: int
) -> Candidate:
    """Packed codes of ``bits`` bits; the values of a row are ``levels_NL[row][codes]``."""
    planes = np.unpackbits(codes_NC[:, :, None], axis=2)[:, :, 8 - bits :]
    stored = np.packbits(planes.reshape(len(codes_NC), -1), axis=1)
    classes = codes_NC.shape[1]
    padded = np.zeros((classes, 8), np.uint8)

    def read(row: int) -> np.ndarray:
        flat = np.unpackbits(stored[row], count=classes * bits)
        padded[:, 8 - bits :] = flat.reshape(classes, bits)
        values: np.ndarray = levels_NL[row][np.packbits(padded, axis=1)[:, 0]]
        return values

    return Candidate(name, stored.shape[1] + side_bytes, read)


def uniform(logits_NC: np.ndarray, bits: int) -> Candidate:
    """The project's int8 encoding, with fewer bits."""
    low_N1 = logits_NC.min(axis=1, keepdims=True)
    step_N1 = np.ptp(logits_NC, axis=1, keepdims=True) / (2**bits - 1)
    codes_NC = np.rint((logits_NC - low_N1) / step_N1).astype(np.uint8)
    levels_NL = (low_N1 + step_N1 * np.arange(2**bits)).astype(np.float32)
    return packed(f"affine, {bits} bits", bits, codes_NC, levels_NL, 8)


def companded(logits_NC: np.ndarray, levels: int) -> Candidate:
    """Steps that grow with the distance t from the row's maximum, as exp(t / curvature).

    Each row uses the curvature of ``CURVATURES`` with the smallest KL. Sizes assume that the codes
    are stored as digits of one large number; reading is timed with six bits per code, which is
    cheaper.
    """
    peak_N1 = logits_NC.max(axis=1, keepdims=True)
    far_NC = peak_N1 - logits_NC
    range_N1 = far_NC.max(axis=1, keepdims=True)
    best_N = np.full(len(logits_NC), np.inf)
    codes_NC = np.empty(logits_NC.shape, np.uint8)
    levels_NL = np.empty((len(logits_NC), levels), np.float32)
    for share in CURVATURES:
        curve_N1, span = share * range_N1, 1 - np.exp(-1 / share)
        codes = np.rint((1 - np.exp(-far_NC / curve_N1)) / span * (levels - 1)).astype(np.uint8)
        steps_L = np.log1p(-np.arange(levels) / (levels - 1) * span)
        values_NL = (peak_N1 + curve_N1 * steps_L).astype(np.float32)
        back_NC = np.take_along_axis(values_NL, codes.astype(np.int64), axis=1)
        kl_N = fidelity_of(logits_NC, back_NC).kl_nats
        better = kl_N < best_N
        best_N[better] = kl_N[better]
        codes_NC[better], levels_NL[better] = codes[better], values_NL[better]
    size = np.ceil(logits_NC.shape[1] * np.log2(levels) / 8) + 9
    read = packed("", 6, codes_NC, levels_NL, 9).read_row
    return Candidate(f"companded, {levels} levels", size, read)


def coded(
    name: str,
    codes_NC: np.ndarray,
    codec: numcodecs.abc.Codec,
    rows: int,
    values_of: Callable[[np.ndarray, int], np.ndarray],
) -> Candidate:
    """``codes_NC`` compressed by a codec, ``rows`` rows at a time; reading a row decodes its group.

    ``values_of`` maps a decoded group [rows, C] and the number of a row to fp32 [C]. Four bytes per
    group store its offset.
    """
    groups = [codes_NC[i : i + rows] for i in range(0, len(codes_NC), rows)]
    stored = [codec.encode(np.ascontiguousarray(group)) for group in groups]

    def read(row: int) -> np.ndarray:
        flat = np.frombuffer(codec.decode(stored[row // rows]), codes_NC.dtype)
        return values_of(flat.reshape(-1, codes_NC.shape[1]), row)

    size = (sum(len(data) for data in stored) + 4 * len(stored)) / len(codes_NC) + 8
    return Candidate(f"{name}, {rows} rows" if rows > 1 else f"{name}, 1 row", size, read)


def coded_int8(logits_NC: np.ndarray) -> Iterator[Candidate]:
    """General codecs applied to int8 codes."""
    arrays = encode(logits_NC, "int8").arrays
    codes_NC, affine_N2 = arrays["logits"], arrays["logits_affine"]
    delta_NC = np.diff(codes_NC, axis=0, prepend=codes_NC[:1])
    delta_NC[::GROUP_ROWS] = codes_NC[::GROUP_ROWS]  # each group can be decoded alone

    def scaled(codes_C: np.ndarray, row: int) -> np.ndarray:
        values: np.ndarray = codes_C.astype(np.float32) * affine_N2[row, 0] + affine_N2[row, 1]
        return values

    codecs = {
        "zstd": numcodecs.Zstd(level=9),
        "zlib": numcodecs.Zlib(level=9),
        "blosc zstd, bit shuffle": numcodecs.Blosc("zstd", 9, numcodecs.Blosc.BITSHUFFLE),
    }
    for name, codec in codecs.items():
        for rows in (1, GROUP_ROWS):
            yield coded(
                f"int8 + {name}",
                codes_NC,
                codec,
                rows,
                lambda group, row, rows=rows: scaled(group[row % rows], row),
            )
    yield coded(
        "int8, delta to the previous frame + zstd",
        delta_NC,
        codecs["zstd"],
        GROUP_ROWS,
        lambda group, row: scaled(group[: row % GROUP_ROWS + 1].sum(axis=0, dtype=np.int8), row),
    )


def coded_roots(logits_NC: np.ndarray, step: float) -> Candidate:
    """Uniform steps of the square root of each probability, then zstd.

    A step s of sqrt(p) costs classes * s**2 / 6 of KL, whatever the distribution: likely classes
    get most of the codes, and unlikely classes share a few.
    """
    log_z_N = confidence_of(logits_NC).log_z.astype(np.float64)
    scale = step / np.sqrt(logits_NC.shape[1])
    roots_NC = np.exp((logits_NC - log_z_N[:, None]) / 2)
    codes_NC = np.minimum(np.rint(roots_NC / scale), 65_535).astype("<u2")
    # Codes above 255 are rare: stored separately, the high bytes compress to almost nothing.
    split_NC = np.concatenate([codes_NC.astype(np.uint8), (codes_NC >> 8).astype(np.uint8)], 1)
    # Code 0 stands for values from 0 to 0.5 steps.
    values_L = 2 * np.log(scale * np.maximum(np.arange(65_536), 0.35)).astype(np.float32)

    def values_of(group: np.ndarray, row: int) -> np.ndarray:
        low_C, high_C = group[0].reshape(2, -1).astype(np.uint16)
        values: np.ndarray = values_L[low_C | high_C << 8] + np.float32(log_z_N[row])
        return values

    return coded(f"root p, step {step} + zstd", split_NC, numcodecs.Zstd(level=9), 1, values_of)


def candidates(logits_NC: np.ndarray) -> Iterator[Candidate]:
    """Yield all encodings to compare: first those that the project offers, then alternatives."""
    topk = [f"topk:{k}" for k in (10, 32, 64, 128) if k < logits_NC.shape[1]]
    for encoding in ("float16", "int8", *topk):
        yield offered(logits_NC, encoding)
    yield float8(logits_NC)
    for bits in (7, 6, 5, 4):
        yield uniform(logits_NC, bits)
    for levels in (64, 52, 48):
        yield companded(logits_NC, levels)
    yield from coded_int8(logits_NC)
    for step in (0.03, 0.045, 0.06):
        yield coded_roots(logits_NC, step)


def measure(candidate: Candidate, logits_NC: np.ndarray, overhead: float) -> dict[str, float | str]:
    """Return one row of the table. Each stored row is read alone, in random order, from memory."""
    decoded_NC, spans = np.empty_like(logits_NC), []
    for row in np.random.default_rng(0).permutation(len(logits_NC)).tolist():
        began = time.perf_counter()
        decoded_NC[row] = candidate.read_row(row)
        spans.append(time.perf_counter() - began)
    fidelity = fidelity_of(logits_NC, decoded_NC)
    again_N = fidelity_of(decoded_NC, decoded_NC).entropy_nats
    return {
        "encoding": candidate.name,
        "targets, B": round(candidate.row_bytes, 1),
        "all in, B": round(candidate.row_bytes + overhead, 1),
        "KL mean": float(fidelity.kl_nats.mean()),
        "KL max": float(fidelity.kl_nats.max()),
        "entropy error": float(fidelity.entropy_error_nats.mean()),
        "top-1": round(float(fidelity.top1_agrees.mean()), 4),
        "flips, entropy decoded": float(filter_flips(fidelity.entropy_nats, again_N).mean()),
        "logit RMSE": float(np.sqrt(np.mean((decoded_NC - logits_NC) ** 2))),
        "decode, us per row": round(float(np.median(spans)) * 1e6, 1),
    }


def markdown(lines: Sequence[dict[str, float | str]]) -> str:
    """Format the table of a decision record."""
    keys = list(lines[0])
    table = ["| " + " | ".join(keys) + " |", "|---" * len(keys) + "|"]
    for line in lines:
        cells = [f"{v:.2g}" if isinstance(v, float) and v < 1 else f"{v}" for v in line.values()]
        table.append("| " + " | ".join(cells) + " |")
    return "\n".join(table)


@click.command(help=__doc__)
@click.option("--videos", required=True, help="Folder or .txt list of videos.")
@click.option("--teacher", "name", required=True, metavar="NAME", help="Teacher to run.")
@click.option("--weights", metavar="FILE", help="Weights of the teacher.")
@click.option(
    "--frames",
    default=2_400,
    show_default=True,
    type=click.IntRange(min=1),
    help="Frames in total.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(videos: str, name: str, weights: str | None, frames: int, as_json: bool) -> None:
    try:
        teacher = load_teacher(TeacherRequest(name=name, weights=weights))
        corpus = list_corpus(videos)
        runs = list(collect(corpus.root, corpus.files, teacher, frames))
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    logits_NC = np.concatenate([run.logits_NC for run in runs])
    all_in = {}
    for encoding in ("float16", "int8", "topk:10"):
        with tempfile.TemporaryDirectory() as folder:
            all_in[encoding] = cache_bytes(runs, teacher, encoding, Path(folder) / "cache")
    overhead = all_in["int8"] - (logits_NC.shape[1] + 8)
    lines = [measure(c, logits_NC, overhead) for c in candidates(logits_NC)]
    if as_json:
        click.echo(json.dumps({"frames": len(logits_NC), "cache_bytes": all_in, "table": lines}))
        return
    sizes = ", ".join(f"{encoding} {size:.1f}" for encoding, size in all_in.items())
    click.echo(f"{teacher.id}, {len(logits_NC)} frames; cache bytes per frame: {sizes}\n")
    click.echo(markdown(lines))


if __name__ == "__main__":
    main()
