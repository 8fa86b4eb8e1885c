"""`lepton-rl node`: the GPUs of a node, what they do, and taking them out of service."""

import time
from typing import Annotated, Any

import typer

from lepton_rl.cli.node import Json, State, announce, app, connect, state_folder
from lepton_rl.cli.printing import note, print_json
from lepton_rl.cli.quantities import ago, moment, seconds
from lepton_rl.node.printable import printable

_LOOK_S = 0.5  # between two looks at what is being measured


@app.command()
def status(state: State = None, json: Json = False) -> None:
    """Show the GPUs and how many jobs there are.

    Example: lepton-rl node status
    """
    with connect(state) as client:
        found = client.call("status")
    if json:
        print_json(found)
        return
    announce(found)
    for gpu in found["gpus"]:
        held = f" jobs {', '.join(map(str, gpu['jobs']))}" if gpu["jobs"] else ""
        why = f"  {gpu['reason']}" if gpu["reason"] else ""
        typer.echo(
            f"GPU {gpu['gpu']:<2} {gpu['type']:<20} {gpu['state']:<11}{_share(gpu['utilisation'])} "
            f"{_gib(gpu['memory_used_bytes'])}/{_gib(gpu['memory_total_bytes'])} GiB {_watts(gpu['power_mw'])}/"
            f"{_watts(gpu['power_limit_mw'])} W {_degrees(gpu['temperature_c'])}{held}{why}"
        )
    for gpu in found["gpus"]:
        if gpu["throughput"] is not None:
            typer.echo(f"GPU {gpu['gpu']:<2} computed {_computed(gpu['throughput'])}")
    for reservation in found["reservations"]:
        typer.echo(_reservation(reservation))
    for alert in found["alerts"]:
        typer.echo(f"alert: {alert['text']}")
    if found["feedback"]:
        typer.echo(found["feedback"])
    if found["time_limit"] == "requested":
        typer.echo("jobs are ended when they have run for longer than their --time")
    if found["trial"] is not None:
        typer.echo(f"on trial: {found['trial']['text']}")
    jobs = ", ".join(f"{count} {name}" for name, count in found["jobs"].items() if count) or "none"
    fallbacks = sum(found["fallbacks"].values())
    typer.echo(f"jobs: {jobs}; decisions: {found['decisions']}, by the fallback: {fallbacks}")


@app.command()
def drain(
    gpu: Annotated[str, typer.Argument(help="Number or UUID.")],
    reason: Annotated[str, typer.Option(help="Shown to those who ask why.")] = "drained by an operator",
    state: State = None,
) -> None:
    """Let a GPU take no new work; what runs on it goes on.

    Example: lepton-rl node drain 3 --reason "fan is loud"
    """
    with connect(state) as client:
        found = client.call("drain", gpu=gpu, reason=reason)
    typer.echo(f"{found['gpu']}: {found['state']}")


@app.command()
def resume(gpu: Annotated[str, typer.Argument(help="Number or UUID.")], state: State = None) -> None:
    """Let a drained or repaired GPU take work again, once it is accepted.

    Example: lepton-rl node resume 3
    """
    with connect(state) as client:
        found = client.call("resume", gpu=gpu)
    why = f": {found['reason']}" if found["reason"] else ""
    typer.echo(f"{found['gpu']}: {found['state']}{why}")


@app.command()
def verify(
    throughput: Annotated[
        bool, typer.Option("--throughput", help="Measure too what they compute, those on which nothing runs.")
    ] = False,
    state: State = None,
) -> None:
    """Accept the GPUs anew: model, memory, power range, memory errors, and with --throughput what they compute.

    Example: lepton-rl node verify --throughput
    """
    with connect(state) as client:
        found = client.call("verify", throughput=throughput)
        while throughput and any(gpu["measuring"] for gpu in found):
            time.sleep(_LOOK_S)
            found = client.call("status")["gpus"]
    for gpu in found:
        computed = f"; it computed {_computed(gpu['throughput'])}" if gpu["throughput"] is not None else ""
        typer.echo(f"{gpu['uuid']}: {gpu['state']}{': ' + gpu['reason'] if gpu['reason'] else ''}{computed}")


@app.command()
def reserve(
    gpus: Annotated[int, typer.Argument(min=1, help="How many GPUs.")],
    begin: Annotated[str, typer.Option(help="From: +2h, 18:30 or 2026-12-01T08:00.")],
    duration: Annotated[str, typer.Option("--for", help="How long, as 2h.")],
    user: Annotated[str, typer.Option(help="For whom; yourself if left out.")] = "",
    reason: Annotated[str, typer.Option(help="Shown to others.")] = "",
    state: State = None,
) -> None:
    """Keep GPUs free from a time on: no job starts there that would still run then.

    Example: lepton-rl node reserve 2 --begin 18:00 --for 2h --reason demo
    """
    with connect(state) as client:
        asked = {"gpus": gpus, "begin_time": moment(begin, "--begin"), "duration_s": seconds(duration, "--for")}
        found = client.call("reserve", **asked, user=user, reason=reason)
    typer.echo(_reservation(found))


@app.command()
def reservations(state: State = None, json: Json = False) -> None:
    """List the reservations in force and ahead.

    Example: lepton-rl node reservations
    """
    with connect(state) as client:
        found = client.call("reservations")
    if json:
        print_json(found)
        return
    for reservation in found:
        typer.echo(_reservation(reservation))
    if not found:
        note("there are no reservations")


@app.command()
def unreserve(number: Annotated[int, typer.Argument(min=1)], state: State = None) -> None:
    """Give a reservation up.

    Example: lepton-rl node unreserve 1
    """
    with connect(state) as client:
        client.call("unreserve", reservation=number)


@app.command()
def telemetry(
    since: Annotated[str, typer.Option(help="So long ago, as 1h.")] = "1h",
    csv: Annotated[bool, typer.Option("--csv", help="Print every reading as CSV.")] = False,
    state: State = None,
) -> None:
    """Show what the GPUs did.

    Example: lepton-rl node telemetry --since 1h --csv > readings.csv
    """
    from lepton_rl.node.readings import print_csv, print_summary

    (print_csv if csv else print_summary)(state_folder(state), ago(since, "--since"))


def _reservation(found: dict[str, Any]) -> str:
    from lepton_rl.cli.decision_words import gpus_named

    numbers = found["numbers"]
    gpus = gpus_named(numbers) if numbers else "no GPU of this node"
    begin, end = (
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found[name])) for name in ("begin_time", "end_time")
    )
    why = f": {printable(found['reason'])}" if found["reason"] else ""
    return f"reservation {found['reservation']}: {gpus} for {printable(found['user'])}, {begin} to {end}{why}"


def _computed(throughput: dict[str, Any]) -> str:
    where = " on a simulated device" if throughput["simulated"] else ""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(throughput["measured_time"]))
    return f"{throughput['tflops']:g} TFLOP/s{where}, measured {when}"


def _share(value: float | None) -> str:
    return "   -" if value is None else f"{value:4.0%}"


def _gib(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**30:.1f}"


def _watts(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e3:.0f}"


def _degrees(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} °C"
