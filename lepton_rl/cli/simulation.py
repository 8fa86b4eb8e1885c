"""`lepton-rl simulate` and `lepton-rl evaluate`: one trace, one policy."""

from typing import TYPE_CHECKING, Annotated

import typer

from lepton_rl.cli.inputs import (
    ClusterFile,
    Deadlines,
    Format,
    Gpus,
    GpusPerNode,
    Json,
    Limit,
    Nodes,
    Requested,
    Seed,
    Settings,
    TraceFile,
    built_cluster,
    named_cluster,
    one_of,
    placed_in,
    policy_settings,
    read_workload,
)
from lepton_rl.cli.options import Overwrite, Strict, needed, seconds_option
from lepton_rl.cli.printing import announce_compilation, note, only_results_on_stdout, print_json
from lepton_rl.cli.run_files import JobsOut, Report, check_jobs_out, check_report, is_recorded, write_jobs, write_report
from lepton_rl.errors import ConfigError

if TYPE_CHECKING:
    from lepton_rl.core import ClusterSpec, Policy
    from lepton_rl.experiments.cluster_config import ClusterConfig
    from lepton_rl.experiments.simulate import Simulation
    from lepton_rl.simulator import Timing

_OR_TRAINED = "default 0, or what it did in a bundle's training"
PreemptionCost = Annotated[
    float | None, seconds_option(f"Seconds that a preemption adds (checkpoint and restore); {_OR_TRAINED}.")
]
MigrationCost = Annotated[float | None, seconds_option(f"Seconds that a migration adds; {_OR_TRAINED}.")]
Quantum = Annotated[float | None, seconds_option(f"Seconds before a run may be preempted or migrated; {_OR_TRAINED}.")]


def simulate(
    trace: TraceFile,
    policy: Annotated[
        str,
        typer.Option(
            parser=needed("a policy"), metavar="NAME", help="Name, path of a bundle, or path/to/file.py:Name."
        ),
    ],
    gpus: Gpus = None,
    nodes: Nodes = None,
    gpus_per_node: GpusPerNode = None,
    cluster: ClusterFile = None,
    blocking: Annotated[
        str | None, typer.Option(help="head, skip, easy or conservative; default head, or the policy's own.")
    ] = None,
    placement: Annotated[
        str | None,
        typer.Option(help="first, best, worst or consolidated; default first, or the policy's own."),
    ] = None,
    settings: Settings = None,
    limit: Limit = None,
    jobs_out: JobsOut = None,
    report: Report = None,
    requested: Requested = "given",
    deadlines: Deadlines = None,
    preemption_cost: PreemptionCost = None,
    migration_cost: MigrationCost = None,
    quantum: Quantum = None,
    start_delay: Annotated[
        float,
        typer.Option(min=0, help="Seconds from a decision to the start of its job, as `node replay` prints them."),
    ] = 0.0,
    format: Format = None,
    strict: Strict = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Run a trace under a policy and print what it was worth.

    Without a size, the cluster is the one that the SWF header names (MaxNodes, else MaxProcs).

    Example: lepton-rl simulate --trace jobs.swf --policy sjf --blocking easy --gpus 512

    Example: lepton-rl simulate --trace jobs.csv --policy heap_priority --set memory_weight=0.5 --gpus 64

    Example: lepton-rl simulate --trace jobs.csv --policy edf --blocking skip --deadlines 1.2:10 --gpus 64

    Example: lepton-rl simulate --trace jobs.csv --policy saf --cluster configs/cluster/mixed.yaml --report runs/saf
    """
    from lepton_rl.agents import with_rules
    from lepton_rl.agents.compiled import BlockingName, PlacementName
    from lepton_rl.cli.comparison import print_comparison
    from lepton_rl.experiments.loader import options
    from lepton_rl.experiments.policy_config import PolicyConfig
    from lepton_rl.experiments.simulate import simulate as run

    machine = named_cluster(gpus, nodes, gpus_per_node, cluster)
    wanted = options(PolicyConfig, name=policy, **policy_settings(settings or []))
    check_jobs_out(jobs_out, overwrite, trace, wanted)
    check_report(report, jobs_out, overwrite, trace, wanted)
    with only_results_on_stdout():
        chosen = with_rules(
            wanted.build(seed=seed),
            one_of("--blocking", blocking, BlockingName),
            one_of("--placement", placement, PlacementName),
        )
        announce_compilation()
        jobs = read_workload(trace, limit, format, requested, seed, deadlines)
        timing = _timing(chosen, preemption_cost, migration_cost, quantum)
        built = built_cluster(machine, jobs, trace, cluster)
        recorded = is_recorded(report, jobs_out, jobs, built)
        simulation = run(jobs, built, chosen, strict=strict, timing=timing, recorded=recorded, start_delay=start_delay)
    write_jobs(simulation, jobs_out)
    page = write_report([simulation], report)
    _say_timing(chosen, timing)
    _say_what_is_odd(simulation, machine is not None)
    if json:
        print_json(simulation.summary())
    else:
        print_comparison([simulation])
    if page is not None:
        note(f"report: {page}")


def evaluate(
    bundle: Annotated[
        str,
        typer.Argument(
            parser=needed("a folder"),
            metavar="BUNDLE",
            help="Folder of a trained policy, or of the run that trained it.",
        ),
    ],
    trace: TraceFile,
    against: Annotated[
        str, typer.Option(help="Heuristics to compare with, by comma; empty for none.")
    ] = "fcfs,sjf,saf",
    gpus: Gpus = None,
    nodes: Nodes = None,
    gpus_per_node: GpusPerNode = None,
    cluster: ClusterFile = None,
    limit: Limit = None,
    jobs_out: JobsOut = None,
    report: Report = None,
    requested: Requested = "given",
    deadlines: Deadlines = None,
    preemption_cost: PreemptionCost = None,
    migration_cost: MigrationCost = None,
    quantum: Quantum = None,
    format: Format = None,
    strict: Strict = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Run a trained policy on a whole trace, beside some heuristics.

    Without a size, the cluster is the one that the bundle was trained for, without prices: with --cluster FILE, figures
    of cost and carbon are told too. One trace has no interval: `lepton-rl benchmark` compares on many windows.

    Example: lepton-rl evaluate runs/quickstart/bundle --trace jobs.csv --nodes 16 --gpus-per-node 8
    """
    from lepton_rl.cli.comparison import print_comparison
    from lepton_rl.experiments.loader import options
    from lepton_rl.experiments.policy_config import PolicyConfig
    from lepton_rl.experiments.simulate import simulate as run

    learned = options(PolicyConfig, name=bundle if "/" in bundle else f"./{bundle}")
    if not learned.is_learned:
        raise ConfigError(f"{bundle}: is a policy's file, not a bundle; use lepton-rl simulate --policy")
    rivals = [options(PolicyConfig, name=name.strip()) for name in against.split(",") if name.strip()]
    machine = named_cluster(gpus, nodes, gpus_per_node, cluster)
    check_jobs_out(jobs_out, overwrite, trace, learned, *rivals)
    check_report(report, jobs_out, overwrite, trace, learned, *rivals)
    with only_results_on_stdout():
        policy = learned.build(seed=seed)
        announce_compilation()
        jobs = read_workload(trace, limit, format, requested, seed, deadlines)
        with placed_in(cluster):
            chosen = _trained_for(policy, machine)
        recorded = is_recorded(report, jobs_out, jobs, chosen)
        timing = _timing(policy, preemption_cost, migration_cost, quantum)
        simulations = [run(jobs, chosen, policy, strict=strict, timing=timing, recorded=recorded)] + [
            run(jobs, chosen, rival.build(seed=seed), strict=strict, timing=timing, recorded=report is not None)
            for rival in rivals
        ]
    write_jobs(simulations[0], jobs_out)
    page = write_report(simulations, report)
    if machine is None:
        why = (
            "for which the bundle was trained, without prices (--gpus, or --nodes and --gpus-per-node, name another "
            "size; --cluster FILE another cluster, and what its energy costs)"
        )
        note(f"cluster: {chosen}, {why}")
    _say_timing(policy, timing)
    _say_what_is_odd(simulations[0], chosen=True)
    if json:
        others = {simulation.policy: simulation.summary() for simulation in simulations[1:]}
        print_json({**simulations[0].summary(), "against": others})
    else:
        print_comparison(simulations)
    if page is not None:
        note(f"report: {page}")


def _timing(
    policy: "Policy", preemption_cost: float | None, migration_cost: float | None, quantum: float | None
) -> "Timing":
    """Return what stopping a job costs: as the command line says, else as in a bundle's training."""
    from lepton_rl.agents.bundle import LearnedPolicy
    from lepton_rl.simulator import Timing

    trained = policy.timing if isinstance(policy, LearnedPolicy) else Timing()
    return Timing(
        preemption_cost=trained.preemption_cost if preemption_cost is None else preemption_cost,
        migration_cost=trained.migration_cost if migration_cost is None else migration_cost,
        quantum=trained.quantum if quantum is None else quantum,
    )


def _say_timing(policy: "Policy", timing: "Timing") -> None:
    """Say what stopping a job cost, where a bundle stops jobs."""
    from lepton_rl.agents.bundle import LearnedPolicy

    if isinstance(policy, LearnedPolicy) and policy.codec.stoppable:
        whence = "as" if timing == policy.timing else "which is not so"
        note(
            f"a preemption costs {timing.preemption_cost:g} s, a migration {timing.migration_cost:g} s, and no run is "
            f"stopped before it is {timing.quantum:g} s old, {whence} in the bundle's training"
        )


def _trained_for(policy: "Policy", machine: "ClusterConfig | None") -> "ClusterSpec":
    """Return the cluster to evaluate on: the bundle's, with another size where one is given, or another one."""
    from lepton_rl.agents.bundle import LearnedPolicy
    from lepton_rl.core import ClusterSpec

    assert isinstance(policy, LearnedPolicy)
    trained = policy.cluster
    if machine is None:
        return trained
    wanted = machine.build()
    if wanted.groups or trained.groups or not machine.is_size_alone:
        return wanted
    figures = trained.gpu_memory_gib, trained.idle_power_w, trained.max_power_w
    return ClusterSpec(wanted.nodes, wanted.gpus_per_node, *figures)


def _say_what_is_odd(simulation: "Simulation", chosen: bool) -> None:
    """Print notes once the run is done: a command that fails prints its error alone.

    `chosen` says that the cluster is not the one of the trace's header.
    """
    trace, header = simulation.trace, simulation.trace.machine
    if not chosen and header and header.max_nodes and header.max_procs not in (None, header.max_nodes):
        note(
            f"{trace.name}: the header names MaxNodes {header.max_nodes} and MaxProcs {header.max_procs}; "
            f"the cluster has {simulation.outcome.cluster} (--gpus chooses)"
        )
    for text in simulation.notes:
        note(text)
