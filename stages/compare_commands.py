"""The commands ``distinit features`` and ``probe``: they compare inits without training them."""

from __future__ import annotations

from typing import Any

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, run_stage
from distinit.pipeline.command_options import dataset_options, stage_options
from distinit.pipeline.option_names import required

__all__ = ["features", "probe"]

_frames_option = click.option(
    "--frames", metavar="DIR", help="Frame store of the dataset, built if missing."
)
_flow_option = click.option(
    "--flow", metavar="DIR", help="Flow store of the dataset, for flow students; built if missing."
)
_protocol_option = click.option(
    "--protocol",
    "evaluation__protocol",
    metavar="vmz-N|dense-sN|slowfast-TxS",
    help="Clips of each video, whose features are averaged. Default: vmz-10.",
)


@click.command(
    cls=SectionedCommand,
    epilog=examples(
        "distinit features --run runs/a --dataset clips/ --frames frames --out features/a",
        "distinit features --init scratch --student r2plus1d_18 --dataset hmdb51 \\",
        "    --splits splits --out features/random",
    ),
)
@required("--dataset", "--out")
@click.option("--run", metavar="RUN", help="Run directory of a distill or finetune run.")
@click.option(
    "--init",
    metavar="scratch|distinit:RUN|inflated|file:STUDENT",
    help="Instead of --run: any initial weights.",
)
@click.option(
    "--student",
    "student__name",
    metavar="NAME",
    help="Network, if --init does not determine it; a plugin must be named.",
)
@dataset_options
@_frames_option
@_flow_option
@click.option("--out", metavar="DIR", help="Folder to write to.")
@_protocol_option
@click.option("--device", metavar="auto|cpu|cuda", help="Device for the student.")
@stage_options
def features(**options: Any) -> None:
    """Export the last-layer features of a student on a dataset."""
    from distinit.schemas.features import FeaturesConfig
    from distinit.stages.features import features as run

    run_stage(FeaturesConfig, run, options)


@click.command(
    cls=SectionedCommand,
    epilog=examples(
        "distinit probe --dataset clips/ --init distinit:runs/a --out probe",
        "distinit probe --dataset hmdb51 --splits splits --frames frames --init distinit:runs/a \\",
        "    --init distinit:runs/b --cache labelled_cache --out probe",
    ),
)
@required("--dataset", "--out")
@dataset_options
@click.option(
    "--init",
    "inits",
    multiple=True,
    metavar="distinit:RUN|inflated:FILE|file:STUDENT",
    help="Init to measure. Repeat the option for several.",
)
@click.option(
    "--student",
    "student__name",
    metavar="NAME",
    help="Network, if no --init determines it; a plugin must be named.",
)
@_frames_option
@_flow_option
@click.option(
    "--cache",
    metavar="DIR",
    help="Target cache of the dataset's videos, to measure the teachers themselves.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="ID",
    help="Teacher of --cache to measure. Default: all of them. Repeat the option for several.",
)
@click.option("--out", metavar="DIR", help="Folder to write to; a killed probe resumes in it.")
@_protocol_option
@click.option("--device", metavar="auto|cpu|cuda", help="Device for students and classifiers.")
@stage_options
def probe(inits: tuple[str, ...], teachers: tuple[str, ...], **options: Any) -> None:
    """Measure inits on frozen features, before finetuning.

    The measures are kNN, linear and low-shot accuracy.
    """
    from distinit.schemas.probe import ProbeConfig
    from distinit.stages.probe import probe as run

    options |= {"inits": inits or None, "teachers": teachers or None}
    run_stage(ProbeConfig, run, options)
