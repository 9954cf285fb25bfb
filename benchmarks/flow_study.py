"""Size and error of stored optical flow, by range, JPEG quality and lossless format.

    python benchmarks/flow_study.py --frames FRAMES [--per-video 24] [--json]

Computes the flow of the first frames of every video in an RGB store. One thread, CPU time. Errors
are root mean squares in pixels per frame, relative to the floats clipped to the range.
docs/decisions/015-flow-as-two-grey-planes.md has a table.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable

import click
import numpy as np
import torch
from PIL import Image

from distinit.pipeline.frames.flow import farneback, levels_of_flow, opencv_version
from distinit.pipeline.frames.jpeg import decode_frames, encode_planes
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.errors import DistInitError
from distinit.schemas.frames import FlowSpec

RANGES = (10.0, 20.0)
QUALITIES = (85, 90, 95, 98)

Encode = Callable[[np.ndarray], bytes]
Decode = Callable[[bytes], np.ndarray]


def stored_flow(store: FrameStore, per_video: int) -> tuple[np.ndarray, float]:
    """Return flow [N, H, W, 2] of videos of the most common size, and milliseconds per frame."""
    spec = FlowSpec(flow_range=1, jpeg_quality=95, opencv=opencv_version())
    sizes = [(info.height, info.width) for info in store.videos.values()]
    most_common = max(set(sizes), key=sizes.count)
    flows, seconds = [], 0.0
    for video_id, info in store.videos.items():
        if (info.height, info.width) == most_common and info.frame_count > 1:
            frames = store.clip(video_id, range(min(info.frame_count, per_video)))
            frames_NHWC = frames.permute(0, 2, 3, 1).numpy()
            began = time.process_time()
            flows.append(farneback(frames_NHWC, spec))
            seconds += time.process_time() - began
    flow_NHW2 = np.concatenate(flows)
    return flow_NHW2, 1000 * seconds / len(flow_NHW2)


def storage_formats() -> dict[str, tuple[Encode, Decode]]:
    """Return encoders of levels [H, W, 2] and their decoders, by name."""

    def lossless(kind: str) -> tuple[Encode, Decode]:
        def encode(levels_HW2: np.ndarray) -> bytes:
            buffer = io.BytesIO()
            stacked = Image.fromarray(np.concatenate(np.moveaxis(levels_HW2, 2, 0)))
            stacked.save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
            return buffer.getvalue()

        def decode(data: bytes) -> np.ndarray:
            with Image.open(io.BytesIO(data)) as image:
                return np.stack(np.split(np.array(image.convert("L")), 2), axis=-1)

        return encode, decode

    def jpeg(quality: int) -> tuple[Encode, Decode]:
        def decode(data: bytes) -> np.ndarray:
            return decode_frames([data], channels=2)[0].permute(1, 2, 0).numpy()

        return lambda levels_HW2: encode_planes(levels_HW2, quality), decode

    found = {f"JPEG {quality}": jpeg(quality) for quality in QUALITIES}
    return found | {kind: lossless(kind) for kind in ("PNG", "WEBP")}


def study(flow_NHW2: np.ndarray) -> list[dict[str, float | str]]:
    """Return one row per range and storage format."""
    lines: list[dict[str, float | str]] = []
    for flow_range in RANGES:
        levels_NHW2 = levels_of_flow(flow_NHW2, flow_range)
        clipped_NHW2 = flow_NHW2.clip(-flow_range, flow_range)
        for name, (encode, decode) in storage_formats().items():
            stored = [encode(levels) for levels in levels_NHW2]
            began = time.process_time()
            decoded = [decode(data) for data in stored]
            seconds = time.process_time() - began
            back_NHW2 = (np.stack(decoded).astype(np.float32) - 128) * (flow_range / 127)
            lines.append(
                {
                    "range": flow_range,
                    "cut_percent": 100 * float((np.abs(flow_NHW2) > flow_range).mean()),
                    "storage": name,
                    "bytes": float(np.mean([len(data) for data in stored])),
                    "decode_ms": 1000 * seconds / len(stored),
                    "error": float(np.sqrt(((back_NHW2 - clipped_NHW2) ** 2).mean())),
                    "largest": float(np.abs(back_NHW2 - clipped_NHW2).max()),
                }
            )
    return lines


@click.command(help=__doc__)
@click.option("--frames", required=True, help="Folder of the RGB frame store.")
@click.option(
    "--per-video",
    default=24,
    show_default=True,
    type=click.IntRange(min=2),
    help="Frames per video, from its start.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(frames: str, per_video: int, as_json: bool) -> None:
    torch.set_num_threads(1)
    try:
        flow_NHW2, milliseconds = stored_flow(FrameStore.open(frames), per_video)
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    quantiles = np.quantile(np.abs(flow_NHW2), [0.5, 0.9, 0.99, 0.999]).tolist()
    lines = study(flow_NHW2)
    if as_json:
        summary = {"frames": len(flow_NHW2), "flow_ms": milliseconds, "quantiles": quantiles}
        click.echo(json.dumps(summary | {"ways": lines}))
        return
    shown = ", ".join(f"{q:.2f}" for q in quantiles)
    click.echo(f"{len(flow_NHW2)} frames, {milliseconds:.1f} ms per frame")
    click.echo(f"|flow|, quantiles 50, 90, 99 and 99.9 %: {shown} pixels per frame")
    for line in lines:
        click.echo("  ".join(f"{k} {v:.4g}" if k != "storage" else f"{v}" for k, v in line.items()))


if __name__ == "__main__":
    main()
