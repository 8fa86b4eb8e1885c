"""The options by which commands name a trace, a cluster and a policy, and what they stand for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_rl.cli.options import needed
from lepton_rl.errors import ConfigError

if TYPE_CHECKING:
    from lepton_rl.core import ClusterSpec
    from lepton_rl.experiments.cluster_config import ClusterConfig
    from lepton_rl.workloads import Trace

TraceFile = Annotated[
    str,
    typer.Option(
        "--trace",
        parser=needed("a file"),
        metavar="FILE",
        help="Workload file, plain or gzip; data:REST is in the data folder.",
    ),
]
Gpus = Annotated[int | None, typer.Option(min=1, max=1_000_000, help="GPUs of one pool without nodes.")]
Nodes = Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Nodes of the cluster.")]
GpusPerNode = Annotated[int | None, typer.Option(min=1, max=1_000_000, help="GPUs on each node.")]
ClusterFile = Annotated[
    Path | None, typer.Option("--cluster", help="YAML file of a cluster (its nodes may differ), instead of a size.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first jobs, by submit time.")]
Format = Annotated[str | None, typer.Option(help="Format of the file: swf, philly, pai, csv, npz, parquet.")]
Requested = Annotated[str, typer.Option(help="Requested times: given, exact, noisy:SIGMA, tsafrir, absent.")]
Deadlines = Annotated[
    str | None,
    typer.Option(metavar="LOW:HIGH", help="Draw deadlines: run time x a factor between these, e.g. 1.2:10."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**53 - 1, help="Of all that is drawn: requested times, policies, ...")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the policy, as `policies` lists them; repeatable."),
]


def named_cluster(
    gpus: int | None, nodes: int | None, gpus_per_node: int | None, file: Path | None
) -> "ClusterConfig | None":
    """Return the cluster that the options name, once they make sense together; None where they name none."""
    from lepton_rl.experiments.cluster_config import ClusterConfig
    from lepton_rl.experiments.loader import load, options

    given = {"gpus": gpus, "nodes": nodes, "gpus_per_node": gpus_per_node}
    size = {name: value for name, value in given.items() if value is not None}
    if file is not None:
        if size:
            raise ConfigError("give either --cluster or a size (--gpus, or --nodes and --gpus-per-node), not both")
        return load(file, ClusterConfig)
    if gpus is not None and len(size) > 1:
        raise ConfigError("give either --gpus (one pool) or --nodes and --gpus-per-node, not both")
    if (nodes is None) != (gpus_per_node is None):
        raise ConfigError("--nodes and --gpus-per-node belong together")
    return options(ClusterConfig, **size) if size else None


def read_workload(
    file: str, limit: int | None, format: str | None, requested: str, seed: int, deadlines: str | None = None
) -> "Trace":
    """Return the jobs of a file, with the requested times and the deadlines that the options want."""
    from lepton_rl.experiments.config import WorkloadConfig
    from lepton_rl.experiments.loader import options
    from lepton_rl.workloads.deadlines import parse_factors

    drawn = None if deadlines is None else {"factors": parse_factors(deadlines)}
    return options(WorkloadConfig, path=file, format=format, limit=limit, requested=requested, deadlines=drawn).build(
        seed
    )


def built_cluster(
    machine: "ClusterConfig | None", trace: "Trace", file: str, cluster_file: Path | None = None
) -> "ClusterSpec":
    """Return the cluster that was named, or the one of the trace's header."""
    from lepton_rl.experiments.cluster_config import ClusterConfig, why_no_size

    header = trace.machine
    if machine is None and not (header and header.gpus):
        raise ConfigError(
            f"the cluster has no size: {file} {why_no_size(trace)}; give --gpus, or --nodes and --gpus-per-node"
        )
    with placed_in(cluster_file):
        return (machine or ClusterConfig()).build(trace)


@contextmanager
def placed_in(cluster_file: Path | None) -> Iterator[None]:
    """Give what is wrong with a key of a cluster file, which shows only as its series are read, file and line."""
    from lepton_rl.experiments.loader import tree_of

    try:
        yield
    except ConfigError as error:
        key, colon, _ = str(error).partition(":")
        if cluster_file is None or not colon or not key.isidentifier():
            raise
        raise ConfigError(f"{tree_of(cluster_file).at((key,))[2]}: {error}") from None


def policy_settings(texts: list[str]) -> dict[str, Any]:
    """Return the policy's settings that `--set KEY=VALUE` gives; values are YAML, as in an experiment file."""
    from lepton_rl.experiments.yaml_tree import parse

    settings: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        key = key.strip()
        if not value.strip() or not key or key in ("name", "label", "settings"):
            raise ConfigError(f"--set {text!r} is no setting of a policy; write KEY=VALUE, e.g. memory_weight=0.5")
        if key in settings:
            raise ConfigError(f"--set {key} is given twice")
        settings[key] = parse(value, f"--set {text!r}", from_command_line=True).plain()
    return settings


def one_of(option: str, value: str | None, choices: Any) -> Any:
    """Return a value that is one of a Literal's words."""
    from typing import get_args

    from lepton_rl.errors import nearest

    known = get_args(choices)
    if value is not None and value not in known:
        raise ConfigError(f"{option}: {value!r} is not one of {', '.join(known)}{nearest(value, known)}")
    return value
