"""Coverage-guided fuzzing of everything that reads files from others, with atheris.

    python benchmarks/atheris_fuzz.py --target cache --runs 100000 [--json]

libFuzzer changes the inputs of ``tests/golden/fuzz`` so that they reach more branches of distinit's
Python code. Each target of ``fuzz_bytes.py`` runs in a process of its own, with a limit on its
memory and on the time of one input. Any exception other than DistInitError is a crash; its input
is kept in the folder that the message names. Exits with 1 if there was one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

NAMES = ("cache", "store", "student", "signature", "mapping")
MAX_INPUT_BYTES = 8_192
SECONDS_PER_INPUT = 300  # elapsed: a busy machine is not a hang
_IN_MEMORY = Path("/dev/shm")
_RUNS = re.compile(r"stat::number_of_executed_units: +(\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb: +(\d+)")


def fuzz_here(name: str, work: Path, arguments: list[str]) -> None:
    """Fuzz in this process. Never returns."""
    import atheris

    with atheris.instrument_imports(include=["distinit"]):
        from fuzz_bytes import TARGETS, run_one

    target, root = TARGETS[name](), work / "folder"
    os.environ["XDG_CACHE_HOME"] = str(work / "home")
    target.build(root)

    def read(data: bytes) -> None:  # libFuzzer reserves values that it returns
        run_one(target, root, data)

    atheris.Setup([sys.argv[0], *arguments], read)
    atheris.Fuzz()


def fuzz(name: str, runs: int, seed: int, memory_mib: int, work: Path) -> dict[str, object]:
    """Fuzz one target in a child process; returns what it executed and found."""
    from fuzz_bytes import SEEDS

    corpus, crashes = work / "corpus", work / "crashes"
    shutil.copytree(SEEDS / name, corpus)
    crashes.mkdir()
    options = [
        f"-runs={runs}",
        f"-seed={seed}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-rss_limit_mb={memory_mib}",
        f"-artifact_prefix={crashes}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    command = [sys.executable, __file__, "--target", name, "--inside", str(work), *options]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    done, peak = _RUNS.search(ended.stderr), _PEAK.search(ended.stderr)
    found = [path.name for path in crashes.iterdir() if not path.name.startswith("slow-unit")]
    return {
        "target": name,
        "executions": int(done[1]) if done else 0,
        "crashes": len(found) or int(ended.returncode != 0),
        "peak_mib": int(peak[1]) if peak else None,
        "kept_inputs": len(list(corpus.iterdir())),
        "exit_code": ended.returncode,
        "detail": ended.stdout[-2000:] + ended.stderr[-4000:] if ended.returncode else "",
    }


@click.command(help=__doc__, context_settings={"ignore_unknown_options": True})
@click.option("--target", "names", multiple=True, type=click.Choice(NAMES), default=NAMES)
@click.option("--runs", default=1000, show_default=True, type=click.IntRange(1), help="Inputs.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(1), help="Random seed.")
@click.option("--memory", default=2048, show_default=True, help="MiB that a process may use.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for inputs that crash.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per target.")
@click.option("--inside", type=click.Path(path_type=Path), hidden=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(
    names: tuple[str, ...],
    runs: int,
    seed: int,
    memory: int,
    keep: Path | None,
    as_json: bool,
    inside: Path | None,
    arguments: tuple[str, ...],
) -> None:
    if inside is not None:
        fuzz_here(names[0], inside, list(arguments))
    failed = False
    for name in names:
        base = _IN_MEMORY if _IN_MEMORY.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="distinit-fuzz-", dir=base) as folder:
            result = fuzz(name, runs, seed, memory, Path(folder))
            failed |= bool(result["crashes"])
            if keep is not None and result["crashes"]:
                shutil.copytree(Path(folder) / "crashes", keep / name, dirs_exist_ok=True)
        if as_json:
            click.echo(json.dumps(result))
        else:
            click.echo(
                f"{name}: {result['executions']} executions, {result['crashes']} crashes, peak "
                f"{result['peak_mib']} MiB, {result['kept_inputs']} inputs kept\n{result['detail']}"
            )
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
