"""`lepton-rl pareto`: mean completion time against energy."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_rl.cli.inputs import (
    ClusterFile,
    Format,
    Gpus,
    GpusPerNode,
    Json,
    Limit,
    Nodes,
    Requested,
    Seed,
    TraceFile,
    built_cluster,
    named_cluster,
    read_workload,
)
from lepton_rl.cli.options import Overwrite, Strict, needed, output_option
from lepton_rl.cli.printing import announce_compilation, note, only_results_on_stdout, print_json
from lepton_rl.errors import ConfigError

if TYPE_CHECKING:
    from lepton_rl.agents import Genetic
    from lepton_rl.experiments.fronts import FrontPoint
    from lepton_rl.experiments.policy_config import PolicyConfig

DEFAULT_POLICIES = ("{name: saf, blocking: skip}", "least_loaded", "energy", "cheapest")
_HEADS = {
    "mean_bounded_slowdown": "bounded slowdown",
    "energy_kwh": "with idle draw, kWh",
    "start_now": "jobs that start now",
    "gpus": "GPUs chosen by",
}


def pareto(
    trace: TraceFile,
    gpus: Gpus = None,
    nodes: Nodes = None,
    gpus_per_node: GpusPerNode = None,
    cluster: ClusterFile = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            parser=needed("a policy"),
            metavar="NAME",
            help="A policy beside genetic: a name, or its settings as in a benchmark's file; repeatable.",
        ),
    ] = None,
    energy_weights: Annotated[
        str, typer.Option(help="Slowdowns that a kWh costs genetic, by comma: a run for each; empty for none.")
    ] = "0,1,10,100",
    at_job: Annotated[
        int | None,
        typer.Option(min=1, help="Instead of runs: genetic's plans when the job of this number is submitted."),
    ] = None,
    plot: Annotated[Path | None, output_option("Picture to write.")] = None,
    limit: Limit = None,
    requested: Requested = "given",
    format: Format = None,
    strict: Strict = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Weigh mean completion time against energy: runs of several policies, and which of them no other beats in both.

    Energy is that above the draw of idle GPUs. Types of GPU must differ, or power limits; otherwise a job takes the
    same energy wherever it runs.

    Example: lepton-rl pareto --trace jobs.csv --cluster configs/cluster/mixed.yaml --plot front.png

    Example: lepton-rl pareto --trace jobs.csv --cluster configs/cluster/mixed.yaml --at-job 40 --plot plans.png
    """
    from lepton_rl.experiments.drawing import check_picture, save_picture
    from lepton_rl.experiments.fronts import front_of_plans, front_of_runs
    from lepton_rl.experiments.outputs import check_output_file
    from lepton_rl.workloads import resolve_data_path
    from lepton_rl.workloads.job_table import fit_to_cluster

    machine = named_cluster(gpus, nodes, gpus_per_node, cluster)
    contenders = _contenders([] if at_job is not None else policy or list(DEFAULT_POLICIES), energy_weights)
    if plot is not None:
        sources = [one.source for one in contenders if one.source is not None]
        inputs = [resolve_data_path(trace, Path()), *sources, *([cluster] if cluster is not None else [])]
        check_output_file(plot, overwrite, tuple(inputs))
        check_picture(plot)
    with only_results_on_stdout():
        policies = [(one.label, one.build(seed=seed)) for one in contenders]
        announce_compilation()
        read = read_workload(trace, limit, format, requested, seed)
        chosen = built_cluster(machine, read, trace, cluster)
        jobs = fit_to_cluster(read, chosen, strict)
        if at_job is None:
            points = front_of_runs(jobs, chosen, policies)
        else:
            points = front_of_plans(jobs, chosen, _first_genetic(contenders, seed), at_job)
    if plot is not None:
        from lepton_rl.experiments.pareto import front_figure

        save_picture(front_figure(points, f"{jobs.name} on {chosen}"), plot)
        note(f"written: {plot}")
    for text in jobs.losses:
        note(text)
    if len(chosen.types) < 2:
        note("the GPUs are all the same: a job takes the same energy wherever it runs, and only the JCT differs")
    if json:
        print_json({"trace": jobs.name, "cluster": str(chosen), "points": [point.as_dict() for point in points]})
    else:
        _print(points)


def _contenders(policies: Sequence[str], energy_weights: str) -> "list[PolicyConfig]":
    """Return the policies to run, each under a label of its own.

    Raises:
        ConfigError: a policy or a weight is wrong, two policies have one name, or there is none.
    """
    from lepton_rl.experiments.loader import options
    from lepton_rl.experiments.policy_config import PolicyConfig
    from lepton_rl.experiments.yaml_tree import parse

    found = []
    for text in policies:
        plain = parse(text, f"--policy {text!r}", from_command_line=True).plain()
        found.append(options(PolicyConfig, **(plain if isinstance(plain, dict) else {"name": str(plain)})))
    for text in (part.strip() for part in energy_weights.split(",") if part.strip()):
        try:
            weight = float(text)
        except ValueError:
            raise ConfigError(f"--energy-weights: {text!r} is no number; write e.g. 0,1,10,100") from None
        found.append(options(PolicyConfig, name="genetic", label=f"genetic, {weight:g}/kWh", energy_weight=weight))
    labels = [one.label for one in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"two policies are called {twice!r}; leave one out, or give it another label")
    if not found:
        raise ConfigError("there is nothing to run: give --policy or --energy-weights")
    return found


def _first_genetic(contenders: "Sequence[PolicyConfig]", seed: int) -> "Genetic":
    """Return the genetic policy under which time passes until the plans are made."""
    from lepton_rl.agents import Genetic

    policy = contenders[0].build(seed=seed)
    assert isinstance(policy, Genetic)
    return policy


def _print(points: "Sequence[FrontPoint]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    heads = [name for name in _HEADS if name in points[0].details]
    for index, head in enumerate(
        ("", "mean JCT, s", "above idle draw, kWh", *(_HEADS[name] for name in heads), "on the front")
    ):
        table.add_column(head, justify="left" if index == 0 or head == _HEADS["gpus"] else "right", no_wrap=index == 0)
    for point in points:
        cells = (point.mean_jct, point.added_kwh, *(point.details[name] for name in heads))
        table.add_row(point.label, *map(_cell, cells), "yes" if point.on_front else "")
    Console(soft_wrap=True).print(table)


def _cell(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"
