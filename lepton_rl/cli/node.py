"""`lepton-rl node`: jobs on the GPUs of this machine."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_rl.cli.options import Overwrite, command_group, output_option
from lepton_rl.cli.printing import announce_compilation, note, print_json
from lepton_rl.cli.quantities import ago, lasting, mebibytes, moment, seconds, share
from lepton_rl.errors import NodeError

if TYPE_CHECKING:
    from lepton_rl.node.client import NodeClient
    from lepton_rl.node.daemon import NodeSetup

app = command_group(
    "Run jobs on the GPUs of this machine under a policy.",
    "Example: lepton-rl node start --policy saf; lepton-rl node submit --gpus 1 --time 2h -- python train.py",
)
State = Annotated[
    Path | None,
    typer.Option("--state", envvar="LEPTON_RL_NODE", help="Folder of the node's state; ~/.local/state/lepton-rl/node."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobNumber = Annotated[int, typer.Argument(min=1, help="Number of the job, as `submit` printed it.")]
SIGNALS = {"USR1": 10, "USR2": 12, "HUP": 1, "INT": 2, "TERM": 15}


def state_folder(state: Path | None) -> Path:
    """Return the folder of the node's state."""
    from lepton_rl.node.paths import default_state_dir

    return (state or default_state_dir()).expanduser().absolute()


def connect(state: Path | None, timeout_s: float | None = 30.0) -> "NodeClient":
    """Return a connection to the node."""
    from lepton_rl.node.client import NodeClient
    from lepton_rl.node.paths import SOCKET

    return NodeClient(state_folder(state) / SOCKET, timeout_s)


@app.command()
def start(
    policy: Annotated[str | None, typer.Option(help="Name of a policy, or path of a bundle.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of the node; see configs/node.")] = None,
    shadow: Annotated[str | None, typer.Option(help="Another policy: it decides too, and that is compared.")] = None,
    canary: Annotated[str | None, typer.Option(help="The share of jobs that --shadow decides on, as 10%.")] = None,
    state: State = None,
    http: Annotated[str | None, typer.Option(help="Also listen for HTTP here, as 127.0.0.1:8265.")] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, and log to standard error.")] = False,
) -> None:
    """Start the daemon, in the background unless told otherwise. It survives the terminal; jobs survive it.

    Example: lepton-rl node start --policy saf
    """
    from lepton_rl.experiments.deploy import node_setup, read_node_config
    from lepton_rl.node.start import run_here

    canary_share = None if canary is None else share(canary)
    setup = node_setup(read_node_config(config), policy, state, http, trial=shadow, canary_share=canary_share)
    if foreground:
        run_here(setup)
        return
    launch(setup, policy, config, {"--shadow": shadow, "--canary": canary})


def launch(
    setup: "NodeSetup", policy: str | None, config: Path | None, more: Mapping[str, str | None] | None = None
) -> None:
    """Start the daemon in the background and say what it says of itself."""
    from lepton_rl.node.start import run_in_background

    announce_compilation()
    words = ["node", "start", "--foreground", "--state", str(setup.state_dir)]
    words += ["--config", str(config.absolute())] if config is not None else []
    listen = None if setup.http is None else setup.http.listen
    for option, value in {"--policy": policy, **(more or {}), "--http": listen}.items():
        words += [option, value] if value is not None else []
    about = run_in_background(setup, words)
    _announce(about)
    typer.echo(f"node: {setup.state_dir}")
    if "http" in about:
        typer.echo(f"page: {about['http']}/")


def _announce(about: dict[str, Any]) -> None:
    kind = " on simulated devices" if about["simulated_devices"] else ""
    note(f"the node runs{kind} under {about['policy']}, process {about['pid']}")


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False})
def submit(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD ...", help="What to run.")],
    gpus: Annotated[float, typer.Option(min=0.001, help="Whole GPUs, or a share of one below 1.")] = 1.0,
    memory: Annotated[str | None, typer.Option(help="Memory on each GPU, as 20GiB; all of it if left out.")] = None,
    cpus: Annotated[float | None, typer.Option(min=0.001, help="CPU cores.")] = None,
    ram: Annotated[str | None, typer.Option(help="Memory of the machine, as 64GiB.")] = None,
    begin: Annotated[str | None, typer.Option(help="Not before: +2h, 18:30 or 2026-12-01T08:00.")] = None,
    project: Annotated[str, typer.Option(help="Name of a project, for usage and fair shares.")] = "",
    queue: Annotated[str, typer.Option(help="Name of a queue.")] = "default",
    compute_intensity: Annotated[float | None, typer.Option(min=0, help="For policies that weigh it.")] = None,
    time_sensitivity: Annotated[float | None, typer.Option(min=0, help="For policies that weigh it.")] = None,
    duration: Annotated[str | None, typer.Option("--time", help="How long it will take at most, as 2h.")] = None,
    priority: Annotated[float, typer.Option(help="Higher goes first where the policy asks for it.")] = 0.0,
    name: Annotated[str, typer.Option(help="For listings; the command's if left out.")] = "",
    env: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A variable more; repeatable.")] = None,
    restartable: Annotated[
        bool, typer.Option("--restartable", help="It may be preempted, moved and started again.")
    ] = False,
    checkpoint_signal: Annotated[str, typer.Option(help="Asks it for a checkpoint: USR1, USR2, ...")] = "USR1",
    checkpoint_grace: Annotated[str, typer.Option(help="Time that it then has, as 60s.")] = "60s",
    directory: Annotated[Path | None, typer.Option("--cwd", help="Where it runs; here if left out.")] = None,
    state: State = None,
    json: Json = False,
) -> None:
    """Submit a job; its number is printed once the job is on the disk.

    Example: lepton-rl node submit --gpus 2 --memory 20GiB --time 2h -- python train.py --epochs 3
    """
    variables = dict(os.environ)
    for word in env or ():
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise NodeError(f"--env {word!r}: write it as KEY=VALUE")
        variables[key] = value
    if checkpoint_signal.removeprefix("SIG") not in SIGNALS:
        raise NodeError(f"--checkpoint-signal {checkpoint_signal!r} is not one of {', '.join(SIGNALS)}")
    asked = {
        "argv": command,
        "cwd": str((directory or Path()).absolute()),
        "env": variables,
        "gpus": gpus,
        "gpu_memory_mib": None if memory is None else mebibytes(memory),
        "cpus": cpus,
        "ram_mib": None if ram is None else mebibytes(ram),
        "begin_time": 0.0 if begin is None else moment(begin),
        "project": project,
        "queue": queue,
        "compute_intensity": compute_intensity,
        "time_sensitivity": time_sensitivity,
        "requested_s": None if duration is None else seconds(duration),
        "priority": priority,
        "name": name,
        "restartable": restartable,
        "checkpoint_signal": SIGNALS[checkpoint_signal.removeprefix("SIG")],
        "checkpoint_grace_s": seconds(checkpoint_grace),
    }
    with connect(state) as client:
        job = client.call("submit", **asked)["job"]
    print_json({"job": job}) if json else typer.echo(job)


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
    _announce(found)
    for gpu in found["gpus"]:
        held = f" jobs {', '.join(map(str, gpu['jobs']))}" if gpu["jobs"] else ""
        why = f"  {gpu['reason']}" if gpu["reason"] else ""
        typer.echo(
            f"GPU {gpu['gpu']:<2} {gpu['type']:<20} {gpu['state']:<11}{_share(gpu['utilisation'])} "
            f"{_gib(gpu['memory_used_bytes'])}/{_gib(gpu['memory_total_bytes'])} GiB {_watts(gpu['power_mw'])}/"
            f"{_watts(gpu['power_limit_mw'])} W {_degrees(gpu['temperature_c'])}{held}{why}"
        )
    for alert in found["alerts"]:
        typer.echo(f"alert: {alert['text']}")
    jobs = ", ".join(f"{count} {name}" for name, count in found["jobs"].items() if count) or "none"
    fallbacks = sum(found["fallbacks"].values())
    typer.echo(f"jobs: {jobs}; decisions: {found['decisions']}, by the fallback: {fallbacks}")


@app.command()
def queue(
    state: State = None,
    all: Annotated[bool, typer.Option("--all", help="Jobs that have ended, too.")] = False,
    since: Annotated[str | None, typer.Option(help="With those that ended since so long ago, as 1h.")] = None,
    json: Json = False,
) -> None:
    """List the jobs that wait or run.

    Example: lepton-rl node queue
    """
    with connect(state) as client:
        jobs = client.call("queue", all=all, since=None if since is None else ago(since))
    if json:
        print_json(jobs)
        return
    typer.echo(f"{'job':>6} {'state':<9} {'gpus':>5} {'user':<10} {'waited':>9} {'ran':>9} {'asked':>9} name")
    now = time.time()
    for job in jobs:
        begun, ended = job["start_time"], job["end_time"]
        ran = None if begun is None else (ended or now) - begun
        waited = (begun or ended or now) - job["submit_time"]
        how = "" if job["exit_code"] in (None, 0) else f" (exit code {job['exit_code']})"
        typer.echo(
            f"{job['job']:>6} {job['state']:<9} {job['gpus']:>5g} {job['user'][:10]:<10} {lasting(waited):>9} "
            f"{lasting(ran):>9} {lasting(job['requested_s']):>9} {job['name']}{how}"
        )


@app.command()
def job(number: JobNumber, state: State = None) -> None:
    """Show all that is known of one job, as JSON.

    Example: lepton-rl node job 17
    """
    with connect(state) as client:
        print_json(client.call("job", job=number))


@app.command()
def logs(
    number: JobNumber,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job has ended.")] = False,
    errors: Annotated[bool, typer.Option("--stderr", help="Standard error instead of standard output.")] = False,
    state: State = None,
) -> None:
    """Print what a job has written.

    Example: lepton-rl node logs -f 17
    """
    from lepton_rl.node.logs import print_log

    with connect(state) as client:
        print_log(client, number, "stderr" if errors else "stdout", follow=follow)


@app.command()
def cancel(
    numbers: Annotated[list[int], typer.Argument(min=1, help="Numbers of the jobs.")],
    kill: Annotated[bool, typer.Option("--kill", help="At once, without a grace.")] = False,
    state: State = None,
) -> None:
    """End jobs: those that wait never start, those that run get SIGTERM, a grace, and SIGKILL.

    Example: lepton-rl node cancel 17
    """
    with connect(state) as client:
        for number in numbers:
            found = client.call("cancel", job=number, kill=kill)
            typer.echo(f"job {number}: {found['state']}")


@app.command()
def wait(
    numbers: Annotated[list[int], typer.Argument(min=1, help="Numbers of the jobs.")], state: State = None
) -> None:
    """Wait until jobs have ended. The exit code is 0 if all were done, else 1.

    Example: lepton-rl node wait 17 18
    """
    with connect(state, timeout_s=None) as client:
        ended = list(client.call_each([("wait", {"job": number}) for number in numbers]))
    for job in ended:
        why = f": {job['reason']}" if job["reason"] else ""
        typer.echo(f"job {job['job']}: {job['state']}{why}")
    if any(job["state"] != "done" for job in ended):
        raise typer.Exit(1)


@app.command()
def explain(number: JobNumber, state: State = None, json: Json = False) -> None:
    """Say why a job waits and what would let it start.

    Example: lepton-rl node explain 17
    """
    with connect(state) as client:
        found = client.call("explain", job=number)
    if json:
        print_json(found)
        return
    typer.echo(f"job {number} is {found['state']}: {found['why']}")
    if "starts_when" in found:
        typer.echo(f"it fits when {found['starts_when']}")
    for line in found.get("unavailable", ()):
        typer.echo(line)
    if "ahead" in found:
        typer.echo(f"{found['ahead']} jobs were submitted before it; {found['policy']} decides")
    if "score" in found:
        best = found["alternative"]
        typer.echo(f"its score is {found['score']:.4g}; the best is job {best['job']}'s, {best['score']:.4g}")
    if "note" in found:
        typer.echo(found["note"])


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
def verify(state: State = None) -> None:
    """Accept the GPUs anew: model, memory, power range, memory errors.

    Example: lepton-rl node verify
    """
    with connect(state) as client:
        for gpu in client.call("verify"):
            typer.echo(f"{gpu['uuid']}: {gpu['state']}{': ' + gpu['reason'] if gpu['reason'] else ''}")


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
        asked = {"gpus": gpus, "begin_time": moment(begin), "duration_s": seconds(duration)}
        found = client.call("reserve", **asked, user=user, reason=reason)
    typer.echo(f"reservation {found['reservation']}: {', '.join(found['gpus'])}")


@app.command()
def unreserve(number: Annotated[int, typer.Argument(min=1)], state: State = None) -> None:
    """Give a reservation up.

    Example: lepton-rl node unreserve 1
    """
    with connect(state) as client:
        client.call("unreserve", reservation=number)


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
        rows = client.call("usage", by=by, since=ago(since))
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
    with connect(state) as client:
        found = client.call("decisions", last=last)
    if json:
        print_json(found)
        return
    for decision in found:
        when = time.strftime("%m-%d %H:%M:%S", time.localtime(decision["time"]))
        why = f"  fallback: {decision['fallback_reason']}" if decision["fallback_reason"] else ""
        acts = "; ".join(decision["detail"]["actions"]) or "nothing"
        typer.echo(f"{when} {decision['detail']['by']} ({decision['decision_s'] * 1e6:.0f} µs): {acts}{why}")


@app.command()
def audit(last: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20, state: State = None) -> None:
    """Show the newest entries of the audit log, as JSON.

    Example: lepton-rl node audit
    """
    with connect(state) as client:
        print_json(client.call("audit", last=last))


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

    (print_csv if csv else print_summary)(state_folder(state), ago(since))


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
        history = read_jobs(journal, 0.0 if since is None else ago(since), default, anonymize)
    if out.suffix == ".csv":
        write_csv(history.trace, out)
    else:
        history.trace.save(out)
    for loss in history.trace.losses:
        note(loss)
    note(f"{len(history.trace)} jobs, written: {out}")


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

    found = simulate(state_folder(state), policy, start_delay, 0.0 if since is None else ago(since))
    rows = found.rows()
    jobs = len(found.history.trace)
    if json:
        print_json({"policy": found.policy, "jobs": jobs, "start_delay_s": found.start_delay, "rows": rows})
        return
    typer.echo(f"{jobs} jobs on {found.cluster}, simulated under {found.policy}, {found.start_delay:.3f} s to a start")
    typer.echo(f"{'':<36} {'node':>12} {'simulated':>12} {'difference':>12}")
    for name, row in rows.items():
        cells = ("-" if value is None else f"{value:,.3f}" for value in row.values())
        typer.echo(f"{name:<36} " + " ".join(f"{cell:>12}" for cell in cells))


@app.command()
def feedback(
    apply: Annotated[bool, typer.Option("--apply", help="Do what follows from it, until the daemon ends.")] = False,
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

    found = simulate(state_folder(state), policy, 0.0 if since is None else ago(since))
    if json:
        print_json(found)
        return
    typer.echo(f"{found['jobs']} jobs, simulated; means with 95 % intervals")
    for name, figures in found["simulated"].items():
        slowdown, wait = _interval(figures["mean_slowdown"]), _interval(figures["mean_wait_s"])
        typer.echo(f"{name:<24} slowdown {slowdown}, wait {wait} s")
    difference = found["difference"]
    slowdown, wait = _interval(difference["slowdown"]), _interval(difference["wait_s"])
    typer.echo(f"{'second minus first':<24} slowdown {slowdown}, wait {wait} s")
    for name, figures in found.get("canary", {}).items():
        slowdown, wait = _interval(figures["mean_slowdown"]), _interval(figures["mean_wait_s"])
        typer.echo(f"{name + ', as it ran':<24} slowdown {slowdown}, wait {wait} s, {figures['jobs']} jobs")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to write.")],
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="So that only who has the passphrase can read it.")
    ] = False,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Holds the passphrase; LEPTON_RL_PASSPHRASE does if left out.")
    ] = None,
    state: State = None,
) -> None:
    """Copy the journal while jobs go on.

    Example: lepton-rl node backup journal.bak
    """
    from lepton_rl.node.backup import encrypted_backup
    from lepton_rl.node.encryption import read_passphrase

    passphrase = read_passphrase(passphrase_file) if encrypt else None
    with connect(state) as client:
        if passphrase is None:
            client.call("backup", path=str(file.absolute()))
        else:
            encrypted_backup(client, state_folder(state), file, passphrase)
    typer.echo(f"written: {file.absolute()}")


@app.command("power-helper")
def power_helper(
    user: Annotated[str, typer.Option(help="The user that the daemon runs as; nobody else may call.")],
    socket: Annotated[Path, typer.Option(help="Where it listens; `power.helper` of the node's configuration.")],
    folder: Annotated[Path, typer.Option(help="Where it keeps what is to be restored.")] = Path("/var/lib/lepton-rl"),
    library: Annotated[Path | None, typer.Option(help="libnvidia-ml.so.1, where it lies elsewhere.")] = None,
    lease: Annotated[str, typer.Option(help="Silence after which everything is restored.")] = "60s",
) -> None:
    """Set, renew and restore power limits for a daemon that is not root. Run it as root, under systemd.

    Example: lepton-rl node power-helper --user lepton --socket /run/lepton-rl/power.sock
    """
    import logging
    import pwd

    from lepton_rl.devices import NvmlDevices
    from lepton_rl.node.power_helper import run_power_helper

    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise NodeError(f"there is no user {user!r} on this machine") from None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with NvmlDevices(library) as devices:
        run_power_helper(devices, folder, socket.absolute(), uid, seconds(lease))


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `backup` wrote.")],
    state: State = None,
) -> None:
    """Put a copy of the journal in its place while no daemon runs; what ran since the copy is not run again.

    Example: lepton-rl node restore journal.bak
    """
    from lepton_rl.node.daemon import check_can_start
    from lepton_rl.node.paths import JOURNAL
    from lepton_rl.node.restore import restore as put_back

    folder = state_folder(state)
    check_can_start(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = put_back(file, folder / JOURNAL, folder, time.time())
    typer.echo(f"{found.jobs} jobs as they were in the copy")
    for jobs, what in ((found.submitted_since, "submitted"), (found.run_since, "run")):
        if jobs:
            typer.echo(f"{what} since, and found by their folders: {', '.join(map(str, jobs))}")
    if found.former is not None:
        note(f"the journal that was here is now {found.former}")


@app.command()
def stop(state: State = None) -> None:
    """End the daemon; jobs go on and the next daemon finds them.

    Example: lepton-rl node stop
    """
    from lepton_rl.node.start import wait_until_gone

    with connect(state) as client:
        pid = client.call("ping")["pid"]
        client.call("stop")
    wait_until_gone(pid)
    note("the daemon has ended; jobs go on")


def _interval(value: dict[str, float | None]) -> str:
    bounds = "" if value["low"] is None else f" [{value['low']:.2f}, {value['high']:.2f}]"
    return f"{value['mean']:.2f}{bounds}"


def _share(value: float | None) -> str:
    return "   -" if value is None else f"{value:4.0%}"


def _gib(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**30:.1f}"


def _watts(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e3:.0f}"


def _degrees(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} °C"
