"""`lepton-rl node`: what became of it all, and the way back to the simulator."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_rl.cli.node import Json, State, app, connect, state_folder
from lepton_rl.cli.options import Overwrite, output_option
from lepton_rl.cli.printing import note, print_json
from lepton_rl.cli.quantities import ago
from lepton_rl.errors import NodeError, counted


@app.command()
def usage(
    by: Annotated[str, typer.Option(help="user, project or queue.")] = "user",
    since: Annotated[str, typer.Option(help="So long ago, as 7d.")] = "30d",
    state: State = None,
    json: Json = False,
) -> None:
    """Show GPU-hours, energy and its cost.

    Example: lepton-rl node usage --by project --since 7d
    """
    with connect(state) as client:
        rows = client.call("usage", by=by, since=ago(since, "--since"))
    if json:
        print_json(rows)
        return
    typer.echo(f"{by:<16} {'jobs':>6} {'GPU-hours':>10} {'kWh':>9} {'USD':>9}")
    for row in rows:
        cost = "-" if row["cost_usd"] is None else f"{row['cost_usd']:.2f}"
        typer.echo(f"{row['name'] or '-':<16} {row['jobs']:>6} {row['gpu_hours']:>10.2f} {row['kwh']:>9.3f} {cost:>9}")


@app.command()
def decisions(
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    state: State = None,
    json: Json = False,
) -> None:
    """Show the newest decisions and who made them.

    Example: lepton-rl node decisions --last 5
    """
    from lepton_rl.cli.decision_words import decision_line

    with connect(state) as client:
        found = client.call("decisions", last=last)
        if json:
            print_json(found)
            return
        # What has ended before the first of them is in none.
        jobs = client.call("queue", since=min(decision["time"] for decision in found)) if found else []
    names = {job["job"]: job["name"] for job in jobs}
    for decision in found:
        typer.echo(decision_line(decision, names))
    if not found:
        note("nothing was decided yet")


@app.command()
def audit(
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    state: State = None,
    json: Json = False,
) -> None:
    """Show the newest entries of the audit log: who asked for which change, and what came of it.

    Example: lepton-rl node audit --last 5
    """
    from lepton_rl.cli.decision_words import audit_line

    with connect(state) as client:
        found = client.call("audit", last=last)
    if json:
        print_json(found)
        return
    for entry in found:
        typer.echo(audit_line(entry))
    if not found:
        note("nothing was changed yet")


@app.command()
def export(
    out: Annotated[Path, output_option("File to write: .csv or .npz.")],
    since: Annotated[str | None, typer.Option(help="Submitted since so long ago, as 30d.")] = None,
    anonymize: Annotated[bool, typer.Option("--anonymize", help="Users, projects and queues become numbers.")] = False,
    overwrite: Overwrite = False,
    state: State = None,
) -> None:
    """Write the jobs that ran as a workload, to simulate, benchmark and train on.

    Example: lepton-rl node export --out mine.csv; lepton-rl train quickstart.yaml 'workload={path: mine.csv}'
    """
    from lepton_rl.experiments.node_replay import read_about
    from lepton_rl.experiments.outputs import check_output_file
    from lepton_rl.node.export import read_jobs
    from lepton_rl.node.journal import Journal
    from lepton_rl.node.paths import JOURNAL
    from lepton_rl.workloads.plain_csv import write_csv

    if out.suffix not in (".csv", ".npz"):
        raise NodeError(f"{out}: the name must end in .csv or .npz, which is the format")
    check_output_file(out, overwrite)
    folder = state_folder(state)
    default = float(read_about(folder)["default_time_s"])
    with Journal(folder / JOURNAL, read_only=True) as journal:
        history = read_jobs(journal, 0.0 if since is None else ago(since, "--since"), default, anonymize)
    if out.suffix == ".csv":
        write_csv(history.trace, out)
    else:
        history.trace.save(out)
    for loss in history.trace.losses:
        note(loss)
    note(f"{counted(len(history.trace), 'job')}, written: {out}")


@app.command()
def replay(
    policy: Annotated[str | None, typer.Option(help="Another policy than the one that decides there.")] = None,
    start_delay: Annotated[
        float | None, typer.Option(min=0, help="Seconds from decision to start; as measured if left out.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Jobs submitted since so long ago, as 30d.")] = None,
    state: State = None,
    json: Json = False,
) -> None:
    """Simulate what the node did and print the gap: waits, starts, energy.

    Example: lepton-rl node replay
    """
    from lepton_rl.experiments.node_replay import replay as simulate

    found = simulate(state_folder(state), policy, start_delay, 0.0 if since is None else ago(since, "--since"))
    rows = found.rows()
    jobs = len(found.history.trace)
    if json:
        print_json({"policy": found.policy, "jobs": jobs, "start_delay_s": found.start_delay, "rows": rows})
        return
    ran = f"{counted(jobs, 'job')} on {found.cluster}"
    typer.echo(f"{ran}, simulated under {found.policy}, {found.start_delay:.3f} s to a start")
    typer.echo(f"{'':<36} {'node':>12} {'simulated':>12} {'difference':>12}")
    for name, row in rows.items():
        cells = ("-" if value is None else f"{value:,.3f}" for value in row.values())
        typer.echo(f"{name:<36} " + " ".join(f"{cell:>12}" for cell in cells))


@app.command()
def feedback(
    apply: Annotated[bool, typer.Option("--apply", help="Do what follows from it.")] = False,
    state: State = None,
) -> None:
    """Say what the results ask for: promote the canary, roll a promotion back, or change weights.

    Example: lepton-rl node feedback --apply
    """
    with connect(state) as client:
        found = client.call("feedback", apply=apply)
    done = "done" if found["done"] else "nothing was changed"
    typer.echo(f"{found['verdict'].replace('_', ' ')}: {found['reason']} ({done}; {found['policy']} decides)")


@app.command()
def compare(
    policy: Annotated[str | None, typer.Argument(help="Policy or bundle; the one on trial if left out.")] = None,
    since: Annotated[str | None, typer.Option(help="Jobs submitted since so long ago, as 30d.")] = None,
    state: State = None,
    json: Json = False,
) -> None:
    """Compare the acting policy with another one on the jobs that ran here, simulated; and a canary's jobs as they ran.

    Example: lepton-rl node compare runs/quickstart --since 7d
    """
    from lepton_rl.experiments.node_compare import compare as simulate

    found = simulate(state_folder(state), policy, 0.0 if since is None else ago(since, "--since"))
    if json:
        print_json(found)
        return
    typer.echo(f"{counted(found['jobs'], 'job')}, simulated; means with 95 % intervals")
    for name, figures in found["simulated"].items():
        slowdown, wait = _interval(figures["mean_slowdown"]), _interval(figures["mean_wait_s"])
        typer.echo(f"{name:<24} slowdown {slowdown}, wait {wait} s")
    difference = found["difference"]
    slowdown, wait = _interval(difference["slowdown"]), _interval(difference["wait_s"])
    typer.echo(f"{'second minus first':<24} slowdown {slowdown}, wait {wait} s")
    for name, figures in found.get("canary", {}).items():
        slowdown, wait = _interval(figures["mean_slowdown"]), _interval(figures["mean_wait_s"])
        ran = counted(figures["jobs"], "job")
        typer.echo(f"{name + ', as it ran':<24} slowdown {slowdown}, wait {wait} s, {ran}")


def _interval(value: dict[str, float | None]) -> str:
    bounds = "" if value["low"] is None else f" [{value['low']:.2f}, {value['high']:.2f}]"
    return f"{value['mean']:.2f}{bounds}"
