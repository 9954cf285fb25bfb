"""The ``distinit`` command: the commands of ``stages/*_commands.py``, under one name."""

from __future__ import annotations

import click

from distinit.pipeline.command_groups import EXIT_CODES, SectionedGroup
from distinit.pipeline.command_line import examples
from distinit.stages.audit_commands import audit
from distinit.stages.cache_combine_commands import COMBINE_COMMANDS
from distinit.stages.cache_commands import cache
from distinit.stages.cache_format_commands import cache_schemas
from distinit.stages.cache_match_commands import cache_match
from distinit.stages.cache_sign_commands import SIGN_COMMANDS
from distinit.stages.cache_statistics_commands import cache_statistics
from distinit.stages.cache_transfer_commands import cache_pull, cache_push
from distinit.stages.compare_commands import features, probe
from distinit.stages.config_commands import config
from distinit.stages.extract_commands import extract, plan
from distinit.stages.figure_commands import figures
from distinit.stages.list_commands import students, teachers
from distinit.stages.reproduce_commands import reproduce
from distinit.stages.run_commands import runs
from distinit.stages.start_commands import demo, doctor
from distinit.stages.store_commands import flow, frames
from distinit.stages.training_commands import distill, evaluate, finetune

__all__ = ["main"]


@click.group(
    cls=SectionedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "distinit demo",
        "distinit extract --videos clips/ --teacher resnet50 --cache cache --frames frames",
        "distinit distill --cache cache --frames frames --student r2plus1d_18 --out runs/a",
        "distinit finetune --dataset hmdb51 --splits splits --init distinit:runs/a --out runs/b",
    )
    + f"\n\n{EXIT_CODES}",
)
@click.version_option(package_name="distinit")
def main() -> None:
    """Pretrain video models by distilling frozen image models, without video labels."""


for command in (
    *(extract, distill, finetune, evaluate, plan, doctor, demo, reproduce),
    *(config, features, audit, probe, cache, frames, flow, figures, runs, teachers, students),
):
    main.add_command(command)
for cache_command in (
    *(cache_schemas, cache_statistics, cache_push, cache_pull, cache_match),
    *(*SIGN_COMMANDS, *COMBINE_COMMANDS),
):
    cache.add_command(cache_command)


if __name__ == "__main__":
    main()
