"""Training connects to the Ray cluster at the configured address."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner
from helpers import toys

from distinit.cli import main
from distinit.schemas.base import fields_outside_identity
from distinit.schemas.distill import DistillConfig
from distinit.schemas.finetune import FinetuneConfig

# Ray Client addresses are rejected before anything starts, so this needs no cluster.
CODE = """
import sys
from pathlib import Path
from distinit.pipeline.interruption import StopRequest
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.training.ray_train import fit_on_ray
from distinit.pipeline.training.run_dir import open_run
from distinit.pipeline.training.task import TrainingSettings
from distinit.schemas.errors import ConfigError
from distinit.schemas.training import ClipConfig, OptimizerConfig, RuntimeConfig, StudentConfig

runtime = RuntimeConfig(workers=1, ray_address="ray://head:10001")
settings = TrainingSettings(ClipConfig(), OptimizerConfig(), runtime)
run = open_run(Path(sys.argv[1]), "distill", StudentConfig(), {})
try:
    fit_on_ray(print, settings, run, NullProgress(), StopRequest())
except ConfigError as error:
    print(error.problem, "|", error.found)
"""


@pytest.mark.ray
def test_the_address_reaches_ray(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = str(tmp_path_factory.mktemp("run"))
    printed = subprocess.run(
        [sys.executable, "-c", CODE, folder], check=True, capture_output=True, text=True
    )
    assert printed.stdout.strip() == "Ray Client addresses cannot be used | ray://head:10001"


@pytest.mark.parametrize("command", ["distill", "finetune"])
def test_the_address_is_an_option_and_not_part_of_the_identity(command: str) -> None:
    assert "--ray-address ADDRESS" in CliRunner().invoke(main, [command, "--help"]).output
    config = {"distill": DistillConfig, "finetune": FinetuneConfig}[command]
    assert "runtime.ray_address" in fields_outside_identity(config)
    settings = toys.make_settings(runtime={"ray_address": "auto"})
    assert settings.runtime.ray_address == "auto"
