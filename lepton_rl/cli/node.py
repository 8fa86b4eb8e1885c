"""`lepton-rl node`: jobs on the GPUs of this machine."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_rl.cli.options import Overwrite
from lepton_rl.cli.printing import announce_compilation, note
from lepton_rl.cli.quantities import share
from lepton_rl.errors import NodeError, counted

if TYPE_CHECKING:
    from lepton_rl.node.client import NodeClient
    from lepton_rl.node.setup import NodeSetup

app = typer.Typer(
    rich_markup_mode=None,
    help="Run jobs on the GPUs of this machine under a policy.",
    epilog="Example: lepton-rl node start --policy saf; lepton-rl node submit --gpus 1 --time 2h -- python train.py",
)


def _or_of_the_group(context: typer.Context, parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return what stands before the command, as in `node --state FOLDER status`, where nothing stands behind it."""
    source = context.get_parameter_source(str(parameter.name))
    given = source is not None and source.name == "COMMANDLINE"
    return value if given or context.obj is None else context.obj


State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        envvar="LEPTON_RL_NODE",
        help="Folder of the node's state; ~/.local/state/lepton-rl/node.",
        callback=_or_of_the_group,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def _node(context: typer.Context, state: State = None) -> None:
    context.obj = state
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def state_folder(state: Path | None) -> Path:
    """Return the folder of the node's state."""
    from lepton_rl.node.paths import default_state_dir

    return (state or default_state_dir()).expanduser().absolute()


def connect(state: Path | None, timeout_s: float | None = 30.0) -> "NodeClient":
    """Return a connection to the node."""
    from lepton_rl.node.client import NodeClient
    from lepton_rl.node.paths import find_socket

    return NodeClient(find_socket(None if state is None else state_folder(state)), timeout_s)


@app.command()
def start(
    policy: Annotated[
        str | None, typer.Option(help="Name of a policy, or path of a bundle; what decided here last if left out.")
    ] = None,
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
    from lepton_rl.experiments.deploy import deployed_before, node_setup, read_node_config
    from lepton_rl.node.start import run_here

    canary_share = None if canary is None else share(canary, "--canary")
    wanted = read_node_config(config)
    before = deployed_before(wanted, state) if policy is None else None
    acting = before if policy is None else policy
    setup = node_setup(wanted, acting, state, http, trial=shadow, canary_share=canary_share)
    name = before["name"] if isinstance(before, dict) else before
    why = [] if name is None else [f"{name} decides, as it was deployed here last; --policy names another one"]
    if foreground:
        for sentence in why:
            note(sentence)
        run_here(setup)
        return
    launch(setup, policy, config, {"--shadow": shadow, "--canary": canary})
    for sentence in why:  # not ahead of what may be in the way of a start
        note(sentence)


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
    about = run_in_background(setup, words, note)
    announce(about)
    typer.echo(f"node: {setup.state_dir}")
    if "http" in about:
        typer.echo(f"page: {about['http']}/")


def announce(about: dict[str, Any]) -> None:
    """Say that a node runs, by what it says of itself."""
    kind = " on simulated devices" if about["simulated_devices"] else ""
    note(f"the node runs{kind} under {about['policy']}, process {about['pid']}")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to write.")],
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="So that only who has the passphrase can read it.")
    ] = False,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Holds the passphrase; LEPTON_RL_PASSPHRASE does if left out.")
    ] = None,
    overwrite: Overwrite = False,
    state: State = None,
) -> None:
    """Copy the journal while jobs go on.

    Example: lepton-rl node backup journal.bak
    """
    from lepton_rl.node.backup import encrypted_backup
    from lepton_rl.node.encryption import read_passphrase

    if encrypt and file.exists() and not overwrite:
        raise NodeError(f"{file}: there is such a file; name another one, or replace it with --overwrite")
    passphrase = read_passphrase(passphrase_file) if encrypt else None
    with connect(state) as client:
        if passphrase is None:
            client.call("backup", path=str(file.absolute()), overwrite=overwrite)
        else:
            encrypted_backup(client, state_folder(state), file, passphrase)
    typer.echo(f"written: {file.absolute()}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `backup` wrote, encrypted or not.")],
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Holds the passphrase of an encrypted one; LEPTON_RL_PASSPHRASE if left out.")
    ] = None,
    state: State = None,
) -> None:
    """Put a copy of the journal in its place while no daemon runs; what ran since the copy is not run again.

    Example: lepton-rl node restore journal.bak
    """
    from lepton_rl.node.backup import restore_encrypted
    from lepton_rl.node.encryption import is_encrypted, read_passphrase
    from lepton_rl.node.paths import JOURNAL
    from lepton_rl.node.restore import restore as put_back
    from lepton_rl.node.setup import check_can_start

    folder = state_folder(state)
    passphrase = read_passphrase(passphrase_file) if passphrase_file is not None or is_encrypted(file) else None
    check_can_start(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if passphrase is None:
        found = put_back(file, folder / JOURNAL, folder, time.time())
    else:
        found = restore_encrypted(file, folder / JOURNAL, folder, time.time(), passphrase)
    were = "it was" if found.jobs == 1 else "they were"
    typer.echo(f"{counted(found.jobs, 'job')} as {were} in the copy")
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
