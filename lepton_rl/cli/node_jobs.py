"""`lepton-rl node`: submit jobs, look at them, wait for them and end them."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from lepton_rl.cli.node import Json, State, app, connect
from lepton_rl.cli.printing import print_json
from lepton_rl.cli.quantities import ago, mebibytes, moment, seconds
from lepton_rl.errors import NodeError, counted
from lepton_rl.node.durations import lasting
from lepton_rl.node.printable import printable

JobNumber = Annotated[int, typer.Argument(min=1, help="Number of the job, as `submit` printed it.")]
SIGNALS = {"USR1": 10, "USR2": 12, "HUP": 1, "INT": 2, "TERM": 15}


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
    duration: Annotated[str | None, typer.Option("--time", help="How long policies believe it runs, as 2h.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="It is ended when it has run for so long, as 3h.")] = None,
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
    if directory is not None and not directory.is_dir():
        raise NodeError(f"--cwd {directory}: there is no such folder")
    umask = os.umask(0o077)  # there is no way to read it but to set another one
    os.umask(umask)
    asked = {
        "argv": command,
        "cwd": str((directory or Path()).absolute()),
        "env": variables,
        "umask": umask,
        "gpus": gpus,
        "gpu_memory_mib": None if memory is None else mebibytes(memory, "--memory"),
        "cpus": cpus,
        "ram_mib": None if ram is None else mebibytes(ram, "--ram"),
        "begin_time": 0.0 if begin is None else moment(begin, "--begin"),
        "project": project,
        "queue": queue,
        "compute_intensity": compute_intensity,
        "time_sensitivity": time_sensitivity,
        "requested_s": None if duration is None else seconds(duration, "--time"),
        "time_limit_s": None if time_limit is None else seconds(time_limit, "--time-limit"),
        "priority": priority,
        "name": name,
        "restartable": restartable,
        "checkpoint_signal": SIGNALS[checkpoint_signal.removeprefix("SIG")],
        "checkpoint_grace_s": seconds(checkpoint_grace, "--checkpoint-grace"),
    }
    with connect(state) as client:
        job = client.call("submit", **asked)["job"]
    print_json({"job": job}) if json else typer.echo(job)


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
        jobs = client.call("queue", all=all, since=None if since is None else ago(since, "--since"))
    if json:
        print_json(jobs)
        return
    typer.echo(
        f"{'job':>6} {'state':<9} {'gpus':>5} {'user':<10} {'waited':>9} {'ran':>9} {'asked':>9} {'limit':>9} name"
    )
    now = time.time()
    for job in jobs:
        begun, ended = job["start_time"], job["end_time"]
        ran = None if begun is None else (ended or now) - begun
        waited = (begun or ended or now) - job["submit_time"]
        how = "" if job["exit_code"] in (None, 0) else f" (exit code {job['exit_code']})"
        typer.echo(
            f"{job['job']:>6} {job['state']:<9} {job['gpus']:>5g} {job['user'][:10]:<10} {lasting(waited):>9} "
            f"{lasting(ran):>9} {lasting(job['requested_s']):>9} {lasting(job['time_limit_s']):>9} "
            f"{printable(job['name'])}{how}"
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
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=0, max=100_000, help="Only the last lines, of the last MiB.")
    ] = None,
    state: State = None,
) -> None:
    """Print what a job has written. Ctrl-C ends it; the job goes on.

    Example: lepton-rl node logs -f --tail 20 17
    """
    from lepton_rl.node.logs import print_log

    with connect(state) as client, suppress(KeyboardInterrupt):
        print_log(client, number, "stderr" if errors else "stdout", follow=follow, tail=tail)


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
    for end in found.get("ends", ()):
        typer.echo(f"  job {end['job']} frees {counted(end['gpus'], 'GPU')} in about {lasting(end['in_s'])}")
    for line in found.get("unavailable", ()):
        typer.echo(line)
    if "ahead" in found:
        were = "was" if found["ahead"] == 1 else "were"
        typer.echo(f"{counted(found['ahead'], 'job')} {were} submitted before it; {found['policy']} decides")
    if "score" in found:
        score = "none yet: it is not looked at" if found["score"] is None else f"{found['score']:.4g}"
        typer.echo(f"its score is {score} ({found['score_is']}): rank {found['rank']} of {found['waiting']}")
        for other in found["first"]:
            typer.echo(f"  before it: job {other['job']}, {other['why']}")
        if found["rank"] - 1 > len(found["first"]):
            typer.echo(f"  and {found['rank'] - 1 - len(found['first'])} more")
    if "no_score" in found:
        typer.echo(found["no_score"])
    if "note" in found:
        typer.echo(found["note"])
