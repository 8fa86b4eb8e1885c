"""`lepton-rl advise`: what a workload's simulation suggests."""

from typing import Annotated

import typer

from lepton_rl.cli.advice_page import print_advice
from lepton_rl.cli.inputs import (
    ClusterFile,
    Format,
    Gpus,
    GpusPerNode,
    Json,
    Nodes,
    Requested,
    Seed,
    Settings,
    TraceFile,
    built_cluster,
    named_cluster,
    one_of,
    policy_settings,
    read_workload,
)
from lepton_rl.cli.options import Strict, needed, seconds_option
from lepton_rl.cli.printing import announce_compilation, note, only_results_on_stdout, print_json
from lepton_rl.errors import ConfigError


def advise(
    trace: TraceFile,
    gpus: Gpus = None,
    nodes: Nodes = None,
    gpus_per_node: GpusPerNode = None,
    cluster: ClusterFile = None,
    policy: Annotated[
        str | None,
        typer.Option(
            parser=needed("a policy"),
            metavar="NAME",
            help="What you run now; default fcfs, blocking easy, or skip where users gave no requested times.",
        ),
    ] = None,
    blocking: Annotated[
        str | None, typer.Option(help="head, skip, easy or conservative; default the policy's own.")
    ] = None,
    placement: Annotated[str | None, typer.Option(help="first, best, worst or consolidated; default first.")] = None,
    settings: Settings = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Jobs to simulate; default 20,000, or 2,000 for a policy that decides in Python."),
    ] = None,
    first: Annotated[
        int | None,
        typer.Option(min=1, help="Number of the first of them; default: the last jobs of the trace."),
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Windows, each on an empty cluster; default: 8, if they show the queue."),
    ] = None,
    requested: Requested = "given",
    preemption_cost: Annotated[
        float | None,
        seconds_option("Try policies that preempt too; each preemption adds so many seconds."),
    ] = None,
    quantum: Annotated[float, seconds_option("Seconds before a run may be preempted.")] = 0.0,
    defer_hours: Annotated[
        int, typer.Option(min=1, max=168, help="Hours by which jobs that can wait may be held back.")
    ] = 12,
    format: Format = None,
    strict: Strict = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Say what would change a workload's figures, each suggestion simulated beside what you run now.

    Policies, placement, power limits, over-asked memory, GPUs and times, nodes more or fewer, hours to defer work to.

    Example: lepton-rl advise --trace jobs.csv --nodes 8 --gpus-per-node 8

    Example: lepton-rl advise --trace jobs.csv --cluster configs/cluster/mixed.yaml --policy sjf --blocking easy
    """
    from functools import partial

    from lepton_rl.agents import with_rules
    from lepton_rl.agents.compiled import BlockingName, PlacementName
    from lepton_rl.experiments.advice import Assumptions, default_policy
    from lepton_rl.experiments.advice import advise as find
    from lepton_rl.experiments.loader import options
    from lepton_rl.experiments.policy_config import PolicyConfig

    machine = named_cluster(gpus, nodes, gpus_per_node, cluster)
    rules = one_of("--blocking", blocking, BlockingName), one_of("--placement", placement, PlacementName)
    if policy is None and settings:
        raise ConfigError("--set is a setting of a policy: name it with --policy")
    wanted = None if policy is None else options(PolicyConfig, name=policy, **policy_settings(settings or []))
    assumed = Assumptions(
        jobs=jobs,
        first=first,
        windows=windows,
        preemption_cost=preemption_cost,
        quantum=quantum,
        defer_hours=defer_hours,
        strict=strict,
    )
    with only_results_on_stdout():
        if wanted is not None:
            with_rules(wanted.build(seed=seed), *rules)  # refused before the trace is read
        announce_compilation()
        workload = read_workload(trace, None, format, requested, seed)
        chosen = built_cluster(machine, workload, trace, cluster)
        make = partial(default_policy, workload) if wanted is None else partial(wanted.build, seed=seed)
        report = find(workload, chosen, lambda: with_rules(make(), *rules), assumed)
    for text in report.notes:
        note(text)
    if json:
        print_json(report.to_dict())
    else:
        print_advice(report)
