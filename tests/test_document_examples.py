"""The code and the scripts of the documents: they run as they are printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.videos import make_video

from distinit.cli import main
from distinit.pipeline.cache import TargetCache
from distinit.pipeline.datasets.splits import read_label_list
from distinit.pipeline.vocabulary.files import read_vocabulary

DOCS = Path(__file__).parents[1] / "docs"
SMALL = [
    *("--set", "clip.frames=4", "--set", "clip.crop=32", "--set", "optimizer.epochs=1"),
    *("--set", "optimizer.clips_per_epoch=8", "--set", "runtime.batch_size=4"),
]


def code_blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def write_modules(folder: Path) -> list[str]:
    """Write each module of the plugins page under the name in its first line."""
    names = []
    for code in code_blocks("plugins.md", "python"):
        names.append(code.splitlines()[0].removeprefix("# "))
        (folder / names[-1]).write_text(code)
    return names


def command_for(page: str, subcommand: str) -> list[str]:
    """The words after ``PYTHONPATH=. distinit`` of a command of a page."""
    text = (DOCS / page).read_text()
    found = re.search(rf"^    PYTHONPATH=\. distinit ({subcommand} .*)$", text, re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_the_plugins_of_the_page_extract_and_distill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert write_modules(tmp_path) == ["brightness.py", "slow_net.py", "write_list.py"]
    make_video(tmp_path / "VIDEOS/a.mp4", frames=8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    runner = CliRunner()
    extracted = runner.invoke(main, command_for("plugins.md", "extract"))
    assert extracted.exit_code == 0, extracted.output
    (record,) = TargetCache.open("CACHE").teachers.values()
    assert record.identity.label_space == "quarters"
    assert record.identity.label_names[0] == "top left"

    distilled = runner.invoke(main, [*command_for("plugins.md", "distill"), *SMALL])
    assert distilled.exit_code == 0, distilled.output
    student = json.loads(Path("RUN/student.json").read_text())
    assert student["student"]["name"] == "plugin:slow_net:slow_net"
    assert student["feature_dim"] == 32


def test_the_vocabulary_of_the_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = code_blocks("vocabularies.md", "python")  # that for open_clip: tests/examples
    subprocess.run([sys.executable, "-c", code], check=True)
    vocabulary = read_vocabulary(tmp_path / "birds.safetensors")
    assert (vocabulary.names, vocabulary.scale) == (("robin", "wren", "owl"), 100.0)
    assert vocabulary.text_KD.shape == (3, 512)


def test_the_list_writer_of_the_page_writes_a_dataset(tmp_path: Path) -> None:
    write_modules(tmp_path)
    entries = {f"{s}.mp4": {"label": "jump", "subset": s} for s in ("train", "test")}
    (tmp_path / "annotations.json").write_text(json.dumps(entries))
    subprocess.run([sys.executable, "write_list.py"], cwd=tmp_path, check=True)
    lists = read_label_list(tmp_path / "labels.csv")
    assert [(v.path, v.label, v.subset) for v in lists.videos] == [
        ("train.mp4", "jump", "train"),
        ("test.mp4", "jump", "test"),
    ]


def test_the_csv_of_the_labelled_data_page_is_read(tmp_path: Path) -> None:
    text = (DOCS / "labelled-data.md").read_text()
    rows = re.findall(r"^    ((?:path|clips/).*,.*)$", text, re.MULTILINE)
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    lists = read_label_list(tmp_path / "labels.csv")
    assert lists.classes == ("jump", "wave")
    assert [video.subset for video in lists.videos] == ["train", "train", "test", "test"]


@pytest.mark.parametrize("number", range(4))
def test_the_slurm_scripts_are_valid_bash(number: int) -> None:
    scripts = code_blocks("slurm.md", "bash")
    assert len(scripts) == 4
    done = subprocess.run(["bash", "-n"], input=scripts[number], text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (143, True), (1, False)])
def test_the_slurm_script_requeues_a_job_that_was_stopped(
    tmp_path: Path, code: int, requeued: bool
) -> None:
    """``srun`` and ``scontrol`` are stand-ins that record their arguments."""
    calls = stand_ins(tmp_path, srun=f"exit {code}")
    script = code_blocks("slurm.md", "bash")[0]
    done = run_script(script, tmp_path, SLURM_JOB_ID="17")
    assert done.returncode == code, done.stderr
    lines = calls.read_text().splitlines()
    assert lines[0].startswith("srun distinit distill --config configs/gpus/distill_4gpu.yaml")
    assert lines[1:] == (["scontrol requeue 17"] if requeued else [])


def test_the_slurm_script_starts_ray_on_every_node(tmp_path: Path) -> None:
    calls = stand_ins(tmp_path, scontrol="printf 'n1\\nn2\\nn3\\nn4\\n'", sleep="")
    script = code_blocks("slurm.md", "bash")[1] + "wait\n"
    done = run_script(script, tmp_path, SLURM_JOB_NODELIST="n[1-4]", SLURM_NNODES="4")
    assert done.returncode == 0, done.stderr
    started = sorted(line for line in calls.read_text().splitlines() if " ray start" in line)
    assert started == [
        "srun --nodes=1 --ntasks=1 --nodelist=n1 ray start --head --port 6379 --block",
        "srun --nodes=3 --ntasks=3 --exclude=n1 ray start --address n1:6379 --block",
    ]
    (command,) = (line for line in calls.read_text().splitlines() if " distinit " in line)
    assert "--overlap --nodes=1 --ntasks=1 --nodelist=n1 distinit extract" in command
    assert "--ray-address n1:6379 --workers auto" in command


@pytest.mark.parametrize(
    ("body", "code", "requeued"),
    [
        ("exit 0", 0, False),
        ("exit 1", 1, False),
        # Slurm signals the script, which is the parent of srun.
        ("trap 'exit 1' TERM; kill -USR1 $PPID; while :; do /bin/sleep 0.05; done", 1, True),
        ("trap 'exit 0' TERM; kill -USR1 $PPID; while :; do /bin/sleep 0.05; done", 0, False),
    ],
)
def test_the_torchrun_script_requeues_a_job_that_it_has_stopped(
    tmp_path: Path, body: str, code: int, requeued: bool
) -> None:
    calls = stand_ins(tmp_path, srun=body, scontrol="printf 'n1\\nn2\\n'")
    script = code_blocks("slurm.md", "bash")[2]
    variables = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "17"}
    done = run_script(script, tmp_path, **variables)
    assert done.returncode == code, done.stderr
    lines = calls.read_text().splitlines()
    assert lines[0] == "scontrol show hostnames n[1-2]"
    assert lines[1].startswith(
        "srun torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint n1:29500 "
        "--rdzv-id 17 -m distinit.cli distill --config configs/gpus/distill_8gpu.yaml"
    )
    assert lines[2:] == (["scontrol requeue 17"] if requeued else [])


def stand_ins(folder: Path, **bodies: str) -> Path:
    """Programs that add their arguments to a file and then do ``bodies``; returns the file."""
    calls = folder / "calls"
    (folder / "bin").mkdir()
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    for name in ("srun", "scontrol", "sleep"):
        path = folder / "bin" / name
        body = bodies.get(name, "")
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> "{calls}"\n{body}\n')
        path.chmod(0o755)
    return calls


def run_script(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, text=True, capture_output=True
    )
