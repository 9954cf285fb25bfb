"""Prints configurations with all their keys, and writes the pages in ``docs/reference``."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from distinit.pipeline.config_reference import reference_page, yaml_template
from distinit.pipeline.storage import write_text
from distinit.schemas.audit import AuditConfig
from distinit.schemas.base import Record
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.features import FeaturesConfig
from distinit.schemas.figures import (
    ConfusedConfig,
    EmbeddingConfig,
    FiltersConfig,
    GainConfig,
    ThresholdConfig,
)
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.schemas.frames import FlowConfig, FramesConfig
from distinit.schemas.matching import MatchConfig
from distinit.schemas.plan import PlanConfig
from distinit.schemas.probe import ProbeConfig
from distinit.schemas.reproduce import ScaleConfig
from distinit.schemas.wording import counted, did_you_mean, one_line, shown

__all__ = ["COMMANDS", "NEEDED", "Reference", "Template", "config_template", "write_reference"]

COMMANDS: dict[str, type[BaseModel]] = {
    "extract": ExtractConfig,
    "plan": PlanConfig,
    "distill": DistillConfig,
    "finetune": FinetuneConfig,
    "evaluate": EvaluateConfig,
    "audit": AuditConfig,
    "features": FeaturesConfig,
    "probe": ProbeConfig,
    "cache match": MatchConfig,
    "frames build": FramesConfig,
    "flow build": FlowConfig,
    "figures filters": FiltersConfig,
    "figures embedding": EmbeddingConfig,
    "figures threshold": ThresholdConfig,
    "figures gain": GainConfig,
    "figures confused": ConfusedConfig,
}
"""Command -> the configuration that its ``--config`` reads."""
NEEDED: dict[str, tuple[str, ...]] = {"features": ("run",)}
"""Command -> keys with a default of which it needs one: a run or an init."""
_SCALE = "scale"
_COLUMNS = (
    "The column *unit* is for numbers: `none` means that the number has no unit, and a share lies "
    "between 0 and 1. The column *source* says where the default comes from, or what others use; "
    "the decisions are in [docs/decisions](../decisions)."
)
_WRITTEN = "Written by `distinit config reference --out docs/reference`. Do not edit."


class Template(Record):
    """A configuration with all keys, as YAML."""

    command: str = Field(description="command that reads it with --config")
    yaml: str = Field(description="YAML with a comment above each key")

    def summary(self) -> str:
        """The YAML."""
        return self.yaml.rstrip("\n")


class Reference(Record):
    """Pages that were written."""

    folder: str = Field(description="folder of the pages")
    pages: tuple[str, ...] = Field(description="names of the pages, without the index")

    def summary(self) -> str:
        """How many pages were written, and where."""
        return f"{counted(len(self.pages), 'page')} in {one_line(self.folder)}"


def config_template(command: str) -> Template:
    """The configuration of ``command``. Raises ConfigError unless it is one of COMMANDS."""
    if command not in COMMANDS:
        raise ConfigError(
            f"no command {shown(command)} reads a configuration",
            expected=f"one of {', '.join(COMMANDS)}, or reference",
            remedy=did_you_mean(command, [*COMMANDS, "reference"]),
        )
    head = (
        f"All keys of `distinit {command}`, with their defaults.",
        f"Save it, change it, and run: distinit {command} --config FILE.yaml",
        "Values in capitals are required. The default of a key in a comment depends on other keys:",
        "remove its # only to set another value.",
    )
    text = yaml_template(COMMANDS[command], head, NEEDED.get(command, ()))
    return Template(command=command, yaml=text)


def write_reference(folder: Path) -> Reference:
    """Write one page per configuration and an index. Raises StorageError."""
    pages = {}
    for command, model in COMMANDS.items():
        about = (
            f"Keys of `distinit {command} --config FILE.yaml`. `--set KEY=VALUE` sets any of them. "
            f"`distinit config {command}` prints a file with all of them.",
            "",
            _COLUMNS,
        )
        pages[command] = reference_page(f"distinit {command}", model, (_WRITTEN, *about))
    pages[_SCALE] = reference_page(
        "Scales of distinit reproduce",
        ScaleConfig,
        (_WRITTEN, "Keys of `distinit reproduce --scale FILE.yaml`.", "", _COLUMNS),
    )
    for name, text in pages.items():
        write_text(folder / _file_name(name), text)
    links = [f"- [{name}]({_file_name(name)})" for name in pages]
    head = [f"<!-- {_WRITTEN} -->", "", "# Configuration keys", ""]
    write_text(folder / "README.md", "\n".join([*head, *links, ""]))
    return Reference(folder=str(folder), pages=tuple(_file_name(name) for name in pages))


def _file_name(name: str) -> str:
    return f"{name.replace(' ', '-')}.md"
