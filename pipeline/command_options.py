"""Options that several commands have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from distinit.pipeline.config import sampling_choice

__all__ = [
    "GPUS_PER_WORKER",
    "RAY_ADDRESS",
    "Command",
    "damaged_option",
    "dataset_options",
    "evaluation_options",
    "protocol_option",
    "sampling_options",
    "stage_options",
    "target_options",
    "teacher_option",
    "videos_option",
    "weights_option",
    "with_options",
    "worker_options",
]

type Command = Callable[..., None]

GPUS_PER_WORKER = "GPUs that each Ray worker reserves. Default: 0."
RAY_ADDRESS = "Address of a running Ray cluster (auto, HOST:6379). Default: start a local one."
_FILE = click.Path(path_type=Path, dir_okay=False)
videos_option = click.option(
    "--videos",
    metavar="DIR|FILE|LIST|URL",
    help="Folder (searched recursively), one video, list of paths and URLs (.txt, .csv, .parquet), "
    "or URL.",
)
teacher_option = click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="NAME",
    help="Teacher to run. Repeat the option for several.",
)
damaged_option = click.option(
    "--damaged",
    "decode__damaged",
    metavar="keep|fail",
    help="What to do with videos that lack frames. Default: keep.",
)
_target_option = click.option(
    "--target",
    metavar="logits|features",
    help="What the teachers compute. Default: logits.",
)
_pool_option = click.option(
    "--pool",
    metavar="POOL",
    help="What a feature row holds: cls, mean, cls+mean, grid:G (G x G cells) or head. Default: "
    "what the network passes to its last layer.",
)
weights_option = click.option(
    "--weights",
    multiple=True,
    metavar="FILE",
    help="Weights file of a teacher. Repeat the option in the order of the teachers.",
)


def target_options(command: Command) -> Command:
    """Add the options --target and --pool, for all teachers of the command."""
    return _target_option(_pool_option(command))


def with_options(command: Command, options: Iterable[Callable[[Command], Command]]) -> Command:
    """Add ``options`` to ``command``; its help lists them in this order."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed([*options]), command)


def stage_options(command: Command) -> Command:
    """Add the options that every stage has: --config, --set, --json, --quiet."""
    options = (
        click.option(
            "--config",
            "config_file",
            type=_FILE,
            help="YAML file with settings, or the name of a ready one, such as demo_distill. "
            "Options override it.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="A.B=VALUE",
            help="Set any key of the configuration.",
        ),
        click.option(
            "--json", "as_json", is_flag=True, help="Print progress events and the result as JSON."
        ),
        click.option("--quiet", is_flag=True, help="Print no progress."),
    )
    return with_options(command, options)


def sampling_options(command: Command) -> Command:
    """Add the options that choose the frames for the teachers: --stride, --fps, --per-video."""
    options = (
        click.option(
            "--stride",
            "sampling__stride",
            type=int,
            metavar="N",
            help="Run the teachers on every N-th frame.",
        ),
        click.option(
            "--fps",
            "sampling__fps",
            type=float,
            metavar="F",
            help="Run the teachers on at most F frames per second of video.",
        ),
        click.option(
            "--per-video",
            "sampling__per_video",
            type=int,
            metavar="K",
            help="Run the teachers on K frames of each video.",
        ),
    )

    @functools.wraps(command)
    def with_sampling(**given: Any) -> None:
        modes = ("stride", "fps", "per_video")
        sampling = {mode: given.pop(f"sampling__{mode}") for mode in modes}
        command(sampling=sampling_choice(sampling), **given)

    return with_options(with_sampling, options)


def worker_options(command: Command) -> Command:
    """Add the options of extract and evaluate that choose their workers."""
    options = (
        click.option(
            "--workers",
            "compute__workers",
            metavar="N|auto",
            help="Number of Ray workers. 0 (default): run in this process, without Ray.",
        ),
        click.option(
            "--gpus-per-worker", "compute__gpus_per_worker", type=float, help=GPUS_PER_WORKER
        ),
        click.option(
            "--cpus-per-worker",
            "compute__cpus_per_worker",
            type=float,
            help="CPU cores that each Ray worker reserves. Default: 1.",
        ),
        click.option("--ray-address", "compute__ray_address", metavar="ADDRESS", help=RAY_ADDRESS),
    )
    return with_options(command, options)


protocol_option = click.option(
    "--protocol",
    "evaluation__protocol",
    metavar="vmz-N|dense-sN|slowfast-TxS",
    help="Which clips of each video to score: N evenly spaced ones, one at every N-th "
    "frame, or T evenly spaced ones with S (1 or 3) crops each. Default: vmz-10.",
)


def evaluation_options(command: Command) -> Command:
    """Add the options of evaluate that choose clips and how they count."""
    options = (
        protocol_option,
        click.option(
            "--average",
            "evaluation__average",
            metavar="softmax|logits|max",
            help="Average over the clips of a video: mean of softmax (default), mean of logits, or "
            "maximum of softmax.",
        ),
        click.option(
            "--precision",
            "evaluation__precision",
            metavar="fp32|tf32|bf16",
            help="Arithmetic of the student. Default: fp32.",
        ),
    )
    return with_options(command, options)


def dataset_options(command: Command) -> Command:
    """Add the options that name a labelled dataset: --dataset, --splits, --split."""
    options = (
        click.option(
            "--dataset",
            "dataset__root",
            metavar="DIR|CSV",
            help="Folder of videos, with one subfolder per class; or a CSV with path,label,split.",
        ),
        click.option(
            "--splits",
            "dataset__splits",
            metavar="DIR|FILE",
            help="Official split files of HMDB-51 or UCF-101 (folder), or a CSV file.",
        ),
        click.option("--split", "dataset__split", type=int, help="Official split: 1, 2 or 3."),
    )
    return with_options(command, options)
