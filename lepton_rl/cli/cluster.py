"""`lepton-rl cluster`: look at the machines that a file describes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_rl.cli.inputs import placed_in
from lepton_rl.cli.options import command_group
from lepton_rl.cli.printing import only_results_on_stdout, print_json
from lepton_rl.errors import ConfigError, counted

if TYPE_CHECKING:
    from lepton_rl.core import ClusterSpec
    from lepton_rl.core.hardware.dynamics import Faults

_GAP = 2  # blanks between columns

app = command_group("Describe clusters.", "Example: lepton-rl cluster describe configs/cluster/mixed.yaml")


@app.command()
def describe(
    file: Annotated[Path, typer.Argument(help="YAML file of a cluster; docs/hardware.md lists its keys.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print what a cluster file holds: groups of nodes, power, rent, and how fast each type of GPU is.

    Speeds are relative to the type of GPU that run times are for.

    Example: lepton-rl cluster describe configs/cluster/mixed.yaml
    """
    from lepton_rl.experiments.cluster_config import ClusterConfig
    from lepton_rl.experiments.loader import load

    with only_results_on_stdout():
        config = load(file, ClusterConfig)
        if not (config.groups or config.gpus or config.nodes):
            raise ConfigError(f"{file}: the cluster has no size: give gpus, nodes and gpus_per_node, or groups")
        with placed_in(file):
            about = _about(config.build())
    if json:
        print_json(about)
    else:
        _print(str(file), about)


def _about(cluster: "ClusterSpec") -> dict[str, Any]:
    from lepton_rl.core.hardware import JOB_CLASSES

    gpus = cluster.gpus
    reference = cluster.reference
    return {
        "nodes": cluster.nodes,
        "gpus": gpus,
        "idle_power_w": cluster.idle_power_w * gpus,
        "max_power_w": cluster.max_power_w * gpus,
        "rent_usd_per_hour": cluster.rent_usd_per_hour,
        "rent_unknown_of": list(dict.fromkeys(group.gpu.name for group in cluster.groups if group.rent is None)),
        "reference": reference.name if reference else None,
        "groups": [
            {
                "nodes": group.nodes,
                "gpus_per_node": group.gpus_per_node,
                "gpu": group.gpu.name,
                "gpu_memory_gib": group.gpu.memory_gib,
                "racks": group.racks,
                **({} if group.power_limit_w is None else {"power_limit_w": group.power_limit_w}),
                **dict(group.offers),
            }
            for group in cluster.groups
        ]
        or [
            {
                "nodes": cluster.nodes,
                "gpus_per_node": cluster.gpus_per_node,
                "gpu": None,
                "gpu_memory_gib": cluster.gpu_memory_gib,
            }
        ],
        "speed": {
            kind.name: {name: kind.speed[name] / reference.speed[name] for name in JOB_CLASSES}
            for kind in cluster.types
            if reference
        },
        "tariffs": _tariffs(cluster),
        "changes": _changes(cluster),
        "slowdown": {
            spread: dict(zip(curve.counts, curve.slowdowns, strict=True))
            for spread, curve in (("nodes", cluster.locality.nodes), ("racks", cluster.locality.racks))
        },
    }


def _tariffs(cluster: "ClusterSpec") -> list[str]:
    """Return a sentence for what is known of electricity and of carbon: the hours that it covers, and its range."""
    sentences = []
    tariffs = cluster.tariffs
    for what, series, unit in (
        ("electricity", tariffs.electricity, "USD/MWh"), ("carbon", tariffs.carbon, "gCO2eq/kWh"),
    ):  # fmt: skip
        if series is None:
            continue
        low, high = float(series.values.min()), float(series.values.max())
        if series.name == what:  # one figure, not a file
            earns = ", below 0: energy earns money" if low < 0 else ""
            sentences.append(f"{what}: {low:g} {unit} at all hours{earns}")
            continue
        hours = counted(len(series.values), "hour")
        sentences.append(
            f"{what}: {hours} of {series.name}, {low:g} to {high:g} {unit}, {series.values.mean():.4g} in the mean"
        )
        below = series.negative_report()
        sentences += [below] if below else []
    return sentences


def _outages(faults: "Faults") -> list[str]:
    """Return a sentence for each outage at known times; each is a failure and, behind it, its repair."""
    sentences = []
    for down, up in zip(faults.schedule[::2], faults.schedule[1::2], strict=True):
        gpus = (
            f"GPUs {down.first_gpu} to {down.first_gpu + down.gpus - 1}" if down.gpus > 1 else f"GPU {down.first_gpu}"
        )
        sentences.append(f"down from {down.time_s:g} to {up.time_s:g} s: {gpus}")
    return sentences


def _changes(cluster: "ClusterSpec") -> list[str]:
    """Return a sentence for each thing that may change while jobs run."""
    dynamics = cluster.dynamics
    sentences = []
    if dynamics.interference.coefficient:
        sentences.append(f"shares u and v of one GPU slow each other by 1 + {dynamics.interference.coefficient:g} u v")
    if dynamics.interference.pairs:
        sentences.append(f"shares of one GPU slow each other by {len(dynamics.interference.pairs)} pairs of classes")
    if dynamics.inlet_temperature_c is not None:
        sentences.append(f"heat is counted, in cooling air of {dynamics.inlet_temperature_c:g} degrees Celsius")
    faults = dynamics.faults
    for name, life in (("GPU", faults.gpu), ("node", faults.node)):
        if life is not None:
            sentences.append(
                f"each {name} fails after {life.mtbf_hours:g} h and is repaired in {life.repair_hours:g} h (means), "
                f"until hour {faults.until_hours:g}"
            )
    sentences += _outages(faults)
    if faults.is_on:
        every = faults.checkpoint_interval_s
        sentences.append(
            f"a struck job goes back to its last checkpoint, one in {every:g} s"
            if every
            else "a struck job begins anew"
        )
    for reservation in dynamics.reservations:
        nodes = f"node{'s' if len(reservation.nodes) > 1 else ''} {', '.join(map(str, reservation.nodes))}"
        sentences.append(f"reserved from {reservation.begin_s:g} to {reservation.end_s:g} s: {nodes}")
    return sentences


def _print(file: str, about: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    console.print(
        f"{file}: {counted(about['gpus'], 'GPU')} on {counted(about['nodes'], 'node')}, "
        f"{about['idle_power_w'] / 1e3:.4g} kW idle, {about['max_power_w'] / 1e3:.4g} kW at most, " + _rent(about),
        highlight=False,
    )
    for number, columns in enumerate(_within(console.width, about["groups"])):
        if number:
            console.print()
        table = Table(box=None, pad_edge=False)
        for key in columns:
            table.add_column(key, justify="left" if key == "gpu" else "right", no_wrap=True)
        for group in about["groups"]:
            table.add_row(*(_shown(group, key) for key in columns))
        console.print(table)
    if about["speed"]:
        table = Table(title=f"\nspeed by class of job ({about['reference']} = 1)", title_justify="left", box=None)
        table.pad_edge = False
        table.add_column("gpu")
        for name in next(iter(about["speed"].values())):
            table.add_column(name, justify="right")
        for kind, speeds in about["speed"].items():
            table.add_row(kind, *(f"{speed:.2f}" for speed in speeds.values()))
        console.print(table)
    for spread, curve in about["slowdown"].items():
        if len(curve) > 1:
            points = ", ".join(f"{count}: {slowdown:.3g}" for count, slowdown in curve.items())
            console.print(f"slowdown of a gang by the {spread} that it spans: {points}", highlight=False)
    for sentence in (*about["tariffs"], *about["changes"]):
        console.print(sentence, highlight=False)


def _within(width: int, groups: list[dict[str, Any]]) -> list[list[str]]:
    """Return the columns of each table of the groups: in as few as the screen allows, each begun with nodes and GPU."""
    first = ["nodes", "gpus_per_node", "gpu"]
    parts: list[list[str]] = [[]]
    wide = {key: max(len(key), *(len(_shown(group, key)) for group in groups)) for group in groups for key in group}
    for key in (key for key in wide if key not in first):
        if sum(wide[other] + _GAP for other in (*first, *parts[-1], key)) - _GAP > width and parts[-1]:
            parts.append([])
        parts[-1].append(key)
    return [[*first, *part] for part in parts]


def _shown(group: dict[str, Any], key: str) -> str:
    return "-" if group.get(key) is None else _cell(group[key])


def _rent(about: dict[str, Any]) -> str:
    if about["rent_usd_per_hour"] is not None:
        return f"rent {about['rent_usd_per_hour']:,.2f} USD/h"
    unknown = ", ".join(about["rent_unknown_of"])
    return f"rent of {unknown} unknown (rent_usd_per_hour gives it)" if unknown else "no rent"


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,g}"
