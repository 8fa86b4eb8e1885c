"""`lepton-rl traces`: look at workloads, and make them."""

import math
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from lepton_rl.cli.options import Overwrite, command_group, needed, output_option
from lepton_rl.cli.printing import note, print_json
from lepton_rl.errors import ConfigError, counted, shown

app = command_group(
    "Describe workload files, and make new ones.", "Example: lepton-rl traces describe jobs.swf --gpus 256,512"
)


@app.command()
def describe(
    file: Annotated[
        str,
        typer.Argument(
            parser=needed("a file"),
            metavar="FILE",
            help="Workload file, plain or gzip; data:REST is in the data folder.",
        ),
    ],
    gpus: Annotated[str, typer.Option(help="Cluster sizes for the offered load, by comma.")] = "",
    plot: Annotated[Path | None, output_option("Picture to write, of arrivals and distributions.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of the file: swf, philly, pai, csv, npz, parquet.")] = None,
    overwrite: Overwrite = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print what a trace holds: counts, quantiles, offered load, and what was dropped.

    Example: lepton-rl traces describe jobs.swf --gpus 256,512 --plot jobs.png
    """
    from rich.console import Console
    from rich.table import Table

    from lepton_rl.experiments.outputs import check_output_file
    from lepton_rl.workloads import describe as describe_trace
    from lepton_rl.workloads import read_trace, resolve_data_path

    sizes = _sizes(gpus) if gpus else []
    source = resolve_data_path(file, Path())
    if plot is not None:
        from lepton_rl.experiments.drawing import check_picture, save_picture
        from lepton_rl.experiments.trace_plot import trace_figure

        check_output_file(plot, overwrite, (source,))
        check_picture(plot)
    trace = read_trace(source, format)
    header = trace.machine and trace.machine.gpus
    description = describe_trace(trace, sizes or ([header] if header else []))
    if plot is not None:
        save_picture(trace_figure(trace), plot)
    if json:
        print_json(description.to_dict())
        return
    table = Table(show_header=False, box=None, pad_edge=False, title=trace.name, title_justify="left")
    for what, figures in description.rows():
        table.add_row(what, figures)
    head, *rows = description.quantile_rows()
    quantiles = Table(*head, box=None, pad_edge=False)
    for row in rows:
        quantiles.add_row(*row)
    Console(soft_wrap=True).print(table, quantiles, sep="\n\n")


@app.command()
def template() -> None:
    """Print a workload of one's own in the plain CSV, with every column explained.

    Example: lepton-rl traces template > jobs.csv
    """
    from lepton_rl.workloads import csv_template

    typer.echo(csv_template(), nl=False)


@app.command()
def generate(
    model: Annotated[Literal["lublin", "gpu"], typer.Argument(help="lublin (Lublin-Feitelson) or gpu.")],
    out: Annotated[Path, output_option("File to write: .csv, .swf (also .gz) or .npz.")],
    jobs: Annotated[int, typer.Option(min=1, max=100_000_000, help="Number of jobs.")] = 10_000,
    load: Annotated[float | None, typer.Option(help="Offered load; 0.9 for gpu, the model's own for lublin.")] = None,
    gpus: Annotated[int, typer.Option(min=1, max=1_000_000, help="GPUs (processors) of the machine.")] = 256,
    requested: Annotated[
        str, typer.Option(help="Requested times: exact (given is the same here), noisy:SIGMA, tsafrir, absent.")
    ] = "exact",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same jobs.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Write a synthetic workload.

    Example: lepton-rl traces generate gpu --jobs 5000 --gpus 512 --load 0.9 --seed 1 --out jobs.csv
    """
    from lepton_rl.experiments.config import WorkloadConfig
    from lepton_rl.experiments.loader import options
    from lepton_rl.experiments.outputs import check_output_file
    from lepton_rl.workloads import write_csv, write_swf

    name = out.name.removesuffix(".gz")
    suffix = Path(name).suffix
    if suffix not in (".csv", ".swf", ".npz"):
        raise ConfigError(f"{out}: the name must end in .csv, .swf or .npz, which is the format")
    check_output_file(out, overwrite)
    workload = options(
        WorkloadConfig, generator="gpu_cluster" if model == "gpu" else model, gpus=gpus, jobs=jobs, load=load,
        requested=requested, seed=seed,
    )  # fmt: skip
    trace = workload.build()
    if suffix == ".npz":
        trace.save(out)
    else:
        (write_csv if suffix == ".csv" else write_swf)(trace, out)
    offered = trace.offered_load(gpus)
    on = f", offered load {offered:.3f} on {counted(gpus, 'GPU')}" if math.isfinite(offered) else ""
    note(f"{out}: {counted(len(trace), 'job')}{on}")


def _sizes(text: str) -> list[int]:
    from lepton_rl.experiments.cluster_config import MOST_GPUS

    sizes = [part.strip() for part in text.split(",") if part.strip()]
    wrong = next((part for part in sizes if not re.fullmatch("0*[1-9][0-9]{0,6}", part) or int(part) > MOST_GPUS), None)
    if wrong is not None or not sizes:
        raise ConfigError(
            f"--gpus: {shown(wrong or text)} is no number of GPUs from 1 to {MOST_GPUS:,}; write e.g. 256,512"
        )
    return [int(part) for part in sizes]
