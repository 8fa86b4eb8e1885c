"""`lepton-rl train` and `lepton-rl benchmark`: one YAML file is one experiment."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_rl.cli.options import Strict, output_option
from lepton_rl.cli.printing import (
    announce_compilation,
    keeping_what_ctrl_c_says,
    note,
    only_results_on_stdout,
    print_json,
)

File = Annotated[Path, typer.Argument(help="The experiment file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Settings to change.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Root of all randomness; the file's own if left out.")]


def train(
    file: File,
    overrides: Overrides = None,
    out: Annotated[Path | None, output_option("Run folder; runs/NAME if left out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
    seed: Seed = None,
    strict: Strict = False,
) -> None:
    """Train a policy as the file says, and leave a bundle that runs without torch.

    Example: lepton-rl train configs/train/quickstart.yaml agent.learning_rate=1e-3 --out runs/mine
    """
    from lepton_rl.experiments.train import train as run

    announce_compilation()
    with keeping_what_ctrl_c_says():
        folder = run(file, overrides or [], out, resume, overwrite, seed, strict=strict)
    typer.echo(f"run: {folder}")


def benchmark(
    file: File,
    overrides: Overrides = None,
    out: Annotated[Path | None, output_option("Run folder; a new one in runs/ if left out.")] = None,
    seed: Seed = None,
    strict: Strict = False,
    json: Annotated[bool, typer.Option("--json", help='Print one JSON object {"rows": [...]}.')] = False,
) -> None:
    """Compare policies on the same windows of jobs, with intervals; an unfinished run folder is continued.

    Example: lepton-rl benchmark configs/benchmark/quickstart.yaml workloads.0.windows.count=100
    """
    from lepton_rl.experiments.benchmark import benchmark as run

    announce_compilation()
    with keeping_what_ctrl_c_says(), only_results_on_stdout():
        result = run(file, overrides or [], out, seed, strict=strict)
    if json:
        print_json({"rows": result.rows})
        note(f"run: {result.folder}")
        return
    result.print_tables()
    typer.echo(f"run: {result.folder}")
    if result.report is not None:
        typer.echo(f"report: {result.report}")
